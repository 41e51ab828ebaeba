//! `aex policy explain`, with a fake reader of requests beside it: a script that notes what it was given.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake_admin::FakeAdmin;
use crate::{bare, expect_exit, stderr, stdout};

const READER: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/arguments"
/usr/bin/env > "$here/environment"
body=$(cat)
case "$body" in
bad) echo '{"invalid":{"message":"messages is missing","param":"messages"}}'; exit 1 ;;
broken) echo 'aex-proxy: made up' >&2; exit 2 ;;
esac
case "$*" in
*--tokenizer*) echo '{"model":"m","facts":{"body_bytes":4,"measured":{"text":3,"tools":0},"measured_by":"o200k_base"}}' ;;
*) echo '{"model":"m","facts":{"body_bytes":4}}' ;;
esac
"#;

const MAKE: &str = r#"cp "$1" aex && printf %s "$2" > aex-proxy && chmod 755 aex-proxy"#;

struct Bench {
    directory: TempDir,
    admin: FakeAdmin,
}

impl Bench {
    fn new(answers: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // By another process: a program that any process has open for writing cannot be run, and one that
        // another test starts has open what this one has, for a moment.
        let made = Command::new("sh")
            .args(["-c", MAKE, "make", env!("CARGO_BIN_EXE_aex"), READER])
            .current_dir(&directory)
            .status();
        assert!(made.unwrap().success());
        let admin = FakeAdmin::start(move |method, params| {
            assert_eq!(method, "policy.explain");
            Ok(answers(params))
        });
        Self { directory, admin }
    }

    fn file(&self, text: &str) -> PathBuf {
        let file = self.directory.path().join("request.json");
        fs::write(&file, text).unwrap();
        file
    }

    fn explain(&self, body: &str, options: &[&str]) -> Output {
        let file = self.file(body);
        bare(&self.directory.path().join("aex"))
            .env("AEX_HOME", self.admin.home())
            .env("GROQ_API_KEY", "sk-fake-groq")
            .args(["policy", "explain", "--agent", "a"])
            .args(options)
            .arg(file)
            .output()
            .unwrap()
    }

    fn noted(&self, what: &str) -> String {
        fs::read_to_string(self.directory.path().join(what)).unwrap_or_default()
    }
}

fn passes() -> Value {
    json!({"explained": {"outcome": "passes", "agent": "a", "model": "m", "targets": []}})
}

fn measure() -> Value {
    json!({"measure": {"tokenizer": "o200k_base"}})
}

#[test]
fn the_kernel_is_asked_about_what_the_worker_sees() {
    let bench = Bench::new(|_| passes());
    let options = [
        "--run",
        "a/r",
        "--route",
        "responses",
        "--own-key",
        "--session",
        "s",
    ];
    let output = bench.explain("good", &options);
    expect_exit(&output, 0);
    assert_eq!(stdout(&output), "a may send this\n");
    assert_eq!(
        bench.noted("arguments"),
        "facts --route=/v1/responses --own-key --session=s\n"
    );
    assert!(!bench.noted("environment").contains("fake"));
    let params = json!({
        "agent": "a", "run": "a/r", "route": "responses", "model": "m", "facts": {"body_bytes": 4}
    });
    assert_eq!(bench.admin.asked(), [("policy.explain".to_owned(), params)]);
    let json = stdout(&bench.explain("good", &["--json"]));
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap(),
        passes()["explained"]
    );
}

#[test]
fn the_prompt_is_counted_once_where_the_kernel_wants_it() {
    let bench = Bench::new(|params| match params["facts"].get("measured") {
        Some(_) => passes(),
        None => measure(),
    });
    expect_exit(&bench.explain("good", &[]), 0);
    let route = "facts --route=/v1/chat/completions";
    assert_eq!(
        bench.noted("arguments"),
        format!("{route}\n{route} --tokenizer=o200k_base\n")
    );
    let asked = bench.admin.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].1["facts"]["measured_by"], "o200k_base");

    let insatiable = Bench::new(|_| measure());
    let output = insatiable.explain("good", &[]);
    expect_exit(&output, 1);
    assert!(
        stderr(&output).contains("same version"),
        "{}",
        stderr(&output)
    );
    assert_eq!(insatiable.admin.asked().len(), 2);
}

#[test]
fn what_is_no_request_is_told_and_nobody_is_asked() {
    let bench = Bench::new(|_| passes());
    let told = "the agent would get 400: messages is missing (messages)";
    let output = bench.explain("bad", &[]);
    expect_exit(&output, 1);
    assert_eq!(stderr(&output), format!("aex: {told}\n"));
    let output = bench.explain("bad", &["--json"]);
    expect_exit(&output, 1);
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["invalid"]["param"], "messages");

    let output = bench.explain("broken", &[]);
    expect_exit(&output, 1);
    assert!(stderr(&output).contains("made up"), "{}", stderr(&output));
    assert_eq!(bench.admin.asked(), []);
}

#[test]
fn a_request_is_a_file_that_is_there_or_standard_input() {
    let bench = Bench::new(|_| passes());
    let aex = |request: &str, input: Stdio| {
        bare(&bench.directory.path().join("aex"))
            .env("AEX_HOME", bench.admin.home())
            .args(["policy", "explain", "-a", "a", request])
            .stdin(input)
            .output()
            .unwrap()
    };
    let output = aex("/nonexistent/request.json", Stdio::null());
    expect_exit(&output, 4);
    assert!(
        stderr(&output).contains("name a file"),
        "{}",
        stderr(&output)
    );
    let input = fs::File::open(bench.file("bad")).unwrap();
    expect_exit(&aex("-", input.into()), 1);
    let input = fs::File::open(bench.file("good")).unwrap();
    expect_exit(&aex("-", input.into()), 0);
}

#[test]
fn what_is_longer_than_any_request_is_not_read_on() {
    let bench = Bench::new(|_| passes());
    let file = bench.directory.path().join("long.json");
    // Without blocks: it takes no room.
    fs::File::create(&file)
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    let output = bare(&bench.directory.path().join("aex"))
        .env("AEX_HOME", bench.admin.home())
        .args(["policy", "explain", "-a", "a"])
        .arg(file)
        .output()
        .unwrap();
    expect_exit(&output, 1);
    assert!(
        stderr(&output).contains("67108864 bytes"),
        "{}",
        stderr(&output)
    );
    assert_eq!(bench.noted("arguments"), "");
}
