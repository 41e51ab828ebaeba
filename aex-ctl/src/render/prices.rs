//! What is known of prices, and what an import came to.

use aex_admin_proto::prices::{ImportReport, PriceList, PriceView, RatesView};

use super::per_million;
use super::table::{facts, table};

pub(crate) fn prices(list: &PriceList) -> String {
    let rows: Vec<Vec<String>> = list.models.iter().map(row).collect();
    let versions = match (&list.own_version, &list.own_file) {
        (Some(version), Some(file)) => {
            format!(
                "{version} of {file}, over {} as shipped",
                list.shipped_version
            )
        }
        _ => format!("{} as shipped", list.shipped_version),
    };
    format!(
        "{}\nPrices in USD per million tokens. Prices: {versions}.\n",
        table(
            &[
                "PROVIDER", "MODEL", ">INPUT", ">CACHED", ">OUTPUT", "MORE", "VERSION",
            ],
            &rows,
        )
    )
}

fn row(model: &PriceView) -> Vec<String> {
    let mut more: Vec<String> = model
        .tiers
        .iter()
        .map(|tier| format!("dearer above {}", tier.above_prompt_tokens))
        .collect();
    if model.request_pico > 0 {
        more.push(format!("{} a request", dollars(model.request_pico)));
    }
    if model.embeds_only {
        more.push("embeddings".into());
    }
    vec![
        model.provider.clone(),
        model.model.clone(),
        per_million(model.rates.input_pico),
        per_million(model.rates.cached_input_pico),
        model
            .rates
            .output_pico
            .map_or_else(|| "-".into(), per_million),
        more.join(", "),
        model.version.clone(),
    ]
}

pub(crate) fn price(model: &PriceView) -> String {
    let mut lines = vec![
        ("model", format!("{}/{}", model.provider, model.model)),
        ("price", rates(&model.rates)),
    ];
    if model.free {
        lines.push(("", "free: its requests count against no budget".into()));
    }
    for tier in &model.tiers {
        let prompt = tier.above_prompt_tokens;
        lines.push((
            "tier",
            format!(
                "the whole request, with a prompt above {prompt} tokens: {}",
                rates(&tier.rates)
            ),
        ));
    }
    if model.request_pico > 0 {
        lines.push(("fee", format!("{} a request", dollars(model.request_pico))));
    }
    let tokens = |tokens: Option<u64>| {
        tokens.map_or_else(|| "not known".into(), |tokens| format!("{tokens} tokens"))
    };
    if model.embeds_only {
        lines.push(("output", "none: it makes embeddings".into()));
    } else {
        lines.push((
            "output",
            format!("at most {}", tokens(model.max_output_tokens)),
        ));
    }
    lines.push(("window", tokens(model.context_window)));
    let hidden = if model.hidden_output {
        "yes: without a usage its answer is charged at the upper bound"
    } else {
        "no"
    };
    lines.push(("hidden output", hidden.into()));
    lines.push((
        "added to a prompt",
        format!(
            "{} tokens, {} a message, tools {} times their own",
            model.template_tokens, model.message_tokens, model.tool_factor
        ),
    ));
    let images = model.image_tokens.map_or_else(
        || "not known, so images are refused".into(),
        |tokens| format!("at most {tokens} tokens each"),
    );
    lines.push(("images", images));
    if let Some(tokenizer) = &model.tokenizer {
        lines.push(("tokenizer", tokenizer.clone()));
    }
    for (title, names) in [("also", &model.snapshots), ("aliases", &model.aliases)] {
        if !names.is_empty() {
            lines.push((title, names.join(", ")));
        }
    }
    lines.push(("source", format!("{} ({})", model.source, model.date)));
    lines.push(("version", model.version.clone()));
    facts(&lines)
}

/// USD per million tokens, in one line.
fn rates(rates: &RatesView) -> String {
    let mut text = format!("{} in", per_million(rates.input_pico));
    for (pico, what) in [
        (rates.cached_input_pico, "cached"),
        (rates.cache_write_pico, "cache write"),
    ] {
        if pico != rates.input_pico {
            text.push_str(&format!(", {} {what}", per_million(pico)));
        }
    }
    if let Some(output) = rates.output_pico {
        text.push_str(&format!(", {} out", per_million(output)));
    }
    text.push_str(" a million tokens");
    text
}

/// Picodollars as USD, exact.
fn dollars(pico: u64) -> String {
    let text = format!(
        "{}.{:012}",
        pico / 1_000_000_000_000,
        pico % 1_000_000_000_000
    );
    format!("${}", text.trim_end_matches('0').trim_end_matches('.'))
}

pub(crate) fn import(report: &ImportReport) -> String {
    let left = &report.left_out;
    let mut text = format!(
        "{} prices of {} are in {} as {}; {} entries were left out:\n",
        report.taken,
        report.from,
        report.file,
        report.version,
        left.total()
    );
    for (count, why) in [
        (left.other_provider, "of another provider"),
        (
            left.other_mode,
            "neither chat, completions, responses nor embeddings",
        ),
        (left.no_price, "without a price"),
        (left.more_than_tokens, "billed by more than tokens"),
        (left.repeated, "repeat another entry"),
        (left.unreadable, "cannot be read"),
    ] {
        if count > 0 {
            text.push_str(&format!("  {count:>6}  {why}\n"));
        }
    }
    for line in &report.unreadable {
        text.push_str(&format!("          {line}\n"));
    }
    if let Some(kept) = &report.kept {
        text.push_str(&format!("Your own prices were kept as {kept}.\n"));
    }
    text.push_str("Put them in force with `aex config reload`.\n");
    text
}

#[cfg(test)]
mod tests {
    use aex_admin_proto::prices::{LeftOut, TierView};

    use super::*;

    fn view() -> PriceView {
        let rates = |input_pico| RatesView {
            input_pico,
            cached_input_pico: input_pico,
            cache_write_pico: input_pico + 250_000,
            output_pico: Some(10_000_000),
        };
        PriceView {
            provider: "p".into(),
            model: "m".into(),
            snapshots: vec!["m-1".into()],
            aliases: Vec::new(),
            rates: rates(1_000_000),
            tiers: vec![TierView {
                above_prompt_tokens: 200_000,
                rates: rates(2_000_000),
            }],
            request_pico: 5_000_000_000,
            embeds_only: false,
            max_output_tokens: Some(100),
            context_window: None,
            hidden_output: true,
            tokenizer: None,
            image_tokens: None,
            template_tokens: 48,
            message_tokens: 8,
            tool_factor: 4,
            source: "s".into(),
            date: "2026-01-31".into(),
            version: "v".into(),
            free: false,
        }
    }

    #[test]
    fn a_price_says_all_that_it_charges() {
        let text = price(&view());
        for part in [
            "p/m\n",
            "$1.00 in, $1.25 cache write, $10.00 out a million tokens",
            "prompt above 200000 tokens: $2.00 in",
            "$0.005 a request",
            "at most 100 tokens",
            "not known\n",
            "images are refused",
            "m-1",
            "s (2026-01-31)",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let list = prices(&PriceList {
            shipped_version: "v".into(),
            models: vec![view()],
            ..PriceList::default()
        });
        assert!(
            list.contains("dearer above 200000, $0.005 a request"),
            "{list}"
        );
        assert!(list.contains("v as shipped"), "{list}");
    }

    #[test]
    fn fees_are_exact() {
        for (pico, text) in [
            (1, "$0.000000000001"),
            (5_000_000_000, "$0.005"),
            (1_000_000_000_000, "$1"),
        ] {
            assert_eq!(dollars(pico), text);
        }
    }

    #[test]
    fn an_import_tells_what_it_left_out_and_what_to_do() {
        let text = import(&ImportReport {
            taken: 3,
            left_out: LeftOut {
                no_price: 2,
                unreadable: 1,
                ..LeftOut::default()
            },
            unreadable: vec!["x: why".into()],
            kept: Some("/old".into()),
            ..ImportReport::default()
        });
        for part in [
            "3 prices",
            "3 entries were left out",
            "2  without a price",
            "x: why",
            "/old",
            "aex config reload",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("repeat"), "{text}");
    }
}
