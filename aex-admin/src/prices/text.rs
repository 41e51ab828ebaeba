//! Entries of a catalogue as the text of a prices.yaml.

use std::fmt::{self, Write};

use crate::config::{CatalogueModel, OutputCapParam};

/// The head of a file; `entry` goes below it, once for each model.
pub(super) fn head(version: &str, comment: &str) -> String {
    format!("# {comment}\n\nversion: {}\nmodels:\n", quoted(version))
}

pub(super) fn entry(model: &CatalogueModel) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_entry(&mut text, model);
    text
}

fn write_entry(out: &mut String, model: &CatalogueModel) -> fmt::Result {
    writeln!(out, "  - provider: {}", quoted(&model.provider))?;
    writeln!(out, "    model: {}", quoted(&model.upstream_model))?;
    let price = &model.price;
    let output = |pico| (!model.embeds_only).then_some(pico);
    let rates = [
        price.input_pico,
        price.cached_input_pico,
        price.cache_write_pico,
    ];
    writeln!(out, "    price:")?;
    write_rates(out, "      ", rates, output(price.output_pico))?;
    if price.request_pico > 0 {
        let usd = decimal(price.request_pico, 12);
        writeln!(out, "      per_request: {usd}")?;
    }
    if !price.tiers.is_empty() {
        writeln!(out, "      tiers:")?;
    }
    for tier in &price.tiers {
        writeln!(
            out,
            "        - above_prompt_tokens: {}",
            tier.above_prompt_tokens
        )?;
        let rates = [
            tier.input_pico,
            tier.cached_input_pico,
            tier.cache_write_pico,
        ];
        write_rates(out, "          ", rates, output(tier.output_pico))?;
    }
    let numbers = [
        ("max_output_tokens", model.max_output_tokens),
        ("context_window", model.context_window),
        ("image_tokens", model.image_tokens),
        ("template_tokens", model.template_tokens),
        ("message_tokens", model.message_tokens),
        ("tool_factor", model.tool_factor),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            writeln!(out, "    {key}: {number}")?;
        }
    }
    writeln!(out, "    hidden_output: {}", model.hidden_output)?;
    let texts = [
        ("tokenizer", model.tokenizer.as_deref()),
        (
            "output_cap_param",
            model.output_cap_param.map(OutputCapParam::as_str),
        ),
        ("source", Some(model.source.as_str())),
        ("date", Some(model.date.as_str())),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            writeln!(out, "    {key}: {}", quoted(text))?;
        }
    }
    Ok(())
}

/// Plain, cached and written input; what is as dear as plain input is left out.
fn write_rates(
    out: &mut String,
    indent: &str,
    [input, cached, cache_write]: [u64; 3],
    output: Option<u64>,
) -> fmt::Result {
    let not_plain = |pico: u64| (pico != input).then_some(pico);
    let lines = [
        ("input_per_mtok", Some(input)),
        ("cached_input_per_mtok", not_plain(cached)),
        ("cache_write_per_mtok", not_plain(cache_write)),
        ("output_per_mtok", output),
    ];
    for (key, pico) in lines {
        if let Some(pico) = pico {
            writeln!(out, "{indent}{key}: {}", decimal(pico, 6))?;
        }
    }
    Ok(())
}

/// A whole number with its last `places` digits behind a point, without needless zeros.
fn decimal(number: u64, places: usize) -> String {
    let digits = format!("{number:0>width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// In double quotes, with JSON's escapes, which are YAML's too: no name can end its own line.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
