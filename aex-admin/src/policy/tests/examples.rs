//! The shipped examples come into force, and do what they say.

use std::path::PathBuf;

use aex_admin_proto::worker::Route;

use super::super::{Ask, Known, Policies, PolicyTime, load};
use super::ask;

fn directory() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../config/policies-examples"
    ))
}

fn examples() -> Policies {
    let config = directory().with_file_name("models.yaml");
    let (config, _) = crate::config::load(&config).unwrap();
    let (policies, warnings) = load(&directory(), &Known::of(&config)).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(policies.judge_by_all(&base()), policies.judge(&base()));
    policies
}

/// Of nobody in particular.
fn base() -> Ask<'static> {
    Ask {
        groups: &["kernel"],
        model: "gpt-oss-20b",
        provider: "groq",
        ..ask()
    }
}

/// Which example denies each ask.
#[track_caller]
fn check(asks: &[(Ask<'_>, Option<&str>)]) {
    let policies = examples();
    for (index, (ask, expected)) in asks.iter().enumerate() {
        let denied = policies.judge(ask).denied;
        assert!(denied.iter().all(|denial| denial.reason.is_some()));
        let policy = denied.as_ref().map(|denial| denial.policy.as_str());
        assert_eq!(policy, *expected, "{index}");
    }
}

#[test]
fn office_hours() {
    let at = |weekday, hour| Ask {
        groups: &["night-owls", "office", "kernel"],
        time: PolicyTime {
            weekday,
            hour,
            ..ask().time
        },
        ..base()
    };
    let closed = Some("office-hours");
    check(&[
        (at(1, 8), None),
        (at(5, 17), None),
        (at(5, 18), closed),
        (at(5, 7), closed),
        (at(6, 12), closed),
        (at(7, 12), closed),
        (
            Ask {
                route: Route::Embeddings,
                ..at(7, 12)
            },
            closed,
        ),
        (
            Ask {
                groups: &["kernel"],
                ..at(7, 12)
            },
            None,
        ),
    ]);
}

#[test]
fn no_dear_request() {
    let costs = |cost_micro| Ask {
        cost_micro,
        ..base()
    };
    check(&[
        (costs(500_000), None),
        (costs(500_001), Some("no-dear-request")),
        (
            Ask {
                labels: &["bulk"],
                ..costs(500_001)
            },
            None,
        ),
        (
            Ask {
                labels: &["Bulk"],
                ..costs(500_001)
            },
            Some("no-dear-request"),
        ),
    ]);
}

#[test]
fn no_shell_for_interns() {
    let offers = |tools| Ask {
        tools,
        labels: &["intern"],
        ..base()
    };
    let denied = Some("no-shell-for-interns");
    check(&[
        (offers(&[]), None),
        (offers(&["look", "shellfish"]), None),
        (offers(&["look", "shell"]), denied),
        (offers(&["shell_run"]), denied),
        (
            Ask {
                labels: &[],
                ..offers(&["shell"])
            },
            None,
        ),
    ]);
}

#[test]
fn small_models_in_ci() {
    let large = Ask {
        model: "gpt-oss-120b",
        ..base()
    };
    let denied = Some("small-models-in-ci");
    check(&[
        (
            Ask {
                session: Some("ci-1"),
                ..base()
            },
            None,
        ),
        (
            Ask {
                session: Some("ci-1"),
                ..large
            },
            denied,
        ),
        (
            Ask {
                session: Some("ci-1"),
                route: Route::Responses,
                ..large
            },
            denied,
        ),
        (
            Ask {
                session: Some("ci-1"),
                route: Route::Embeddings,
                ..large
            },
            None,
        ),
        (
            Ask {
                session: Some("dev-1"),
                ..large
            },
            None,
        ),
        (
            Ask {
                session: None,
                ..large
            },
            None,
        ),
    ]);
}

/// What docs/POLICY.md tells of the vocabulary is the schema's own.
#[test]
fn the_documentation_names_every_word_of_the_schema() {
    let doc = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/POLICY.md"));
    let words = super::super::SCHEMA
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()));
    let plumbing = [
        "entity",
        "action",
        "in",
        "type",
        "appliesTo",
        "principal",
        "resource",
        "context",
        "Set",
        "Long",
        "Bool",
        "String",
        "Time",
        "Asked",
        "Offered",
        "",
    ];
    for word in words.filter(|word| !plumbing.contains(word)) {
        assert!(
            doc.contains(&format!("`{word}`")),
            "docs/POLICY.md lacks {word}"
        );
    }
    for example in std::fs::read_dir(directory()).unwrap() {
        let name = example.unwrap().file_name();
        assert!(
            doc.contains(name.to_str().unwrap()),
            "docs/POLICY.md lacks {name:?}"
        );
    }
}
