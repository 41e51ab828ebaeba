//! Tests of the configuration: the shipped files, bad files, prices, addresses.

mod bad_files;
mod good_files;
mod hostile;
mod overlay;
mod prices;
mod targets;

use super::*;

/// A file with one provider of no known facts, and `rest` below it.
fn with_provider(rest: &str) -> String {
    format!("providers:\n  far:\n    base_url: https://far.example/v1\n{rest}")
}

#[track_caller]
fn good(text: &str) -> (Config, Vec<String>) {
    match parse(text, Catalogue::builtin()) {
        Ok(good) => good,
        Err(error) => panic!("refused: {error}\n{text}"),
    }
}

#[track_caller]
fn bad(text: &str) -> ConfigError {
    match parse(text, Catalogue::builtin()) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error,
    }
}
