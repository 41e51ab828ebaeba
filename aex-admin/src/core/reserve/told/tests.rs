//! A decision says which rule it was, with the figures that it went by; and the same with and without a trail.

use aex_admin_proto::limit::Limit;
use aex_admin_proto::operator::AgentState;
use aex_admin_proto::scope::{KERNEL, ScopeId, ScopeKind};

use super::*;
use crate::core::reserve::tests::{Case, balance, case, scope};
use crate::core::reserve::{Question, Stop, decide};

fn looks(case: &Case) -> Vec<Look> {
    let trail = Trail::default();
    let with = case.ask(|question| {
        decide(Question {
            trail: Some(&trail),
            ..question
        })
    });
    assert_eq!(with, case.ask(decide), "a trail changes nothing");
    let mut targets = trail.into_targets();
    assert_eq!(targets.len(), 1);
    let looks = targets.remove(0).looks;
    let stops = looks.iter().filter(|look| look.verdict.stops()).count();
    assert_eq!(stops, usize::from(with.is_err()), "{looks:?}");
    looks
}

fn limited(limit: &str) -> Case {
    let limit: Limit = limit.parse().unwrap();
    let mut group = scope(ScopeId::Node(2), ScopeKind::Group, "team");
    group.grant.settings.limits = Some(vec![limit]);
    let mut case = case();
    case.path.insert(1, group);
    case
}

/// `SCOPE RULE VERDICT NEEDED/USED/MOST`, of the last look.
fn last(case: &Case) -> String {
    shown(looks(case).last().unwrap())
}

fn shown(look: &Look) -> String {
    let scope = look.scope.as_ref();
    let scope = scope.map_or("-".to_owned(), |scope| {
        format!("{} {}", scope.kind.name(), scope.name)
    });
    let figures = look.figures.as_ref().map_or(String::new(), |figures| {
        let used = figures.used.map_or("-".to_owned(), |used| used.to_string());
        format!(" {}/{used}/{}", figures.needed, figures.most)
    });
    format!("{scope}: {} {}{figures}", look.rule, look.verdict.name())
}

#[test]
fn the_rule_that_stops_a_request_is_named_with_its_scope_and_figures() {
    // The case is 100 tokens of prompt and 100 of output: 0.011 micro-dollars, rounded up to 1.
    for (limit, expected) in [
        ("money/day=0.000001", "-"),
        ("tokens/day=199", "group team: tokens/day refuses 200/0/199"),
        (
            "tokens/minute=199",
            "group team: tokens/minute refuses 200/0/199",
        ),
        ("input=99", "group team: input refuses 100/-/99"),
        ("output=99", "group team: output refuses 100/-/99"),
        ("output@model:other=99", "-"),
        (
            "output@model:m=99",
            "group team: output@model:m refuses 100/-/99",
        ),
    ] {
        let case = limited(limit);
        if expected == "-" {
            assert!(case.ask(decide).is_ok(), "{limit}");
            assert!(
                looks(&case)
                    .iter()
                    .all(|look| look.verdict == Verdict::Passes)
            );
        } else {
            assert_eq!(last(&case), expected);
        }
    }
}

#[test]
fn a_rule_on_trial_says_so_and_the_request_goes_on() {
    for (mode, said) in [("warn", "warns"), ("shadow", "shadows")] {
        for what in ["input", "output", "tokens/minute", "tokens/day"] {
            let case = limited(&format!("{what}=99:{mode}"));
            let looks = looks(&case);
            let found = looks.iter().find(|look| look.rule == what).unwrap();
            assert!(shown(found).contains(said), "{}", shown(found));
        }
    }
}

#[test]
fn what_is_no_limit_is_named_too() {
    let agent = |change: fn(&mut Scope)| {
        let mut case = case();
        change(case.agent());
        case
    };
    let table: [(Case, &str); 6] = [
        (
            agent(|agent| agent.grant.state = AgentState::Paused),
            "agent atlas: state refuses",
        ),
        (
            agent(|agent| agent.grant.settings.allowed_models = Some(vec!["x".into()])),
            "agent atlas: allowed_models refuses",
        ),
        (
            agent(|agent| agent.balance = balance(10, 0)),
            "agent atlas: budget refuses 1/1/1",
        ),
        (
            agent(|agent| agent.balance = balance(12_000, 6_000)),
            "agent atlas: budget waits 1/1/1",
        ),
        (
            agent(|agent| agent.grant.rpm = Some(0)),
            "agent atlas: requests/minute refuses 1/0/0",
        ),
        (
            {
                let mut case = case();
                case.model.as_mut().unwrap().max_output_tokens = Some(50);
                case
            },
            "-: max_output_tokens of model m refuses 100/-/50",
        ),
    ];
    for (case, expected) in table {
        assert_eq!(last(&case), expected);
    }
}

#[test]
fn the_share_of_one_child_is_a_rule_of_the_scope_above() {
    let mut case = limited("parallel=10");
    case.path[1].grant.settings.max_held_percent = Some(20);
    case.live.open = 2;
    assert_eq!(
        last(&case),
        "group team: max_held of parallel refuses 1/2/2"
    );
    let kernel = case.path.last().unwrap();
    assert_eq!(kernel.id, KERNEL);
}

#[test]
fn a_share_of_money_is_told_to_its_operator_and_not_to_its_agent() {
    let mut case = limited("money/day=0.000001");
    case.path[1].grant.settings.max_held_percent = Some(5);
    // It holds something, and a twentieth of a micro-dollar is not there for another hold.
    case.agent().balance.held_pico = 45_000;
    assert_eq!(
        last(&case),
        "agent atlas: max_held of group team waits 1/0/0"
    );
    match case.ask(decide) {
        Err(Stop::Wait(Refusal::Above { scope, .. }, queue)) => {
            assert_eq!((scope, queue.scope), (ScopeKind::Group, case.path[0].id));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_decides_about_keys_is_named() {
    use aex_admin_proto::egress::KeyPolicy;
    use aex_admin_proto::operator::Passthrough;
    for (keys, own_key, operator_key, said, expected) in [
        (
            KeyPolicy::Operator,
            true,
            true,
            Some(Passthrough::Require),
            "-",
        ),
        (KeyPolicy::Passthrough, false, true, None, "-"),
        (KeyPolicy::Either, true, true, None, "agent atlas"),
        (
            KeyPolicy::Either,
            true,
            true,
            Some(Passthrough::Deny),
            "agent atlas",
        ),
        (
            KeyPolicy::Either,
            false,
            true,
            Some(Passthrough::Require),
            "agent atlas",
        ),
        (KeyPolicy::Either, false, false, None, "-"),
    ] {
        let mut case = case();
        case.facts.own_key = own_key;
        case.agent().grant.settings.passthrough = said;
        let model = case.model.as_mut().unwrap();
        (model.keys, model.operator_key) = (keys, operator_key);
        let expected = format!("{expected}: provider key refuses");
        assert_eq!(last(&case), expected, "{keys:?} {own_key} {said:?}");
    }
}

#[test]
fn output_is_limited_by_the_request_and_not_by_the_answer() {
    for (choices, prompts, cap, most, expected) in [
        (1, 0, Some(100), 100, Ok(100)),
        (2, 0, Some(50), 100, Ok(50)),
        (2, 0, Some(51), 100, Err(102)),
        (1, 50, Some(100), 100, Err(5_000)),
        (4, 0, None, 100, Ok(25)),
        (128, 0, None, 100, Err(128)),
    ] {
        let mut case = limited(&format!("output={most}"));
        (case.facts.choices, case.facts.prompts) = (choices, prompts);
        case.facts.output_cap = cap;
        let found = case.ask(decide).map(|terms| terms.output_cap).map_err(|_| {
            let look = looks(&case).pop().unwrap();
            look.figures.unwrap().needed
        });
        assert_eq!(found, expected, "{choices} {prompts} {cap:?}");
    }
}

#[test]
fn a_key_that_one_demands_and_another_denies_is_no_request() {
    use aex_admin_proto::operator::Passthrough;
    for (own, above) in [
        (Passthrough::Deny, Passthrough::Require),
        (Passthrough::Require, Passthrough::Deny),
    ] {
        for own_key in [true, false] {
            let mut case = limited("input=1000");
            case.facts.own_key = own_key;
            case.agent().grant.settings.passthrough = Some(own);
            case.path[1].grant.settings.passthrough = Some(above);
            assert!(case.ask(decide).is_err(), "{own:?} {above:?} {own_key}");
        }
    }
}

#[test]
fn a_run_is_told_no_figure_of_what_is_above_it() {
    for limit in ["input=77", "output=77"] {
        let mut case = case();
        let limits = vec![limit.parse().unwrap()];
        case.agent().grant.settings.limits = Some(limits);
        let told = |case: &Case| match case.ask(decide) {
            Err(stop) => stop.refusal().to_string(),
            Ok(terms) => panic!("{terms:?}"),
        };
        assert!(told(&case).contains("77"), "{}", told(&case));
        let run = scope(ScopeId::Node(3), ScopeKind::Run, "atlas/3");
        case.path.insert(0, run);
        assert!(!told(&case).contains("77"), "{}", told(&case));
    }
}
