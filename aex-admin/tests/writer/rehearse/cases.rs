//! What a rehearsal tells of a history that is known, and where it could be wrong.

use aex_admin_proto::egress::{Ending, Exchange, Failure};
use aex_admin_proto::operator::ResolveParams;
use aex_admin_proto::worker::Observed;

use super::*;
use crate::fallback::after;

/// Ana asks four times, twice of them dearly, and Ben once; a rehearsal changes nothing.
fn recorded() -> World {
    let world = World::new(&Value::Null);
    let asked = [
        ("ana", 10),
        ("ana", 90),
        ("ana/run", 90),
        ("ana", 10),
        ("ben", 90),
    ];
    for (number, (who, cap)) in (0..).zip(asked) {
        world.after(1_000);
        let facts = Facts {
            messages: 1,
            ascii_bytes: 44,
            choices: 1,
            output_cap: Some(cap),
            tools: vec!["shell".into()],
            session: (who == "ben").then(|| "ci-1".to_owned()),
            ..Facts::default()
        };
        let grant = world.reserve(who, number, &facts).unwrap();
        world
            .kernel
            .settle(id(number), &grant, answered(50, cap))
            .unwrap();
    }
    world
}

/// `agent rule requests cost`, of each line.
fn lines(told: &Rehearsal) -> Vec<String> {
    let line = |line: &aex_admin_proto::rehearsal::RefusedBy| {
        let scope = line.scope.as_ref();
        let scope = scope.map_or(String::new(), |scope| format!("{} ", scope.name));
        format!(
            "{} {scope}{} {} {}",
            line.agent, line.rule, line.tally.requests, line.tally.cost_micro
        )
    };
    told.refusals.iter().map(line).collect()
}

#[test]
fn policies_and_limits_name_who_is_refused_by_what_and_the_money() {
    let world = recorded();
    let events: i64 = world.kernel.sql("SELECT COUNT(*) FROM events");
    let ledger = world.ledger();
    let policies = |text: &str, since_ms| {
        lines(&played(
            &ledger,
            &proposal(&Value::Null, &[("p.cedar", text)], since_ms),
        ))
    };
    let forbid = |when: &str| {
        format!(
            "@id(\"rule\") forbid (principal, action in Action::\"Request\", resource) when {{ {when} }};"
        )
    };
    // 50 tokens at 0.01 and 90 at 0.1 micro-dollars are 9.5.
    let dear = forbid("context.outputTokens > 50");
    assert_eq!(
        policies(&dear, START_MS),
        ["ana policy rule 2 19", "ben policy rule 1 10"]
    );
    assert_eq!(
        policies(&forbid("context.run"), START_MS),
        ["ana policy rule 1 10"]
    );
    assert_eq!(
        policies(
            &forbid("context has session && context.session like \"ci-*\""),
            START_MS
        ),
        ["ben policy rule 1 10"]
    );
    assert_eq!(
        policies(
            "@id(\"shell\") forbid (principal == Agent::\"ben\", action == Action::\"CallTool\", resource == Tool::\"shell\");",
            START_MS
        ),
        ["ben policy shell 1 10"]
    );
    // Ben's alone is of that time.
    assert_eq!(policies(&dear, START_MS + 5_000), ["ben policy rule 1 10"]);

    let limits = |scopes: Value| lines(&played(&ledger, &proposal(&scopes, &[], START_MS)));
    assert_eq!(
        limits(json!({"groups": {"team": {"limits": ["money/day=0.000020"]}}})),
        ["ana team money/day 1 10", "ben team money/day 1 10"]
    );
    assert_eq!(
        limits(json!({"agents": {"ana": {"limits": ["requests=1"]}}})),
        ["ana ana requests 3 21"]
    );
    assert_eq!(
        limits(json!({"kernel": {"capabilities": {"denied_tools": ["SHELL"]}}})),
        [
            "ana kernel capabilities 4 22",
            "ben kernel capabilities 1 10"
        ]
    );
    let on_trial = played(
        &ledger,
        &proposal(
            &json!({"agents": {"ana": {"limits": ["output=50:shadow"]}}}),
            &[],
            START_MS,
        ),
    );
    assert_eq!(on_trial.refused.requests, 0);
    let trial = &on_trial.on_trial[0];
    assert_eq!(
        (
            trial.rule.as_str(),
            trial.mode.as_str(),
            trial.tally.requests
        ),
        ("limit output of this agent", "shadow", 2)
    );
    assert_eq!(
        world.kernel.sql::<i64>("SELECT COUNT(*) FROM events"),
        events
    );
    world.kernel.audit();
}

#[test]
fn a_proposal_that_could_not_come_into_force_is_not_rehearsed() {
    let world = recorded();
    let ledger = world.ledger();
    let scopes = |scopes: Value| refusal_of(&ledger, &proposal(&scopes, &[], START_MS));
    for (proposed, expected) in [
        (
            json!({"groups": {"nobody": {}}}),
            "there is no group nobody",
        ),
        (
            json!({"agents": {"ana": {"limits": ["money/day=0"]}}}),
            "no amount above zero",
        ),
        (
            json!({"agents": {"ana": {"limits": ["tokens@model:x=5"]}}}),
            "x",
        ),
        (json!({"agents": {"ana": {"budget": 5}}}), "budget"),
        (json!({"agent": {}}), "agent"),
        (
            json!({"agents": {"ana": {"capabilities": {"max_choices": 0}}}}),
            "max_choices",
        ),
    ] {
        let error = scopes(proposed);
        assert!(
            error.starts_with("scopes.yaml") && error.contains(expected),
            "{error}"
        );
    }
    let nothing = refusal_of(&ledger, &proposal(&json!({"agents": {}}), &[], START_MS));
    assert_eq!(
        nothing,
        "scopes.yaml: it has no policy and no limit: there is nothing to rehearse"
    );
    let nothing = refusal_of(&ledger, &proposal(&Value::Null, &[], START_MS));
    assert!(
        nothing.starts_with("the proposal: it has no policy"),
        "{nothing}"
    );
    let error = refusal_of(
        &ledger,
        &proposal(
            &Value::Null,
            &[("p.cedar", "forbid (principal, action, resource")],
            START_MS,
        ),
    );
    assert!(error.starts_with("p.cedar:1:"), "{error}");
}

fn plain(output_cap: u64) -> Facts {
    Facts {
        messages: 1,
        ascii_bytes: 44,
        choices: 1,
        output_cap: Some(output_cap),
        ..Facts::default()
    }
}

/// The request of `number` to the model of three targets, after the attempts before it.
fn attempt(world: &World, number: u64, before: &[(u64, &Grant)]) -> ReserveParams {
    let before: Vec<(HoldId, &Grant)> = before
        .iter()
        .map(|(number, grant)| (id(*number), *grant))
        .collect();
    after(&before, world.request("ana", number, &plain(50)))
}

/// It was not reached.
fn unreached(world: &World, number: u64, grant: &Grant) {
    world.kernel.receipt(
        id(number),
        Ending::Ended(Exchange {
            failure: Some(Failure::Connect),
            ..Exchange::default()
        }),
    );
    let seen = Observed {
        failure: Some(Failure::Connect),
        ..Observed::default()
    };
    world.kernel.settle(id(number), grant, seen).unwrap();
}

/// Two requests, each tried at two targets that are not reached, and answered by the third.
fn with_attempts() -> World {
    let world = World::new(&Value::Null);
    let keys = ["q".to_owned()].into();
    let command = aex_admin::writer::Command::OperatorKeys { providers: keys };
    world.kernel.queue.send(command).unwrap();
    for number in [10, 20] {
        world.after(1_000);
        let first = world.kernel.reserve(attempt(&world, number, &[])).unwrap();
        unreached(&world, number, &first);
        let again = attempt(&world, number + 1, &[(number, &first)]);
        let second = world.kernel.reserve(again).unwrap();
        unreached(&world, number + 1, &second);
        let again = attempt(
            &world,
            number + 2,
            &[(number, &first), (number + 1, &second)],
        );
        let third = world.kernel.reserve(again).unwrap();
        let providers = [&first, &second, &third].map(|grant| grant.provider.as_str());
        assert_eq!(providers, ["p", "q", "p"]);
        world
            .kernel
            .settle(id(number + 2), &third, answered(50, 50))
            .unwrap();
    }
    world
}

#[test]
fn a_request_is_one_however_often_it_was_tried() {
    let world = with_attempts();
    let ledger = world.ledger();
    let told = |scopes: Value, policies: &[(&str, &str)]| {
        let told = played(&ledger, &proposal(&scopes, policies, START_MS));
        assert_eq!(told.requests.requests, 2);
        (lines(&told), told)
    };
    let ana = |settings: Value| json!({"agents": {"ana": settings}});
    // The next target takes what one of them may not.
    for allowed in ["p", "q"] {
        let only = ana(json!({"capabilities": {"allowed_providers": [allowed]}}));
        assert_eq!(told(only, &[]).0, [""; 0], "{allowed}");
    }
    let not_q = "@id(\"rule\") forbid (principal, action, resource in Provider::\"q\");";
    assert_eq!(told(Value::Null, &[("p.cedar", not_q)]).0, [""; 0]);
    let none = "@id(\"rule\") forbid (principal, action in Action::\"Request\", resource);";
    assert_eq!(
        told(Value::Null, &[("p.cedar", none)]).0,
        ["ana policy rule 2 11"]
    );
    // What was not sent counts in no rate, and a request is refused once.
    assert_eq!(
        told(ana(json!({"limits": ["requests/minute=2"]})), &[]).0,
        [""; 0]
    );
    assert_eq!(
        told(ana(json!({"limits": ["requests/minute=1"]})), &[]).0,
        ["ana ana requests/minute 1 6"]
    );
    let shadow =
        "@id(\"t\") @mode(\"shadow\") forbid (principal, action in Action::\"Request\", resource);";
    let (_, shadowed) = told(Value::Null, &[("p.cedar", shadow)]);
    assert_eq!(shadowed.on_trial[0].tally.requests, 2);
}

#[test]
fn what_a_kernel_would_count_is_not_refused_by_its_bytes() {
    let world = World::new(&Value::Null);
    let keys = ["q".to_owned()].into();
    let command = aex_admin::writer::Command::OperatorKeys { providers: keys };
    world.kernel.queue.send(command).unwrap();
    // At its second target, which has a tokenizer.
    let first = world.kernel.reserve(attempt(&world, 1, &[])).unwrap();
    unreached(&world, 1, &first);
    let again = attempt(&world, 2, &[(1, &first)]);
    let second = world.kernel.reserve(again).unwrap();
    assert_eq!(second.provider, "q");
    world
        .kernel
        .settle(id(2), &second, answered(60, 50))
        .unwrap();
    let limited = |limit: &str| {
        let scopes = json!({"agents": {"ana": {"limits": [limit]}}});
        let params = proposal(&scopes, &[], START_MS);
        lines(&played(&world.ledger(), &params))
    };
    // 100 by its bytes at either, and 60 in truth: at the first it is not counted, and refused.
    assert_eq!(limited("input=80"), ["ana ana input 1 6"]);
    assert_eq!(limited("input@provider:q=80"), [""; 0]);
    // Where it is too long even so, the third target takes it.
    assert_eq!(limited("input@provider:q=59"), [""; 0]);
}

#[test]
fn corrections_reach_the_sums_and_the_money() {
    let world = World::new(&Value::Null);
    let ask = |number| {
        world.after(1_000);
        let grant = world.reserve("ana", number, &plain(50)).unwrap();
        world
            .kernel
            .settle(id(number), &grant, answered(50, 50))
            .unwrap();
    };
    ask(1);
    let of_hold = ResolveParams {
        hold: Some(id(1).to_string()),
        cost_pico: 1_000_000_000,
        reason: "the invoice".into(),
        ..ResolveParams::default()
    };
    crate::upkeep::resolve(&world.kernel, of_hold).unwrap();
    ask(2);
    let scopes = json!({"agents": {"ana": {"limits": ["money=0.001"]}}});
    let told = played(&world.ledger(), &proposal(&scopes, &[], START_MS));
    assert_eq!(lines(&told), ["ana ana money 1 6"]);
    assert_eq!(told.requests.cost_micro, 1_006);
}

#[test]
fn who_waits_longer_than_hold_wait_is_refused() {
    // hold_wait is 300 ms.
    for (held_ms, refused, waited) in [(200, 0, 1), (2_000, 1, 0)] {
        let world = World::new(&Value::Null);
        let first = world.reserve("ana", 1, &plain(50)).unwrap();
        let second = world.reserve("ana", 2, &plain(50)).unwrap();
        world.after(held_ms);
        world.kernel.settle(id(1), &first, answered(1, 1)).unwrap();
        world.after(3_000);
        world
            .kernel
            .settle(id(2), &second, answered(50, 50))
            .unwrap();
        // One hold fits, with the little that the first one came to.
        let scopes = json!({"agents": {"ana": {"limits": ["money=0.000008"]}}});
        let told = played(&world.ledger(), &proposal(&scopes, &[], START_MS));
        assert_eq!(
            (told.refused.requests, told.waited.requests, told.undecided),
            (refused, waited, 0),
            "{held_ms} ms: {told:#?}"
        );
    }
}

#[test]
fn what_was_cut_out_was_asked_for() {
    let strip = json!({"agents": {"ana": {
        "capabilities": {"denied_tools": ["shell"], "on_forbidden_tool": "strip"}
    }}});
    let world = World::new(&strip);
    let facts = Facts {
        tools: vec!["shell".into(), "read".into()],
        ..plain(50)
    };
    let grant = world.reserve("ana", 1, &facts).unwrap();
    world
        .kernel
        .settle(id(1), &grant, answered(50, 50))
        .unwrap();
    let refuse = json!({"agents": {"ana": {"capabilities": {"denied_tools": ["shell"]}}}});
    let told = played(&world.ledger(), &proposal(&refuse, &[], START_MS));
    assert_eq!(lines(&told), ["ana ana capabilities 1 6"]);
}

#[test]
fn it_ends_when_it_is_told_to() {
    let world = World::new(&Value::Null);
    for number in 0..300 {
        let grant = world.reserve("ana", number, &plain(50)).unwrap();
        world
            .kernel
            .settle(id(number), &grant, answered(1, 1))
            .unwrap();
    }
    let scopes = json!({"agents": {"ana": {"limits": ["money=1"]}}});
    let params = proposal(&scopes, &[], START_MS);
    let played = rehearse(&config(), &world.ledger(), &params, &|| false);
    assert!(matches!(played, Err(RehearseError::TooLong)), "{played:?}");
}
