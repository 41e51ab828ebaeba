//! Corrections that an operator makes: appended with a reason, never an edit.

use aex_admin_proto::money::usd;
use aex_admin_proto::operator::{ResolveParams, ResolveReply};
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::ScopeId;

use super::Writer;
use super::corrections::Correction;
use super::operator::{Changed, Trouble, reply_of};
use crate::core::money::MAX_BUDGET_MICRO;
use crate::core::price::PICO_PER_MICRO;
use crate::core::scope::{Charged, Scope};
use crate::ledger::reader::HoldHistory;

const MAX_REASON_BYTES: usize = 500;

fn refuse<T>(code: i32, text: impl Into<String>) -> Result<T, Trouble> {
    Err(RpcError::new(code, text.into()).into())
}

impl Writer {
    pub(super) fn resolve(
        &mut self,
        params: &ResolveParams,
        history: Option<HoldHistory>,
    ) -> Changed {
        check(params)?;
        let (name, cost_pico, charged) = match (&params.hold, &params.agent, history) {
            (Some(hold), None, Some(history)) => {
                let (name, cost_pico, charged) = self.missing(hold, params.cost_pico, history)?;
                (name, cost_pico, Some(charged))
            }
            (None, Some(agent), _) => (agent.clone(), params.cost_pico, None),
            _ => return refuse(code::INVALID_PARAMS, "name a hold or an agent, not both"),
        };
        let Some(agent) = self.ledger.agent_by_name(&name)? else {
            let text = format!("there is no agent {name}; see aex agent list");
            return refuse(code::NOT_FOUND, text);
        };
        if cost_pico == 0 {
            return reply_of(&ResolveReply {
                agent: name,
                cost_micro: 0,
                cost_pico: 0,
                event: None,
                remaining_micro: agent.balance.free_micro().unwrap_or(i64::MAX),
            });
        }
        let charged = match charged {
            Some(charged) => charged,
            // It is of no request: it belongs where the agent is now.
            None => {
                let path = self.staged.path(&self.ledger, agent.id)?;
                Charged::of(path.iter().map(AsRef::as_ref), Vec::new())
            }
        };
        self.append(&agent, params, cost_pico, &charged)
    }

    /// The agent of an ended reservation, and what the ledger must add so that it cost `cost_pico`.
    fn missing(
        &self,
        hold: &str,
        cost_pico: i64,
        mut history: HoldHistory,
    ) -> Result<(String, i64, Charged), Trouble> {
        self.ledger.bring_up_history(hold, &mut history)?;
        let Some(agent) = history.agent else {
            return refuse(code::NOT_FOUND, format!("the ledger has no hold {hold}"));
        };
        if !history.ended {
            let text = format!(
                "hold {hold} is still open; it ends by itself, at its request's end or its deadline"
            );
            return refuse(code::CONFLICT, text);
        }
        if cost_pico < 0 {
            return refuse(code::INVALID_PARAMS, "a request cannot cost less than 0");
        }
        // Both are of one sign and within the ledger's numbers.
        let missing_pico = cost_pico.saturating_sub(history.cost_pico);
        Ok((agent, missing_pico, history.charged))
    }

    fn append(
        &mut self,
        agent: &Scope,
        params: &ResolveParams,
        cost_pico: i64,
        charged: &Charged,
    ) -> Changed {
        let ScopeId::Agent(id) = agent.id else {
            return refuse(code::INTERNAL, "a correction of no agent");
        };
        let corrected = self.correct(&Correction {
            agent: id,
            charged,
            cost_pico,
            hold: params.hold.as_deref(),
            reason: params.reason.trim(),
            by: "operator",
        })?;
        let Some(corrected) = corrected else {
            let text = format!(
                "agent {} spent {}; a correction cannot make that, nor what its groups spent, negative",
                agent.name,
                usd(agent.balance.spent_micro)
            );
            return refuse(code::CONFLICT, text);
        };
        reply_of(&ResolveReply {
            agent: agent.name.clone(),
            cost_micro: corrected.cost_micro,
            cost_pico,
            event: Some(corrected.event),
            remaining_micro: corrected.remaining_micro.unwrap_or(i64::MAX),
        })
    }
}

fn check(params: &ResolveParams) -> Result<(), Trouble> {
    let reason = params.reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON_BYTES {
        let text = format!("a reason is needed, of at most {MAX_REASON_BYTES} bytes");
        return refuse(code::INVALID_PARAMS, text);
    }
    let most = MAX_BUDGET_MICRO.saturating_mul(PICO_PER_MICRO);
    if params.cost_pico.unsigned_abs() > most.unsigned_abs() {
        return refuse(code::INVALID_PARAMS, "an amount beyond any budget");
    }
    Ok(())
}
