//! The layers of the configuration, through `print-config` of the real program.

use crate::program::Program;

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The line of one setting, such as `listen = "127.0.0.1:8000"  # default`.
#[track_caller]
fn line<'a>(printed: &'a str, name: &str) -> &'a str {
    let start = format!("{name} = ");
    printed.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {name} in\n{printed}"))
}

/// The full names of all keys of a TOML text and their values.
fn leaves(text: &str) -> Vec<(String, toml::Value)> {
    let mut leaves = Vec::new();
    for (name, value) in text.parse::<toml::Table>().unwrap() {
        match value {
            toml::Value::Table(section) => {
                leaves.extend(section.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => leaves.push((name, value)),
        }
    }
    leaves
}

#[test]
fn without_any_configuration_the_settings_are_those_of_the_commented_file() {
    let printed = Program::new().run(&["print-config"]).answer();
    assert_eq!(leaves(&printed), leaves(DEFAULTS));
    let settings = printed.lines().filter(|line| line.contains(" = "));
    assert!(settings.clone().all(|line| line.ends_with("  # default")), "{printed}");
    assert_eq!(settings.count(), leaves(DEFAULTS).len());
}

#[test]
fn where_a_supervisor_runs_the_service_it_drains_for_a_while_unless_it_is_told_otherwise() {
    for name in ["NOTIFY_SOCKET", "KUBERNETES_SERVICE_HOST"] {
        let program = Program::new().with_variable(name, "x");
        let printed = program.run(&["print-config"]).answer();
        assert_eq!(line(&printed, "drain_delay_ms"), format!("drain_delay_ms = 5000  # default where {name} is set"));
        let program = program.with_file("own.toml", "[http]\ndrain_delay_ms = 7\n");
        let printed = program.run(&["print-config", "--config", "own.toml"]).answer();
        assert_eq!(line(&printed, "drain_delay_ms"), "drain_delay_ms = 7  # own.toml");
    }
    let printed = Program::new().with_variable("NOTIFY_SOCKET", "").run(&["print-config"]).answer();
    assert_eq!(line(&printed, "drain_delay_ms"), "drain_delay_ms = 0  # default");
}

#[test]
fn each_layer_overrides_the_weaker_ones_and_says_so() {
    let all = Program::new()
        .with_file("own.toml", "[http]\nlisten = \"127.0.0.1:1001\"\nworkers = 1\n[store]\nurl = \"sqlite:file\"\n")
        .with_variable("EVENT_TRACKER__HTTP__LISTEN", "127.0.0.1:1002")
        .with_variable("EVENT_TRACKER__HTTP__RENDERS_MAX", "3")
        .with_variable("EVENT_TRACKER__STORE__URL", "sqlite:variable")
        .with_variable("PORT", "1003")
        .with_variable("DATABASE_URL", "sqlite:platform");
    let strongest = all.run(&[
        "print-config",
        "--config",
        "own.toml",
        "--listen",
        "127.0.0.1:1004",
        "--database-url",
        "sqlite:flag",
    ]);
    let strongest = strongest.answer();
    assert_eq!(line(&strongest, "listen"), r#"listen = "127.0.0.1:1004"  # --listen"#);
    assert_eq!(line(&strongest, "url"), r#"url = "sqlite:flag"  # --database-url"#);
    assert_eq!(line(&strongest, "workers"), "workers = 1  # own.toml");
    assert_eq!(line(&strongest, "renders_max"), "renders_max = 3  # environment EVENT_TRACKER__HTTP__RENDERS_MAX");
    assert_eq!(line(&strongest, "drain_timeout_ms"), "drain_timeout_ms = 10000  # default");

    let platform = all.run(&["print-config", "--config", "own.toml"]).answer();
    assert_eq!(line(&platform, "listen"), r#"listen = "0.0.0.0:1003"  # environment PORT"#);
    assert_eq!(line(&platform, "url"), r#"url = "sqlite:platform"  # environment DATABASE_URL"#);

    let variables = Program::new()
        .with_file("own.toml", "[http]\nlisten = \"127.0.0.1:1001\"\n")
        .with_variable("EVENT_TRACKER__HTTP__LISTEN", "127.0.0.1:1002")
        .run(&["print-config", "--config", "own.toml"])
        .answer();
    assert_eq!(line(&variables, "listen"), r#"listen = "127.0.0.1:1002"  # environment EVENT_TRACKER__HTTP__LISTEN"#);
}

#[test]
fn the_file_in_the_config_folder_is_read_unless_another_is_named() {
    let program = Program::new()
        .with_file("config/event-tracker.toml", "data_dir = \"here\"")
        .with_file("other.toml", "[flush]\ninterval_ms = 50");
    let printed = program.run(&["print-config"]).answer();
    assert_eq!(line(&printed, "data_dir"), r#"data_dir = "here"  # config/event-tracker.toml"#);
    let printed = program.run(&["print-config", "--config", "other.toml"]).answer();
    assert_eq!(line(&printed, "data_dir"), r#"data_dir = "data"  # default"#);
    assert_eq!(line(&printed, "interval_ms"), "interval_ms = 50  # other.toml");
}

#[test]
fn empty_platform_variables_count_as_unset() {
    let program = Program::new().with_variable("DATABASE_URL", "").with_variable("PORT", "");
    let printed = program.run(&["print-config", "--database-url", "sqlite:x"]).answer();
    assert_eq!(line(&printed, "url"), r#"url = "sqlite:x"  # --database-url"#);
    let printed = program.with_variable("EVENT_TRACKER__STORE__URL", "sqlite:y").run(&["print-config"]).answer();
    assert_eq!(line(&printed, "url"), r#"url = "sqlite:y"  # environment EVENT_TRACKER__STORE__URL"#);
    assert_eq!(line(&printed, "listen"), r#"listen = "127.0.0.1:8000"  # default"#);
}

#[test]
fn every_key_can_be_set_in_the_environment() {
    let program = leaves(DEFAULTS).into_iter().fold(Program::new(), |program, (key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        program.with_variable(&format!("EVENT_TRACKER__{}", key.replace('.', "__").to_uppercase()), &value)
    });
    let printed = program.run(&["print-config"]).answer();
    assert_eq!(leaves(&printed), leaves(DEFAULTS));
    assert!(!printed.contains("# default"), "{printed}");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_name() {
    for (text, complaint) in [
        ("[http]\nlisen = 1", "x.toml: unknown key http.lisen; did you mean http.listen?"),
        ("listen = 1", "x.toml: unknown key listen; did you mean http.listen?"),
        ("[jornal]\nack = \"disk\"", "x.toml: unknown key jornal.ack; did you mean journal.ack?"),
        ("[flsh]", "x.toml: unknown key flsh; did you mean "),
        ("[http.listen]\nport = 1", "x.toml: unknown key http.listen.port; did you mean http.listen?"),
    ] {
        let program = Program::new().with_file("x.toml", text);
        let said = program.run(&["print-config", "--config", "x.toml"]).complaint(2);
        assert!(said.starts_with(complaint), "{said}");
    }
    for (name, nearest) in [
        ("EVENT_TRACKER__HTTP__LISEN", "EVENT_TRACKER__HTTP__LISTEN"),
        ("EVENT_TRACKER__DATADIR", "EVENT_TRACKER__DATA_DIR"),
        ("EVENT_TRACKER__http__listen", "EVENT_TRACKER__HTTP__LISTEN"),
    ] {
        let said = Program::new().with_variable(name, "1").run(&["print-config"]).complaint(2);
        assert_eq!(said, format!("environment: unknown key {name}; did you mean {nearest}?"));
    }
}

#[test]
fn variables_that_a_cluster_sets_for_a_service_of_our_name_are_not_ours() {
    let program = Program::new().with_variable("EVENT_TRACKER_PORT", "tcp://10.0.0.1:80");
    program.with_variable("EVENT_TRACKER_SERVICE_HOST", "10.0.0.1").run(&["print-config"]).answer();
}

#[test]
fn a_wrong_value_in_a_file_is_one_line_with_key_value_place_and_what_is_expected() {
    for (text, complaint) in [
        ("[http]\nlisten = 8000", "x.toml: http.listen = 8000; expected an IP address and a port, such as"),
        ("[http]\nlisten = \"localhost\"", "x.toml: http.listen = \"localhost\"; expected an IP address"),
        ("[http]\nworkers = \"2\"", "x.toml: http.workers = \"2\"; expected a whole number from 0 to 1024"),
        ("[http]\nworkers = 2.0", "x.toml: http.workers = 2.0; expected a whole number"),
        ("[http]\nworkers = -1", "x.toml: http.workers = -1; expected a whole number"),
        ("[http]\nconnections_max = 0", "x.toml: http.connections_max = 0; expected a whole number from 1 to"),
        ("[http]\nworkers = [1]", "x.toml: http.workers = [1]; expected a whole number"),
        ("[http]\ncors_origins = \"*\"", "x.toml: http.cors_origins = \"*\"; expected [\"*\"], or a list of origins"),
        ("http = 1", "x.toml: http = 1; expected a section: [http]"),
        ("[journal]\nack = \"store\"", "x.toml: journal.ack = \"store\"; expected memory, journal or disk"),
        ("[journal]\nbytes_max = 5000", "x.toml: journal.bytes_max = 5000; expected a whole number from 131072"),
        (
            "[journal]\nbytes_max = 134217727",
            "x.toml: journal.bytes_max = 134217727; expected at least twice journal.segment_bytes_max (67108864)",
        ),
        ("[store]\nurl = \"mysql://x\"", "x.toml: store.url = \"mysql://x\"; expected postgres://"),
        ("[store]\ntls_accept_invalid_certs = 1", "x.toml: store.tls_accept_invalid_certs = 1; expected true or false"),
        ("[log]\nlevel = \"loud=loud\"", "x.toml: log.level = \"loud=loud\"; expected off, error, warn"),
        ("data_dir = \"\"", "x.toml: data_dir = \"\"; expected the path of a folder"),
        ("[http\n", "x.toml: TOML parse error at line 1"),
    ] {
        let program = Program::new().with_file("x.toml", text);
        let said = program.run(&["print-config", "--config", "x.toml"]).complaint(2);
        assert!(said.starts_with(complaint), "{said}\nexpected {complaint}");
    }
}

#[test]
fn a_wrong_value_is_not_hidden_by_a_stronger_layer() {
    let program = Program::new().with_variable("EVENT_TRACKER__HTTP__WORKERS", "many").with_variable("PORT", "http");
    let said = program.run(&["print-config"]).complaint(2);
    assert!(said.starts_with("environment EVENT_TRACKER__HTTP__WORKERS: http.workers = \"many\"; expected"), "{said}");
    let said = Program::new().with_variable("PORT", "http").run(&["print-config", "--listen", "[::]:80"]).complaint(2);
    assert!(said.starts_with("environment PORT: http.listen = \"0.0.0.0:http\"; expected"), "{said}");
}

#[test]
fn a_file_that_is_named_must_be_readable() {
    let said = Program::new().run(&["print-config", "--config", "absent.toml"]).complaint(2);
    assert!(said.starts_with("absent.toml: can't be read: "), "{said}");
}

#[test]
fn passwords_are_masked_in_the_settings_and_in_complaints() {
    let program =
        Program::new().with_variable("DATABASE_URL", "postgres://tracker:hunter2@h1:1,h2:2/db?sslmode=require");
    let printed = program.run(&["print-config"]).answer();
    assert!(!printed.contains("hunter2"), "{printed}");
    let expected = r#"url = "postgres://tracker:***@h1:1,h2:2/db?sslmode=require"  # environment DATABASE_URL"#;
    assert_eq!(line(&printed, "url"), expected);
    let said = Program::new().with_variable("DATABASE_URL", "postgre://u:hunter2@h/db").run(&["serve"]).complaint(2);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_samples_are_configurations_and_change_what_they_say() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    for sample in std::fs::read_dir(folder).unwrap() {
        let path = sample.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let program = Program::new().with_file("sample.toml", &text);
        let printed = program.run(&["print-config", "--config", "sample.toml"]).answer();
        let printed = leaves(&printed);
        for leaf in leaves(&text) {
            assert!(printed.contains(&leaf), "{leaf:?} of {}", path.display());
        }
    }
}

#[test]
fn what_is_printed_is_a_configuration_again() {
    let first = Program::new().run(&["print-config", "--ack", "disk", "--data-dir", "a \"quoted\" \\ folder"]).answer();
    let program = Program::new().with_file("again.toml", &first);
    let again = program.run(&["print-config", "--config", "again.toml"]).answer();
    assert_eq!(leaves(&first), leaves(&again));
}
