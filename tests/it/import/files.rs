//! What files hold: formats, lines that can't be counted, and files that are none.

use crate::program::Program;

fn program() -> Program {
    Program::new().with_variable("EVENT_TRACKER__LOG__LEVEL", "off")
}

fn put(program: &Program, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(program.folder().join(name), content).unwrap();
}

/// The sum of all counts in the store.
fn rows(program: &Program) -> u64 {
    let sums: serde_json::Value = serde_json::from_str(&program.run(&["audit", "--json"]).answer()).unwrap();
    sums["rows"].as_u64().unwrap()
}

const LOG: &str = r#"2001:db8::1 - - [17/May/2015:10:05:03 +0000] "GET /start?a=1 HTTP/1.1" 200 12 "-" "Mozilla/5.0"
192.0.2.7 - ann [17/May/2015:23:59:59 -0500] "GET /caf%C3%A9 HTTP/1.1" 200 12 "https://a.example/" "Mozilla/5.0"
192.0.2.7 - - [17/May/2015:10:06:00 +0000] "GET /start HTTP/1.1" 304 - "-" "-"
192.0.2.7 - - [17/May/2015:10:06:00 +0000] "GET /favicon.ico HTTP/1.1" 200 3 "-" "-"
192.0.2.7 - - [17/May/2015:10:06:01 +0000] "POST /start HTTP/1.1" 200 3 "-" "-"
192.0.2.7 - - [17/May/2015:10:06:02 +0000] "GET /gone HTTP/1.1" 404 3 "-" "-"
192.0.2.9 - - [17/May/2015:10:06:03 +0000] "\x16\x03\x01" 400 0 "-" "-"
192.0.2.9 - - [17/May/2015:10:06:03 +0000] "-" 408 0 "-" "-"
"#;

#[test]
fn page_views_of_an_access_log_are_in_the_hours_of_its_zone() {
    let program = program();
    put(&program, "access.log", LOG);
    let said = program.run(&["import", "access.log"]).answer();
    let mut lines = said.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("access.log: 8 lines, 3 counted as 3 occurrences of 2 events in 2 hours, in SQLite at "));
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [
            "  skipped 1: another method (--method) (first: line 5)",
            "  skipped 1: another status (--status) (first: line 6)",
            "  skipped 1: images, styles, scripts and fonts (--assets counts them) (first: line 4)",
            "  skipped 2: a request without a method and a path (first: line 7)",
        ]
    );
    let database = rusqlite::Connection::open(program.folder().join("data/events.sqlite")).unwrap();
    let sql = "select event, strftime('%Y%m%d%H', hour * 3600, 'unixepoch'), count from hourly_counts order by 1, 2";
    let mut rows = database.prepare(sql).unwrap();
    let rows: Vec<(String, String, i64)> = rows
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let row = |event: &str, hour: &str, count| (event.to_owned(), hour.to_owned(), count);
    assert_eq!(rows, [row("/café", "2015051804", 1), row("/start", "2015051710", 2)]);
}

#[test]
fn requests_are_named_and_chosen_as_asked() {
    for (arguments, counted) in [
        (&["--assets"][..], 4),
        (&["--method", "any"], 4),
        (&["--status", "any"], 4),
        (&["--event", "status"], 6),
        (&["--event", "web{path}", "--prefix", "x:", "--status", "4xx"], 1),
        (&["--format", "combined"], 3),
        (&["--format", "common"], 3),
    ] {
        let program = program();
        put(&program, "access.log", LOG);
        let said = program.run(&[&["import", "access.log"], arguments].concat()).answer();
        assert!(said.starts_with(&format!("access.log: 8 lines, {counted} counted")), "{arguments:?}: {said}");
        assert_eq!(rows(&program), counted);
    }
    for (arguments, word) in [
        (&["--event", "paths"][..], "--event"),
        (&["--event", "{host}"], "{host}"),
        (&["--status", "2x"], "--status"),
        (&["--method", "get;"], "--method"),
        (&["--format", "csv"], "csv"),
        (&["--commit-lines", "0"], "--commit-lines"),
        (&["-"], "twice"),
    ] {
        let complaint = program().run(&[&["import", "-"], arguments].concat()).complaint(2);
        assert!(complaint.contains(word), "{arguments:?}: {complaint}");
    }
}

#[test]
fn lines_that_can_not_be_counted_are_skipped_and_named() {
    let program = program();
    let line = |time: &str, path: &str| format!("h - - [{time}] \"GET {path} HTTP/1.1\" 200 1\r\n");
    let time = "17/May/2015:10:05:03 +0000";
    let long = [line(time, "/a"), "x".repeat(10 << 20), "\r\n".into(), line(time, "/a")].concat();
    let lines = [
        long,
        line("17/May/15:10:05:03 +0000", "/a"),
        line("17/Foo/2015:10:05:03 +0000", "/a"),
        line("31/Dec/1969:10:05:03 +0000", "/a"),
        line("31/Dec/2999:10:05:03 +0000", "/a"),
        line(time, &"/x".repeat(200)),
        line(time, "/a%00"),
        line(time, "/%FF"),
        "\0\u{1}garbage\r\n\r\n{\"event\":\"b\",\"cuont\":2}\r\n{\r\n".into(),
        "{\"event\":\"b\",\"count\":0}\r\n{\"event\":\"b\",\"count\":7,\"time\":\"2015051710\"}\r\n\"\"\r\n".into(),
        // No end.
        line(time, "/last").trim_end().to_owned(),
    ];
    put(&program, "log", lines.concat());
    let said = program.run(&["import", "log"]).answer();
    assert!(said.starts_with("log: 18 lines, 4 counted as 10 occurrences of 3 events in 1 hour, in "), "{said}");
    for expected in [
        "skipped 1: longer than 65536 bytes (first: line 2)",
        "skipped 2: a time that can't be read (first: line 4)",
        "skipped 1: a time before 1970 (first: line 6)",
        "skipped 1: a time in the future (first: line 7)",
        "skipped 1: a name longer than 255 bytes (first: line 8)",
        "skipped 1: a name with a control character (first: line 9)",
        "skipped 1: a name that is not UTF-8 after percent-decoding (first: line 10)",
        "skipped 2: neither a line of an access log nor JSON of the format that is expected (first: line 11)",
        "skipped 1: empty (first: line 12)",
        "(first: line 13: unknown field `cuont`",
        "skipped 1: a count that is no whole number from 1 to 1000000000 (first: line 15)",
        "skipped 1: an empty name (first: line 17)",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    assert_eq!(rows(&program), 10);
    assert!(program.run(&["import", "log"]).answer().starts_with("log: 0 lines, 0 counted, in "));
}

#[test]
fn what_is_no_log_is_refused_and_counts_nothing() {
    let program = program();
    std::fs::create_dir(program.folder().join("folder")).unwrap();
    put(&program, "garbage", [0xf0_u8, 0x9f, b'\n', 7, b'\n'].repeat(1_000));
    put(&program, "log.zst", b"\x28\xb5\x2f\xfd rest");
    put(&program, "half.gz", b"\x1f\x8b\x08\0\0\0\0\0");
    for (name, word) in [
        ("folder", "folder: can't read it: it is a folder"),
        ("missing", "missing: can't read it: No such file"),
        ("garbage", "garbage: none of the first 2000 lines can be read"),
        ("log.zst", "zstd"),
        ("half.gz", "half.gz: can't read it"),
    ] {
        let complaint = program.run(&["import", name]).complaint(1);
        assert!(complaint.contains(word), "{name}: {complaint}");
    }
    put(&program, "empty", "");
    assert!(program.run(&["import", "empty"]).answer().starts_with("empty: 0 lines, 0 counted, in "));
    assert_eq!(rows(&program), 0);
}

#[test]
fn several_logs_are_imported_in_their_order() {
    let program = program();
    put(&program, "a.log", LOG);
    put(&program, "b.ndjson", "\"login\"\n{\"event\":\"login\",\"count\":2}\n");
    let said = program.run(&["import", "--prefix", "web:", "a.log", "b.ndjson", "a.log"]).answer();
    let counted: Vec<_> = said.lines().filter(|line| !line.starts_with(' ')).map(|line| &line[..30]).collect();
    assert_eq!(
        counted,
        ["a.log: 8 lines, 3 counted as 3", "b.ndjson: 2 lines, 2 counted a", "a.log: 0 lines, 0 counted, in "]
    );
    assert_eq!(rows(&program), 6);
}
