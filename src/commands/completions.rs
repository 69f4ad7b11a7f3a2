//! `event-tracker completions`.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

const MANUAL: &str = "\
Examples:
  event-tracker completions bash > /etc/bash_completion.d/event-tracker
  event-tracker completions zsh > \"${fpath[1]}/_event-tracker\"
  event-tracker completions fish > ~/.config/fish/completions/event-tracker.fish";

/// Print completions for a shell
///
/// Prints a script that makes a shell complete the commands and options of event-tracker.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct Completions {
    /// The shell that reads the script
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::CommandLine::command(), "event-tracker", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(())
    }
}
