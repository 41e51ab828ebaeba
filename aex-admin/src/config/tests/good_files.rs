//! What is accepted, and what it comes to.

use aex_admin_proto::egress::KeyPolicy;
use aex_admin_proto::worker::OnDisconnect;

use super::*;
use crate::core::price::Price;

const SHIPPED: &str = include_str!("../../../../config/models.yaml");

/// As printed in the README of the original.
const SEED: &str = "\
providers:
  groq:
    base_url: https://api.groq.com/openai/v1
  openai:
    base_url: https://api.openai.com/v1
  ollama:
    base_url: http://localhost:11434/v1

models:
  gpt-oss-20b:
    provider: groq
  gpt-4:
    provider: openai
  llama-local:
    provider: ollama
";

const GPT_OSS_20B: Price = Price {
    input_pico: 75_000,
    cached_input_pico: 37_500,
    cache_write_pico: 75_000,
    output_pico: 300_000,
    tiers: Vec::new(),
    request_pico: 0,
};

#[test]
fn the_seeds_file_loads_as_printed() {
    let (config, warnings) = good(SEED);
    assert_eq!(warnings, Vec::<String>::new());

    let oss = &config.models["gpt-oss-20b"];
    assert_eq!(oss.provider, "groq");
    assert_eq!(oss.upstream_model, "openai/gpt-oss-20b");
    assert_eq!(
        oss.pricing,
        Pricing::Priced {
            price: GPT_OSS_20B,
            source: PriceSource::Catalogue {
                version: Catalogue::builtin().version().to_owned()
            }
        }
    );
    assert_eq!(oss.max_output_tokens, Some(65_536));
    assert_eq!(oss.output_cap_param.as_str(), "max_tokens");

    assert_eq!((oss.template_tokens, oss.message_tokens), (160, 8));
    assert_eq!((oss.tool_factor, oss.image_tokens), (4, None));

    let gpt4 = &config.models["gpt-4"];
    assert_eq!(gpt4.upstream_model, "gpt-4");
    assert_eq!(gpt4.pricing.price().unwrap().output_pico, 60_000_000);
    assert_eq!(gpt4.output_cap_param.as_str(), "max_completion_tokens");
    assert!(!gpt4.hidden_output);

    let local = &config.models["llama-local"];
    assert_eq!(local.upstream_model, "llama-local");
    assert_eq!(local.pricing, Pricing::Free);
    assert!(config.providers["ollama"].loopback);
    assert_eq!((local.template_tokens, local.message_tokens), (48, 8));
    assert_eq!((local.tool_factor, local.image_tokens), (4, None));

    assert_eq!(config.hold_wait_ms, 2_000);
    assert_eq!(config.drain_timeout_ms, 30_000);
    assert_eq!(config.on_disconnect, OnDisconnect::Drain);
    assert_eq!(config.default_output_tokens, 4096);
    assert_eq!(config.min_output_tokens, 16);
    assert_eq!(config.max_body_bytes, 10_485_760);
    assert_eq!(config.lock_wait_ms, 5_000);
    assert_eq!(config.limits, DefaultLimits::default());
}

#[test]
fn the_seeds_limits_go_below_it() {
    let (config, _) = good(&format!("{SEED}\nlimits:\n  max_tokens_per_minute: 1000\n"));
    assert_eq!(config.limits.max_tokens_per_minute, Some(1000));
}

#[test]
fn the_shipped_file_is_the_seeds() {
    let (shipped, warnings) = good(SHIPPED);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(shipped, good(SEED).0);
}

/// What the shipped file offers in comments must work once the `#` is gone, and its kernel section
/// must print the true defaults.
#[test]
fn the_shipped_files_comments_are_valid_too() {
    let uncommented: String = SHIPPED
        .lines()
        .map(|line| {
            let body = line.trim_start().strip_prefix("# ").unwrap_or_default();
            let item = body.trim_start().trim_start_matches("- ");
            let key = item.split(':').next().unwrap_or_default();
            let is_key = body.contains(':')
                && !key.is_empty()
                && key
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b"_-".contains(&b));
            if is_key && key != "models" {
                format!("{}\n", line.replacen("# ", "", 1))
            } else {
                format!("{line}\n")
            }
        })
        .filter(|line| !line.starts_with("models.yaml:"))
        .collect();
    let (config, _) = good(&uncommented);
    let (defaults, _) = good(SEED);

    let example = &config.providers["example"];
    assert_eq!(example.keys, KeyPolicy::Either);
    assert_eq!(example.extra_params, ["top_k"]);
    assert_eq!(
        example.connect_timeout_ms,
        defaults.providers["groq"].connect_timeout_ms
    );
    assert_eq!(
        example.request_timeout_ms,
        defaults.providers["groq"].request_timeout_ms
    );
    assert_eq!(
        config.models["my-model"].upstream_model,
        "vendor/my-model-v2"
    );
    let mine = &config.models["my-model"];
    let price = mine.pricing.price().unwrap();
    assert_eq!(price.request_pico, 5_000_000_000);
    assert_eq!(price.tiers[0].above_prompt_tokens, 200_000);
    let unknown = &defaults.models["llama-local"];
    assert_eq!(mine.template_tokens, unknown.template_tokens);
    assert_eq!(mine.message_tokens, unknown.message_tokens);
    assert_eq!(mine.tool_factor, unknown.tool_factor);
    assert!(mine.image_tokens.is_some() && !mine.embeds_only);
    assert_eq!(config.models["llama-local"].upstream_model, "llama3.2");
    assert_eq!(config.limits.max_concurrency, Some(8));
    assert_eq!(
        Config {
            providers: defaults.providers.clone(),
            models: defaults.models.clone(),
            limits: DefaultLimits::default(),
            ..config
        },
        defaults
    );
}

#[test]
fn every_key_of_the_format_is_taken() {
    let (config, warnings) = good(
        "
providers:
  groq:
    base_url: https://API.groq.com:8443/openai/v1/
    keys: passthrough
    ca_file: /etc/ca.pem
    connect_timeout: 500ms
    request_timeout: 2m
    extra_params: [top_k, min_p]
    stream_usage: false
models:
  gpt-oss-20b:
    provider: groq
    upstream_model: openai/gpt-oss-20b
    price: { input_per_mtok: 0.075, cached_input_per_mtok: 0.0375, output_per_mtok: 0.30 }
    max_output_tokens: 1000
    context_window: 2000
    hidden_output: false
    tokenizer: cl100k_base
    image_tokens: 1445
    template_tokens: 70
    message_tokens: 5
    tool_factor: 6
    limits: { max_tokens_per_minute: 5, max_requests_per_minute: 6 }
limits:
  max_tokens_per_minute: 1
  max_input_tokens: 3
  max_output_tokens: 4
  max_concurrency: 5
hold_wait: 0s
drain_timeout: 1h
on_disconnect: abort
default_output_tokens: 100
min_output_tokens: 1
max_body_bytes: 67108864
lock_wait: 1s
",
    );
    assert_eq!(warnings, Vec::<String>::new());
    let groq = &config.providers["groq"];
    assert_eq!(groq.base_url, "https://api.groq.com:8443/openai/v1");
    assert_eq!(groq.keys, KeyPolicy::Passthrough);
    assert_eq!(groq.ca_file.as_deref(), Some("/etc/ca.pem"));
    assert_eq!(
        (groq.connect_timeout_ms, groq.request_timeout_ms),
        (500, 120_000)
    );
    assert_eq!(groq.extra_params, ["top_k", "min_p"]);
    assert!(!groq.facts.stream_usage);
    assert_eq!(groq.facts.service_tier.as_deref(), Some("on_demand"));
    assert_eq!(groq.key_variable(), "GROQ_API_KEY");
    assert_eq!(groq.for_egress().base_url, groq.base_url);

    let model = &config.models["gpt-oss-20b"];
    assert_eq!(
        model.pricing,
        Pricing::Priced {
            price: GPT_OSS_20B,
            source: PriceSource::ModelsYaml
        }
    );
    assert_eq!(model.max_output_tokens, Some(1000));
    assert_eq!(model.context_window, Some(2000));
    assert!(!model.hidden_output);
    assert_eq!(model.tokenizer.as_deref(), Some("cl100k_base"));
    assert_eq!(model.image_tokens, Some(1445));
    assert_eq!((model.template_tokens, model.message_tokens), (70, 5));
    assert_eq!(model.tool_factor, 6);
    assert_eq!(model.limits.max_tokens_per_minute, Some(5));
    assert_eq!(model.limits.max_requests_per_minute, Some(6));

    assert_eq!(config.limits.max_input_tokens, Some(3));
    assert_eq!(config.limits.max_output_tokens, Some(4));
    assert_eq!(
        (config.hold_wait_ms, config.drain_timeout_ms),
        (0, 3_600_000)
    );
    assert_eq!(config.on_disconnect, OnDisconnect::Abort);
    assert_eq!(
        (config.default_output_tokens, config.min_output_tokens),
        (100, 1)
    );
    assert_eq!(
        (config.max_body_bytes, config.lock_wait_ms),
        (67_108_864, 1_000)
    );
}

#[test]
fn empty_sections_are_as_if_left_out() {
    let (config, warnings) = good("providers:\nmodels:\nlimits:\n");
    assert_eq!(config, good("").0);
    assert_eq!(warnings, ["no models: agents have nothing to call"]);
    assert_eq!(good(&with_provider("hold_wait:\n")).0.hold_wait_ms, 2_000);
}

#[test]
fn facts_follow_the_host_then_the_name() {
    let (config, _) = good(
        "
providers:
  mine: { base_url: https://api.openai.com/v1 }
  openai: { base_url: 'http://127.0.0.1:8000/v1' }
  other: { base_url: https://llm.example/v1 }
  mistral: { base_url: https://api.mistral.ai/v1 }
  mistral-2: { base_url: https://api.mistral.ai/v1, stream_usage: true }
  vllm: { base_url: 'http://127.0.0.1:8001/v1', counts_choices: true }
models:
  gpt-4o: { provider: mine }
  local: { provider: openai, upstream_model: gpt-4o-2024-11-20 }
  gpt-4: { provider: other, price: free }
",
    );
    let facts = |name: &str| &config.providers[name].facts;
    for name in ["mine", "openai"] {
        assert_eq!(
            facts(name).service_tier.as_deref(),
            Some("default"),
            "{name}"
        );
        assert!(facts(name).knows_store, "{name}");
    }
    assert_eq!(*facts("other"), ProviderFacts::default());
    assert!(!facts("mistral").stream_usage);
    assert!(facts("mistral-2").stream_usage);
    let counts = ["mine", "openai", "other", "vllm"].map(|name| facts(name).counts_choices);
    assert_eq!(counts, [true, false, false, true]);

    let model = |name: &str| &config.models[name];
    assert_eq!(model("gpt-4o").pricing.source_name(), "catalogue");
    // Named as a priced provider, a loopback address is priced as that: it may be a gateway to it.
    assert_eq!(model("local").pricing.source_name(), "catalogue");
    assert_eq!(model("local").upstream_model, "gpt-4o-2024-11-20");
    // Another's model of the same name is not this one.
    assert_eq!(model("gpt-4").pricing, Pricing::Free);
    assert_eq!(model("gpt-4").max_output_tokens, None);
    assert!(model("gpt-4").hidden_output);
}

#[test]
fn an_alias_never_prices_another_upstream_model() {
    let (config, warnings) = good(
        "
providers: { groq: { base_url: https://api.groq.com/openai/v1 } }
models: { gpt-oss-20b: { provider: groq, upstream_model: secret/huge } }
",
    );
    let model = &config.models["gpt-oss-20b"];
    assert_eq!(model.upstream_model, "secret/huge");
    assert_eq!(model.pricing, Pricing::Unpriced);
    assert_eq!(model.pricing.price(), None);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("model gpt-oss-20b: no price is known for secret/huge of groq"));
}

#[test]
fn what_is_free_far_away_is_warned_of() {
    let (config, warnings) = good(&with_provider(
        "models:\n  m: { provider: far, price: free }\n",
    ));
    assert!(config.models["m"].pricing.is_free());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    // A price of nothing is no price.
    let zero = "{ input_per_mtok: 0, output_per_mtok: 0.00 }";
    let text = with_provider(&format!(
        "models:\n  m: {{ provider: far, price: {zero} }}\n"
    ));
    assert!(good(&text).0.models["m"].pricing.is_free());
}

#[test]
fn aliases_and_merge_keys_work() {
    let (config, _) = good(
        "
providers:
  a: &common { base_url: https://a.example/v1, request_timeout: 7s }
  b: { <<: *common, base_url: https://b.example/v1 }
",
    );
    assert_eq!(config.providers["b"].base_url, "https://b.example/v1");
    assert_eq!(config.providers["b"].request_timeout_ms, 7_000);
}

#[test]
fn addresses_that_are_taken() {
    for (written, kept, loopback) in [
        ("https://a.example", "https://a.example", false),
        ("HTTPS://A.Example/V1///", "https://a.example/V1", false),
        (
            "https://a.example:8443/v1",
            "https://a.example:8443/v1",
            false,
        ),
        ("http://localhost:1/v1", "http://localhost:1/v1", true),
        ("http://LOCALHOST", "http://localhost", true),
        ("http://127.9.9.9/v1/", "http://127.9.9.9/v1", true),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1", true),
        (
            "https://[2001:db8::1]/v1",
            "https://[2001:db8::1]/v1",
            false,
        ),
        ("https://10.0.0.1", "https://10.0.0.1", false),
        (
            "https://my_host.internal/a-b/~c",
            "https://my_host.internal/a-b/~c",
            false,
        ),
    ] {
        let (config, _) = good(&format!(
            "providers: {{ p: {{ base_url: '{written}' }} }}\n"
        ));
        let provider = &config.providers["p"];
        assert_eq!(
            (provider.base_url.as_str(), provider.loopback),
            (kept, loopback),
            "{written}"
        );
    }
}
