//! `event-tracker print-config`.

use std::io::Write;

use crate::config::Setting;

const MANUAL: &str = "\
The output is TOML and may be saved as a configuration file, except for masked passwords (***).

Examples:
  event-tracker print-config
  PORT=8080 event-tracker print-config --ack disk | grep -v '# default'";

/// Print the effective configuration
///
/// Prints every setting after all layers, each with where its value is from: default, a file, a variable of the
/// environment or an option. Passwords are masked.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct PrintConfig {}

pub(super) fn run(settings: &[Setting]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let mut current = "";
    for Setting { key, value, origin } in settings {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        if section != current {
            writeln!(stdout, "\n[{section}]")?;
            current = section;
        }
        writeln!(stdout, "{name} = {value}  # {origin}")?;
    }
    Ok(())
}
