//! Commands, options, help and exit codes of the real program.

use crate::program::Program;

const COMMANDS: [&str; 5] = ["serve", "create-random-events", "audit", "print-config", "completions"];

#[test]
fn help_explains_itself_on_every_level() {
    let program = Program::new();
    let top = program.run(&["--help"]).answer();
    for word in
        COMMANDS.into_iter().chain(["EVENT_TRACKER__", "DATABASE_URL", "PORT", "Exit codes", "Examples", "--config"])
    {
        assert!(top.contains(word), "{word} is missing in\n{top}");
    }
    for command in COMMANDS {
        let help = program.run(&[command, "--help"]).answer();
        assert!(help.contains("Examples"), "{help}");
        assert!(help.contains(&format!("Usage: event-tracker {command}")), "{help}");
        assert_eq!(program.run(&["help", command]).answer(), help);
        assert!(program.run(&[command, "-h"]).answer().len() < help.len());
    }
    assert!(help_lines_fit(&top), "{top}");
}

fn help_lines_fit(help: &str) -> bool {
    help.lines().all(|line| line.chars().count() <= 100)
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = format!("event-tracker {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Program::new().run(&["--version"]).answer(), version);
    assert_eq!(Program::new().run(&["-V"]).answer(), version);
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for (arguments, complaint) in [
        (&["frobnicate"][..], "unrecognized subcommand 'frobnicate'"),
        (&["audits"], "unrecognized subcommand 'audits'; tip: a similar subcommand exists: 'audit'"),
        (&["--lisen", "x"], "unexpected argument '--lisen' found; tip: a similar argument exists: '--listen'"),
        (&["serve", "extra"], "unexpected argument 'extra' found"),
        (&["--listen"], "a value is required for '--listen <ADDRESS>'"),
        (&["completions"], "the following required arguments were not provided: <SHELL>"),
        (&["completions", "command.com"], "invalid value 'command.com' for '<SHELL>'"),
    ] {
        let said = Program::new().run(arguments).complaint(2);
        assert!(said.starts_with(complaint), "{said}");
        assert!(said.ends_with("(see event-tracker --help)"), "{said}");
    }
}

#[test]
fn a_wrong_value_of_a_setting_is_refused_by_every_command() {
    for (flag, value, complaint) in [
        ("--listen", "8000", "--listen: http.listen = \"8000\"; expected an IP address and a port"),
        ("--data-dir", "", "--data-dir: data_dir = \"\"; expected the path of a folder"),
        ("--database-url", "redis://x", "--database-url: store.url = \"redis://x\"; expected postgres://"),
        ("--ack", "store", "--ack: journal.ack = \"store\"; expected memory, journal or disk"),
        ("--ack", "Disk", "--ack: journal.ack = \"Disk\"; expected memory, journal or disk"),
        ("--flush-interval-ms", "0", "--flush-interval-ms: flush.interval_ms = 0; expected a whole number from 1"),
        ("--flush-interval-ms", "2s", "--flush-interval-ms: flush.interval_ms = \"2s\"; expected a whole number"),
        ("--log-format", "xml", "--log-format: log.format = \"xml\"; expected human or json"),
        ("--log-level", "", "--log-level: log.level = \"\"; expected off, error"),
        ("--config", "absent", "absent: can't be read"),
    ] {
        for command in [&[][..], &["serve"], &["create-random-events"], &["audit"], &["print-config"]] {
            let program = Program::new();
            let said = program.run(&[command, &[flag, value]].concat()).complaint(2);
            assert!(said.starts_with(complaint), "{command:?}: {said}");
            assert_eq!(std::fs::read_dir(program.folder()).unwrap().count(), 0, "nothing was touched");
        }
    }
}

#[test]
fn settings_are_options_before_and_after_the_command() {
    for arguments in [["--ack", "disk", "print-config"], ["print-config", "--ack", "disk"]] {
        let printed = Program::new().run(&arguments).answer();
        assert!(printed.contains("ack = \"disk\"  # --ack\n"), "{printed}");
    }
}

#[test]
fn random_events_are_refused_beyond_their_limits() {
    for (flag, value, complaint) in [
        ("--events", "0", "invalid value '0' for '--events <N>': 0 is not in 1..=1000000000"),
        ("--events", "1000000001", "invalid value '1000000001' for '--events <N>'"),
        ("--events", "many", "invalid value 'many' for '--events <N>'"),
        ("--days", "0", "invalid value '0' for '--days <D>': 0 is not in 1..=3660"),
        ("--days", "3661", "invalid value '3661' for '--days <D>'"),
        ("--seed", "x", "invalid value 'x' for '--seed <S>'"),
        ("--types", "", "--types \"\": the event name is empty"),
        ("--types", "a,,b", "--types \"\": the event name is empty"),
        ("--types", "a,..", "--types \"..\": `.` and `..` are not event names"),
        ("--types", "a,b,a", "--types: a is named twice"),
    ] {
        for command in ["create-random-events", "create_random_events"] {
            let said = Program::new().run(&[command, flag, value]).complaint(2);
            assert!(said.starts_with(complaint), "{said}");
        }
    }
    let many = (0..101).map(|number| format!("e{number}")).collect::<Vec<_>>().join(",");
    let said = Program::new().run(&["create-random-events", "--types", &many]).complaint(2);
    assert_eq!(said, "--types: 101 names, but at most 100 are expected");
}

#[test]
fn completions_know_commands_and_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Program::new().run(&["completions", shell]).answer();
        assert!(script.contains("create-random-events") && script.contains("flush-interval-ms"), "{shell}");
    }
}

#[test]
fn completions_need_no_valid_configuration() {
    Program::new().with_variable("PORT", "nonsense").run(&["completions", "bash"]).answer();
}
