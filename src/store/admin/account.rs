//! Changes to who administrators are.

use super::{AdminKey, Fact, Facts, Superuser};

pub(super) const CREATE_KEY: &str = "create key";
pub(super) const REVOKE_KEY: &str = "revoke key";

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
            Self::AddKey(_) => CREATE_KEY,
            Self::RevokeKey { .. } => REVOKE_KEY,
        }
    }

    /// What the log tells of it.
    pub(in crate::store) fn facts(&self) -> Facts {
        Facts::of_account(match self {
            Self::AddUser(_) | Self::Enable { .. } => Fact::MaySignIn,
            Self::SetPassword { keep: None, .. } | Self::SignOut { .. } => Fact::SignedOutEverywhere,
            Self::SetPassword { keep: Some(_), .. } => Fact::SignedOutElsewhere,
            Self::Disable { .. } => Fact::MayNotSignIn,
            Self::DeleteUser { .. } => Fact::UserDeleted,
            Self::AddKey(AdminKey { expires_at: None, .. }) => Fact::KeyDoesNotExpire,
            Self::AddKey(AdminKey { expires_at: Some(at), .. }) => Fact::KeyExpires { at: *at },
            Self::RevokeKey { .. } => Fact::KeyRevoked,
        })
    }
}

/// What people and the log call a key; labels need not differ.
#[must_use]
pub fn key_name(id: i64, label: &str) -> String {
    format!("key {id} ({label})")
}
