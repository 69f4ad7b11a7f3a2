//! The accessibility checker axe-core, from its npm package at the version and checksum that
//! `tests/npm/package-lock.json` names.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{Browser, packages};

/// What WCAG 2.2 AA asks for, and what is good practice beyond.
const RULES: [&str; 6] = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

const RUN: &str = "const [rules, done] = arguments; \
    axe.run(document, { runOnly: rules, resultTypes: ['violations'] }).then((results) => done(results.violations \
    .filter((found) => ['serious', 'critical'].includes(found.impact)) \
    .map((found) => [found.id, ...found.nodes.map((node) => `${node.html} ${node.failureSummary}`)])), \
    (error) => done([[String(error)]]));";

impl Browser {
    /// Insists that the page has no serious barrier.
    pub async fn is_accessible(&self, page: &str) {
        let source = tokio::task::spawn_blocking(source).await.unwrap();
        self.run(source, Vec::new()).await;
        let found = self.run_async(RUN, vec![json!(RULES)]).await;
        assert_eq!(found, Value::Array(Vec::new()), "{page}: {found:#}");
    }
}

fn source() -> &'static str {
    static SOURCE: OnceLock<String> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let wanted = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
        let file = folder.join("node_modules/axe-core/axe.min.js");
        let lock = std::fs::read(wanted.join("package-lock.json")).unwrap();
        let installed = std::fs::read(folder.join("package-lock.json")).is_ok_and(|installed| installed == lock);
        if !installed || !file.is_file() {
            install(&wanted, &folder);
        }
        std::fs::read_to_string(file).expect("the package axe-core holds axe.min.js")
    })
}

fn install(wanted: &Path, folder: &Path) {
    let npm = packages::needed(&["npm"], || {
        packages::folders(None::<PathBuf>).into_iter().map(|folder| folder.join("npm")).find(|path| path.is_file())
    });
    std::fs::create_dir_all(folder).unwrap();
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(wanted.join(file), folder.join(file)).unwrap();
    }
    let mut command = Command::new(npm);
    let output = command.current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "npm can't install axe-core: {output:?}");
}
