//! Which of a model's targets is tried first, and which next. Pure: what is random is passed in.
//!
//! Whether a target may be used at all (its price, its keys, what the agent may do, the money) is no
//! question here: that is [`super::reserve`]'s, asked for one target after the other.

use std::borrow::Cow;

use aex_admin_proto::Refusal;
use aex_admin_proto::worker::Facts;

use super::hold::Terms;
use super::reserve::{ModelFacts, Stop};

/// Most targets of a model, and so most attempts of a request.
pub const MAX_TARGETS: usize = aex_admin_proto::worker::MAX_ATTEMPTS;
/// Largest weight: no sum of them overflows.
pub const MAX_WEIGHT: u64 = 1_000_000;

/// In which order a model's targets are tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Routing {
    /// As they are written.
    #[default]
    Ordered,
    /// Drawn anew for each request.
    Weighted,
    /// By the most that this request can cost there.
    Cheapest,
}

impl Routing {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Weighted => "weighted",
            Self::Cheapest => "cheapest",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ordered, Self::Weighted, Self::Cheapest]
            .into_iter()
            .find(|routing| routing.as_str() == text)
    }
}

/// One target, as far as its place in the order depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// This request was tried there already.
    pub tried: bool,
    pub weight: u64,
    /// The most that this request can cost there; `i64::MAX` where it has no price.
    pub ceiling_pico: i64,
    /// Its breaker is open until then; nothing when it may be used.
    pub open_until_boot_ms: Option<u64>,
}

/// The targets to try, by their index, the best first. One whose breaker is open comes after all that
/// may be used, the one that opens soonest before the others: a breaker alone refuses nobody.
/// `draw` is uniformly random.
#[must_use]
pub fn order(routing: Routing, candidates: &[Candidate], draw: u64) -> Vec<usize> {
    let untried = |index: &usize| candidates.get(*index).is_some_and(|one| !one.tried);
    let mut order: Vec<usize> = (0..candidates.len()).filter(untried).collect();
    match routing {
        Routing::Ordered => {}
        Routing::Weighted => order = drawn(order, candidates, draw),
        // Stable: of two that cost the same the one that is written first.
        Routing::Cheapest => order.sort_by_key(|&index| candidates[index].ceiling_pico),
    }
    // Nothing is before anything: what may be used keeps its order in front.
    order.sort_by_key(|&index| candidates[index].open_until_boot_ms);
    order
}

/// Draws one after the other, each by its weight among those that are left.
fn drawn(mut left: Vec<usize>, candidates: &[Candidate], draw: u64) -> Vec<usize> {
    let weight = |index: usize| candidates[index].weight.clamp(1, MAX_WEIGHT);
    let mut random = draw;
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let sum: u64 = left.iter().map(|&index| weight(index)).sum();
        random = mixed(random);
        let mut ticket = random % sum;
        let place = left
            .iter()
            .position(|&index| match ticket.checked_sub(weight(index)) {
                Some(rest) => {
                    ticket = rest;
                    false
                }
                None => true,
            });
        order.push(left.remove(place.unwrap_or(0)));
    }
    order
}

/// The next number of a sequence (SplitMix64): one draw decides the whole order.
fn mixed(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What one target, or all of them, come to.
#[derive(Debug)]
pub enum Instead {
    /// Count the prompt first.
    Measure {
        tokenizer: String,
        refusal: Refusal,
    },
    Stop(Stop),
}

/// Decides for one target after the other, until one is granted or its prompt is to be counted. Where all
/// are refused, the first one's answer is told, of those that this request may use at all; but where waiting
/// can help one of them, it is waited. Without any target it is decided without a model.
///
/// # Errors
/// None is granted.
pub fn first_granted<'a>(
    targets: &[ModelFacts<'a>],
    mut decide: impl FnMut(Option<&ModelFacts<'a>>) -> Result<Terms, Instead>,
) -> Result<Terms, Instead> {
    let (mut skipped, mut first, mut waits) = (None, None, None);
    for target in targets {
        match decide(Some(target)) {
            Err(Instead::Stop(stop @ Stop::Wait(..))) => waits = waits.or(Some(stop)),
            Err(Instead::Stop(stop)) if is_not_for(&stop) => skipped = skipped.or(Some(stop)),
            Err(Instead::Stop(stop)) => first = first.or(Some(stop)),
            granted_or_measured => return granted_or_measured,
        }
    }
    match waits.or(first).or(skipped) {
        Some(stop) => Err(Instead::Stop(stop)),
        None => decide(None),
    }
}

/// The target itself is not for this request, whatever its size and whatever the money.
fn is_not_for(stop: &Stop) -> bool {
    matches!(
        stop,
        Stop::Refuse(
            Refusal::ModelNotPriced { .. }
                | Refusal::PassthroughNotEnabled
                | Refusal::ProviderKeyRequired
                | Refusal::CapabilityNotAllowed { .. }
                | Refusal::PolicyForbids { .. }
        )
    )
}

/// What is known of a request, as far as it holds for this target: a count by another tokenizer bounds
/// nothing here.
#[must_use]
pub fn facts_for<'f>(facts: &'f Facts, target: Option<&ModelFacts<'_>>) -> Cow<'f, Facts> {
    let tokenizer = target.and_then(|target| target.rendering.tokenizer);
    match &facts.measured_by {
        Some(counted_by) if tokenizer != Some(counted_by) => Cow::Owned(Facts {
            measured: None,
            ..facts.clone()
        }),
        _ => Cow::Borrowed(facts),
    }
}

#[cfg(test)]
mod tests;
