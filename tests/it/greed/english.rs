//! The hold of plain English, where its tokens are counted.

use aex_tests::harness::Kernel;
use aex_tests::sim::{Behaviour, Tokenizer};
use serde_json::json;

use crate::common::sim;
use crate::disk::Chance;

const INPUT_PICO: u64 = 1_000_000;
const OUTPUT_PICO: u64 = 4_000_000;
const CAP: u64 = 100;
/// What the bound adds to the count of one message.
const TEMPLATE_TOKENS: u64 = 48 + 8;
const WORDS: &str = "the quick report was written by several engineers who wanted to understand why \
    a request could become more expensive than anybody had expected when it was sent and what should \
    be done about that before another month of billing begins because nobody enjoys an invoice which \
    cannot be explained to people outside their own department however carefully it is presented";

fn english(words: usize, chance: &mut Chance) -> String {
    let known: Vec<&str> = WORDS.split_whitespace().collect();
    let mut text = String::new();
    for nth in 1..=words {
        text.push_str(known[chance.below(known.len())]);
        text.push_str(if nth % 12 == 0 { ". " } else { " " });
    }
    text
}

/// So much money as the count needs, and not the bytes.
fn budget(tokens: u64) -> String {
    let pico = (tokens + TEMPLATE_TOKENS) * INPUT_PICO + CAP * OUTPUT_PICO;
    let micro = pico.div_ceil(1_000_000) + 1;
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

#[test]
fn the_hold_of_english_is_close_to_its_bill() {
    let sim = sim();
    let kernel = Kernel::builder()
        .models_yaml(format!(
            "providers:
  sim: {{ base_url: http://{}/v1 }}
models:
  exact: {{ provider: sim, price: {{ input_per_mtok: 1, output_per_mtok: 4 }},
    tokenizer: o200k_base }}
",
            sim.addr
        ))
        .env("SIM_API_KEY", Kernel::SIM_KEY)
        .start();
    sim.behave(Behaviour {
        tokenizer: Some(Tokenizer::O200kBase),
        fill: true,
        ..Behaviour::default()
    });
    let mut chance = super::chance();
    for words in [50, 200, 1_000, 5_000, 20_000] {
        let text = english(words, &mut chance);
        let tokens = bpe_openai::o200k_base().count(&text) as u64;
        let name = format!("writer-{words}");
        let token = kernel.create_agent(&name, &budget(tokens), 100, &[]);
        let body = json!({"model": "exact", "max_tokens": CAP,
            "messages": [{"role": "user", "content": text}]});
        sim.reset();
        let answer = kernel.chat(&token, &body);
        assert_eq!(answer.status, 200, "{words} words: {}", answer.text());
        kernel.settled();
        let billed = sim
            .bill()
            .total()
            .cost_pico(INPUT_PICO, INPUT_PICO, OUTPUT_PICO);
        let held = kernel.sqlite_number(&format!(
            "SELECT held_pico FROM events WHERE action = 'hold.open' AND agent = '{name}'"
        ));
        let held = u128::try_from(held).unwrap();
        let by_bytes = text.len() as u128 * u128::from(INPUT_PICO);
        assert!(
            held < by_bytes + u128::from(CAP * OUTPUT_PICO),
            "not counted"
        );
        let case = format!("{words} words: held {held}, billed {billed}");
        assert!(billed <= held && 2 * held <= 3 * billed, "{case}");
    }
    kernel.audit();
}
