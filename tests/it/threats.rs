//! docs/THREATS.md names a test for each thing that it says nobody can do, and each of them is there.

use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap().to_owned()
}

/// `PATH::NAME` in backticks.
fn named(text: &str) -> Vec<(&str, &str)> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(|(path, _)| path.ends_with(".rs") || path.ends_with(".py"))
        .collect()
}

/// It is a test: a function after `#[test]`, a method that unittest finds, or one of a macro's.
fn is_a_test(source: &str, path: &str, name: &str) -> bool {
    if path.ends_with(".py") {
        return name.starts_with("test_") && source.contains(&format!("def {name}(self"));
    }
    let Some(at) = source.find(&format!("fn {name}(")) else {
        return false;
    };
    let before: Vec<&str> = source[..at].lines().rev().take(6).collect();
    before
        .iter()
        .any(|line| line.contains("test]") || line.contains("#[tokio::test"))
}

#[test]
fn each_test_that_the_page_names_is_there() {
    let page = fs::read_to_string(repository().join("docs/THREATS.md")).unwrap();
    let tests = named(&page);
    assert!(tests.len() > 50, "{} tests", tests.len());
    let missing: Vec<String> = (tests.iter())
        .filter(|(path, name)| {
            let source = fs::read_to_string(repository().join(path)).unwrap_or_default();
            !is_a_test(&source, path, name)
        })
        .map(|(path, name)| format!("{path}::{name}"))
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn each_line_that_says_what_nobody_can_names_a_test() {
    let page = fs::read_to_string(repository().join("docs/THREATS.md")).unwrap();
    let rows = page.lines().filter(|line| {
        line.starts_with('|') && !line.starts_with("| ---") && !line.contains("| shown by |")
    });
    let mut count = 0;
    for row in rows {
        count += 1;
        assert!(!named(row).is_empty(), "no test is named: {row}");
    }
    assert!(count > 30, "{count} rows");
}
