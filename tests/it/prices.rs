//! Prices of the operator's own: imported, listed, shown, put in force, and recorded.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use aex_tests::harness::Kernel;
use aex_tests::sim::Sim;
use serde_json::{Value, json};

use crate::common::{hello, sim};

/// One model with a tier and a fee, and one entry of each kind that is left out.
const TABLE: &str = r#"{
  "groq/house": {
    "litellm_provider": "groq", "mode": "chat", "max_input_tokens": 131072, "max_output_tokens": 4096,
    "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07, "input_cost_per_request": 1e-03,
    "input_cost_per_token_above_100k_tokens": 3e-07, "output_cost_per_token_above_100k_tokens": 1.2e-06
  },
  "groq/unpriced": { "litellm_provider": "groq", "mode": "chat" },
  "groq/broken": {
    "litellm_provider": "groq", "mode": "chat", "input_cost_per_token": "?", "output_cost_per_token": 1
  },
  "elsewhere/x": { "litellm_provider": "elsewhere", "mode": "chat" }
}"#;

#[track_caller]
fn exits(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn table(kernel: &Kernel, text: &str) -> PathBuf {
    let path = kernel.home().with_file_name("table.json");
    std::fs::write(&path, text).unwrap();
    path
}

/// As the simulator is at a loopback address, its name alone makes it Groq.
fn models(sim: &Sim) -> String {
    format!(
        "providers:
  groq: {{ base_url: 'http://{}/v1' }}
models:
  house: {{ provider: groq, hidden_output: false }}
  gpt-oss-20b: {{ provider: groq }}
",
        sim.addr
    )
}

#[test]
fn prices_can_be_read_and_imported_with_the_daemon_stopped() {
    let kernel = Kernel::builder().prepare();
    let groq = kernel.aex_json(&["prices", "list", "--provider", "groq"]);
    let names: Vec<&Value> = groq["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["model"])
        .collect();
    assert!(names.contains(&&json!("openai/gpt-oss-20b")), "{groq}");
    assert_eq!(groq["own_version"], Value::Null);

    let shown = kernel.aex_json(&["prices", "show", "gpt-oss-20b"]);
    assert_eq!(shown["rates"]["input_pico"], 75_000, "{shown}");
    assert_eq!(shown["version"], groq["shipped_version"]);
    let text = String::from_utf8(kernel.aex(&["prices", "show", "gpt-5.4"]).stdout).unwrap();
    assert!(text.contains("prompt above 272000 tokens"), "{text}");
    for (args, code, says) in [
        (
            &["prices", "show", "no-such-model"][..],
            4,
            "aex prices list",
        ),
        (
            &["prices", "show", "gpt-oss-120b"],
            2,
            "groq/openai/gpt-oss-120b",
        ),
        (&["prices", "list", "--provider", "nobody"], 4, "openai"),
        (&["prices", "import", "no-such-file"], 4, "no-such-file"),
        (&["prices", "import"], 2, "FILE"),
    ] {
        let said = exits(&kernel.aex(args), code);
        assert!(said.contains(says), "{args:?}: {said}");
    }

    let prices = kernel.places.config_file.with_file_name("prices.yaml");
    let broken = table(&kernel, "{ \"groq/house\": ");
    exits(
        &kernel.aex(&["prices", "import", broken.to_str().unwrap()]),
        1,
    );
    assert!(!prices.exists(), "a broken table leaves nothing");

    let file = table(&kernel, TABLE);
    let report = kernel.aex_json(&["prices", "import", file.to_str().unwrap()]);
    assert_eq!(report["taken"], 1, "{report}");
    let left = &report["left_out"];
    for (why, count) in [("no_price", 1), ("unreadable", 1), ("other_provider", 1)] {
        assert_eq!(left[why], count, "{report}");
    }
    let mode = std::fs::metadata(&prices).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let told = kernel.aex(&["prices", "import", file.to_str().unwrap()]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("aex config reload"), "{told}");
    assert!(told.contains("groq/broken: input_cost_per_token"), "{told}");

    let shown = kernel.aex_json(&["prices", "show", "groq/house"]);
    assert_eq!(shown["version"], report["version"]);
    assert_eq!(shown["request_pico"], 1_000_000_000);
    assert_eq!(shown["tiers"][0]["output_pico"], 1_200_000);
    exits(&kernel.aex(&["config", "check"]), 0);

    let good = std::fs::read_to_string(&prices).unwrap();
    std::fs::write(
        &prices,
        good.replace("hidden_output: true", "hidden_output: 9"),
    )
    .unwrap();
    for args in [&["config", "check"][..], &["prices", "list"]] {
        let said = exits(&kernel.aex(args), 1);
        assert!(said.contains("prices.yaml:"), "{said}");
    }
    let said = exits(
        &kernel.aex(&["daemon", "start", "--listen", "127.0.0.1:0"]),
        1,
    );
    assert!(said.contains("prices.yaml:"), "{said}");
}

#[test]
fn an_import_is_in_force_with_a_reload_and_its_version_is_recorded() {
    let sim = sim();
    let kernel = Kernel::builder().models_yaml(models(&sim)).start();
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let house = hello(json!({"model": "house"}));
    let price_source = || -> Value {
        let models = kernel.aex_json(&["models"]);
        let mut models = models["models"].as_array().unwrap().iter();
        models.find(|model| model["name"] == "house").unwrap()["price_source"].clone()
    };
    assert_eq!(
        price_source(),
        "free",
        "on this machine, and not priced yet"
    );

    let file = table(&kernel, TABLE);
    let report = kernel.aex_json(&["prices", "import", file.to_str().unwrap()]);
    assert_eq!(price_source(), "free", "not in force yet");
    exits(&kernel.aex(&["config", "reload"]), 0);
    assert_eq!(price_source(), "catalogue");
    assert_eq!(kernel.chat(&token, &house).status, 200);
    let shipped = hello(json!({"model": "gpt-oss-20b"}));
    assert_eq!(kernel.chat(&token, &shipped).status, 200);
    kernel.settled();

    let detail = |action: &str, model: &str| -> Value {
        let sql = format!(
            "SELECT detail FROM events WHERE action='{action}' AND json_extract(detail, '$.model')='{model}'"
        );
        serde_json::from_str(&kernel.sqlite(&sql)).unwrap()
    };
    let recorded = &report["version"];
    for action in ["hold.open", "usage.commit"] {
        assert_eq!(&detail(action, "house")["price_source"], recorded);
        let other = detail(action, "gpt-oss-20b");
        assert_ne!(&other["price_source"], recorded);
    }
    let price = &detail("hold.open", "house")["price"];
    assert_eq!(price["request_pico"], 1_000_000_000);
    assert_eq!(price["tiers"][0]["above_prompt_tokens"], 100_000);
    // A price without them is written as before there were any.
    let plain = detail("hold.open", "gpt-oss-20b")["price"].clone();
    assert_eq!(plain.as_object().unwrap().len(), 4, "{plain}");
    let usage = &detail("usage.commit", "house")["usage"];
    let tokens = |name: &str| usage[name].as_i64().unwrap();
    let cost = 1_000_000_000 + 150_000 * tokens("prompt") + 600_000 * tokens("output");
    assert_eq!(
        kernel.sqlite_number(
            "SELECT cost_pico FROM events WHERE action='usage.commit' AND json_extract(detail, '$.model')='house'"
        ),
        cost
    );

    // A bad one is refused with its place, and the old stays in force.
    let prices = kernel.places.config_file.with_file_name("prices.yaml");
    let good = std::fs::read_to_string(&prices).unwrap();
    std::fs::write(&prices, good.replace("models:", "colour: red\nmodels:")).unwrap();
    let said = exits(&kernel.aex(&["config", "reload"]), 1);
    assert!(said.contains("prices.yaml: line 4, column 1"), "{said}");
    assert_eq!(kernel.chat(&token, &house).status, 200);
    kernel.settled();
    kernel.audit();
}
