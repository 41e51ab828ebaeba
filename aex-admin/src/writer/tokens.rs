//! An agent's own tokens, by its own order: it lists, replaces and ends them. It cannot widen what its
//! operator gave, nor make it last longer, and whoever did it is in the events.
//!
//! Absent on purpose: further tokens. One that a thief makes for itself would outlive the theft.

use std::sync::Arc;

use aex_admin_proto::operator::TokenView;
use aex_admin_proto::peer::Peer;
use aex_admin_proto::worker::{ModelsParams, TokenRevokeParams, TokenRotateParams, TokensReply};
use aex_admin_proto::{Refusal, TokenDigest};
use serde_json::{Value, json};

use super::Writer;
use super::operator::{TokenAsk, Trouble, agent_id, expiry, invalid, text_of};
use crate::core::reserve::Now;
use crate::core::scope::Scope;
use crate::ledger::{Event, ROTATED};

/// Changes of one agent in any 60 seconds: each is a row, and an event.
const MAX_CHANGES_PER_MINUTE: u64 = 120;
/// Most tokens of one agent that can be used at once, before it may make another.
const MAX_LIVE: usize = 256;
/// Most that are listed: they fit into a frame.
const MAX_LISTED: usize = 1000;

/// What an agent may ask of its tokens.
pub enum OwnTokens {
    List(ModelsParams),
    Rotate(TokenRotateParams),
    Revoke(TokenRevokeParams),
}

/// An agent, by a token of its own that may do more than look.
struct Owner {
    agent: Arc<Scope>,
    token_id: i64,
    token_expires_at_ms: Option<i64>,
    peer: Peer,
}

impl Owner {
    /// Who did it, for the event.
    fn by(&self) -> Value {
        json!({ "token_id": self.token_id, "peer": self.peer })
    }
}

impl Writer {
    pub(super) fn own_tokens(&mut self, asked: OwnTokens) -> Result<TokensReply, Trouble> {
        let now = self.now();
        let (token, peer) = match &asked {
            OwnTokens::List(params) => (params.token, params.peer),
            OwnTokens::Rotate(params) => (params.token, params.peer),
            OwnTokens::Revoke(params) => (params.token, params.peer),
        };
        let owner = match self.owner(&token, peer, now)? {
            Ok(owner) => owner,
            Err(refusal) => return Ok(TokensReply::Refused(refusal)),
        };
        match asked {
            OwnTokens::List(_) => {
                let listed = self.live(&owner, now, MAX_LISTED)?;
                Ok(TokensReply::Listed(listed))
            }
            OwnTokens::Rotate(params) => self.changes(&owner, now, |writer| {
                writer.rotate_own(&owner, &params, now)
            }),
            OwnTokens::Revoke(params) => self.changes(&owner, now, |writer| {
                writer.revoke_own(&owner, params.id, now)
            }),
        }
    }

    /// Whose token it is, if that may look after tokens: a run's belongs to whoever made the run.
    fn owner(
        &mut self,
        token: &TokenDigest,
        peer: Peer,
        now: Now,
    ) -> Result<Result<Owner, Refusal>, Trouble> {
        let caller = match self.authenticated(token, &peer, now)? {
            Ok(caller) => caller,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let not_allowed = |why: &str| {
            let capability = format!("tokens ({why})");
            Ok(Err(Refusal::CapabilityNotAllowed { capability }))
        };
        if caller.read_only {
            return not_allowed("this token is read-only");
        }
        let row = self.staged.token(&self.ledger, token)?;
        match (row, caller.path.into_iter().next()) {
            (Some(row), Some(agent)) if row.run.is_none() => Ok(Ok(Owner {
                agent,
                token_id: row.id,
                token_expires_at_ms: row.expires_at_ms,
                peer,
            })),
            _ => not_allowed("this token is a run's"),
        }
    }

    /// A change, if the agent has not made too many in the last minute.
    fn changes(
        &mut self,
        owner: &Owner,
        now: Now,
        change: impl FnOnce(&mut Self) -> Result<TokensReply, Trouble>,
    ) -> Result<TokensReply, Trouble> {
        let agent = agent_id(&owner.agent)?;
        // In its grace it is as good as lost: it must not take its successor along.
        if self.ledger.is_replaced(agent, owner.token_id)? {
            return Ok(TokensReply::Refused(Refusal::CapabilityNotAllowed {
                capability: "tokens (this token has been replaced: use the new one)".to_owned(),
            }));
        }
        let made = self.tokens_changed.entry(agent).or_default();
        made.expire(now.boot_ms);
        if made.sum() >= MAX_CHANGES_PER_MINUTE {
            return Ok(TokensReply::Refused(Refusal::RequestRate {
                limit: MAX_CHANGES_PER_MINUTE,
                retry_after_ms: made.wait_ms(now.boot_ms, 1),
            }));
        }
        let done = change(self)?;
        let count = self.tokens_changed.entry(agent).or_default();
        count.add(now.boot_ms, 1);
        Ok(done)
    }

    fn live(&self, owner: &Owner, now: Now, limit: usize) -> Result<Vec<TokenView>, Trouble> {
        Ok(self.ledger.live_tokens(&owner.agent, now.wall_ms, limit)?)
    }

    /// As an operator's rotation, but the new one ends no later than the one that asks.
    fn rotate_own(
        &mut self,
        owner: &Owner,
        params: &TokenRotateParams,
        now: Now,
    ) -> Result<TokensReply, Trouble> {
        if params.ttl_s == Some(0) {
            return Err(invalid("ttl must be longer than nothing"));
        }
        if self.live(owner, now, MAX_LIVE)?.len() >= MAX_LIVE {
            return Err(invalid(format!(
                "{MAX_LIVE} tokens of this agent can still be used; end some first"
            )));
        }
        let end_ms = expiry(now, params.grace_s.unwrap_or(0))?;
        let detail = text_of(&json!({ "old_tokens_end_at_ms": end_ms, "by": owner.by() }));
        let made = TokenAsk {
            ttl_s: params.ttl_s,
            until_ms: owner.token_expires_at_ms,
            label: ROTATED,
            ..TokenAsk::default()
        };
        let agent = &*owner.agent;
        let event = Event::note(
            now.wall_ms,
            Some(&agent.name),
            "agent.rotate_token",
            &detail,
        );
        let id = agent_id(agent)?;
        let reply = self.token_reply(agent, &made, &event, now, |ledger| {
            ledger.end_tokens(id, end_ms, now.wall_ms)?;
            Ok((id, None))
        })?;
        // What was read of its tokens is not so any more.
        self.staged.write(&self.ledger)?;
        Ok(TokensReply::Made(Box::new(reply)))
    }

    fn revoke_own(&mut self, owner: &Owner, id: i64, now: Now) -> Result<TokensReply, Trouble> {
        let agent = &*owner.agent;
        if !self.ledger.has_token(agent_id(agent)?, id)? {
            return Ok(TokensReply::NoSuch);
        }
        let detail = text_of(&json!({ "token_id": id, "by": owner.by() }));
        let event = Event::note(now.wall_ms, Some(&agent.name), "token.revoke", &detail);
        self.ledger.within(|ledger| {
            ledger.revoke_token(id, now.wall_ms)?;
            ledger.append(&event)
        })?;
        // What was read of its tokens is not so any more.
        self.staged.write(&self.ledger)?;
        Ok(TokensReply::Revoked { id })
    }
}
