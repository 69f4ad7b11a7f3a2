//! Changes to who administrators are.

use super::{AdminKey, Superuser};

/// One change to superusers, their sessions or keys. Each that is made is a line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountChange {
    /// Not made when the name is taken.
    AddUser(Superuser),
    /// Ends all sessions of the user except `keep`.
    SetPassword {
        user: String,
        password_hash: String,
        keep: Option<[u8; 32]>,
    },
    /// Ends all sessions.
    Disable {
        user: String,
    },
    Enable {
        user: String,
    },
    /// Ends all sessions.
    DeleteUser {
        user: String,
    },
    /// Ends all sessions.
    SignOut {
        user: String,
    },
    /// `id` is ignored: the store gives it.
    AddKey(AdminKey),
    RevokeKey {
        id: i64,
    },
}

impl AccountChange {
    /// What the log calls it.
    pub(in crate::store) fn what(&self) -> &'static str {
        match self {
            Self::AddUser(_) => "add user",
            Self::SetPassword { .. } => "set password",
            Self::Disable { .. } => "disable user",
            Self::Enable { .. } => "enable user",
            Self::DeleteUser { .. } => "delete user",
            Self::SignOut { .. } => "sign out",
            Self::AddKey(_) => "create key",
            Self::RevokeKey { .. } => "revoke key",
        }
    }

    /// What is after it, for people.
    pub(in crate::store) fn after(&self) -> String {
        match self {
            Self::AddUser(_) | Self::Enable { .. } => "may sign in".into(),
            Self::SetPassword { keep: None, .. } | Self::SignOut { .. } => "signed out everywhere".into(),
            Self::SetPassword { keep: Some(_), .. } => "signed out everywhere else".into(),
            Self::Disable { .. } => "may not sign in".into(),
            Self::DeleteUser { .. } => "is gone".into(),
            Self::AddKey(AdminKey { expires_at: None, .. }) => "does not expire".into(),
            Self::AddKey(AdminKey { expires_at: Some(at), .. }) => format!("expires on {}", at.format("%Y-%m-%d")),
            Self::RevokeKey { .. } => "is revoked".into(),
        }
    }
}

/// What people and the log call a key; labels need not differ.
#[must_use]
pub fn key_name(id: i64, label: &str) -> String {
    format!("key {id} ({label})")
}
