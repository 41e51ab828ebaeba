//! Groups above agents: waiting, corrections, limits that come and go, somebody's own SQL.

use aex_admin::core::reserve::Now;
use aex_admin::writer::{Command, OperatorCommand};
use aex_admin_proto::Refusal;
use aex_admin_proto::TokenDigest;
use aex_admin_proto::limit::{Limit, LimitKey};
use aex_admin_proto::operator::{
    CreateParams, GroupCreateParams, GroupSetParams, ResolveParams, SetParams, Settings,
};
use aex_admin_proto::peer::{GroupMark, Peer};
use aex_admin_proto::scope::ScopeKind;
use aex_admin_proto::worker::{ModelsParams, ReserveReply, WhoseReply};

use crate::kernel::{Agent, Kernel, LIMIT, answered, ask, ended, hold_pico, id};

fn limits(texts: &[&str]) -> Settings {
    let limits: Vec<Limit> = texts.iter().map(|text| text.parse().unwrap()).collect();
    Settings {
        limits: (!limits.is_empty()).then_some(limits),
        ..Settings::default()
    }
}

fn group(kernel: &Kernel, name: &str, budget_micro: Option<i64>, texts: &[&str]) {
    let params = GroupCreateParams {
        name: name.into(),
        budget_micro,
        settings: limits(texts),
        ..GroupCreateParams::default()
    };
    kernel
        .operator(OperatorCommand::GroupCreate(Box::new(params)))
        .unwrap();
}

fn agent_in(kernel: &Kernel, name: &str, group: &str, texts: &[&str]) -> Agent {
    let answer = kernel.operator(OperatorCommand::Create(Box::new(CreateParams {
        name: name.into(),
        budget_micro: 1_000_000,
        rpm: 1_000,
        ttl_s: None,
        settings: limits(texts),
        group: Some(group.into()),
    })));
    let answer = answer.unwrap();
    Agent {
        token: TokenDigest::of(answer["token"].as_str().unwrap().as_bytes()),
    }
}

fn spent_pico(kernel: &Kernel, node: &str) -> i64 {
    kernel.sql(&format!(
        "SELECT spent_micro * 1000000 + carry_pico FROM nodes WHERE name = '{node}'"
    ))
}

#[test]
fn held_money_of_a_group_is_waited_for_in_order_of_arrival() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    // Two holds of 50 tokens fit, and not a third one.
    let two = hold_pico(50) * 2;
    group(&kernel, "team", Some(two / 1_000_000 + 1), &[]);
    let (ana, ben) = (
        agent_in(&kernel, "ana", "team", &[]),
        agent_in(&kernel, "ben", "team", &[]),
    );
    let first = kernel.reserve(ask(&ana, 1, Some(50))).unwrap();
    let _second = kernel.reserve(ask(&ana, 2, Some(50))).unwrap();
    let large = kernel.reserve_later(ask(&ben, 3, Some(55)));
    let small = kernel.reserve_later(ask(&ana, 4, Some(1)));
    // Neither is answered yet: the small one would fit nothing either, and stands behind.
    assert!(large.try_recv().is_err() && small.try_recv().is_err());
    kernel.settle(id(1), &first, answered(1, 1)).unwrap();
    let ReserveReply::Granted(_) = large.recv_timeout(LIMIT).unwrap().unwrap() else {
        panic!("the first that waited was not granted")
    };
    kernel.audit();
}

#[test]
fn what_a_group_lacks_is_told_without_its_figures() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &["tokens/day=120"]);
    let ana = agent_in(&kernel, "ana", "team", &["tokens/day=140"]);
    match kernel.reserve(ask(&ana, 1, Some(50))) {
        Err(Refusal::LimitSpent {
            scope,
            limit,
            needed,
            remaining,
            resets_at_ms,
        }) => {
            assert_eq!((scope.as_str(), limit.as_str()), ("ana", "tokens/day"));
            assert_eq!((needed, remaining), (150, 140));
            assert!(resets_at_ms.is_some());
        }
        other => panic!("{other:?}"),
    }
    match kernel.reserve(ask(&ana, 2, Some(30))) {
        Err(Refusal::Above { scope, .. }) => assert_eq!(scope, ScopeKind::Group),
        other => panic!("{other:?}"),
    }
    let grant = kernel.reserve(ask(&ana, 3, Some(20))).unwrap();
    kernel.settle(id(3), &grant, answered(90, 10)).unwrap();
    // 20 of the group's are left.
    assert!(kernel.reserve(ask(&ana, 4, Some(1))).is_err());
    kernel.audit();
}

#[test]
fn a_limit_that_is_set_anew_does_not_count_what_was_held_before() {
    let home = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &[]);
    let ana = agent_in(&kernel, "ana", "team", &["tokens=300"]);
    let old = kernel.reserve(ask(&ana, 1, Some(50))).unwrap();
    let set = |settings: Settings, dropped: &[&str]| {
        let drop_limits: Vec<LimitKey> = dropped.iter().map(|key| key.parse().unwrap()).collect();
        OperatorCommand::Set(Box::new(SetParams {
            name: "ana".into(),
            settings,
            drop_limits,
            ..SetParams::default()
        }))
    };
    kernel
        .operator(set(Settings::default(), &["tokens"]))
        .unwrap();
    kernel.stop();
    let kernel = Kernel::start(home.path());
    kernel.operator(set(limits(&["tokens=300"]), &[])).unwrap();
    let new = kernel.reserve(ask(&ana, 2, Some(50))).unwrap();
    // The old one neither frees what the new one holds, nor is it used.
    kernel.settle(id(1), &old, answered(90, 10)).unwrap();
    assert!(kernel.reserve(ask(&ana, 3, Some(100))).is_err());
    kernel.settle(id(2), &new, answered(90, 10)).unwrap();
    let used: i64 = kernel.sql("SELECT used FROM counters WHERE metric = 'tokens'");
    assert_eq!(used, 100);
    kernel.audit();
    assert!(
        kernel
            .operator(set(Settings::default(), &["tokens/day"]))
            .is_err()
    );
}

#[test]
fn a_correction_reaches_every_scope_and_sum_of_its_request() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &["money/day=1.00"]);
    group(&kernel, "other", None, &[]);
    let ana = agent_in(&kernel, "ana", "team", &[]);
    let grant = kernel.reserve(ask(&ana, 1, Some(50))).unwrap();
    let reply = kernel.settle(id(1), &grant, answered(10, 10)).unwrap();
    let moved = SetParams {
        name: "ana".into(),
        group: Some("other".into()),
        ..SetParams::default()
    };
    kernel
        .operator(OperatorCommand::Set(Box::new(moved)))
        .unwrap();
    let history = {
        let conn = aex_admin::ledger::reader::snapshot(&home.path().join("aex.db")).unwrap();
        aex_admin::ledger::reader::hold_history(&conn, &id(1).to_string()).unwrap()
    };
    let more = ResolveParams {
        hold: Some(id(1).to_string()),
        agent: None,
        cost_pico: reply.cost_pico + 5_000_000,
        reason: "the invoice".into(),
    };
    kernel
        .operator(OperatorCommand::Resolve(Box::new(more), Some(history)))
        .unwrap();
    let whole = reply.cost_pico + 5_000_000;
    assert_eq!(spent_pico(&kernel, "team"), whole);
    assert_eq!(spent_pico(&kernel, "kernel"), whole);
    assert_eq!(spent_pico(&kernel, "other"), 0);
    let used: i64 = kernel.sql("SELECT used FROM counters WHERE metric = 'money/day'");
    assert_eq!(used, whole);
    kernel.audit();
}

#[test]
fn somebodys_own_sql_on_a_group_counts_at_the_next_request() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &[]);
    let ana = agent_in(&kernel, "ana", "team", &[]);
    let _ = kernel.reserve(ask(&ana, 1, Some(50))).unwrap();
    kernel.outside("UPDATE nodes SET budget_micro = spent_micro WHERE name = 'team'");
    match kernel.reserve(ask(&ana, 2, Some(50))) {
        Err(Refusal::Above { why, .. }) => {
            assert!(
                matches!(*why, Refusal::InsufficientBudget { .. }),
                "{why:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    let noted: i64 = kernel.sql("SELECT COUNT(*) FROM events WHERE action = 'outside.update'");
    assert_eq!(noted, 1);
    kernel.audit();
    // A row that cannot be read stops its own requests, and nobody else's.
    kernel.outside("UPDATE nodes SET settings = 'no' WHERE name = 'team'");
    let borg = kernel.agent("borg", 1_000_000, 60);
    assert!(kernel.reserve(ask(&borg, 3, Some(5))).is_ok());
    let (sender, receiver) = std::sync::mpsc::channel();
    let reply = aex_admin::writer::Reply::new(move |answer| drop(sender.send(answer)));
    let params = Box::new(ask(&ana, 4, Some(5)));
    kernel
        .queue
        .send(Command::Reserve {
            params,
            session: 1,
            reply,
        })
        .unwrap();
    assert!(receiver.recv_timeout(LIMIT).unwrap().is_err());
}

#[test]
fn a_receipt_that_contradicts_a_settle_reaches_the_sums_after_a_restart_too() {
    for restarts in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let mut kernel = Kernel::start(home.path());
        group(&kernel, "team", None, &["money/day=1.00"]);
        let ana = agent_in(&kernel, "ana", "team", &[]);
        let grant = kernel.reserve(ask(&ana, 3, Some(50))).unwrap();
        kernel.settle(id(3), &grant, answered(0, 0)).unwrap();
        if restarts {
            kernel.stop();
            drop(kernel);
            kernel = Kernel::start(home.path());
        }
        kernel.receipt(id(3), ended(504));
        let used: i64 = kernel.sql("SELECT used FROM counters WHERE metric = 'money/day'");
        assert_eq!(
            (used, spent_pico(&kernel, "team")),
            (hold_pico(50), hold_pico(50))
        );
        kernel.audit();
    }
}

#[test]
fn no_agent_stands_in_the_way_of_another_groups() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let budget = GroupSetParams {
        name: "kernel".into(),
        budget_micro: Some(hold_pico(50) * 2 / 1_000_000),
        ..GroupSetParams::default()
    };
    kernel
        .operator(OperatorCommand::GroupSet(Box::new(budget)))
        .unwrap();
    group(&kernel, "one", None, &[]);
    group(&kernel, "two", None, &[]);
    let (ana, ben) = (
        agent_in(&kernel, "ana", "one", &[]),
        agent_in(&kernel, "ben", "two", &[]),
    );
    let _held = kernel.reserve(ask(&ana, 1, Some(50))).unwrap();
    let large = kernel.reserve_later(ask(&ana, 2, Some(90)));
    // What fits is granted, whoever of another group waits for more.
    let _small = kernel.reserve(ask(&ben, 3, Some(1))).unwrap();
    assert!(large.try_recv().is_err());
}

#[test]
fn who_leaves_lets_those_behind_go() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let ana = kernel.agent("ana", hold_pico(50) * 2 / 1_000_000, 60);
    let _held = kernel.reserve(ask(&ana, 1, Some(50))).unwrap();
    let large = kernel.reserve_later(ask(&ana, 2, Some(60)));
    let small = kernel.reserve_later(ask(&ana, 3, Some(10)));
    kernel.queue.send(Command::Cancel { id: id(2) }).unwrap();
    let ReserveReply::Refused(Refusal::Cancelled) = large.recv_timeout(LIMIT).unwrap().unwrap()
    else {
        panic!("not cancelled")
    };
    let ReserveReply::Granted(_) = small.recv_timeout(LIMIT).unwrap().unwrap() else {
        panic!("it fits, and waits for nobody any more")
    };
}

#[test]
fn a_row_that_cannot_be_read_stops_those_below_it_alone() {
    let home = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &[]);
    let ana = agent_in(&kernel, "ana", "team", &[]);
    let borg = kernel.agent("borg", 1_000_000, 60);
    kernel.outside("UPDATE nodes SET settings = '{bad' WHERE name = 'team'");
    kernel.outside("INSERT INTO counters VALUES ('zz', 'tokens', '', 0, 1)");
    let token = ana.token;
    assert!(
        kernel
            .ask(|reply| Command::Me {
                params: ModelsParams {
                    token,
                    peer: Peer::default(),
                },
                reply,
            })
            .recv_timeout(LIMIT)
            .unwrap()
            .is_err()
    );
    let models = kernel.ask(|reply| Command::Models {
        params: ModelsParams {
            token,
            peer: Peer::default(),
        },
        reply,
    });
    assert!(models.recv_timeout(LIMIT).unwrap().is_err());
    let params = Box::new(ask(&ana, 9, Some(5)));
    let quote = kernel.ask(|reply| Command::Quote { params, reply });
    assert!(quote.recv_timeout(LIMIT).unwrap().is_err());
    kernel.stop();
    drop(kernel);
    kernel = Kernel::start(home.path());
    assert!(kernel.reserve(ask(&borg, 1, Some(5))).is_ok());
}

#[test]
fn limits_taken_away_by_somebodys_own_sql_or_of_sessions_leave_an_honest_audit() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    group(
        &kernel,
        "team",
        None,
        &["requests/session=5", "tokens=5000"],
    );
    let ana = agent_in(&kernel, "ana", "team", &["tokens=5000"]);
    let grant = kernel.reserve(ask(&ana, 1, Some(5))).unwrap();
    kernel.settle(id(1), &grant, answered(5, 5)).unwrap();
    let drop_limits = ["requests/session", "tokens"].map(|key| key.parse().unwrap());
    let dropped = GroupSetParams {
        name: "team".into(),
        drop_limits: drop_limits.into(),
        ..GroupSetParams::default()
    };
    kernel
        .operator(OperatorCommand::GroupSet(Box::new(dropped)))
        .unwrap();
    kernel.outside("UPDATE agents SET more = NULL WHERE name = 'ana'");
    let _ = kernel.reserve(ask(&ana, 2, Some(5))).unwrap();
    kernel.audit();
}

fn set(kernel: &Kernel, name: &str, texts: &[&str], dropped: &[&str]) -> Result<(), String> {
    let drop_limits: Vec<LimitKey> = dropped.iter().map(|key| key.parse().unwrap()).collect();
    let params = SetParams {
        name: name.into(),
        settings: limits(texts),
        drop_limits,
        ..SetParams::default()
    };
    let answer = kernel.operator(OperatorCommand::Set(Box::new(params)));
    answer.map(drop).map_err(|error| error.message)
}

#[test]
fn what_was_held_before_a_calendar_limit_was_set_anew_touches_it_in_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &[]);
    let ana = agent_in(&kernel, "ana", "team", &["tokens/day=1000"]);
    let old: Vec<_> = (1..=3)
        .map(|number| kernel.reserve(ask(&ana, number, Some(50))).unwrap())
        .collect();
    set(&kernel, "ana", &[], &["tokens/day"]).unwrap();
    set(&kernel, "ana", &["tokens/day=300"], &[]).unwrap();
    // Two holds of 150 tokens, and not a third, whatever of the old ones ends, and across a restart.
    let first = kernel.reserve(ask(&ana, 4, Some(50))).unwrap();
    let second = kernel.reserve(ask(&ana, 5, Some(50))).unwrap();
    for (number, grant) in (1..).zip(&old) {
        kernel.settle(id(number), grant, answered(1, 1)).unwrap();
        let third = kernel.reserve_later(ask(&ana, 5 + number, Some(50)));
        assert!(third.try_recv().is_err());
        match third.recv_timeout(LIMIT).unwrap().unwrap() {
            ReserveReply::Refused(Refusal::LimitHeld { free, held, .. }) => {
                assert_eq!((free, held), (0, 300), "{number}");
            }
            other => panic!("{other:?}"),
        }
    }
    kernel.stop();
    let kernel = Kernel::start(home.path());
    kernel.settle(id(4), &first, answered(100, 50)).unwrap();
    kernel.settle(id(5), &second, answered(90, 50)).unwrap();
    match kernel.reserve(ask(&ana, 20, Some(1))) {
        Err(Refusal::LimitSpent { remaining, .. }) => assert_eq!(remaining, 10),
        other => panic!("{other:?}"),
    }
    kernel.audit();
}

#[test]
fn a_limit_is_not_set_and_dropped_at_once() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &[]);
    let _ana = agent_in(&kernel, "ana", "team", &["tokens/day=1000"]);
    let both = set(&kernel, "ana", &["tokens/day=60"], &["tokens/day"]);
    assert!(both.is_err_and(|text| text.contains("set and dropped at once")));
}

#[test]
fn who_waits_far_up_stands_in_nobodys_way() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &[]);
    let all = GroupSetParams {
        name: "kernel".into(),
        settings: limits(&["tokens=400"]),
        ..GroupSetParams::default()
    };
    kernel
        .operator(OperatorCommand::GroupSet(Box::new(all)))
        .unwrap();
    let (ana, ben) = (
        agent_in(&kernel, "ana", "team", &[]),
        agent_in(&kernel, "ben", "team", &[]),
    );
    let _held = kernel.reserve(ask(&ana, 1, Some(50))).unwrap();
    // 250 are left: Ana's next one waits at the kernel, and Ben's goes by.
    let waits = kernel.reserve_later(ask(&ana, 2, Some(200)));
    assert!(kernel.reserve(ask(&ben, 3, Some(50))).is_ok());
    assert!(waits.try_recv().is_err());
    kernel.audit();
}

#[test]
fn what_is_open_under_a_run_ends_with_its_time() {
    use aex_admin_proto::operator::{RunCreateParams, RunParams};
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &[]);
    let ana = agent_in(&kernel, "ana", "team", &[]);
    let run = kernel
        .operator(OperatorCommand::RunCreate(Box::new(RunCreateParams {
            parent: "ana".into(),
            run: RunParams {
                ttl_s: Some(5),
                ..RunParams::default()
            },
        })))
        .unwrap();
    let run = Agent {
        token: TokenDigest::of(run["token"].as_str().unwrap().as_bytes()),
    };
    let begun_boot_ms = aex_admin_proto::clock::boot_ms();
    let own = kernel.reserve(ask(&ana, 1, Some(50))).unwrap();
    let of_run = kernel.reserve(ask(&run, 2, Some(50))).unwrap();
    assert!(own.deadline_boot_ms >= begun_boot_ms + 20_000);
    assert!(of_run.deadline_boot_ms <= begun_boot_ms + 5_000 + 1_000);
}

#[test]
fn who_is_moved_while_a_request_waits_is_served_where_it_fits() {
    let home = tempfile::tempdir().unwrap();
    // A clock that stands still: nobody waits too long.
    let now = Now {
        boot_ms: 1_000_000,
        wall_ms: 1_790_000_000_000,
    };
    let kernel = Kernel::start_at(home.path(), "boot", Box::new(move || now));
    group(&kernel, "team", None, &["tokens=200"]);
    group(&kernel, "wide", None, &[]);
    let ana = agent_in(&kernel, "ana", "team", &[]);
    let _held = kernel.reserve(ask(&ana, 1, Some(50))).unwrap();
    let waits = kernel.reserve_later(ask(&ana, 2, Some(50)));
    let moved = SetParams {
        name: "ana".into(),
        group: Some("wide".into()),
        ..SetParams::default()
    };
    kernel
        .operator(OperatorCommand::Set(Box::new(moved)))
        .unwrap();
    let answer = waits.recv_timeout(LIMIT).unwrap().unwrap();
    assert!(matches!(answer, ReserveReply::Granted(_)), "{answer:?}");
    kernel.audit();
}

#[test]
fn a_token_that_may_only_look_learns_nothing_of_a_key() {
    use aex_admin_proto::operator::TokenCreateParams;
    use aex_admin_proto::worker::{Idempotency, ReserveParams};
    use aex_admin_proto::{KeyDigest, RequestDigest};
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    group(&kernel, "team", None, &[]);
    let ana = agent_in(&kernel, "ana", "team", &[]);
    let made = kernel.operator(OperatorCommand::TokenCreate(TokenCreateParams {
        name: "ana".into(),
        ttl_s: None,
        label: None,
        read_only: true,
    }));
    let looks = Agent {
        token: TokenDigest::of(made.unwrap()["token"].as_str().unwrap().as_bytes()),
    };
    let keyed = |agent: &Agent, number: u8| ReserveParams {
        idempotency: Some(Idempotency {
            key: KeyDigest::of(b"k"),
            request: RequestDigest::of("chat_completions", &[number]),
        }),
        ..ask(agent, number, Some(50))
    };
    let _first = kernel.reserve(keyed(&ana, 1)).unwrap();
    let answer = kernel.reserve(keyed(&looks, 2));
    assert!(
        matches!(answer, Err(Refusal::CapabilityNotAllowed { .. })),
        "{answer:?}"
    );
}

#[test]
fn a_worker_of_one_group_serves_no_agent_of_another() {
    let home = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::start(home.path());
    group(&kernel, "red", None, &[]);
    group(&kernel, "blue", None, &[]);
    let params = GroupCreateParams {
        name: "red-inner".into(),
        parent: Some("red".into()),
        ..GroupCreateParams::default()
    };
    let made = kernel.operator(OperatorCommand::GroupCreate(Box::new(params)));
    made.unwrap();
    let [red, inner, blue] = ["red", "red-inner", "blue"]
        .map(|group| agent_in(&kernel, &format!("in-{group}"), group, &[]));
    let alone = kernel.agent("alone", 1_000_000, 60);
    let of_red = Peer {
        within: Some(GroupMark::of("red")),
        ..Peer::default()
    };
    let whose = |agent: &Agent, peer| {
        let token = agent.token;
        let whose = kernel.ask(|reply| Command::Whose {
            params: ModelsParams { token, peer },
            reply,
        });
        whose.recv_timeout(LIMIT).unwrap().unwrap()
    };
    let mut tenants = Vec::new();
    for (number, agent) in [(1, &red), (2, &inner)] {
        let mut params = ask(agent, number, Some(50));
        params.peer = of_red;
        let grant = kernel.reserve(params).unwrap();
        assert_eq!(whose(agent, of_red), WhoseReply::Tenant(grant.tenant));
        tenants.push(grant.tenant);
    }
    assert_eq!(tenants[0], tenants[1], "a group and what is below it");
    let others = [&blue, &alone].map(|agent| whose(agent, Peer::default()));
    assert_ne!(others[0], others[1]);
    assert!(!others.contains(&WhoseReply::Tenant(tenants[0])));
    for (number, agent) in [(3, &blue), (4, &alone)] {
        let mut params = ask(agent, number, Some(50));
        params.peer = of_red;
        let refused = kernel.reserve(params).unwrap_err();
        // As a token that nobody has.
        assert_eq!(refused.to_string(), Refusal::InvalidToken.to_string());
        let whose = whose(agent, of_red);
        assert!(matches!(whose, WhoseReply::Refused(_)), "{whose:?}");
    }
    kernel.stop();
    let told: String = kernel.sql(
        "SELECT GROUP_CONCAT(agent || ' ' || (detail ->> '$.count')) FROM events \
         WHERE action = 'request.refused'",
    );
    assert!(
        told.contains("in-blue 1") && told.contains("alone 1"),
        "{told}"
    );
    kernel.audit();
}
