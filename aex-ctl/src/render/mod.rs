//! Answers as text for people. Pure: values in, text out.

mod agent;
mod capabilities;
mod explain;
mod figures;
mod findings;
mod ledger;
mod policies;
mod prices;
mod rehearsal;
mod table;

pub(crate) use agent::{agent, agents, new_token, scope, tokens, tree};
pub(crate) use explain::explained;
pub(crate) use figures::{metrics, models, programs, status};
pub(crate) use findings::findings;
pub(crate) use ledger::{CSV_HEAD, audit, csv, event, replay, restore};

pub(crate) use policies::policies;
pub(crate) use prices::{import, price, prices};
pub(crate) use rehearsal::rehearsal;

use aex_admin_proto::explain::LookScope;
pub(crate) use aex_admin_proto::money::usd as money;
use aex_admin_proto::scope::ScopeKind;
use jiff::Timestamp;

/// `1 policy`, `2 policies`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Picodollars a token as USD per million tokens, exact, with at least two decimals.
fn per_million(pico: u64) -> String {
    let text = format!("{}.{:06}", pico / 1_000_000, pico % 1_000_000);
    let shortest = text.find('.').unwrap_or(text.len()) + 3;
    let end = text.trim_end_matches('0').len().max(shortest);
    format!("${}", &text[..end.min(text.len())])
}

/// Unix milliseconds as RFC 3339, in UTC.
fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms)
        .map_or_else(|_| format!("{at_ms} ms"), |at| format!("{at:.3}"))
}

/// A span in its two largest units: `3d 4h`.
fn span(span_ms: u64) -> String {
    let seconds = span_ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m {}s", seconds % 60),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

/// A name or reason within a line. The request's own texts are an agent's: none may begin a line that
/// looks like one of these, or shift a column. What could drive a terminal is taken out of all output.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), "\u{fffd}")
}

/// A scope as people name it: there is one kernel.
fn named(scope: &LookScope) -> String {
    match scope.kind {
        ScopeKind::Kernel => scope.kind.name().to_owned(),
        kind => format!("{} {}", kind.name(), one_line(&scope.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_six_decimals() {
        for (micro, text) in [
            (0, "$0.000000"),
            (12_345, "$0.012345"),
            (-1, "-$0.000001"),
            (2_010_000, "$2.010000"),
            (i64::MIN, "-$9223372036854.775808"),
        ] {
            assert_eq!(money(micro), text);
        }
    }

    #[test]
    fn prices_are_exact() {
        for (pico, text) in [
            (0, "$0.00"),
            (75_000, "$0.075"),
            (37_500, "$0.0375"),
            (300_000, "$0.30"),
            (15_000_000, "$15.00"),
            (1, "$0.000001"),
        ] {
            assert_eq!(per_million(pico), text);
        }
    }

    #[test]
    fn times_and_spans_are_readable() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(i64::MAX), format!("{} ms", i64::MAX));
        for (ms, text) in [
            (900, "0s"),
            (61_000, "1m 1s"),
            (3_660_000, "1h 1m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(span(ms), text);
        }
    }
}
