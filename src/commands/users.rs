//! `event-tracker users`.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::bail;
use chrono::SecondsFormat;
use clap::Subcommand;

use super::create_superuser::PasswordSource;
use crate::admin::COMMAND_LINE;
use crate::config::Config;
use crate::private;
use crate::store::admin::AccountChange;
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
            let (name, change, done) = match self.action {
                Action::List => return list(&*store).await,
                Action::Disable(User { name }) => {
                    (name.clone(), AccountChange::Disable { user: name }, "is disabled and signed out")
                }
                Action::Enable(User { name }) => {
                    (name.clone(), AccountChange::Enable { user: name }, "can sign in again")
                }
                Action::Delete(User { name }) => (name.clone(), AccountChange::DeleteUser { user: name }, "is deleted"),
                Action::ChangePassword { user: User { name: user }, password } => {
                    // Before anybody types a password.
                    if !store.superusers().await?.iter().any(|known| known.name == user) {
                        bail!(unknown(&user));
                    }
                    let password_hash = password.ask_and_hash(&user)?;
                    let name = user.clone();
                    let change = AccountChange::SetPassword { user, password_hash, keep: None };
                    (name, change, "has a new password and is signed out everywhere")
                }
            };
            if !store.change_account(change, COMMAND_LINE, SystemTime::now().into()).await? {
                bail!(unknown(&name));
            }
            writeln!(std::io::stdout(), "{name} {done}")?;
            Ok(())
        })
    }
}

fn unknown(name: &str) -> String {
    format!("there is no superuser {name:?}; `event-tracker users list` shows all")
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
        private::tighten(&config.data_dir);
        let store = store::open(&config.store, &config.data_dir).await?;
        let worked = work(Arc::clone(&store)).await;
        store.close().await;
        worked
    })
}
