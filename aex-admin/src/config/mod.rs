//! models.yaml and the price catalogue: text in, a checked [`Config`] out.
//!
//! Owns: the format of both files, every bound on what an operator may write there, and which price a
//! model gets. [`parse`] is pure; only [`load`] and [`load_catalogue`] open files.
//!
//! Absent on purpose: provider keys (they live with `aex-egress` alone), the ledger, the network, and
//! any rule about a single request. An error never repeats a value of the file, for someone may have
//! pasted a key into it; it says where to look instead.

mod base_url;
mod build;
mod catalogue;
mod decimal;
mod document;
mod error;
mod files;
mod load;
mod models;
mod overlay;
mod price;
mod providers;
mod targets;
mod types;
mod values;
mod yaml;

#[cfg(test)]
mod tests;

pub use build::parse;
pub use catalogue::{Catalogue, CatalogueModel, CatalogueProvider};
pub use error::{ConfigError, LoadError};
pub use files::FileDigests;
pub(crate) use load::read_text;
pub use load::{load, load_catalogue, prices_file};
pub(crate) use yaml::read as read_yaml;

pub use types::{
    Config, DefaultLimits, Model, ModelLimits, OutputCapParam, PriceSource, Pricing, Provider,
    ProviderFacts,
};

/// No configuration file or catalogue is larger.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;
