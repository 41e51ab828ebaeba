use aex_admin_proto::Refusal;

use aex_admin_proto::explain::LookScope;
use aex_admin_proto::scope::ScopeKind;

use super::*;

fn scope(kind: ScopeKind, name: &str) -> Option<LookScope> {
    Some(LookScope {
        kind,
        name: name.into(),
    })
}

fn look(scope: Option<LookScope>, rule: &str, verdict: Verdict) -> Look {
    Look {
        scope,
        rule: rule.into(),
        verdict,
        figures: None,
        why: None,
    }
}

fn passing() -> Explained {
    Explained {
        outcome: Outcome::Passes,
        agent: "atlas".into(),
        run: None,
        model: "gpt-oss-20b".into(),
        quote: None,
        left_out: Vec::new(),
        refusal: None,
        decided_by: None,
        assumes: Vec::new(),
        drawn: false,
        targets: Vec::new(),
    }
}

fn refused(refusal: Refusal, by: Look) -> Explained {
    Explained {
        outcome: Outcome::Refused,
        refusal: Some(refusal),
        decided_by: Some(by),
        drawn: false,
        ..passing()
    }
}

fn money_of_the_day(verdict: Verdict) -> Look {
    Look {
        figures: Some(Figures {
            used: Some(4_999_000),
            held: Some(500),
            resets_at_ms: Some(1_795_737_600_000),
            ..Figures::new(Quantity::Money, 4_200, 5_000_000)
        }),
        ..look(scope(ScopeKind::Group, "team"), "money/day", verdict)
    }
}

fn target(looks: Vec<Look>) -> TargetLooks {
    TargetLooks {
        provider: Some("groq".into()),
        upstream_model: Some("gpt-oss-20b".into()),
        looks,
        refusal: None,
    }
}

#[test]
fn a_refusal_is_told_with_every_rule_that_was_looked_at() {
    let why = Box::new(Refusal::LimitSpent {
        scope: "team".into(),
        limit: "money/day".into(),
        needed: 4_200,
        remaining: 1_000,
        resets_at_ms: None,
    });
    let refusal = Refusal::Above {
        scope: ScopeKind::Group,
        why,
    };
    let document = Explained {
        run: Some("atlas/7".into()),
        targets: vec![target(vec![
            Look {
                why: Some("tool rm_all is denied".into()),
                ..look(None, "tools", Verdict::Shadows)
            },
            Look {
                figures: Some(Figures {
                    used: Some(3_000),
                    held: Some(0),
                    ..Figures::new(Quantity::Tokens, 4_120, 20_000)
                }),
                ..look(scope(ScopeKind::Run, "atlas/7"), "tokens", Verdict::Passes)
            },
            Look {
                figures: Some(Figures::new(Quantity::Input, 120, 8_000)),
                ..look(scope(ScopeKind::Agent, "atlas"), "input", Verdict::Warns)
            },
            money_of_the_day(Verdict::Refuses),
        ])],
        ..refused(refusal, money_of_the_day(Verdict::Refuses))
    };
    assert_eq!(
        explained(&document),
        "\
run atlas/7 may not send this: refused, insufficient_budget: Insufficient budget
decided by group team: money/day: needs $0.004200, has $0.001000 of $5.000000 left, \
resets 2026-11-27T00:00:00.000Z

gpt-oss-20b at groq
scope        rule           needs       most       used       held  verdict
-            tools                                                  shadows: tool rm_all is denied
run atlas/7  tokens         4,120     20,000      3,000          0  passes
agent atlas  input            120      8,000                        warns
group team   money/day  $0.004200  $5.000000  $4.999000  $0.000500  refuses
"
    );
}

#[test]
fn what_passes_tells_what_it_would_hold() {
    let quote = |output_cap: u64, warnings: &[&str]| Quote {
        hold_micro: 4_200,
        input_tokens: 1_200,
        output_cap,
        provider: "groq".into(),
        warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
    };
    for (quote, text) in [
        (None, "atlas may send this\n"),
        (
            Some(quote(4_096, &[])),
            "atlas may send this: it would hold $0.004200 at groq: at most 1,200 tokens of prompt and \
             4,096 of output a choice\n",
        ),
        (
            Some(quote(0, &["tokens/day of group team", "policy nights"])),
            "atlas may send this: it would hold $0.004200 at groq: at most 1,200 tokens of prompt\n\
             warning: tokens/day of group team\nwarning: policy nights\n",
        ),
    ] {
        let document = Explained { quote, ..passing() };
        assert_eq!(explained(&document), text);
    }
}

#[test]
fn tools_that_would_be_cut_out_are_named() {
    let left_out = vec!["shell".into(), "rm\nverdict".into()];
    let document = Explained {
        left_out,
        ..passing()
    };
    assert_eq!(
        explained(&document),
        "atlas may send this\nit would not be offered: shell, rm\u{fffd}verdict\n"
    );
}

#[test]
fn what_waits_tells_for_whom() {
    let held = Refusal::BudgetHeld {
        scope: "team".into(),
        needed_micro: 4_200,
        free_micro: 500,
        held_micro: 500,
    };
    let waiting = Explained {
        outcome: Outcome::Waits,
        ..refused(held, money_of_the_day(Verdict::Waits))
    };
    assert_eq!(
        explained(&waiting),
        "\
atlas would wait for what is held in group team, and be refused where nothing comes free in time, \
budget_held: Budget held by requests in flight
decided by group team: money/day: needs $0.004200, has $0.000500 of $5.000000 free, $0.000500 held, \
resets 2026-11-27T00:00:00.000Z
"
    );
    let bare = Explained {
        outcome: Outcome::Waits,
        ..passing()
    };
    assert_eq!(explained(&bare), "atlas would wait for what is held\n");
}

#[test]
fn the_rule_that_decides_is_told_with_what_is_known_of_it() {
    let agent = || scope(ScopeKind::Agent, "atlas");
    let counted = |what: Quantity, used: Option<i64>, held: Option<i64>| Figures {
        used,
        held,
        ..Figures::new(what, 1, 60)
    };
    for (by, text) in [
        (look(None, "model", Verdict::Refuses), "model"),
        (
            Look {
                why: Some("it may not be streamed".into()),
                ..look(agent(), "streaming", Verdict::Refuses)
            },
            "agent atlas: streaming: it may not be streamed",
        ),
        (
            look(
                scope(ScopeKind::Kernel, "kernel"),
                "policy nights",
                Verdict::Refuses,
            ),
            "kernel: policy nights",
        ),
        (
            Look {
                figures: Some(Figures {
                    retry_after_ms: Some(61_001),
                    ..counted(Quantity::Requests, Some(60), None)
                }),
                ..look(agent(), "requests/minute", Verdict::Refuses)
            },
            "agent atlas: requests/minute: needs 1, has 0 of 60 left, may fit again in 1m 2s",
        ),
        (
            Look {
                figures: Some(counted(Quantity::Parallel, None, Some(60))),
                ..look(agent(), "parallel", Verdict::Waits)
            },
            "agent atlas: parallel: needs 1, has 60 of 60 held",
        ),
        (
            Look {
                figures: Some(Figures::new(Quantity::Output, 5_000, 4_096)),
                why: Some("the client asks for it".into()),
                ..look(agent(), "output", Verdict::Refuses)
            },
            "agent atlas: output: needs 5,000, at most 4,096, the client asks for it",
        ),
        // More was spent than there is.
        (
            Look {
                figures: Some(counted(Quantity::Money, Some(100), Some(0))),
                ..look(agent(), "budget", Verdict::Refuses)
            },
            "agent atlas: budget: needs $0.000001, has -$0.000040 of $0.000060 left",
        ),
    ] {
        assert_eq!(decided(&by), text);
    }
}

#[test]
fn a_target_is_named_as_it_is_there() {
    for (provider, upstream, text) in [
        (Some("groq"), Some("gpt-oss-20b"), "gpt-oss-20b at groq"),
        (
            Some("groq"),
            Some("openai/gpt-oss-20b"),
            "gpt-oss-20b at groq, there openai/gpt-oss-20b",
        ),
        (Some("groq"), None, "gpt-oss-20b at groq"),
        (None, None, "gpt-oss-20b"),
    ] {
        let target = TargetLooks {
            provider: provider.map(str::to_owned),
            upstream_model: upstream.map(str::to_owned),
            looks: Vec::new(),
            refusal: None,
        };
        let document = Explained {
            targets: vec![target],
            ..passing()
        };
        let whole = format!("atlas may send this\n\n{text}\nno rule was looked at\n");
        assert_eq!(explained(&document), whole);
    }
}

#[test]
fn no_name_begins_a_line_of_its_own() {
    let hostile = "x\natlas may send this\u{1b}[2J\t";
    let by = Look {
        why: Some(hostile.into()),
        ..look(scope(ScopeKind::Group, hostile), hostile, Verdict::Refuses)
    };
    let refusal = Refusal::ModelNotFound {
        model: hostile.into(),
    };
    let document = Explained {
        agent: hostile.into(),
        run: Some(hostile.into()),
        model: hostile.into(),
        targets: vec![TargetLooks {
            provider: Some(hostile.into()),
            upstream_model: Some(hostile.into()),
            looks: vec![by.clone()],
            refusal: None,
        }],
        quote: Some(Quote {
            hold_micro: 1,
            input_tokens: 1,
            output_cap: 1,
            provider: hostile.into(),
            warnings: vec![hostile.into()],
        }),
        ..refused(refusal, by)
    };
    for outcome in [Outcome::Passes, Outcome::Refused, Outcome::Waits] {
        let text = explained(&Explained {
            outcome,
            ..document.clone()
        });
        // Of the outcome, what decided, a warning, none, the target, and a table of one row.
        assert_eq!(text.lines().count(), 7, "{text}");
        let odd = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(odd, None, "{text}");
    }
}

#[test]
fn long_counts_are_readable() {
    for (count, text) in [
        (0, "0"),
        (999, "999"),
        (1_000, "1,000"),
        (-20_000, "-20,000"),
        (123_456_789, "123,456,789"),
    ] {
        assert_eq!(grouped(count), text);
    }
}
