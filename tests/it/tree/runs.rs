//! Runs, their runs and what is beside them: none gets past anything above it, and all end with it.

use std::process::Stdio;

use aex_admin_proto::clock;
use aex_tests::harness::{Kernel, wait_for};
use aex_tests::http::Event;
use aex_tests::sim::Sim;
use serde_json::{Value, json};

use super::{
    CUT_LIMIT_MS, Run, end_run, endless, find_scope, make_group, make_run, scope, streamed,
};
use crate::common::{DEAR_MODEL, assert_error, hello, sim};

const REQUESTS: usize = 100;

/// Budgets in micro-dollars; nothing: none of its own.
#[derive(Debug, Clone, Copy)]
struct Budgets {
    group: u64,
    agent: u64,
    run: Option<u64>,
    child: Option<u64>,
    grandchild: Option<u64>,
    sibling: Option<u64>,
}

struct Family {
    group: String,
    agent: String,
    token: String,
    run: Run,
    child: Run,
    grandchild: Run,
    sibling: Run,
}

fn usd(micro: u64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

fn budget(micro: Option<u64>) -> Value {
    micro.map_or(json!({}), |micro| json!({ "budget_micro": micro }))
}

impl Family {
    fn new(kernel: &Kernel, number: usize, budgets: &Budgets) -> Self {
        let (group, agent) = (format!("team-{number}"), format!("agent-{number}"));
        make_group(kernel, &group, &["--budget", &usd(budgets.group)]);
        let in_group = ["--group", group.as_str()];
        let token = kernel.create_agent(&agent, &usd(budgets.agent), 1_000_000, &in_group);
        let run = make_run(kernel, &token, &budget(budgets.run));
        let child = make_run(kernel, &run.token, &budget(budgets.child));
        let grandchild = make_run(kernel, &child.token, &budget(budgets.grandchild));
        let sibling = make_run(kernel, &run.token, &budget(budgets.sibling));
        Self {
            group,
            agent,
            token,
            run,
            child,
            grandchild,
            sibling,
        }
    }

    /// Each scope's name, its token, and which scopes are its own and below it by their place here.
    fn scopes(&self) -> [(&str, &str, &[usize]); 5] {
        [
            (&self.agent, &self.token, &[0, 1, 2, 3, 4]),
            (&self.run.name, &self.run.token, &[1, 2, 3, 4]),
            (&self.child.name, &self.child.token, &[2, 3]),
            (&self.grandchild.name, &self.grandchild.token, &[3]),
            (&self.sibling.name, &self.sibling.token, &[4]),
        ]
    }
}

/// What the simulator would charge for the requests that carry this mark, in picodollars.
fn billed_pico(sim: &Sim, mark: &str) -> u64 {
    let bill = sim.bill();
    let marked = bill
        .log
        .iter()
        .filter(|request| request.body["user"] == mark);
    marked
        .map(|request| request.prompt_tokens * 30_000_000 + request.completion_tokens * 60_000_000)
        .sum()
}

#[test]
fn no_run_gets_past_a_budget_above_it() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let wide = Budgets {
        group: 900_000,
        agent: 900_000,
        run: None,
        child: None,
        grandchild: None,
        sibling: None,
    };
    let rows = [
        Budgets {
            group: 20_000,
            ..wide
        },
        Budgets {
            agent: 20_000,
            ..wide
        },
        Budgets {
            run: Some(20_000),
            ..wide
        },
        Budgets {
            run: Some(40_000),
            child: Some(15_000),
            grandchild: Some(6_000),
            sibling: Some(10_000),
            ..wide
        },
    ];
    let mut all_pico = 0;
    for (number, budgets) in rows.iter().enumerate() {
        sim.reset();
        let family = Family::new(&kernel, number, budgets);
        let scopes = family.scopes();
        std::thread::scope(|threads| {
            for number in 0..REQUESTS {
                let (name, token, _) = scopes[number % scopes.len()];
                let kernel = &kernel;
                threads.spawn(move || {
                    let body = hello(json!({"model": DEAR_MODEL, "user": name}));
                    let answer = kernel.chat(token, &body);
                    let (status, code) = (answer.status, answer.code());
                    let for_money = matches!(
                        (status, code.as_str()),
                        (200, _) | (402, "insufficient_budget") | (429, "budget_held")
                    );
                    assert!(for_money, "{}", answer.text());
                });
            }
        });
        kernel.settled();

        let billed: Vec<u64> = scopes
            .iter()
            .map(|(name, ..)| billed_pico(&sim, name))
            .collect();
        let total_pico: u64 = billed.iter().sum();
        all_pico += total_pico;
        let spent = |name: &str, pico: u64| {
            let view = scope(&kernel, name);
            let told = ["spent_micro", "reserved_micro", "in_flight"].map(|f| view[f].as_u64());
            assert_eq!(
                told,
                [Some(pico / 1_000_000), Some(0), Some(0)],
                "{budgets:?}: {view}"
            );
            if let Some(most) = view["budget_micro"].as_u64() {
                assert!(pico <= most * 1_000_000, "{budgets:?}: {view}");
                let left = view["remaining_micro"].as_u64().unwrap();
                assert_eq!(left, (most * 1_000_000 - pico) / 1_000_000, "{view}");
                // All want more than there is, where it is small; what is below may be starved by it.
                let used_up = 2 * pico >= most * 1_000_000;
                assert!(!(20_000..100_000).contains(&most) || used_up, "{view}");
            }
        };
        for (name, _, below) in scopes {
            spent(name, below.iter().map(|&index| billed[index]).sum());
        }
        spent(&family.group, total_pico);
        spent("kernel", all_pico);
    }
    kernel.audit();
}

#[test]
fn a_run_cannot_be_wider_than_what_is_above_it() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let models = ["--allowed-models", "gpt-oss-20b,sim-free"];
    let token = kernel.create_agent("a", "0.50", 10, &models);
    let run = make_run(&kernel, &token, &json!({"budget_micro": 1000, "rpm": 5}));
    for (token, wider, param) in [
        (&token, json!({"budget_micro": 500_001}), "here $0.500000"),
        (&token, json!({"rpm": 11}), "rpm"),
        (
            &token,
            json!({"allowed_models": ["sim-large"]}),
            "allowed_models",
        ),
        (&run.token, json!({"budget_micro": 1001}), "here $0.001000"),
        (&run.token, json!({"rpm": 6}), "rpm"),
        (
            &run.token,
            json!({"allowed_models": ["sim-large"]}),
            "allowed_models",
        ),
        (&run.token, json!({"ttl_s": 0}), "ttl_s"),
        (&run.token, json!({"budget": 1}), "budget"),
        (
            &run.token,
            json!({"limits": ["tokens/day@model:nope=5"]}),
            "no such model",
        ),
        (&run.token, json!({"limits": ["fuel=5"]}), "fuel"),
    ] {
        let answer = kernel.post("/v1/aex/runs", token, &wider);
        assert_error(&answer, 400, "invalid_request");
        assert!(
            answer.detail().contains(param),
            "{wider}: {}",
            answer.text()
        );
    }
    // One that says nothing is bounded all the same, and cannot use what its parent may not.
    let nothing = make_run(&kernel, &run.token, &json!({}));
    let large = hello(json!({"model": DEAR_MODEL}));
    assert_error(
        &kernel.chat(&nothing.token, &large),
        403,
        "model_not_allowed",
    );
    let dear = hello(json!({"max_tokens": 20_000}));
    assert_error(
        &kernel.chat(&nothing.token, &dear),
        402,
        "insufficient_budget",
    );
    // Another's run is not to be seen or ended.
    let other = kernel.create_agent("other", "0.50", 10, &[]);
    for name in [run.name.as_str(), "other/999", "no%20such"] {
        assert_error(&end_run(&kernel, &other, name), 400, "invalid_request");
    }
    assert_eq!(kernel.chat(&run.token, &hello(json!({}))).status, 200);
    // A run may end itself, not what is above it.
    assert_error(
        &end_run(&kernel, &nothing.token, &run.name),
        400,
        "invalid_request",
    );
    assert_eq!(end_run(&kernel, &nothing.token, &nothing.name).status, 200);
    assert_error(
        &kernel.chat(&nothing.token, &hello(json!({}))),
        401,
        "invalid_api_key",
    );
}

#[test]
fn what_ends_a_scope_ends_the_open_streams_below_it() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    sim.behave(endless());
    let body = streamed(&json!({"max_tokens": 4000}));
    type End = fn(&Kernel, &str, &Run);
    let ends: [(&str, End, u16); 4] = [
        (
            "agent",
            |kernel, _, _| drop(kernel.aex_json(&["agent", "sever", "agent"])),
            423,
        ),
        (
            "group",
            |kernel, _, _| drop(kernel.aex_json(&["group", "sever", "group-group"])),
            423,
        ),
        (
            "delete",
            |kernel, token, run| {
                let ended = end_run(kernel, token, &run.name);
                assert_eq!(ended.status, 200, "{}", ended.text());
                let ended = ended.json();
                assert_eq!(
                    (&ended["run"], &ended["ended"]),
                    (&json!(run.name), &json!(true))
                );
            },
            401,
        ),
        (
            "order",
            |kernel, _, run| {
                let params = json!({ "name": run.name }).to_string();
                let output = kernel.aex(&["rpc", "run.end", &params]);
                assert!(output.status.success(), "{output:?}");
            },
            401,
        ),
    ];
    let bystander = kernel.create_agent("bystander", "1.00", 1000, &[]);
    let mut untouched = kernel.chat_stream(&bystander, &body);
    for (name, end, status) in ends {
        let group = format!("group-{name}");
        make_group(&kernel, &group, &[]);
        let token = kernel.create_agent(name, "1.00", 1000, &["--group", &group]);
        let run = make_run(&kernel, &token, &json!({}));
        let child = make_run(&kernel, &run.token, &json!({}));
        let grandchild = make_run(&kernel, &child.token, &json!({}));
        let mut events = kernel.chat_stream(&grandchild.token, &body);
        assert!(events.nth(3).is_some());
        let reader = std::thread::spawn(move || {
            let last: Option<Event> = events.by_ref().last();
            (
                last.expect("a last event"),
                clock::boot_ms(),
                events.complete,
            )
        });
        end(&kernel, &token, &run);
        let ordered_ms = clock::boot_ms();
        let (last, ended_ms, complete) = reader.join().unwrap();
        assert!(
            ended_ms.saturating_sub(ordered_ms) < CUT_LIMIT_MS,
            "{name}: {ended_ms}"
        );
        assert!(
            complete && last.json()["error"].is_object(),
            "{name}: {last:?}"
        );
        for below in [&run, &child, &grandchild] {
            let answer = kernel.chat(&below.token, &hello(json!({})));
            assert_eq!(answer.status, status, "{name}: {}", answer.text());
            let shown = find_scope(&kernel, &below.name).is_some();
            assert_eq!(
                shown,
                status == 423,
                "{name}: what ended is not in the tree"
            );
        }
        wait_for("the provider's end", || {
            (sim.bill().in_flight == 1).then_some(())
        });
    }
    assert!(untouched.next().is_some() && !untouched.complete);
    drop(untouched);
    kernel.aex_json(&["agent", "sever", "bystander"]);
    kernel.settled();
    kernel.audit();
}

#[test]
fn a_command_is_held_to_its_run_and_the_run_ends_with_it() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    // It shows its token, and waits to be told to end.
    let script = "echo $OPENAI_API_KEY; read line; exit 7";
    let limits = ["--budget", "0.50", "--max-tokens", "200", "--ttl", "30m"];
    let begun_ms = clock::wall_ms();
    let args = [
        &["run", "-a", "a"],
        &limits[..],
        &["--", "sh", "-c", script],
    ]
    .concat();
    let mut command = kernel
        .command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut printed = std::io::BufReader::new(command.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut printed, &mut line).unwrap();
    let own = line.trim_end();

    let me = kernel.get("/v1/aex/me", own).json();
    let name = me["name"].as_str().expect("a name").to_owned();
    let shown = scope(&kernel, &name);
    for view in [&me, &shown] {
        assert_eq!(
            (&view["kind"], &view["budget_micro"]),
            (&json!("run"), &json!(500_000))
        );
        assert_eq!(view["settings"]["limits"], json!(["tokens=200"]));
        let lasts_ms = view["expires_at_ms"].as_i64().unwrap() - begun_ms;
        assert!((1_800_000..1_830_000).contains(&lasts_ms), "{lasts_ms}");
    }
    assert_eq!(kernel.chat(own, &hello(json!({}))).status, 200);
    let too_much = kernel.chat(own, &hello(json!({"max_tokens": 200})));
    assert_error(&too_much, 402, "insufficient_budget");
    let figures = too_much.json()["error"]["aex"].clone();
    assert_eq!(
        (&figures["scope"], &figures["limit"]),
        (&json!("run"), &json!("tokens"))
    );
    assert!(figures["remaining"].as_u64().unwrap() < 200, "{figures}");
    assert_eq!(
        kernel
            .chat(&token, &hello(json!({"max_tokens": 200})))
            .status,
        200
    );

    drop(command.stdin.take());
    assert_eq!(command.wait().unwrap().code(), Some(7));
    assert_error(&kernel.chat(own, &hello(json!({}))), 401, "invalid_api_key");
    assert_eq!(find_scope(&kernel, &name), None);
    kernel.settled();
    kernel.audit();
}

#[test]
fn a_run_wider_than_its_parent_does_not_start_its_command() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let _ = kernel.create_agent("a", "0.50", 10, &["--allowed-models", "sim-free"]);
    let mark = kernel.home().with_file_name("started");
    for (wider, why) in [
        (
            ["--budget", "0.60"],
            "budget is at most that of what is above it, here $0.500000",
        ),
        (["--rpm", "11"], "rpm"),
        (["--allowed-models", "gpt-oss-20b"], "gpt-oss-20b"),
        (["--limit", "tokens@model:nope=5"], "no such model"),
    ] {
        let args = [&["run", "-a", "a"], &wider[..], &["--", "touch"]].concat();
        let output = kernel.command(&args).arg(&mark).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why), "{said}");
        assert!(!mark.exists(), "{wider:?}");
    }
    let args = ["run", "-a", "a", "--budget", "0.50", "--", "touch"];
    assert!(kernel.command(&args).arg(&mark).status().unwrap().success());
    assert!(mark.exists());
}
