//! What a token's holder may ask without carrying anything out: its models, itself, and what a request
//! would come to.

use aex_admin_proto::TokenDigest;
use aex_admin_proto::peer::Peer;
use aex_admin_proto::refusal::Refusal;
use aex_admin_proto::worker::{
    MeReply, ModelEntry, ModelsParams, ModelsReply, Quote, QuoteReply, ReserveParams, WhoseReply,
};

use std::sync::Arc;

use aex_admin_proto::scope::ScopeKind;

use super::Writer;
use super::requests::{Decided, Manner};
use crate::core::hold::Terms;
use crate::core::money::ceil_micro;
use crate::core::reserve::{self, Caller, Now};
use crate::core::scope::Scope;
use crate::ledger::LedgerError;
use crate::views;

impl Writer {
    /// Who asks with this token, if it may ask at all.
    pub(super) fn authenticated(
        &mut self,
        token: &TokenDigest,
        peer: &Peer,
        now: Now,
    ) -> Result<Result<Caller, Refusal>, LedgerError> {
        let found = self.staged.token(&self.ledger, token)?;
        let caller = found.map(|token| self.caller(token, peer)).transpose()?;
        Ok(match reserve::authenticate(caller.as_ref(), now) {
            Ok(_) => caller.ok_or(Refusal::InvalidToken),
            Err(refusal) => {
                // Where else a look is refused is not recorded; a stolen token is.
                if matches!(refusal, Refusal::WrongPeer { .. }) {
                    self.note_refusal(found.map_or(0, |token| token.agent), None, &refusal);
                }
                Err(refusal.outward())
            }
        })
    }

    /// The models that a token may call.
    pub(super) fn models(&mut self, asked: &ModelsParams) -> Result<ModelsReply, LedgerError> {
        let now = self.now();
        let caller = match self.authenticated(&asked.token, &asked.peer, now)? {
            Ok(caller) => caller,
            Err(refusal) => return Ok(ModelsReply::Refused(refusal)),
        };
        let models = self
            .config
            .models
            .values()
            .filter(|model| reserve::may_use(&caller, &model.name))
            .filter(|model| {
                let mut scopes = caller.path.iter();
                let mut providers = model.targets().map(|target| &target.provider);
                providers
                    .any(|provider| scopes.all(|scope| scope.grant.settings.has_provider(provider)))
            })
            .map(|model| ModelEntry {
                id: model.name.clone(),
                owned_by: model.provider.clone(),
                created: 0,
            })
            .collect();
        Ok(ModelsReply::Models(models))
    }

    /// Whose a token is, if it is one.
    pub(super) fn whose(&mut self, asked: &ModelsParams) -> Result<WhoseReply, LedgerError> {
        let now = self.now();
        let caller = match self.authenticated(&asked.token, &asked.peer, now)? {
            Ok(caller) => caller,
            Err(refusal) => return Ok(WhoseReply::Refused(refusal)),
        };
        let is_tenant = |scope: &&Arc<Scope>| match scope.kind {
            ScopeKind::Agent | ScopeKind::Group => true,
            ScopeKind::Kernel | ScopeKind::Run => false,
        };
        let tenant = caller.path.iter().rev().find(is_tenant);
        Ok(match tenant {
            Some(scope) => WhoseReply::Tenant(scope.id),
            None => WhoseReply::Refused(Refusal::InvalidToken),
        })
    }

    /// The token's own scope, as it is now.
    pub(super) fn me(&mut self, asked: &ModelsParams) -> Result<MeReply, LedgerError> {
        let now = self.now();
        let caller = match self.authenticated(&asked.token, &asked.peer, now)? {
            Ok(caller) => caller,
            Err(refusal) => return Ok(MeReply::Refused(refusal)),
        };
        let Some(own) = caller.path.first() else {
            return Ok(MeReply::Refused(Refusal::InvalidToken));
        };
        let zone = self.zone_of(own.id)?;
        let mut view = views::scope(own, &zone, &self.shared, now);
        // What is above is not the token's to know.
        view.parent = None;
        Ok(MeReply::Me(Box::new(view)))
    }

    /// What a request would come to, were it made now.
    pub(super) fn quote(&mut self, params: &ReserveParams) -> Result<QuoteReply, LedgerError> {
        let now = self.now();
        let token = self.staged.token(&self.ledger, &params.token)?;
        let peer = &params.peer;
        let caller = token.map(|token| self.caller(token, peer)).transpose()?;
        // Who may only look may ask what it would come to.
        let caller = caller.map(|caller| Caller {
            read_only: false,
            ..caller
        });
        let agent = token.map_or(0, |token| token.agent);
        Ok(
            match self.decide_for(caller, agent, params, Manner::only_asked(None), now) {
                Decided::Grant { terms, .. } => QuoteReply::Passes(quote_of(*terms)),
                Decided::Refuse {
                    refusal: refusal @ Refusal::WrongPeer { .. },
                    ..
                } => {
                    self.note_refusal(agent, None, &refusal);
                    QuoteReply::Refused(refusal.outward())
                }
                // What is held may come free meanwhile; that it is held now is what can be said.
                Decided::Refuse { refusal, .. } | Decided::Wait { refusal, .. } => {
                    QuoteReply::Refused(refusal)
                }
                Decided::Measure { tokenizer, refusal } => {
                    QuoteReply::Measure { tokenizer, refusal }
                }
                // A quote names no key.
                Decided::Replay(_) => QuoteReply::Refused(Refusal::Cancelled),
            },
        )
    }
}

/// What a grant would come to.
pub(super) fn quote_of(terms: Terms) -> Quote {
    Quote {
        hold_micro: ceil_micro(i128::from(terms.hold_pico)),
        input_tokens: terms.input_tokens,
        output_cap: terms.output_cap,
        warnings: terms.warned,
        provider: terms.provider,
    }
}
