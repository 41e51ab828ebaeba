//! Why a request of an agent would pass or not, for its operator: the decision itself, with every rule that
//! it looks at written down.

use aex_admin_proto::explain::{
    BoundScope, ExplainParams, ExplainReply, Explained, Look, LookScope, Outcome, Verdict,
};
use aex_admin_proto::peer::Peer;
use aex_admin_proto::refusal::Refusal;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::{ScopeId, ScopeKind};
use aex_admin_proto::worker::ReserveParams;
use aex_admin_proto::{HoldId, TokenDigest};

use super::Writer;
use super::operator::{Changed, Trouble, agent_id, reply_of};
use super::questions::quote_of;
use super::requests::{Decided, Manner};
use crate::core::capabilities::stripped;
use crate::core::reserve::{Caller, Now, Trail};
use crate::core::routing::Routing;
use crate::ledger::LedgerError;

impl Writer {
    pub(super) fn explain(&mut self, params: &ExplainParams, now: Now) -> Changed {
        let (agent, own) = self.asked_for(params)?;
        let caller = Caller {
            path: self.staged.path(&self.ledger, own)?,
            token_revoked: false,
            token_expires_at_ms: None,
            read_only: false,
            // Told as what is assumed.
            wrong_peer: None,
        };
        let assumes = bound_scopes(&caller);
        let asked = ReserveParams {
            // Draws the target of a weighted model.
            id: HoldId::random().map_err(|error| LedgerError::Value(error.to_string()))?,
            // Not looked at: who asks is known.
            token: TokenDigest::of(b""),
            route: params.route,
            model: params.model.clone(),
            facts: params.facts.clone(),
            idempotency: None,
            again: None,
            peer: Peer::default(),
        };
        let trail = Trail::default();
        let manner = Manner::only_asked(Some(&trail));
        let decided = match self.too_large(params, &trail) {
            Some(refusal) => Decided::Refuse { agent, refusal },
            None => self.decide_for(Some(caller), agent, &asked, manner, now),
        };
        let left_out = match &decided {
            Decided::Grant { terms, .. } => stripped(&terms.tools, &params.facts),
            _ => Vec::new(),
        };
        let (outcome, quote, refusal) = match decided {
            Decided::Measure { tokenizer, .. } => {
                return reply_of(&ExplainReply::Measure { tokenizer });
            }
            Decided::Grant { terms, .. } => (Outcome::Passes, Some(quote_of(*terms)), None),
            Decided::Wait { refusal, .. } => (Outcome::Waits, None, Some(refusal)),
            Decided::Refuse { refusal, .. } => (Outcome::Refused, None, Some(refusal)),
            // It has no key.
            Decided::Replay(_) => (Outcome::Refused, None, Some(Refusal::Cancelled)),
        };
        let decided_by = refusal.as_ref().map(|refusal| trail.decisive(refusal));
        reply_of(&ExplainReply::Explained(Box::new(Explained {
            outcome,
            agent: params.agent.clone(),
            run: params.run.clone(),
            model: params.model.clone(),
            quote,
            left_out,
            refusal,
            decided_by,
            drawn: self.is_drawn(&params.model),
            assumes,
            targets: trail.into_targets(),
        })))
    }

    fn is_drawn(&self, model: &str) -> bool {
        let model = self.config.models.get(model);
        model.is_some_and(|model| model.routing == Routing::Weighted && !model.fallbacks.is_empty())
    }

    /// A worker takes no such body, and asks nobody.
    fn too_large(&self, params: &ExplainParams, trail: &Trail) -> Option<Refusal> {
        let limit_bytes = self.config.max_body_bytes;
        let refusal = Refusal::BodyTooLarge { limit_bytes };
        if params.facts.body_bytes <= limit_bytes {
            return None;
        }
        trail.note(Look {
            scope: None,
            rule: "max_body_bytes".to_owned(),
            verdict: Verdict::Refuses,
            figures: None,
            why: Some(refusal.to_string()),
        });
        trail.ended(&refusal);
        Some(refusal)
    }

    /// The agent, and the scope whose token asks.
    fn asked_for(&mut self, params: &ExplainParams) -> Result<(i64, ScopeId), Trouble> {
        let agent = self.living(&params.agent)?;
        let id = agent_id(&agent)?;
        let Some(name) = &params.run else {
            return Ok((id, agent.id));
        };
        let run = self.ledger.node_by_name(name)?;
        let run = run.filter(|run| run.kind == ScopeKind::Run);
        let path = match &run {
            Some(run) => self.staged.path(&self.ledger, run.id)?,
            None => Vec::new(),
        };
        match run.filter(|_| path.iter().any(|scope| scope.id == agent.id)) {
            Some(run) => Ok((id, run.id)),
            None => {
                let text = format!("{} has no run {name}; see aex tree", params.agent);
                Err(RpcError::new(code::NOT_FOUND, text).into())
            }
        }
    }
}

/// The scopes of a path that take a token from somebody in particular.
fn bound_scopes(caller: &Caller) -> Vec<BoundScope> {
    let bound = caller.path.iter().filter_map(|scope| {
        let peer = scope.grant.settings.bound_to()?;
        let (kind, name) = (scope.kind, scope.name.clone());
        Some(BoundScope {
            scope: LookScope { kind, name },
            peer,
        })
    });
    bound.collect()
}
