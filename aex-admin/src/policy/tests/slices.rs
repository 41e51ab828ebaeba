//! A slice gives the same answer as all policies together: random policies and random asks.

use aex_admin_proto::worker::Route;
use proptest::prelude::*;

use super::super::{Ask, PolicyTime};
use super::{ask, policies};

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(texts)
}

fn policy() -> impl Strategy<Value = String> {
    let principal = one_of(&[
        "principal",
        "principal is Agent",
        "principal == Agent::\"atlas\"",
        "principal == Agent::\"borg\"",
        "principal in Agent::\"atlas\"",
        "principal in Group::\"dev\"",
        "principal in Group::\"eng\"",
        "principal in Group::\"kernel\"",
        "principal is Agent in Group::\"dev\"",
    ]);
    let rest = one_of(&[
        "action, resource",
        "action, resource is Model",
        "action, resource == Model::\"large\"",
        "action, resource in Provider::\"far\"",
        "action, resource == Tool::\"shell\"",
        "action, resource is Tool in Tool::\"look\"",
        "action in Action::\"Request\", resource",
        "action in Action::\"Request\", resource is Model in Provider::\"near\"",
        "action in Action::\"Generate\", resource in Model::\"small\"",
        "action in [Action::\"Chat\", Action::\"Embed\"], resource",
        "action in [Action::\"Embed\", Action::\"CallTool\"], resource",
        "action == Action::\"Respond\", resource",
        "action == Action::\"CallTool\", resource",
        "action == Action::\"CallTool\", resource is Tool",
    ]);
    let condition = one_of(&[
        "context.inputTokens > 50",
        "context.outputTokens * 9223372036854775807 > 0",
        "context.tools.contains(\"look\")",
        "context.labels.contains(\"x\") || context.run",
        "context has session && context.session like \"s*\"",
        "principal in Group::\"eng\"",
        "context.time.hour < 12",
        "resource is Tool && resource.name like \"s*\"",
        "resource is Model && resource in Provider::\"near\"",
    ]);
    let mode = one_of(&["enforce", "warn", "shadow"]);
    let joint = one_of(&["when", "unless"]);
    (principal, rest, condition, mode, joint).prop_map(
        |(principal, rest, condition, mode, joint)| {
            format!("@mode(\"{mode}\") forbid ({principal}, {rest}) {joint} {{ {condition} }};\n")
        },
    )
}

fn any_ask() -> impl Strategy<Value = Ask<'static>> {
    let agent = one_of(&["atlas", "borg", "new"]);
    let groups: [&'static [&'static str]; 4] = [
        &["kernel"],
        &["dev", "eng", "kernel"],
        &["eng", "kernel"],
        &["ops", "kernel"],
    ];
    let models = [("small", "near"), ("large", "far"), ("vector", "far")];
    let tools: [&'static [&'static str]; 4] = [&[], &["look"], &["shell", "look"], &["x", "x"]];
    let labels: [&'static [&'static str]; 2] = [&[], &["x", "y"]];
    (
        agent,
        proptest::sample::select(groups.to_vec()),
        proptest::sample::select(Route::ALL.to_vec()),
        proptest::sample::select(models.to_vec()),
        proptest::sample::select(tools.to_vec()),
        proptest::sample::select(labels.to_vec()),
        (0_u64..100, 0_u64..3, 0_u8..24),
        (any::<bool>(), proptest::option::of(one_of(&["s1", "t"]))),
    )
        .prop_map(
            |(agent, groups, route, (model, provider), tools, labels, numbers, (run, session))| {
                Ask {
                    agent,
                    groups,
                    route,
                    model,
                    provider,
                    tools,
                    labels,
                    input_tokens: numbers.0,
                    output_tokens: numbers.1,
                    time: PolicyTime {
                        hour: numbers.2,
                        ..ask().time
                    },
                    run,
                    session,
                    ..ask()
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_slice_answers_as_all_policies_do(
        texts in proptest::collection::vec(policy(), 1..12),
        asks in proptest::collection::vec(any_ask(), 1..24),
    ) {
        // Some are of no use, and refused; those are not what this is about.
        let texts: Vec<String> = texts.into_iter().filter(|text| super::read(text).is_ok()).collect();
        let policies = policies(&texts.concat());
        for ask in &asks {
            prop_assert_eq!(policies.judge(ask), policies.judge_by_all(ask), "{:?}\n{}", ask, texts.concat());
        }
    }
}
