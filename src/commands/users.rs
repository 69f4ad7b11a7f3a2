//! `event-tracker users`.

use std::io::Write;
use std::sync::Arc;

use anyhow::bail;
use chrono::SecondsFormat;
use clap::Subcommand;

use super::create_superuser::PasswordSource;
use crate::config::Config;
use crate::store::{self, Store};

const MANUAL: &str = "\
All of it works while the service runs, also with the embedded database, and takes effect at once: \
whoever is disabled, deleted or gets a new password is signed out everywhere.

Examples:
  event-tracker users list
  event-tracker users disable --user ann
  event-tracker users change-password --user ann";

/// List and change the superusers of the dashboard
///
/// `create-superuser` makes them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Users {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the superusers: name, state, last login
    List,
    /// Keep a superuser from signing in, and end all its sessions
    Disable(User),
    /// Let a disabled superuser sign in again
    Enable(User),
    /// Delete a superuser; what it did stays in the log
    Delete(User),
    /// Set a new password and end all sessions
    ChangePassword {
        #[command(flatten)]
        user: User,
        #[command(flatten)]
        password: PasswordSource,
    },
}

#[derive(Debug, clap::Args)]
struct User {
    /// The name of the superuser
    #[arg(long = "user", value_name = "NAME")]
    name: String,
}

impl Users {
    pub(super) fn run(self, config: Config) -> anyhow::Result<()> {
        with_store(config, async |store| {
            let (name, known, done) = match self.action {
                Action::List => return list(&*store).await,
                Action::Disable(User { name }) => {
                    let known = store.update_superuser(&name, None, Some(true), None).await?;
                    (name, known, "is disabled and signed out")
                }
                Action::Enable(User { name }) => {
                    let known = store.update_superuser(&name, None, Some(false), None).await?;
                    (name, known, "can sign in again")
                }
                Action::Delete(User { name }) => {
                    let known = store.delete_superuser(&name).await?;
                    (name, known, "is deleted")
                }
                Action::ChangePassword { user: User { name }, password } => {
                    // Before anybody types a password.
                    let known = store.superusers().await?.iter().any(|known| known.name == name);
                    let known = known && {
                        let hash = password.ask_and_hash(&name)?;
                        store.update_superuser(&name, Some(hash), None, None).await?
                    };
                    (name, known, "has a new password and is signed out everywhere")
                }
            };
            if !known {
                bail!("there is no superuser {name:?}; `event-tracker users list` shows all");
            }
            writeln!(std::io::stdout(), "{name} {done}")?;
            Ok(())
        })
    }
}

async fn list(store: &dyn Store) -> anyhow::Result<()> {
    let users = store.superusers().await?;
    let mut out = std::io::stdout().lock();
    if users.is_empty() {
        writeln!(out, "there is no superuser; `event-tracker create-superuser --user NAME` makes one")?;
    }
    let width = users.iter().map(|user| user.name.chars().count()).max().unwrap_or(0);
    for user in users {
        let login = user.last_login_at.map_or_else(
            || "never signed in".to_owned(),
            |at| format!("last login {}", at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        );
        writeln!(out, "{:<width$}  {:<8}  {login}", user.name, if user.disabled { "disabled" } else { "enabled" })?;
    }
    Ok(())
}

/// Opens the configured store for a short while, beside whatever uses it.
pub(super) fn with_store(
    config: Config,
    work: impl AsyncFnOnce(Arc<dyn Store>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = store::open(&config.store, &config.data_dir).await?;
        let worked = work(Arc::clone(&store)).await;
        store.close().await;
        worked
    })
}
