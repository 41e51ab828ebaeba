//! Strict BYOK: where agents must bring their own key, none of the operator's is there to be used.

use aex_tests::harness::Kernel;
use serde_json::json;

use crate::common::{assert_error, hello, sim};

const OWN_KEY: [(&str, &str); 1] = [("x-aex-provider-key", "sk-fake-own-key")];

#[track_caller]
fn ok(kernel: &Kernel, args: &[&str]) {
    let output = kernel.aex(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
}

#[track_caller]
fn serves_own_keys_alone(kernel: &Kernel) {
    let token = kernel.create_agent("owner", "1", 30, &["--allow-passthrough"]);
    let answer = kernel.chat_with(&token, &hello(json!({})), &OWN_KEY);
    assert_eq!(answer.status, 200, "{answer:?}");
    let without = kernel.chat(&token, &hello(json!({})));
    assert_error(&without, 403, "provider_key_required");
}

/// A start with an operator's key in its environment is refused, names where it is, and leaves nothing.
#[track_caller]
fn refuses_to_start(kernel: &Kernel) {
    let started = kernel
        .command(&["daemon", "start", "--listen", "127.0.0.1:0"])
        .env("SIM_API_KEY", Kernel::SIM_KEY)
        .output()
        .unwrap();
    assert_eq!(started.status.code(), Some(1), "{started:?}");
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(
        said.contains("SIM_API_KEY") && !said.contains(Kernel::SIM_KEY),
        "{said}"
    );
    assert_eq!(kernel.aex(&["status"]).status.code(), Some(3));
}

#[test]
fn a_provider_is_strict_by_its_own_line() {
    let sim = sim();
    let yaml = format!(
        "providers:\n  sim: {{ base_url: 'http://{}/v1', keys: passthrough }}\n\
         models:\n  gpt-oss-20b: {{ provider: sim, price: free }}\n",
        sim.addr
    );
    refuses_to_start(&Kernel::builder().models_yaml(&yaml).prepare());
    serves_own_keys_alone(&Kernel::builder().models_yaml(&yaml).start());
}

#[test]
fn a_whole_kernel_is_strict_by_one_line_of_models_yaml() {
    let sim = sim();
    let yaml = format!(
        "keys: passthrough\nproviders:\n  sim: {{ base_url: 'http://{}/v1' }}\n\
         models:\n  gpt-oss-20b: {{ provider: sim, price: free }}\n",
        sim.addr
    );
    refuses_to_start(&Kernel::builder().models_yaml(&yaml).prepare());

    serves_own_keys_alone(&Kernel::builder().models_yaml(&yaml).start());
}

#[test]
fn a_whole_kernel_is_strict_by_its_own_scope_from_the_next_start() {
    let sim = sim();
    let yaml = format!(
        "providers:\n  sim: {{ base_url: 'http://{}/v1' }}\n\
         models:\n  gpt-oss-20b: {{ provider: sim, price: free }}\n",
        sim.addr
    );
    let kernel = Kernel::builder().models_yaml(&yaml).start();
    let token = kernel.create_agent("owner", "1", 30, &["--allow-passthrough"]);
    ok(
        &kernel,
        &["group", "set", "kernel", "--require-passthrough"],
    );
    let without = kernel.chat(&token, &hello(json!({})));
    assert_error(&without, 403, "provider_key_required");
    let with = kernel.chat_with(&token, &hello(json!({})), &OWN_KEY);
    assert_eq!(with.status, 200, "{with:?}");
    ok(&kernel, &["daemon", "stop"]);
    refuses_to_start(&kernel);
    ok(&kernel, &["daemon", "start", "--listen", "127.0.0.1:0"]);
    ok(
        &kernel,
        &["group", "set", "kernel", "--clear", "passthrough"],
    );
    ok(&kernel, &["config", "reload"]);
    kernel.audit();
}
