//! What a policy says of a request.

use aex_admin_proto::worker::Route;

use super::super::judge::CANNOT_EVALUATE;
use super::super::{Ask, Denial, MAX_TOOLS, Mode, PolicyTime};
use super::{ask, policies};

/// Whether each of these asks is denied.
#[track_caller]
fn check(text: &str, asks: &[(Ask<'_>, bool)]) {
    let policies = policies(text);
    for (index, (ask, denied)) in asks.iter().enumerate() {
        let judged = policies.judge(ask);
        assert_eq!(
            judged.denied.is_some(),
            *denied,
            "{index}: {judged:?}\n{text}"
        );
        assert_eq!(judged, policies.judge_by_all(ask));
        // The second time it comes out of the cache.
        assert_eq!(judged, policies.judge(ask));
    }
}

#[test]
fn scopes_and_conditions() {
    let base = ask();
    check(
        "forbid (principal, action, resource == Model::\"large\");",
        &[
            (base, false),
            (
                Ask {
                    model: "large",
                    provider: "far",
                    ..base
                },
                true,
            ),
        ],
    );
    check(
        "forbid (principal in Group::\"eng\", action in Action::\"Generate\", resource in Provider::\"near\")\n\
         unless { context.costMicroUsd <= 1000 };",
        &[
            (base, false),
            (
                Ask {
                    cost_micro: 1001,
                    ..base
                },
                true,
            ),
            (
                Ask {
                    cost_micro: 1001,
                    route: Route::Responses,
                    ..base
                },
                true,
            ),
            (
                Ask {
                    cost_micro: 1001,
                    route: Route::Embeddings,
                    ..base
                },
                false,
            ),
            (
                Ask {
                    cost_micro: 1001,
                    groups: &["ops", "kernel"],
                    ..base
                },
                false,
            ),
            (
                Ask {
                    cost_micro: 1001,
                    model: "large",
                    provider: "far",
                    ..base
                },
                false,
            ),
        ],
    );
    check(
        "forbid (principal in Group::\"kernel\", action == Action::\"Embed\", resource);",
        &[
            (base, false),
            (
                Ask {
                    route: Route::Embeddings,
                    groups: &["kernel"],
                    ..base
                },
                true,
            ),
        ],
    );
    check(
        "forbid (principal, action, resource) when { Group::\"dev\" in Group::\"eng\" };",
        &[
            (base, true),
            (
                Ask {
                    groups: &["dev", "kernel"],
                    ..base
                },
                false,
            ),
        ],
    );
}

#[test]
fn every_field_of_the_context() {
    let base = ask();
    let cases = [
        (
            "context.inputTokens == 7",
            Ask {
                input_tokens: 7,
                ..base
            },
        ),
        (
            "context.outputTokens == 7",
            Ask {
                output_tokens: 7,
                ..base
            },
        ),
        (
            "context.costMicroUsd == 7",
            Ask {
                cost_micro: 7,
                ..base
            },
        ),
        (
            "context.stream",
            Ask {
                stream: true,
                ..base
            },
        ),
        ("context.images == 2", Ask { images: 2, ..base }),
        (
            "context.tools.contains(\"shell\")",
            Ask {
                tools: &["look", "shell"],
                ..base
            },
        ),
        (
            "context.ownKey",
            Ask {
                own_key: true,
                ..base
            },
        ),
        (
            "context has session && context.session like \"ci-*\"",
            Ask {
                session: Some("ci-7"),
                ..base
            },
        ),
        (
            "context.labels.contains(\"intern\")",
            Ask {
                labels: &["intern"],
                ..base
            },
        ),
        ("context.run", Ask { run: true, ..base }),
        (
            "context.time.hour >= 18",
            Ask {
                time: PolicyTime {
                    hour: 18,
                    ..base.time
                },
                ..base
            },
        ),
        (
            "context.time.minute == 0",
            Ask {
                time: PolicyTime {
                    minute: 0,
                    ..base.time
                },
                ..base
            },
        ),
        (
            "context.time.weekday > 5",
            Ask {
                time: PolicyTime {
                    weekday: 6,
                    ..base.time
                },
                ..base
            },
        ),
        (
            "context.time.date >= 20260301",
            Ask {
                time: PolicyTime {
                    date: 20260301,
                    ..base.time
                },
                ..base
            },
        ),
    ];
    for (condition, hit) in cases {
        let text = format!(
            "forbid (principal, action in Action::\"Request\", resource) when {{ {condition} }};"
        );
        check(&text, &[(base, false), (hit, true)]);
    }
}

#[test]
fn a_tool_is_judged_by_itself() {
    let base = ask();
    let with = |tools: &'static [&'static str]| Ask { tools, ..base };
    check(
        "forbid (principal, action == Action::\"CallTool\", resource == Tool::\"shell\")\n\
         unless { context.labels.contains(\"trusted\") };",
        &[
            (base, false),
            (with(&["look"]), false),
            (with(&["look", "shell"]), true),
            (with(&["Shell"]), false),
            (
                Ask {
                    labels: &["trusted"],
                    ..with(&["shell"])
                },
                false,
            ),
        ],
    );
    check(
        "forbid (principal, action == Action::\"CallTool\", resource) when {\n\
         resource.name like \"shell_*\" && context.model in Provider::\"near\" };",
        &[
            (with(&["look", "shell_x"]), true),
            (with(&["shell"]), false),
            (
                Ask {
                    model: "large",
                    provider: "far",
                    ..with(&["shell_x"])
                },
                false,
            ),
        ],
    );
    let many: Vec<String> = (0..=MAX_TOOLS).map(|n| format!("t{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    check(
        "forbid (principal, action == Action::\"CallTool\", resource) when { resource.name == \"x\" };",
        &[
            (
                Ask {
                    tools: &many,
                    ..base
                },
                true,
            ),
            (
                Ask {
                    tools: &many[1..],
                    ..base
                },
                false,
            ),
        ],
    );
    // Where no policy is about them, or all are about a tool of another name, any number will do.
    let unasked = policies("forbid (principal, action, resource == Tool::\"x\");");
    assert_eq!(
        unasked
            .judge(&Ask {
                tools: &many,
                ..base
            })
            .denied,
        None
    );
}

#[test]
fn a_forbid_that_cannot_be_evaluated_denies() {
    // No sum of what is asked overflows; a product can.
    let text = "@id(\"sum\") forbid (principal, action in Action::\"Request\", resource)\n\
                when { context.inputTokens * 9223372036854775807 < 0 };";
    let judged = policies(text).judge(&ask());
    let expected = Denial {
        policy: "sum".to_owned(),
        reason: Some(CANNOT_EVALUATE.to_owned()),
        error: true,
    };
    assert_eq!(judged.denied, Some(expected));
    // A policy that does match is the better answer.
    let both = format!("{text}\n@reason(\"no\") forbid (principal, action, resource);");
    let denied = policies(&both).judge(&ask()).denied.unwrap();
    assert_eq!(
        (denied.reason.as_deref(), denied.error),
        (Some("no"), false)
    );
    // Tried out, it denies nothing, and it is seen.
    for mode in [Mode::Warn, Mode::Shadow] {
        let judged = policies(&format!("@mode(\"{}\") {text}", mode.as_str())).judge(&ask());
        assert_eq!(judged.denied, None);
        let seen = [judged.warned, judged.shadowed].concat();
        assert!(seen.len() == 1 && seen[0].error, "{seen:?}");
    }
}

#[test]
fn a_path_that_is_none_denies() {
    let policies = policies("forbid (principal, action, resource == Model::\"large\");");
    for groups in [&["dev", "dev", "kernel"][..], &["kernel", "dev", "kernel"]] {
        let judged = policies.judge(&Ask { groups, ..ask() });
        assert!(judged.denied.unwrap().error, "{groups:?}");
    }
}

#[test]
fn the_largest_numbers_are_no_error() {
    let text = "forbid (principal, action, resource) when {\n\
                context.inputTokens + context.outputTokens + context.costMicroUsd * 1000 + context.images < 0 };";
    for cost_micro in [i64::MAX, i64::MIN, 0] {
        let largest = Ask {
            input_tokens: u64::MAX,
            output_tokens: u64::MAX,
            images: u64::MAX,
            cost_micro,
            ..ask()
        };
        assert_eq!(policies(text).judge(&largest).denied, None);
    }
}

#[test]
fn modes_and_names() {
    let text = "@id(\"one\") @reason(\"  not on Tuesdays \") @mode(\"warn\")\n\
                forbid (principal, action, resource) when { context.time.weekday == 2 };\n\
                @mode(\"shadow\")\n\
                forbid (principal, action, resource == Model::\"small\");\n\
                @mode(\"enforce\")\n\
                forbid (principal == Agent::\"borg\", action, resource);";
    let policies = policies(text);
    let names = policies.names();
    assert_eq!(
        names,
        [
            ("one", Mode::Warn),
            ("a.cedar:3", Mode::Shadow),
            ("a.cedar:5", Mode::Enforce),
        ]
    );
    let denial = |policy: &str, reason: Option<&str>| Denial {
        policy: policy.to_owned(),
        reason: reason.map(str::to_owned),
        error: false,
    };
    // Seen once, though it matches for each tool as well.
    let judged = policies.judge(&Ask {
        tools: &["a", "b"],
        ..ask()
    });
    assert_eq!(judged.denied, None);
    assert_eq!(judged.warned, [denial("one", Some("not on Tuesdays"))]);
    assert_eq!(judged.shadowed, [denial("a.cedar:3", None)]);
    let judged = policies.judge(&Ask {
        agent: "borg",
        ..ask()
    });
    assert_eq!(judged.denied, Some(denial("a.cedar:5", None)));
    assert_eq!((judged.warned.len(), judged.shadowed.len()), (1, 1));
}

#[test]
fn times() {
    let cases = [
        (0, (0, 0, 4, 19700101)),
        (951_782_399_999, (23, 59, 1, 20000228)),
        (951_782_400_000, (0, 0, 2, 20000229)),
        (1_770_111_000_000, (9, 30, 2, 20260203)),
        (4_107_542_400_000, (0, 0, 1, 21000301)),
        (-1, (23, 59, 3, 19691231)),
    ];
    for (wall_ms, (hour, minute, weekday, date)) in cases {
        let expected = PolicyTime {
            hour,
            minute,
            weekday,
            date,
        };
        assert_eq!(
            PolicyTime::at(&jiff::tz::TimeZone::UTC, wall_ms),
            expected,
            "{wall_ms}"
        );
    }
}
