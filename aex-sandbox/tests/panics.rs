//! What a panic of a program says, by this test's own program run again: its place, and nothing of what it was
//! working on.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, its helpers outside #[test] functions too"
)]

use std::panic::panic_any;
use std::process::{Command, ExitStatus};

const TRIAL: &str = "AEX_TRIAL_PANIC";
const CANARY: &str = "canary-of-a-prompt-7Qx2";
const TRIALS: [&str; 7] = [
    "formatted",
    "slice",
    "unwrap",
    "value",
    "thread",
    "hook kept",
    "aborts",
];

struct Panics;

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("while it unwinds: {CANARY}");
    }
}

fn refused(text: String) -> Result<(), String> {
    Err(text)
}

#[test]
fn trial() {
    let Ok(kind) = std::env::var(TRIAL) else {
        return;
    };
    if kind == "default" {
        panic!("it says {CANARY}");
    }
    aex_sandbox::harden().unwrap();
    let text = CANARY.to_owned();
    match kind.as_str() {
        "formatted" => panic!("it says {text}"),
        // What std quotes of the text is all of it.
        "slice" => drop(text[..text.len() + 1].to_owned()),
        "unwrap" => refused(text).unwrap(),
        "value" => panic_any(text),
        "thread" => {
            let thread = std::thread::Builder::new().name("writer".into());
            let done = thread.spawn(move || panic!("{text}")).unwrap().join();
            done.unwrap();
        }
        "hook kept" => {
            // As aex-admin does.
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| report(panic)));
            panic!("{text}");
        }
        _ => {
            let _panics = Panics;
            panic!("{text}");
        }
    }
}

/// Its status, and all that it says, standard error first.
fn run(kind: &str) -> (ExitStatus, String) {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["trial", "--exact", "--nocapture", "--test-threads=1"])
        .env(TRIAL, kind)
        .env("RUST_BACKTRACE", "full")
        .output()
        .unwrap();
    let said = [done.stderr, done.stdout].concat();
    (done.status, String::from_utf8(said).unwrap())
}

#[test]
fn a_panic_tells_its_place_and_not_what_it_is_about() {
    for kind in TRIALS {
        let (status, said) = run(kind);
        assert!(!status.success(), "{kind}: {said}");
        let line = said
            .lines()
            .find(|line| line.contains(": a bug: panicked at "));
        let line = line.unwrap_or_else(|| panic!("{kind}: {said}"));
        assert!(line.starts_with("panics-"), "{kind}: {line}");
        assert!(
            line.contains("aex-sandbox/tests/panics.rs:"),
            "{kind}: {line}"
        );
        let thread = if kind == "thread" { "writer" } else { "trial" };
        assert!(
            line.contains(&format!("thread {thread};")),
            "{kind}: {line}"
        );
        assert!(!said.contains(CANARY), "{kind}: {said}");
        assert!(!said.contains("stack backtrace"), "{kind}: {said}");
    }
}

/// Else the test above would show nothing.
#[test]
fn without_it_a_panic_tells_all() {
    let (status, said) = run("default");
    assert!(!status.success());
    assert!(
        said.contains(CANARY) && said.contains("stack backtrace"),
        "{said}"
    );
}
