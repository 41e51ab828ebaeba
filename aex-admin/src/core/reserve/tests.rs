use proptest::prelude::*;

use aex_admin_proto::operator::Settings;
use aex_admin_proto::scope::KERNEL;

use super::params::{CHOOSES_MODEL, RAISES_OUTPUT};
use super::*;
use crate::core::live::Live;
use crate::core::money::Balance;
use crate::core::price::PICO_PER_MICRO;
use crate::core::scope::Recorded;

/// 10 pico an input token, 100 an output token.
const PRICE: Price = Price {
    input_pico: 10,
    cached_input_pico: 5,
    cache_write_pico: 0,
    output_pico: 100,
    tiers: Vec::new(),
    request_pico: 0,
};
const NOW: Now = Now {
    boot_ms: 1_000_000,
    wall_ms: 5_000_000,
};

fn defaults() -> Defaults {
    Defaults {
        default_output_tokens: 4096,
        min_output_tokens: 16,
        on_disconnect: OnDisconnect::Drain,
        limits: DefaultLimits::default(),
        time_zone: TimeZone::UTC,
    }
}
/// Bound of the prompt in `case()`: 48 + 8 + 44.
const INPUT: u64 = 100;

pub(super) struct Case {
    route: Route,
    pub(super) facts: Facts,
    /// The token's own scope first; empty for a token that nobody knows.
    pub(super) path: Vec<Scope>,
    token_expires_at_ms: Option<i64>,
    pub(super) model: Option<ModelFacts<'static>>,
    /// Of the agent.
    pub(super) live: Live,
    /// Requests of the token that are decided at once.
    contenders: u64,
    queue_ahead: bool,
}

const AGENT: ScopeId = ScopeId::Agent(1);

pub(super) fn scope(id: ScopeId, kind: ScopeKind, name: &str) -> Scope {
    Scope {
        id,
        kind,
        name: name.into(),
        parent: None,
        created_at_ms: 0,
        expires_at_ms: None,
        balance: Balance::default(),
        grant: Recorded::none(),
    }
}

pub(super) fn case() -> Case {
    let mut agent = scope(AGENT, ScopeKind::Agent, "atlas");
    agent.grant.rpm = Some(60);
    agent.balance.budget_micro = Some(5_000_000);
    Case {
        route: Route::ChatCompletions,
        facts: Facts {
            messages: 1,
            ascii_bytes: 44,
            choices: 1,
            output_cap: Some(100),
            ..Facts::default()
        },
        path: vec![agent, scope(KERNEL, ScopeKind::Kernel, "kernel")],
        token_expires_at_ms: None,
        model: Some(ModelFacts {
            name: "m",
            provider: "groq",
            upstream_model: "up/m",
            price: Some(PRICE),
            price_source: "test",
            max_output_tokens: Some(8_192),
            rendering: Rendering::default(),
            embeds_only: false,
            hidden_output: false,
            counts_choices: true,
            extra_params: &[],
            keys: KeyPolicy::Either,
            loopback: false,
            operator_key: true,
            max_requests_per_minute: None,
            max_tokens_per_minute: None,
        }),
        live: Live::default(),
        contenders: 1,
        queue_ahead: false,
    }
}

impl Case {
    fn with(change: impl FnOnce(&mut Case, fn(&mut Case) -> &mut Scope)) -> Case {
        let mut case = case();
        change(&mut case, Case::agent);
        case
    }

    pub(super) fn agent(&mut self) -> &mut Scope {
        self.path
            .iter_mut()
            .find(|scope| scope.id == AGENT)
            .unwrap()
    }

    pub(super) fn ask<T>(&self, ask: impl FnOnce(Question<'_>) -> T) -> T {
        let caller = (!self.path.is_empty()).then(|| Caller {
            path: self.path.iter().cloned().map(Arc::new).collect(),
            token_revoked: false,
            token_expires_at_ms: self.token_expires_at_ms,
            wrong_peer: None,
            read_only: false,
        });
        let mut book = Book::default();
        book.set_live(LiveKey::Scope(AGENT), self.live.clone());
        ask(Question {
            asked: Asked {
                route: self.route,
                model: "m",
                facts: &self.facts,
            },
            caller: caller.as_ref(),
            model: self.model.as_ref(),
            around: Around {
                book: &book,
                peers: self.contenders - 1,
                waiting: &|scope| u64::from(self.queue_ahead && scope == AGENT),
                queued: &|queue| u64::from(self.queue_ahead && queue.scope == AGENT),
                queue: None,
            },
            defaults: &defaults(),
            now: NOW,
            trail: None,
        })
    }

    fn decide(&self) -> Result<Terms, Stop> {
        self.ask(decide)
    }

    #[track_caller]
    fn refused(&self, text: &str) {
        match self.decide() {
            Err(Stop::Refuse(refusal) | Stop::TooLong(refusal)) => {
                assert_eq!(refusal.to_string(), text);
            }
            other => panic!("expected {text:?}, got {other:?}"),
        }
    }

    #[track_caller]
    fn waits(&self) {
        assert!(
            matches!(self.decide(), Err(Stop::Wait(..))),
            "{:?}",
            self.decide()
        );
    }

    #[track_caller]
    fn granted(&self) -> Terms {
        self.decide().unwrap()
    }
}

/// A budget that pays for exactly `pico`, in a balance with the rest already spent.
pub(super) fn balance(pico: i64, held_pico: i64) -> Balance {
    let budget_micro = pico / PICO_PER_MICRO + 1;
    let carry_pico = budget_micro * PICO_PER_MICRO - pico;
    Balance {
        budget_micro: Some(budget_micro),
        spent_micro: 0,
        carry_pico,
        held_pico,
    }
}

#[test]
fn a_plain_request_is_granted_with_its_bound() {
    let terms = case().granted();
    assert_eq!((terms.input_tokens, terms.output_cap), (INPUT, 100));
    assert_eq!(terms.hold_pico, 100 * 10 + 100 * 100);
    assert_eq!((terms.key, terms.cap_is_ours), (KeyMode::Operator, false));
}

#[test]
fn refusals_come_in_their_order() {
    // Everything is wrong at once; mending the first names the next.
    let mut c = case();
    let good = std::mem::take(&mut c.path);
    c.refused("Invalid API token");
    c.path = good;
    {
        c.token_expires_at_ms = Some(NOW.wall_ms);
        let a = c.agent();
        a.grant.state = AgentState::Closed;
        a.grant.settings.allowed_models = Some(vec!["other".into()]);
        a.grant.settings.streaming = Some(false);
        a.grant.settings.passthrough = Some(Passthrough::Require);
        a.grant.settings.max_input_tokens = Some(10);
        a.grant.settings.max_output_tokens = Some(50);
        a.grant.settings.max_concurrency = Some(1);
        a.grant.settings.max_tokens_per_minute = Some(150);
        a.balance.budget_micro = Some(0);
        a.grant.rpm = Some(1);
        c.facts.stream = true;
        c.facts.unknown_params = vec!["top_k".into()];
        c.live.opened(500);
    }
    let model = c.model.take();
    c.refused("Invalid API token");
    c.agent().grant.state = AgentState::Paused;
    c.refused("API token has expired");
    c.token_expires_at_ms = Some(NOW.wall_ms + 1);
    c.refused("Agent is paused");
    c.agent().grant.state = AgentState::Active;
    c.refused("Model not allowed");
    c.agent().grant.settings.allowed_models = None;
    c.refused("no such model: m");
    c.model = model.map(|m| ModelFacts { price: None, ..m });
    c.refused("Model not priced");
    c.model.as_mut().unwrap().price = Some(PRICE);
    c.refused("Capability not allowed: streaming");
    c.facts.stream = false;
    c.refused("Provider key required");
    c.facts.own_key = true;
    let unknown = "unknown parameter top_k; the operator can let it through with extra_params of \
                   provider groq in models.yaml";
    c.refused(unknown);
    c.facts.unknown_params.clear();
    c.refused("the prompt may be 100 tokens; this agent may send 10 (max_input_tokens)");
    c.agent().grant.settings.max_input_tokens = Some(100);
    c.refused("the output cap of 100 tokens is above the limit of this agent: 50");
    c.agent().grant.settings.max_output_tokens = None;
    c.refused("Insufficient budget");
    c.agent().balance.budget_micro = Some(1);
    c.refused("Concurrency limit exceeded");
    c.agent().grant.settings.max_concurrency = Some(2);
    c.refused("RPM Rate limit exceeded");
    c.agent().grant.rpm = Some(2);
    c.refused("TPM Rate limit exceeded");
    c.agent().grant.settings.max_tokens_per_minute = Some(700);
    c.agent().balance.held_pico = PICO_PER_MICRO;
    c.waits();
    c.agent().balance.held_pico = 0;
    drop(c.granted());
}

#[test]
fn keys_follow_agent_and_provider() {
    let key = |passthrough, own_key, policy, operator_key, loopback| {
        let mut c = case();
        c.agent().grant.settings.passthrough = passthrough;
        c.facts.own_key = own_key;
        let model = c.model.as_mut().unwrap();
        (model.keys, model.operator_key, model.loopback) = (policy, operator_key, loopback);
        match c.decide() {
            Ok(terms) => format!("{:?}", terms.key),
            Err(Stop::Refuse(refusal) | Stop::TooLong(refusal)) => refusal.to_string(),
            Err(Stop::Wait(..)) => "waits".into(),
        }
    };
    use KeyPolicy::{Either, Operator, Passthrough as Byok};
    let (allow, require) = (Some(Passthrough::Allow), Some(Passthrough::Require));
    let not_enabled = "Passthrough mode not enabled for this agent";
    assert_eq!(key(None, false, Either, true, false), "Operator");
    assert_eq!(key(None, true, Either, true, false), not_enabled);
    assert_eq!(key(allow, true, Either, true, false), "Own");
    assert_eq!(key(allow, false, Either, true, false), "Operator");
    assert_eq!(
        key(allow, false, Either, false, false),
        "Provider key required"
    );
    assert_eq!(
        key(require, false, Either, true, false),
        "Provider key required"
    );
    assert_eq!(key(require, true, Byok, false, false), "Own");
    assert_eq!(
        key(allow, false, Byok, false, true),
        "Provider key required"
    );
    assert_eq!(key(allow, true, Operator, true, false), not_enabled);
    assert_eq!(key(None, false, Either, false, true), "None");
}

#[test]
fn a_run_gives_no_key_that_is_not_allowed_above_it() {
    let decided = |above, own_key| {
        let mut c = case();
        c.agent().grant.settings.passthrough = above;
        let mut run = scope(ScopeId::Node(2), ScopeKind::Run, "atlas/2");
        run.grant.settings.passthrough = Some(Passthrough::Require);
        c.path.insert(0, run);
        c.facts.own_key = own_key;
        match c.decide() {
            Ok(terms) => format!("{:?}", terms.key),
            Err(Stop::Refuse(refusal) | Stop::TooLong(refusal)) => refusal.to_string(),
            Err(Stop::Wait(..)) => "waits".into(),
        }
    };
    let allow = Some(Passthrough::Allow);
    assert_eq!(
        decided(None, true),
        "Passthrough mode not enabled for this agent"
    );
    assert_eq!(decided(None, false), "Provider key required");
    assert_eq!(decided(allow, true), "Own");
    assert_eq!(decided(allow, false), "Provider key required");
}

#[test]
fn output_raising_parameters_are_refused_on_free_models_too() {
    let mut c = case();
    c.model.as_mut().unwrap().price = Some(Price::FREE);
    c.model.as_mut().unwrap().loopback = true;
    c.facts.unknown_params = vec!["top_k".into()];
    c.facts.images = 1;
    drop(c.granted());
    for param in RAISES_OUTPUT.into_iter().chain(CHOOSES_MODEL).chain([
        "N_Predict",
        "maxTokens",
        "max-tokens",
        "min_new_tokens",
    ]) {
        c.facts.unknown_params = vec![param.into()];
        assert!(
            matches!(
                c.decide(),
                Err(Stop::Refuse(Refusal::InvalidRequest { .. }))
            ),
            "{param}"
        );
    }
}

#[test]
fn tools_and_vision_have_no_other_names() {
    let refused = |costly: &str, settings: Settings, capability: &str| {
        let mut c = case();
        c.agent().grant.settings = settings;
        c.model.as_mut().unwrap().price = Some(Price::FREE);
        c.facts.costly_params = vec![costly.into()];
        c.refused(&format!("Capability not allowed: {capability}"));
    };
    let none = || Settings {
        tools: Some(false),
        ..Settings::default()
    };
    let some = || Settings {
        allowed_tools: Some(vec!["good".into()]),
        ..Settings::default()
    };
    for param in ["tools[].type web_search", "web_search_options", "plugins"] {
        refused(param, none(), "tools");
    }
    refused("tools[].type mcp", some(), "tool mcp");
    refused("plugins", some(), "tool plugins");
    let mut c = case();
    c.agent().grant.settings.vision = Some(false);
    c.facts.media = true;
    c.refused("Capability not allowed: vision");
}

#[test]
fn a_remote_model_without_a_price_takes_no_costly_parameter() {
    let mut c = case();
    c.model.as_mut().unwrap().price = Some(Price::FREE);
    c.facts.costly_params = vec!["web_search_options".into()];
    assert!(matches!(
        c.decide(),
        Err(Stop::Refuse(Refusal::InvalidRequest { .. }))
    ));
    c.model.as_mut().unwrap().loopback = true;
    drop(c.granted());
}

#[test]
fn a_refused_cap_is_told_what_it_could_afford() {
    let c = Case::with(|c, a| {
        a(c).balance = balance(1_000 + 55 * 100 + 99, 0);
    });
    let Err(Stop::Refuse(Refusal::InsufficientBudget {
        affordable_output_tokens,
        ..
    })) = c.decide()
    else {
        panic!("granted")
    };
    assert_eq!(affordable_output_tokens, 55);
    let mut c = c;
    c.facts.output_cap = Some(55);
    drop(c.granted());
    c.facts.choices = 2;
    c.refused("Insufficient budget");
}

#[test]
fn an_agent_whose_money_is_spent_is_cut_off_from_free_models_too() {
    let mut c = Case::with(|c, a| {
        a(c).balance = Balance {
            budget_micro: Some(7),
            spent_micro: 7,
            ..Balance::default()
        }
    });
    c.model.as_mut().unwrap().price = Some(Price::FREE);
    c.refused("Insufficient budget");
}

#[test]
fn held_money_is_waited_for_and_nobody_overtakes() {
    // The hold of `case()` is 11,000.
    let held = |free, held| Case::with(|c, a| a(c).balance = balance(free + held, held));
    drop(held(11_000, 5_000).granted());
    held(10_999, 5_000).waits();
    let mut late = held(50_000, 5_000);
    late.queue_ahead = true;
    late.waits();
    late.model.as_mut().unwrap().price = Some(Price::FREE);
    drop(late.granted());
}

#[test]
fn an_absent_cap_gets_an_even_share() {
    let share = |free: i64, held: i64, open: u64, contenders| {
        let mut c = Case::with(|c, a| a(c).balance = balance(free + held, held));
        c.facts.output_cap = None;
        c.contenders = contenders;
        c.live.open = open;
        c.decide()
            .map(|terms| (terms.output_cap, terms.cap_is_ours))
    };
    // Plenty: the default. Alone: all that is free. Four at it: a quarter each.
    assert_eq!(share(1_000_000_000, 0, 0, 1), Ok((4096, true)));
    assert_eq!(share(21_000, 0, 0, 1), Ok((200, true)));
    assert_eq!(share(84_000, 4_000, 3, 1), Ok((200, true)));
    assert_eq!(share(84_000, 0, 0, 4), Ok((200, true)));
    // Less than 16 tokens each: wait while money is held, else take the least.
    assert!(matches!(share(10_000, 4_000, 3, 1), Err(Stop::Wait(..))));
    assert_eq!(share(10_000, 0, 0, 40), Ok((16, true)));
    // The limits of the model, the agent and the minute.
    let mut c = case();
    c.facts.output_cap = None;
    c.model.as_mut().unwrap().max_output_tokens = Some(1_000);
    assert_eq!(c.granted().output_cap, 1_000);
    c.agent().grant.settings.max_output_tokens = Some(500);
    assert_eq!(c.granted().output_cap, 500);
    c.agent().grant.settings.max_tokens_per_minute = Some(400);
    assert_eq!(c.granted().output_cap, 300);
    c.live.tokens.add(NOW.boot_ms, 285);
    c.refused("TPM Rate limit exceeded");
}

#[test]
fn a_request_above_the_whole_window_is_told_that_waiting_cannot_help() {
    let never = |limit| {
        let c = Case::with(|c, a| a(c).grant.settings.max_tokens_per_minute = Some(limit));
        match c.decide() {
            Err(Stop::TooLong(Refusal::TokenRate { never, .. })) => Some(never),
            _ => None,
        }
    };
    assert_eq!(never(199), Some(true));
    assert_eq!(never(200), None);
}

fn countable(c: &mut Case) {
    c.model.as_mut().unwrap().rendering.tokenizer = Some("o200k_base");
}

/// What a worker is told to do first, if anything.
fn to_measure(c: &Case) -> Option<(String, Refusal)> {
    let stop = c.decide().unwrap_err();
    c.ask(|question| counted_first(stop, question)).ok()
}

#[test]
fn a_prompt_is_counted_before_its_bytes_are_a_reason_to_refuse() {
    type Change = fn(&mut Case);
    let too_long: [(&str, Change); 4] = [
        ("tokens", |c| {
            c.agent().grant.settings.max_input_tokens = Some(99)
        }),
        ("Insufficient budget", |c| {
            c.agent().balance = balance(10_999, 0);
        }),
        ("TPM", |c| {
            c.agent().grant.settings.max_tokens_per_minute = Some(199)
        }),
        ("Budget held", |c| c.agent().balance = balance(11_200, 500)),
    ];
    for (text, change) in too_long {
        let mut c = case();
        change(&mut c);
        assert_eq!(to_measure(&c), None, "{text}: no tokenizer");
        countable(&mut c);
        let (tokenizer, refusal) = to_measure(&c).expect(text);
        assert_eq!(tokenizer, "o200k_base");
        assert!(refusal.to_string().contains(text), "{refusal}");
        // 44 bytes are 10 tokens: now it fits.
        c.facts.measured = Some(Measured { text: 10, tools: 0 });
        assert_eq!(c.granted().input_tokens, 48 + 8 + 10, "{text}");
        c.facts.measured = Some(Measured { text: 44, tools: 0 });
        assert_eq!(to_measure(&c), None, "{text}: it was counted");
    }
    // Nor where the longest tokens that there are would not.
    let mut c = Case::with(|c, a| a(c).balance = balance(11_000, 0));
    countable(&mut c);
    c.facts.ascii_bytes = 10_000;
    assert!(to_measure(&c).is_some());
    c.facts.ascii_bytes = 20_000;
    assert_eq!(to_measure(&c), None);
    // Whatever a worker says of it.
    (c.facts.ascii_bytes, c.facts.other_bytes) = (u64::MAX, u64::MAX);
    assert_eq!(to_measure(&c), None);
    // Where the output alone does not fit, or nothing is left, no count can help.
    for pico in [0, 9_999] {
        let mut c = Case::with(|c, a| a(c).balance = balance(pico, 0));
        countable(&mut c);
        assert!(matches!(c.decide(), Err(Stop::Refuse(_))), "{pico}");
    }
}

#[test]
fn every_prompt_has_its_choices_and_an_embedding_has_no_output() {
    let mut c = case();
    c.facts.prompts = 3;
    c.facts.choices = 2;
    c.route = Route::Completions;
    let terms = c.granted();
    assert_eq!((terms.route, terms.choices), (Route::Completions, 6));
    assert_eq!(terms.output_tokens(), 600);
    assert_eq!(terms.input_tokens, 48 + 8 * 4 + 44);

    let mut c = case();
    c.facts.output_cap = None;
    c.facts.prompts = 1;
    c.route = Route::Embeddings;
    c.model.as_mut().unwrap().embeds_only = true;
    let terms = c.granted();
    assert_eq!((terms.output_cap, terms.cap_is_ours), (0, false));
    assert_eq!(terms.hold_pico, 10 * (48 + 8 * 2 + 44));
    c.route = Route::Completions;
    c.refused("model m makes embeddings; send it to /v1/embeddings");
}

#[test]
fn images_have_a_price_or_are_refused() {
    let mut c = case();
    c.facts.images = 2;
    assert!(matches!(
        c.decide(),
        Err(Stop::Refuse(Refusal::InvalidRequest { .. }))
    ));
    c.model.as_mut().unwrap().rendering.image_tokens = Some(765);
    assert_eq!(c.granted().input_tokens, INPUT + 2 * 765);
    c.agent().grant.settings.vision = Some(false);
    c.refused("Capability not allowed: vision");
    c.agent().grant.settings.vision = None;
    c.facts.media = true;
    assert!(matches!(
        c.decide(),
        Err(Stop::Refuse(Refusal::InvalidRequest { .. }))
    ));
}

proptest! {
    /// Whatever is asked, what is granted fits what is free, and its cap is one that may be granted.
    #[test]
    fn a_grant_always_fits(
        free in 0i64..200_000, held in 0i64..200_000, cap in prop::option::of(1u64..400),
        choices in 1u64..4, bytes in 0u64..2_000, open in 0u64..9, contenders in 1u64..9,
    ) {
        let mut c = Case::with(|c, a| a(c).balance = balance(free + held, held));
        c.facts.output_cap = cap;
        c.facts.choices = choices;
        c.facts.ascii_bytes = bytes;
        c.live.open = open;
        c.contenders = contenders;
        match c.decide() {
            Ok(terms) => {
                prop_assert!(i128::from(terms.hold_pico) <= i128::from(free));
                prop_assert_eq!(terms.hold_pico, PRICE.ceiling_pico(terms.input_tokens, terms.output_tokens()).unwrap());
                prop_assert!(cap.is_none_or(|cap| cap == terms.output_cap));
                prop_assert!(terms.output_cap >= cap.unwrap_or(16));
            }
            Err(Stop::Wait(..)) => prop_assert!(held > 0),
            Err(Stop::Refuse(refusal) | Stop::TooLong(refusal)) => {
                prop_assert!(matches!(refusal, Refusal::InsufficientBudget { .. }), "{refusal}");
                let least = PRICE.ceiling_pico(56 + bytes, cap.unwrap_or(16) * choices).unwrap();
                prop_assert!(least > free + held || free + held == 0);
            }
        }
    }
}
