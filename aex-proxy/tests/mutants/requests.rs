//! Whatever is accepted is forwarded as the same document, but for the fields that AEX sets.

use aex_admin_proto::worker::Route;
use aex_proxy::request;
use aex_proxy::tokenizer::Tokenizer;
use serde_json::Value;

use super::corpus::entries;
use super::mutate::mutated;
use super::{chance, grant, in_time, mutants, shown, strict};

const CAPS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
const SET: [&str; 5] = [
    "model",
    "stream_options",
    "store",
    "service_tier",
    "include",
];

/// What a client's document and the forwarded one have in common. A null is the same as nothing.
fn common(mut document: Value) -> Value {
    let fields = document.as_object_mut().unwrap();
    fields.retain(|name, value| {
        !value.is_null() && !CAPS.contains(&name.as_str()) && !SET.contains(&name.as_str())
    });
    document
}

/// Whether it was accepted.
fn judge(route: Route, body: &[u8]) -> bool {
    let Ok(read) = in_time(body, || request::read(route, body)) else {
        return false;
    };
    let grant = grant(route);
    let forwarded = read.forwarded(body, &grant);
    let told = || format!("{}\nforwarded as {}", shown(body), shown(&forwarded));
    let mut asked = strict::read(body).unwrap_or_else(|| panic!("ambiguous: {}", told()));
    if let Some(input) = asked.get_mut("input").and_then(Value::as_array_mut) {
        for &place in read.left_out.iter().rev() {
            input.remove(place);
        }
    }
    let document = strict::read(&forwarded).unwrap_or_else(|| panic!("ambiguous: {}", told()));
    let caps: Vec<&str> = CAPS
        .into_iter()
        .filter(|cap| document.get(cap).is_some())
        .collect();
    // Another route's cap is asked about, and nowhere taken.
    let asked_about = |cap: &&str| read.facts.costly_params.iter().any(|param| param == cap);
    if CAPS.iter().any(asked_about) {
        return true;
    }
    if route.generates() {
        assert_eq!(caps, [grant.output_cap_param.as_str()], "{}", told());
        assert_eq!(document[caps[0]], 777, "{}", told());
    } else {
        assert!(caps.is_empty(), "{}", told());
    }
    assert_eq!(document["model"], "vendor/model", "{}", told());
    if grant.force_store_off {
        assert_eq!(document["store"], false, "{}", told());
        assert_eq!(document["service_tier"], "default", "{}", told());
    }
    assert_eq!(asked["model"], read.model, "{}", told());
    if route.generates() {
        assert_eq!(asked["stream"] == true, read.stream, "{}", told());
    }
    assert_eq!(common(asked), common(document), "{}", told());
    true
}

#[test]
fn the_kept_requests_are_accepted() {
    for entry in entries("requests") {
        assert!(judge(entry.route, &entry.bytes), "{}", entry.name);
    }
}

#[test]
fn what_is_accepted_is_forwarded_as_the_same_document() {
    let (mut chance, entries) = (chance(), entries("requests"));
    let tokenizer = Tokenizer::named("o200k_base").unwrap();
    let mut accepted = 0;
    for nth in 0..mutants() {
        let entry = &entries[nth % entries.len()];
        let other = &entries[chance.below(entries.len())].bytes;
        let body = mutated(&mut chance, &entry.bytes, other);
        // Most go to their own route.
        let route = match chance.below(8) {
            0 => Route::ALL[chance.below(4)],
            _ => entry.route,
        };
        let good = judge(route, &body);
        accepted += usize::from(good);
        if nth % 8 == 0 {
            let measured = in_time(&body, || request::measure(route, &body, tokenizer));
            assert_eq!(measured.is_some(), good, "{}", shown(&body));
        }
    }
    assert!(
        accepted > mutants() / 50,
        "{accepted} accepted prove little"
    );
}
