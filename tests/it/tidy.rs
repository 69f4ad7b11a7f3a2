//! The rules of the layout, read off the sources: who imports whom, where clocks, SQL, web and
//! driver types may appear, how long a file may be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each module and what it may import of ours, lowest first. A module that is not here fails the
/// test: it needs a place in the order.
const LAYERS: &[(&str, &[&str])] = &[
    // Inputs of fuzz tests, compiled for tests only.
    ("mangled", &[]),
    ("domain", &["mangled"]),
    ("names", &["domain"]),
    ("counts", &["domain", "names"]),
    ("journal", &["domain", "mangled"]),
    ("blocking", &[]),
    ("rows", &["domain"]),
    ("store", &["domain", "rows"]),
    ("histogram", &["domain"]),
    ("batch", &["domain", "mangled", "names", "counts", "journal"]),
    ("reconcile", &["domain", "blocking", "batch", "store"]),
    ("catalog", &["domain", "blocking", "names", "rows", "batch", "store"]),
    ("flusher", &["domain", "blocking", "batch", "reconcile", "store"]),
    ("folder", &["store"]),
    ("shared", &[]),
    ("committed", &["domain", "rows", "batch", "catalog", "reconcile", "store", "shared"]),
    ("query", &["domain", "rows", "batch", "catalog", "reconcile", "store", "committed", "histogram"]),
    ("presence", &["domain", "blocking", "journal", "batch", "store", "shared"]),
    (
        "node",
        &[
            "domain",
            "names",
            "journal",
            "blocking",
            "batch",
            "reconcile",
            "catalog",
            "flusher",
            "folder",
            "query",
            "presence",
            "store",
        ],
    ),
    ("import", &["domain", "mangled", "names", "node", "store"]),
    ("statsd", &["domain", "mangled", "batch", "node"]),
    // The words of answers name what the core refuses.
    ("web", &["domain", "batch", "query"]),
    ("server", &["domain", "batch", "journal", "names", "web"]),
    (
        "api",
        &[
            "domain",
            "mangled",
            "rows",
            "batch",
            "node",
            "presence",
            "query",
            "histogram",
            "shared",
            "store",
            "web",
            "server",
        ],
    ),
    // Of the store it uses what administrators keep there.
    ("admin", &["domain", "batch", "node", "presence", "query", "histogram", "store"]),
    // One request goes to one of the two sides, which do not know each other.
    ("site", &["domain", "batch", "node", "web", "server", "api", "admin"]),
    // It knows the options of every module, and nobody but the top knows it.
    ("config", &["web", "admin", "journal", "flusher", "names", "store", "telemetry"]),
    ("telemetry", &[]),
    ("signals", &[]),
    ("descriptors", &[]),
    ("private", &[]),
    ("app", &["*"]),
    (
        "commands",
        &["domain", "app", "batch", "config", "folder", "import", "node", "store", "telemetry", "admin", "private"],
    ),
    ("lib", &[]),
    ("main", &["*"]),
];

const LINES_MAX: usize = 500;

struct Source {
    /// Below the root of the repository.
    path: String,
    text: String,
    /// The text without comments and without its unit tests.
    code: String,
}

impl Source {
    /// The first part of the path below `src`, such as `journal`.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or_default();
        below.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    fn is_module_root(&self) -> bool {
        let module = self.module();
        self.path == format!("src/{module}.rs") || self.path == format!("src/{module}/mod.rs")
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    files.sort();
    assert!(!files.is_empty(), "{folder} has no sources");
    files
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            let path = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let code = if path.ends_with("tests.rs") || path.contains("/tests/") { String::new() } else { code(&text) };
            Source { path, text, code }
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn code(text: &str) -> String {
    // Unit tests stand at the end, perhaps with attributes of their own.
    let is_test_module = |at: usize| {
        let mut after = text[at..].lines().skip(1).skip_while(|line| line.starts_with("#["));
        after.next().is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    let tests = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(|at| is_test_module(*at));
    let lines = text[..tests.unwrap_or(text.len())]
        .lines()
        .map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    // ` // ` and not `//`: addresses have slashes too.
    lines.map(|line| line.split(" // ").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first segments of all paths that begin with `crate::`, in `use` groups or inline.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(identifier(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (index, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                '}' | ',' if depth == 0 => {
                    found.insert(identifier(group[start..index].trim_start()));
                    start = index + 1;
                    if character == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_are_found_in_groups_and_inline() {
    let code = "use crate::a;\nuse crate::{b::{x, y}, c::Z,\n d};\n fn f(x: crate::e::F) {} mycrate::no";
    assert_eq!(imports(code).into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn imports_point_downward_only() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let module = source.module();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: `{module}` has no place in LAYERS", source.path));
            continue;
        };
        for imported in imports(&source.code) {
            if imported != module && !allowed.contains(&"*") && !allowed.contains(&imported.as_str()) {
                wrong.push(format!("{}: `{module}` imports `{imported}`", source.path));
            }
        }
        // In the root of a module, `super` is the crate and would get around the rule.
        if source.is_module_root() && source.code.contains("super::") {
            wrong.push(format!("{}: write crate:: instead of super::", source.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Fails when `word` stands in the code of a file whose path begins with none of `allowed`.
fn only_in(word: &str, allowed: &[&str]) {
    let mut found = sources("src");
    found.retain(|source| source.code.contains(word) && !allowed.iter().any(|prefix| source.path.starts_with(prefix)));
    let paths: Vec<&String> = found.iter().map(|source| &source.path).collect();
    assert!(paths.is_empty(), "`{word}` belongs in {allowed:?} and stands in {paths:?}");
}

#[test]
fn the_wall_clock_is_read_at_the_edge_only() {
    only_in("SystemTime::now", &["src/server", "src/admin", "src/app.rs", "src/commands/"]);
    // These panic before 1970.
    for word in ["Utc::now", "Local::now"] {
        only_in(word, &[]);
    }
}

#[test]
fn web_and_driver_types_stay_where_they_belong() {
    only_in("warp::", &["src/web", "src/server", "src/api", "src/site.rs", "src/admin"]);
    only_in("hyper::", &["src/web", "src/server", "src/api", "src/site.rs", "src/admin"]);
    only_in("tokio_postgres", &["src/store/postgres"]);
    only_in("rusqlite", &["src/store/sqlite"]);
    only_in("plotters", &["src/histogram"]);
}

#[test]
fn sql_stands_in_the_store_only() {
    let begins = ["select ", "insert into ", "update ", "delete from ", "create table ", "alter table ", "drop table "];
    for source in sources("src") {
        if source.path.starts_with("src/store/") {
            continue;
        }
        for text in source.code.split('"').skip(1).step_by(2) {
            let text = text.trim_start().to_lowercase();
            let is_sql = begins.iter().any(|begin| text.starts_with(begin))
                && [" from ", " set ", " values", " (", " where "].iter().any(|word| text.contains(word));
            assert!(!is_sql, "{}: {text}", source.path);
        }
    }
}

#[test]
fn no_file_is_longer_than_one_responsibility() {
    let all = ["src", "tests", "load/src"].into_iter().flat_map(sources);
    let long: Vec<String> = all
        .filter(|source| source.text.lines().count() > LINES_MAX)
        .map(|source| format!("{} has {} lines", source.path, source.text.lines().count()))
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX}: {long:#?}");
}

#[test]
fn nothing_unfinished_is_left_behind() {
    // Put together, so that this file does not find itself.
    let words = ["to\u{64}o!", "db\u{67}!", "FIX\u{4d}E", "XX\u{58}", "unimple\u{6d}ented!"];
    for source in ["src", "tests", "load/src"].into_iter().flat_map(sources) {
        for word in words {
            assert!(!source.text.contains(word), "{} holds {word}", source.path);
        }
    }
}

#[test]
fn production_code_does_not_panic_on_purpose_without_a_reason() {
    for source in sources("src").into_iter().chain(sources("load/src")) {
        let lines: Vec<&str> = source.code.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let panics =
                [".unwrap()", ".expect(\"", ".unwrap_err()", "unreachable!"].iter().any(|call| line.contains(call));
            let nearby = &lines[index.saturating_sub(12)..index];
            let reasoned = nearby.iter().any(|line| line.contains("expect(clippy::") || line.contains("reason ="));
            assert!(!panics || reasoned, "{}:{}: {}", source.path, index + 1, line.trim());
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for source in sources("src").into_iter().chain(sources("tests/it")) {
        let is_apart = source.path.ends_with("/tests.rs");
        assert!(is_apart || source.text.starts_with("//!"), "{} does not begin with a module comment", source.path);
    }
}
