//! The seed README's Quick Start and scenarios, as printed there.

use std::process::Command;

use aex_tests::harness::{Kernel, program, wait_for};
use aex_tests::sim::{Behaviour, Sim};
use serde_json::json;

use crate::common::{
    DEAR_MODEL, assert_error, assert_retry_after, bill_pico, hello, sim, spent_pico,
};

/// The seed's models.yaml, its providers moved to the simulator.
fn seed_models(sim: &Sim) -> String {
    format!(
        "providers:
  groq:
    base_url: http://{addr}/openai/v1
  openai:
    base_url: http://{addr}/v1
  ollama:
    base_url: http://{addr}/v1

models:
  gpt-oss-20b:
    provider: groq
  gpt-4:
    provider: openai
  llama-local:
    provider: ollama
",
        addr = sim.addr
    )
}

/// Runs a line of the README in a shell that finds `aex`.
fn shell(kernel: &Kernel, line: &str, env: &[(&str, &str)]) -> String {
    let bin = program("aex").parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-ec", line])
        .env("PATH", path)
        .env("AEX_HOME", kernel.home())
        .envs(env.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn quick_start() {
    let sim = sim();
    let mut kernel = Kernel::builder()
        .models_yaml(seed_models(&sim).replace("/openai/v1", "/v1"))
        .env("GROQ_API_KEY", Kernel::SIM_KEY)
        .start();
    let printed = shell(&kernel, "aex agent create my-agent 5.00 30", &[]);
    let value = |name: &str| {
        let export = format!("export {name}=");
        let line = printed
            .lines()
            .find_map(|line| line.trim().strip_prefix(&export));
        line.unwrap_or_else(|| panic!("no {export} in {printed}"))
            .to_owned()
    };
    let (base, token) = (value("OPENAI_BASE_URL"), value("OPENAI_API_KEY"));
    assert_eq!(base, format!("http://{}/v1", kernel.addr));

    let answer = kernel.chat(&token, &hello(json!({})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let received = &sim.bill().log[0];
    assert_eq!(
        received.body["model"], "openai/gpt-oss-20b",
        "the catalogue's name for it"
    );
    let bearer = format!("Bearer {}", Kernel::SIM_KEY);
    assert_eq!(received.header("authorization"), Some(bearer.as_str()));
    assert_eq!(
        spent_pico(&kernel, "my-agent"),
        bill_pico(&sim.bill()),
        "the catalogue's price"
    );

    for line in ["aex status", "aex metrics", "aex audit"] {
        assert!(!shell(&kernel, line, &[]).is_empty(), "{line}");
    }
    shell(&kernel, "aex agent rotate-token my-agent", &[]);
    assert_error(
        &kernel.chat(&token, &hello(json!({}))),
        401,
        "invalid_api_key",
    );
    kernel.audit();
    kernel.stop();
}

#[test]
fn hard_budget_cutoff() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("test-agent", "0.01", 60, &[]);
    let request = hello(json!({"model": DEAR_MODEL}));
    let mut served = 0;
    let refusal = loop {
        let answer = kernel.chat(&token, &request);
        if answer.status != 200 {
            break answer;
        }
        served += 1;
        assert!(served < 60, "the budget never ends");
    };
    assert_error(&refusal, 402, "insufficient_budget");
    assert_eq!(refusal.detail(), "Insufficient budget");
    assert!(served >= 2);
    let bill = bill_pico(&sim.bill());
    assert_eq!(spent_pico(&kernel, "test-agent"), bill);
    assert!(bill <= 10_000 * 1_000_000, "{bill}");
    kernel.audit();
}

#[test]
fn tokens_per_minute_from_models_yaml() {
    let sim = sim();
    let limits = "limits:\n  max_tokens_per_minute: 1000\n";
    let kernel = Kernel::builder().default_models_and(&sim, limits).start();
    let token = kernel.create_agent("rapid", "1.00", 1000, &[]);
    let request = hello(json!({"max_tokens": 150}));
    sim.behave(Behaviour {
        fill: true,
        ..Behaviour::default()
    });
    let refusal = (0..20)
        .map(|_| kernel.chat(&token, &request))
        .find(|answer| answer.status != 200)
        .expect("the limit is never reached");
    assert_error(&refusal, 429, "rate_limit_exceeded");
    assert_eq!(refusal.detail(), "TPM Rate limit exceeded");
    assert_retry_after(&refusal);
    let total = sim.bill().total();
    let tokens = total.prompt_tokens + total.completion_tokens;
    assert!(
        (500..=1000).contains(&tokens),
        "{tokens} tokens went through"
    );
    // An agent's own option replaces the default.
    let token = kernel.create_agent("wide", "1.00", 1000, &["--max-tokens-per-minute", "100000"]);
    for _ in 0..10 {
        assert_eq!(kernel.chat(&token, &request).status, 200);
    }
    kernel.audit();
}

#[test]
fn model_whitelist() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "10.00", 30, &["--allowed-models", "gpt-oss-20b"]);
    for model in [
        DEAR_MODEL,
        "GPT-OSS-20B",
        "sim/gpt-oss-20b",
        "no-such-model",
    ] {
        let refusal = kernel.chat(&token, &hello(json!({"model": model})));
        assert_error(&refusal, 403, "model_not_allowed");
        assert_eq!(refusal.detail(), "Model not allowed");
    }
    assert_eq!(sim.bill().requests, 0);
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
}

#[test]
fn live_budget_severing_with_a_hold_open() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "10.00", 30, &[]);
    sim.behave(Behaviour {
        delay_ms: 300,
        chunk_delay_ms: 10,
        natural_tokens: Some(60),
        ..Behaviour::default()
    });
    let request = hello(json!({"max_tokens": 60, "stream": true}));
    let open = std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut events = kernel.chat_stream(&token, &request);
            let count = events.by_ref().count();
            (count, events.complete)
        });
        wait_for("the request at the provider", || {
            (sim.bill().in_flight == 1).then_some(())
        });
        kernel.sqlite("UPDATE agents SET budget_micro = spent_micro WHERE name='atlas';");
        assert_error(
            &kernel.chat(&token, &hello(json!({}))),
            402,
            "insufficient_budget",
        );
        stream.join().unwrap()
    });
    assert!(
        open.1 && open.0 > 60,
        "the open stream came to its end: {open:?}"
    );
    kernel.settled();
    assert_eq!(sim.bill().requests, 1);
    assert_eq!(
        spent_pico(&kernel, "atlas"),
        bill_pico(&sim.bill()),
        "a bill is never dropped"
    );
    assert_error(
        &kernel.chat(&token, &hello(json!({}))),
        402,
        "insufficient_budget",
    );
    let report = kernel.aex_json(&["audit"]);
    assert_eq!(report["ok"], true, "{report}");
    let warned = report["warnings"].to_string();
    assert!(
        warned.contains("atlas"),
        "the outside UPDATE is told: {report}"
    );
    assert_eq!(kernel.aex(&["audit", "--strict"]).status.code(), Some(1));
}

#[test]
fn own_keys_as_in_the_seeds_curl() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let curl = |token: &str, header: &str| {
        let line = format!(
            r#"curl -s -w '\n%{{http_code}}' $BASE/v1/chat/completions \
  -H "Authorization: Bearer {token}" {header} \
  -H "Content-Type: application/json" \
  -d '{{
        "model": "gpt-oss-20b",
        "messages": [{{"role":"user","content":"hello"}}]
      }}'"#
        );
        let base = format!("http://{}", kernel.addr);
        let printed = shell(&kernel, &line, &[("BASE", &base)]);
        let (body, status) = printed.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    };
    let own = r#"-H "x-aex-provider-key: sk-fake-own-key""#;
    let last_key = || {
        sim.bill()
            .log
            .last()
            .unwrap()
            .header("authorization")
            .map(str::to_owned)
    };

    let token = kernel.create_agent("my-agent", "5.00", 30, &["--allow-passthrough"]);
    let (status, body) = curl(&token, own);
    assert_eq!(status, "200", "{body}");
    assert_eq!(last_key().as_deref(), Some("Bearer sk-fake-own-key"));
    assert_eq!(curl(&token, "").0, "200");
    assert_eq!(last_key(), Some(format!("Bearer {}", Kernel::SIM_KEY)));
    let bill = bill_pico(&sim.bill());
    assert_eq!(
        spent_pico(&kernel, "my-agent"),
        bill,
        "own keys count against the budget too"
    );

    let strict = kernel.create_agent("strict", "5.00", 30, &["--require-passthrough"]);
    assert_eq!(curl(&strict, own).0, "200");
    let (status, body) = curl(&strict, "");
    assert!(
        status == "403" && body.contains("Provider key required"),
        "{body}"
    );
    let plain = kernel.create_agent("plain", "5.00", 30, &[]);
    let (status, body) = curl(&plain, own);
    let wanted = "Passthrough mode not enabled for this agent";
    assert!(status == "403" && body.contains(wanted), "{body}");
    assert_eq!(sim.bill().requests, 3);
    kernel.audit();
}
