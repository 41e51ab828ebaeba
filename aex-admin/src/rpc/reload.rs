//! A new configuration comes into force only when the egress can act on it; else the old one stays.

use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::operator::ConfigSummary;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::KERNEL_NODE;
use serde_json::json;
use tokio::sync::oneshot;

use super::{InForce, Kernel};
use crate::config::{Config, ConfigError, LoadError};
use crate::ledger::reader;
use crate::policy::{self, Policies};
use crate::serve;
use crate::writer::{Command, Configuration, OperatorCommand, Reply};

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
    /// Reads models.yaml, the prices and the policies beside it again. `by_uid` goes into the event.
    pub(super) async fn reload(&self, by_uid: Option<u32>) -> Result<ConfigSummary, RpcError> {
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
            .operators
            .reader
            .run(|conn| reader::node(conn, KERNEL_NODE))
            .await?;
        let config = serve::under(kernel_scope.as_ref(), config);
        let mut summary = summary(&config, warnings);
        summary.policies = policies.len() as u64;
        let old = self.in_force.borrow().clone();
        let next = self.offer(Arc::new(config), Arc::new(policies));
        let taken = match self.taken_up(next.generation).await {
            Ok(()) => self.put_in_force(&next, by_uid).await,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            self.offer(old.config, old.policies);
            return Err(RpcError::new(
                error.code,
                format!("the old configuration stays in force: {}", error.message),
            ));
        }
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

    /// The writer decides by it once the ledger has it.
    async fn put_in_force(&self, next: &InForce, by_uid: Option<u32>) -> Result<(), RpcError> {
        let (sender, receiver) = oneshot::channel();
        let next = Configuration {
            generation: next.generation,
            config: Arc::clone(&next.config),
            policies: Arc::clone(&next.policies),
        };
        self.send(Command::Operator {
            command: OperatorCommand::Configure(Box::new(next)),
            by_uid,
            reply: Reply::new(move |answer| drop(sender.send(answer))),
        });
        let gone = |_| RpcError::new(code::UNAVAILABLE, "the ledger was not told");
        receiver.await.map_err(gone)?.map(drop)
    }

    /// Why the egress did not: it has a problem with it, or it does not answer.
    async fn taken_up(&self, generation: u64) -> Result<(), RpcError> {
        let mut egress = self.egress.subscribe();
        let taken = egress.wait_for(|state| {
            let decided = state.said.acting_on == Some(generation)
                || (state.offered == Some(generation) && state.said.problem.is_some());
            state.session.is_some() && decided
        });
        match tokio::time::timeout(TAKE_UP, taken).await {
            Ok(Ok(state)) => match &state.said.problem {
                Some(problem) if state.said.acting_on != Some(generation) => {
                    Err(RpcError::new(code::BAD_CONFIG, problem.clone()))
                }
                _ => Ok(()),
            },
            _ => Err(RpcError::new(
                code::UNAVAILABLE,
                "aex-egress did not take it up in time",
            )),
        }
    }
}
