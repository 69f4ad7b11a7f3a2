//! `event-tracker create-superuser`.

use std::io::{BufRead, Write};
use std::time::SystemTime;

use anyhow::{Context, bail};

use super::Usage;
use super::users::with_store;
use crate::admin::{COMMAND_LINE, check_user_name, password};
use crate::config::Config;
use crate::store::admin::{AccountChange, Superuser};

const MANUAL: &str = "\
Superusers sign in to the dashboard under /admin. Works while the service runs, also with the embedded \
database. A running service sees the new superuser at once, and its set-up link ends.

Examples:
  event-tracker create-superuser --user ann
  pwgen 20 1 | event-tracker create-superuser --user ann --password-stdin";

/// Make a superuser of the dashboard
///
/// Asks twice for the password, without showing it, and refuses one that is easy to guess.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "createsuperuser", after_long_help = MANUAL)]
pub(super) struct CreateSuperuser {
    /// The name to sign in with, 1 to 64 bytes
    #[arg(long, value_name = "NAME")]
    user: String,
    #[command(flatten)]
    password: PasswordSource,
}

#[derive(Debug, clap::Args)]
pub(super) struct PasswordSource {
    /// Read the password from the first line of standard input instead of asking
    #[arg(long)]
    password_stdin: bool,
}

impl CreateSuperuser {
    pub(super) fn run(self, load: impl FnOnce() -> anyhow::Result<Config>) -> anyhow::Result<()> {
        let name = self.user;
        check_user_name(&name).map_err(|why| Usage(format!("--user {name:?}: {why}")))?;
        let taken = format!(
            "there is a superuser {name:?} already; `event-tracker users change-password --user {name}` sets a new password"
        );
        with_store(load()?, async |store| {
            // Before anybody types a password.
            if store.superusers().await?.iter().any(|known| known.name == name) {
                bail!("{taken}");
            }
            let password_hash = self.password.ask_and_hash(&name)?;
            let user = Superuser {
                name: name.clone(),
                password_hash,
                disabled: false,
                created_at: SystemTime::now().into(),
                last_login_at: None,
            };
            if !store.change_account(AccountChange::AddUser(user), COMMAND_LINE, SystemTime::now().into()).await? {
                bail!("{taken}");
            }
            writeln!(std::io::stdout(), "{name} can sign in to the dashboard under /admin now")?;
            Ok(())
        })
    }
}

impl PasswordSource {
    /// The hash of a password that is strong enough.
    pub(super) fn ask_and_hash(&self, user: &str) -> anyhow::Result<String> {
        let password = if self.password_stdin { first_line(std::io::stdin().lock())? } else { ask_twice()? };
        if let Err(why) = password::check_strength(user, &password) {
            bail!("{why}");
        }
        Ok(password::hash(password.as_bytes())?)
    }
}

/// Without its line break; every other character counts.
fn first_line(mut input: impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line).context("the password on standard input can't be read")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn ask_twice() -> anyhow::Result<String> {
    let ask = |prompt| {
        rpassword::prompt_password(prompt).context("there is no terminal to ask for a password; use --password-stdin")
    };
    let password = ask("Password: ")?;
    if ask("Password again: ")? != password {
        bail!("the two passwords differ");
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::first_line;

    #[test]
    fn a_password_is_the_whole_first_line() {
        for (input, password) in [("a b \n", "a b "), ("a\r\nb\n", "a"), ("a", "a"), ("", "")] {
            assert_eq!(first_line(input.as_bytes()).unwrap(), password);
        }
    }
}
