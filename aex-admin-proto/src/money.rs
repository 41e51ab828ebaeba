//! Money as people read it. Pure.

/// Micro-dollars as USD, with all six decimals: `$2.010000`.
#[must_use]
pub fn usd(micro: i64) -> String {
    let sign = if micro < 0 { "-" } else { "" };
    let amount = micro.unsigned_abs();
    format!("{sign}${}.{:06}", amount / 1_000_000, amount % 1_000_000)
}
