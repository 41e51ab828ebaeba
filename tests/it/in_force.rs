//! Which configuration was in force when: the ledger has each one, by the digests of its files.

use std::fs;
use std::process::Command;

use aex_tests::harness::Kernel;
use serde_json::Value;

use crate::common::sim;

/// Events about configurations, oldest first: the action, and the detail.
fn told(kernel: &Kernel) -> Vec<(String, Value)> {
    let export = kernel.aex(&["ledger", "export", "--format", "jsonl"]);
    let text = String::from_utf8(export.stdout).unwrap();
    (text.lines())
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|event| {
            let action = event["action"].as_str()?.to_owned();
            let detail = event["detail"].clone();
            action.starts_with("config.").then_some((action, detail))
        })
        .collect()
}

/// As an auditor would find it, with the tools of any host.
fn shell(directory: &std::path::Path, line: &str) -> String {
    let done = Command::new("sh")
        .args(["-c", line])
        .current_dir(directory)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn the_ledger_has_each_configuration_that_came_into_force() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let beside = kernel.places.config_file.parent().unwrap().to_owned();
    let events = told(&kernel);
    let [(action, detail)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(action, "config.load");
    assert_eq!(detail["generation"], 1);
    assert_eq!(detail["version"], env!("CARGO_PKG_VERSION"));
    let files = &detail["files"];
    assert_eq!(
        files["models.yaml"],
        shell(&beside, "sha256sum models.yaml").as_str()
    );
    assert_eq!(files.as_object().unwrap().len(), 1, "{files}");

    // The same again is nothing new.
    kernel.aex_json(&["config", "reload"]);
    assert_eq!(told(&kernel).len(), 1);

    let models = fs::read_to_string(&kernel.places.config_file).unwrap();
    kernel.write_config(&format!("{models}\n# words-of-the-file\n"));
    let policies = beside.join("policies");
    fs::create_dir_all(&policies).unwrap();
    for name in ["b", "a", "A-1"] {
        let text =
            format!("@id(\"{name}\")\nforbid(principal == Agent::\"nobody\", action, resource);\n");
        fs::write(policies.join(format!("{name}.cedar")), text).unwrap();
    }
    kernel.aex_json(&["config", "reload"]);
    let events = told(&kernel);
    let (action, detail) = events.last().unwrap();
    assert_eq!((events.len(), action.as_str()), (2, "config.reload"));
    assert_eq!(detail["generation"], kernel.status().config_generation);
    assert_eq!(
        detail["files"]["models.yaml"],
        shell(&beside, "sha256sum models.yaml").as_str()
    );
    assert_eq!(
        detail["files"]["policies"],
        shell(&policies, "sha256sum *.cedar | sha256sum").as_str()
    );
    assert!(!detail.to_string().contains("words-of-the-file"));

    // What does not come into force is not told as if it had.
    kernel.write_config("models: 7\n");
    assert!(!kernel.aex(&["config", "reload"]).status.success());
    assert_eq!(told(&kernel), events);

    // A start with other files is told too.
    kernel.write_config(&format!("{models}\n# once more\n"));
    kernel.stop();
    kernel.start_again();
    let events = told(&kernel);
    let (action, detail) = events.last().unwrap();
    assert_eq!((events.len(), action.as_str()), (3, "config.load"));
    assert_eq!(
        detail["files"]["models.yaml"],
        shell(&beside, "sha256sum models.yaml").as_str()
    );
    kernel.audit();
}
