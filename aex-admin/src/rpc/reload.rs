//! A new configuration comes into force only when the egress can act on it; else the old one stays.

use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::operator::ConfigSummary;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::KERNEL_NODE;
use serde_json::json;

use super::{InForce, Kernel};
use crate::config::{Config, ConfigError, LoadError};
use crate::ledger::reader;
use crate::policy::{self, Policies};
use crate::serve;
use crate::writer::Command;

/// How long the egress may take to take up a configuration.
const TAKE_UP: Duration = Duration::from_secs(10);

pub(super) fn bad_config(error: &ConfigError, file: Option<&str>) -> RpcError {
    RpcError {
        code: code::BAD_CONFIG,
        message: match file {
            Some(file) => format!("{file}: {error}"),
            None => error.to_string(),
        },
        data: Some(json!({ "line": error.line, "column": error.column })),
    }
}

pub(super) fn bad_file(error: &LoadError) -> RpcError {
    match error {
        LoadError::Invalid { path, error } => bad_config(error, Some(&path.display().to_string())),
        other => RpcError::new(code::BAD_CONFIG, other.to_string()),
    }
}

pub(super) fn summary(config: &Config, warnings: Vec<String>) -> ConfigSummary {
    ConfigSummary {
        providers: config.providers.len() as u64,
        models: config.models.len() as u64,
        policies: 0,
        warnings,
        provider_list: Vec::new(),
    }
}

impl Kernel {
    /// Reads models.yaml, the prices and the policies beside it again.
    pub(super) async fn reload(&self) -> Result<ConfigSummary, RpcError> {
        let _one_at_a_time = self.reloading.lock().await;
        let file = self.config_file.clone();
        // Hundreds of policies take a while, and requests go on meanwhile.
        let loaded = tokio::task::spawn_blocking(move || policy::load_all(&file)).await;
        let (config, policies, warnings) = loaded
            .map_err(|_| {
                RpcError::new(
                    code::INTERNAL,
                    "models.yaml was not read to its end; try again",
                )
            })?
            .map_err(|error| bad_file(&error))?;
        let kernel_scope = self
            .reader
            .run(|conn| reader::node(conn, KERNEL_NODE))
            .await?;
        let config = serve::under(kernel_scope.as_ref(), config);
        let mut summary = summary(&config, warnings);
        summary.policies = policies.len() as u64;
        let old = self.in_force.borrow().clone();
        let next = self.offer(Arc::new(config), Arc::new(policies));
        if let Err((code, why)) = self.taken_up(next.generation).await {
            self.offer(old.config, old.policies);
            return Err(RpcError::new(
                code,
                format!("the old configuration stays in force: {why}"),
            ));
        }
        self.send(Command::SetConfig {
            config: Arc::clone(&next.config),
            policies: Arc::clone(&next.policies),
        });
        self.in_force.send_replace(next);
        tracing::info!(
            providers = summary.providers,
            models = summary.models,
            policies = summary.policies,
            "configuration reloaded"
        );
        Ok(summary)
    }

    fn offer(&self, config: Arc<Config>, policies: Arc<Policies>) -> InForce {
        let generation = self.offered.borrow().generation + 1;
        let next = InForce {
            generation,
            config,
            policies,
        };
        self.offered.send_replace(next.clone());
        next
    }

    /// Why the egress did not, with the error's code: it has a problem with it, or it does not answer.
    async fn taken_up(&self, generation: u64) -> Result<(), (i32, String)> {
        let mut egress = self.egress.subscribe();
        let taken = egress.wait_for(|state| {
            let decided = state.said.acting_on == Some(generation)
                || (state.offered == Some(generation) && state.said.problem.is_some());
            state.session.is_some() && decided
        });
        match tokio::time::timeout(TAKE_UP, taken).await {
            Ok(Ok(state)) => match &state.said.problem {
                Some(problem) if state.said.acting_on != Some(generation) => {
                    Err((code::BAD_CONFIG, problem.clone()))
                }
                _ => Ok(()),
            },
            _ => Err((
                code::UNAVAILABLE,
                "aex-egress did not take it up in time".to_owned(),
            )),
        }
    }
}
