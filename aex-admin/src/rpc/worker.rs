//! What a worker may ask.

use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::worker::{
    self, CancelParams, POLL_MS, Presents, ReadyReply, ReclaimParams, ReclaimReply, SettingsParams,
    WorkerSettings,
};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Call, Door, InForce, Kernel, params, reply, reply_as};
use crate::writer::{Command, OwnTokens};

/// What an answer may take beyond its waits.
const ANSWER_MS: u64 = 3_000;
/// All that `/readyz` says to whoever asks; the reason may name the operator's files.
const NOT_READY: &str = "the kernel is not ready; `aex status` says why";

pub(super) fn dispatch(
    kernel: &Arc<Kernel>,
    door: &Door,
    call: Call,
    method: &str,
    raw: Option<&RawValue>,
) -> Option<()> {
    let session = call.session;
    match method {
        worker::RESERVE => {
            let (call, params) = presented(call, raw)?;
            kernel.send(Command::Reserve {
                params,
                session,
                reply: reply(call),
            });
        }
        worker::SETTLE => {
            let (call, params) = params(call, raw)?;
            kernel.send(Command::Settle {
                params,
                reply: reply(call),
            });
        }
        worker::CANCEL => {
            let (call, CancelParams { id }) = params(call, raw)?;
            kernel.send(Command::Cancel { id });
            call.answer(Ok(serde_json::Map::new()));
        }
        worker::RECLAIM => {
            let (call, ReclaimParams { tickets }) = params(call, raw)?;
            let reply = reply_as(call, |ended| ReclaimReply { ended });
            kernel.send(Command::Reclaim {
                tickets,
                session,
                reply,
            });
        }
        worker::MODELS => {
            let (call, params) = presented(call, raw)?;
            kernel.send(Command::Models {
                params,
                reply: reply(call),
            });
        }
        worker::WHOSE => {
            let (call, params) = presented(call, raw)?;
            kernel.send(Command::Whose {
                params,
                reply: reply(call),
            });
        }
        worker::ME => {
            let (call, params) = presented(call, raw)?;
            kernel.send(Command::Me {
                params,
                reply: reply(call),
            });
        }
        worker::QUOTE => {
            let (call, params) = presented(call, raw)?;
            kernel.send(Command::Quote {
                params,
                reply: reply(call),
            });
        }
        worker::RUN => {
            let (call, params) = presented(call, raw)?;
            kernel.send(Command::Run {
                params,
                reply: reply(call),
            });
        }
        worker::RUN_END => {
            let (call, params) = presented(call, raw)?;
            kernel.send(Command::RunEnd {
                params,
                reply: reply(call),
            });
        }
        worker::TOKENS => {
            let (call, params) = presented(call, raw)?;
            let reply = reply(call);
            let asked = OwnTokens::List(params);
            kernel.send(Command::OwnTokens { asked, reply });
        }
        worker::TOKEN_ROTATE => {
            let (call, params) = presented(call, raw)?;
            let reply = reply(call);
            let asked = OwnTokens::Rotate(params);
            kernel.send(Command::OwnTokens { asked, reply });
        }
        worker::TOKEN_REVOKE => {
            let (call, params) = presented(call, raw)?;
            let reply = reply(call);
            let asked = OwnTokens::Revoke(params);
            kernel.send(Command::OwnTokens { asked, reply });
        }
        worker::READY => {
            let ready = kernel.not_ready().is_none();
            call.answer(Ok(ReadyReply {
                ready,
                why: (!ready).then(|| NOT_READY.to_owned()),
            }));
        }
        // The role's table has no other.
        _ => {
            let (call, said): (_, SettingsParams) = params(call, raw)?;
            let (kernel, known) = (Arc::clone(kernel), said.known);
            kernel.worker_is(session, door.group.clone(), said);
            tokio::spawn(async move { settings(&kernel, call, known).await });
        }
    }
    Some(())
}

/// Parameters with a token in them. For which group the worker is there is its socket's to say.
fn presented<P: Presents + DeserializeOwned>(
    call: Call,
    raw: Option<&RawValue>,
) -> Option<(Call, P)> {
    let (call, mut presented): (Call, P) = params(call, raw)?;
    presented.peer().within = call.within;
    Some((call, presented))
}

/// Answers when the configuration is another than the worker knows, or when the poll has lasted.
async fn settings(kernel: &Kernel, call: Call, known: Option<u64>) {
    let mut in_force = kernel.in_force.subscribe();
    let news = in_force.wait_for(|now| Some(now.generation) != known);
    // Nothing new in time: the same is answered again.
    let _ = tokio::time::timeout(Duration::from_millis(POLL_MS), news).await;
    let InForce {
        generation, config, ..
    } = kernel.in_force.borrow().clone();
    call.answer(Ok(WorkerSettings {
        generation,
        max_body_bytes: config.max_body_bytes,
        drain_timeout_ms: config.drain_timeout_ms,
        reserve_limit_ms: config
            .hold_wait_ms
            .saturating_add(config.lock_wait_ms)
            .saturating_add(ANSWER_MS),
    }));
}
