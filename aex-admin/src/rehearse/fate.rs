//! What a proposal says of one recorded request: the kernel's own decision, over the model's targets, with
//! the bounds and prices that were recorded.

use std::sync::Arc;

use aex_admin_proto::Refusal;
use aex_admin_proto::egress::KeyPolicy;
use aex_admin_proto::explain::{Look, Verdict};
use aex_admin_proto::worker::{Facts, Measured, TOKENIZERS};

use super::proposal::Proposal;
use crate::config::{Config, Model};
use crate::core::book::Book;
use crate::core::hold::Terms;
use crate::core::recall::{AS_RECORDED, facts_of};
use crate::core::reserve::{
    Around, Asked, Caller, Defaults, ModelFacts, Now, Question, Stop, Trail, decide,
};
use crate::core::routing::{self, Instead};
use crate::core::scope::{DefaultLimits, Scope};
use crate::policy::{Judged, ToJudge};

pub(super) enum Fate {
    Served(Box<Terms>, Judged),
    Refused(Look, Refusal),
    /// It would fit but for what is held.
    Waits(Look, Refusal),
    /// The bound of its prompt by its bytes does not fit; its tokens, which the kernel would count, may.
    Uncounted,
}

/// A recorded request, as it is decided again.
pub(super) struct Replayed<'a> {
    pub recorded: &'a Terms,
    pub path: Vec<Arc<Scope>>,
    /// Of its prompt, where that is known better than by its bound.
    pub prompt_tokens: Option<u64>,
    pub now: Now,
}

/// `book`: what counts at that time.
pub(super) fn decide_again(
    config: &Config,
    proposal: &Proposal,
    book: &mut Book,
    replayed: Replayed<'_>,
) -> Fate {
    let Replayed {
        recorded,
        path,
        prompt_tokens,
        now,
    } = replayed;
    let facts = facts_of(recorded);
    let own_key = facts.own_key;
    let facts = as_asked(facts, &path, prompt_tokens);
    let caller = Caller {
        path,
        token_revoked: false,
        token_expires_at_ms: None,
        read_only: false,
        // From where it came is not recorded: that it was taken is.
        wrong_peer: None,
    };
    let targets = targets(config, recorded, own_key);
    let defaults = Defaults {
        default_output_tokens: recorded.output_cap.max(1),
        min_output_tokens: config.min_output_tokens,
        on_disconnect: recorded.on_disconnect,
        limits: DefaultLimits::default(),
        time_zone: config.time_zone.clone(),
    };
    let windows = caller.windows(&targets, &recorded.model, &defaults);
    book.expire(&windows, now.boot_ms);
    let countable = prompt_tokens.is_none() && would_be_counted(config, recorded);
    let mut judged = Judged::default();
    // Of the targets that are refused alone.
    let trail = Trail::default();
    let decided = routing::first_granted(&targets, |model| {
        let question = Question {
            asked: Asked {
                route: recorded.route,
                model: &recorded.model,
                facts: &facts,
            },
            caller: Some(&caller),
            model,
            around: Around {
                book,
                peers: 0,
                waiting: &|_| 0,
                queued: &|_| 0,
                queue: None,
            },
            defaults: &defaults,
            now,
            trail: None,
        };
        let stop = match decide(question) {
            Ok(terms) => {
                judged = proposal.policies.judge_request(&ToJudge {
                    caller: &caller,
                    facts: &facts,
                    terms: &terms,
                    own_key,
                    time_zone: &config.time_zone,
                    wall_ms: now.wall_ms,
                });
                let Some(denial) = judged.denied.take() else {
                    return Ok(terms);
                };
                trail.begin(model);
                trail.note(denial.look(Verdict::Refuses));
                Stop::Refuse(denial.into())
            }
            Err(Stop::TooLong(refusal) | Stop::Wait(refusal, _)) if countable => {
                let tokenizer = String::new();
                return Err(Instead::Measure { tokenizer, refusal });
            }
            Err(stop) => {
                trail.begin(model);
                let _ = decide(Question {
                    trail: Some(&trail),
                    ..question
                });
                stop
            }
        };
        trail.ended(stop.refusal());
        Err(Instead::Stop(stop))
    });
    match decided {
        Ok(terms) => Fate::Served(Box::new(terms), judged),
        Err(Instead::Measure { .. }) => Fate::Uncounted,
        Err(Instead::Stop(Stop::Wait(refusal, _))) => {
            Fate::Waits(trail.decisive(&refusal), refusal)
        }
        Err(Instead::Stop(Stop::Refuse(refusal) | Stop::TooLong(refusal))) => {
            Fate::Refused(trail.decisive(&refusal), refusal)
        }
    }
}

/// Without a word about keys it is not asked where the request's came from.
fn as_asked(recorded: Facts, path: &[Arc<Scope>], prompt_tokens: Option<u64>) -> Facts {
    let of_keys = |scope: &Arc<Scope>| scope.grant.settings.passthrough.is_some();
    let counted = prompt_tokens.map(|text| Measured { text, tools: 0 });
    Facts {
        own_key: recorded.own_key && path.iter().any(of_keys),
        measured: counted.or(recorded.measured),
        ..recorded
    }
}

/// Whether the kernel would have counted the prompt before it refused it: it has the tokenizer of the
/// model, and had not counted it already.
fn would_be_counted(config: &Config, recorded: &Terms) -> bool {
    let model = config.models.get(&recorded.model);
    let target = model.and_then(|model| model.target(&recorded.provider, &recorded.upstream_model));
    let tokenizer = target.and_then(|target| target.tokenizer.as_deref());
    recorded.asked.measured_by.is_none()
        && tokenizer.is_some_and(|tokenizer| TOKENIZERS.contains(&tokenizer))
}

/// The target that was recorded, and the others that the model has now: where a rule is about the one, the
/// kernel takes the next. An own key is for one provider.
fn targets<'t>(config: &'t Config, recorded: &'t Terms, own_key: bool) -> Vec<ModelFacts<'t>> {
    let model = config.models.get(&recorded.model).filter(|_| !own_key);
    let others = model.into_iter().flat_map(Model::targets).filter(|target| {
        (target.provider.as_str(), target.upstream_model.as_str())
            != (&recorded.provider, &recorded.upstream_model)
    });
    let others = others.filter_map(|target| {
        Some(ModelFacts {
            provider: &target.provider,
            upstream_model: &target.upstream_model,
            price: Some(target.pricing.price()?),
            ..as_recorded(recorded)
        })
    });
    std::iter::once(as_recorded(recorded))
        .chain(others)
        .collect()
}

/// The model as the request met it.
fn as_recorded(recorded: &Terms) -> ModelFacts<'_> {
    ModelFacts {
        name: &recorded.model,
        provider: &recorded.provider,
        upstream_model: &recorded.upstream_model,
        price: Some(recorded.price.clone()),
        price_source: &recorded.price_source,
        max_output_tokens: None,
        rendering: AS_RECORDED,
        embeds_only: false,
        hidden_output: recorded.hidden_output,
        counts_choices: recorded.counts_choices,
        extra_params: &[],
        keys: KeyPolicy::Either,
        loopback: recorded.price.is_free(),
        operator_key: true,
        max_requests_per_minute: None,
        max_tokens_per_minute: None,
    }
}
