//! `policy-cost`: what a decision of policies costs. `make bench-policy` runs it.
//!
//! The set that is promised to cost under 50 µs: 100 policies, 10 of which can apply to the request.
//! All ten are evaluated to their end, and none matches: the dearest case. Exit 1 when it costs more.

use std::process::ExitCode;

use aex_admin::policy::{Ask, Known, Policies, PolicyFile, PolicyTime};
use aex_admin_proto::worker::Route;
use nix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROMISED_NS: u64 = 50_000;
const ROUND_MS: u64 = 300;
const ROUNDS: usize = 5;

const TOOLS: [&str; 4] = ["look", "read_file", "write_file", "search"];

/// Ten that can apply to atlas of dev, who chats with small.
fn applying() -> Vec<String> {
    let conditions = [
        "context.costMicroUsd > 50000",
        "context.time.hour < 7 || context.time.hour >= 19 || context.time.weekday > 5",
        "context.labels.contains(\"intern\") && context.stream",
        "context has session && context.session like \"ci-*\"",
        "context.inputTokens + context.outputTokens > 100000",
        "context.tools.containsAny([\"shell\", \"exec\", \"eval\"])",
        "context.images > 0 && !context.ownKey",
        "context.run && context.outputTokens > 8000",
        "context.time.date >= 20270101",
        "context.outputTokens > 4096 && !(principal in Group::\"trusted\")",
    ];
    let scopes = [
        "principal, action in Action::\"Request\", resource",
        "principal in Group::\"dev\", action in Action::\"Generate\", resource",
        "principal == Agent::\"atlas\", action == Action::\"Chat\", resource == Model::\"small\"",
        "principal in Group::\"kernel\", action in Action::\"Request\", resource in Provider::\"near\"",
    ];
    let scopes = scopes.iter().cycle();
    conditions
        .iter()
        .zip(scopes)
        .map(|(condition, scope)| {
            format!("@reason(\"not so\") forbid ({scope}) when {{ {condition} }};\n")
        })
        .collect()
}

/// Others, of which none can.
fn others(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| {
        let scope = match n % 4 {
            0 => format!(
                "principal == Agent::\"agent-{n}\", action in Action::\"Request\", resource"
            ),
            1 => format!(
                "principal in Group::\"group-{n}\", action in Action::\"Generate\", resource"
            ),
            2 => {
                "principal, action in Action::\"Request\", resource == Model::\"large\"".to_owned()
            }
            _ => "principal, action == Action::\"Embed\", resource".to_owned(),
        };
        format!("forbid ({scope}) when {{ context.costMicroUsd > {n} }};\n")
    })
}

fn policies(text: String) -> Policies {
    let file = PolicyFile {
        path: "bench.cedar".to_owned(),
        name: "bench.cedar".to_owned(),
        text,
    };
    let known = Known {
        models: ["small", "large"].map(str::to_owned).into(),
        providers: ["near", "far"].map(str::to_owned).into(),
        serving: ["near", "far"].map(str::to_owned).into(),
        ..Known::default()
    };
    match Policies::parse(&[file], &known) {
        Ok((policies, _)) => policies,
        Err(error) => panic!("{error}"),
    }
}

fn ask() -> Ask<'static> {
    Ask {
        agent: "atlas",
        groups: &["dev", "eng", "kernel"],
        route: Route::ChatCompletions,
        model: "small",
        provider: "near",
        input_tokens: 2_000,
        output_tokens: 4_096,
        cost_micro: 3_000,
        stream: true,
        images: 0,
        tools: &[],
        own_key: false,
        time: PolicyTime::at(&jiff::tz::TimeZone::UTC, 1_770_111_000_000),
        session: Some("s-1"),
        labels: &["team-a"],
        run: true,
    }
}

/// This program's own time on a CPU: other work of the machine does not count.
fn cpu_ms() -> u64 {
    let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("Linux has this clock");
    let [seconds, nanos] = [used.tv_sec(), used.tv_nsec()].map(|n| u64::try_from(n).unwrap_or(0));
    seconds * 1000 + nanos / 1_000_000
}

/// Nanoseconds a decision: the best of some rounds, as caches are shared with others.
fn measure(policies: &Policies, ask: &Ask<'_>) -> u64 {
    assert_eq!(
        policies.judge(ask).denied,
        None,
        "it is to be evaluated to its end"
    );
    let round = || {
        let started = cpu_ms();
        let mut decisions = 0_u64;
        loop {
            for _ in 0..100 {
                let _ = std::hint::black_box(policies.judge(std::hint::black_box(ask)));
            }
            decisions += 100;
            let took_ms = cpu_ms().saturating_sub(started);
            if took_ms >= ROUND_MS {
                return took_ms * 1_000_000 / decisions;
            }
        }
    };
    (0..ROUNDS).map(|_| round()).min().unwrap_or(u64::MAX)
}

/// The first decision about an agent, which looks for the policies that can apply.
fn measure_first(policies: &Policies) -> u64 {
    let names: Vec<String> = (0..2000).map(|n| format!("agent-{n}")).collect();
    let started = cpu_ms();
    for name in &names {
        let ask = Ask {
            agent: name,
            ..ask()
        };
        let _ = std::hint::black_box(policies.judge(&ask));
    }
    cpu_ms().saturating_sub(started) * 1_000_000 / names.len() as u64
}

#[expect(clippy::print_stdout, reason = "it is a program for people")]
fn told(what: &str, ns: u64) -> u64 {
    println!("{what:<58} {:>7.2} µs", ns as f64 / 1000.0);
    ns
}

fn main() -> ExitCode {
    let hundred: String = applying().into_iter().chain(others(90)).collect();
    let ten: String = applying().concat();
    let tool = "forbid (principal, action == Action::\"CallTool\", resource == Tool::\"shell\");\n";
    let like = "forbid (principal, action == Action::\"CallTool\", resource) when { resource.name like \"sh*\" };\n";
    let with_tools = Ask {
        tools: &TOOLS,
        ..ask()
    };

    told("no policy", measure(&Policies::default(), &ask()));
    let none: String = others(100).collect();
    told(
        "100 policies, none can apply",
        measure(&policies(none), &ask()),
    );
    let one = applying().swap_remove(0);
    told("1 policy, it can apply", measure(&policies(one), &ask()));
    told(
        "10 policies, all can apply",
        measure(&policies(ten), &ask()),
    );
    let promised = told(
        "100 policies, 10 can apply",
        measure(&policies(hundred.clone()), &ask()),
    );
    told(
        "  the first time",
        measure_first(&policies(hundred.clone())),
    );
    told(
        "  and 4 tools, none of which a policy names",
        measure(&policies(format!("{hundred}{tool}")), &with_tools),
    );
    told(
        "  and 4 tools, a pattern for each",
        measure(&policies(format!("{hundred}{like}")), &with_tools),
    );
    ExitCode::from(u8::from(promised > PROMISED_NS))
}
