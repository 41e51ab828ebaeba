use aex_admin_proto::capabilities::Capabilities;
use aex_admin_proto::operator::{Passthrough, SetParams, Settings};
use aex_admin_proto::worker::Route;
use clap::CommandFactory;

use super::*;
use aex_admin_proto::listen::Listen;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("aex").chain(line.split_whitespace()))
}

fn set(line: &str) -> Result<SetParams, String> {
    match parse(&format!("agent set a {line}"))
        .map_err(|error| error.to_string())?
        .command
    {
        Command::Agent {
            command: AgentCommand::Set(args),
        } => args.params(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_has_an_example() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let after = command.get_after_help().map(ToString::to_string);
        assert!(
            after.is_some_and(|text| text.contains("Example:\n  ")),
            "{path} --help has no example"
        );
        // What is hidden is for this program itself.
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            check(sub, &path);
        }
    }
    check(&Cli::command(), "");
}

#[test]
fn every_argument_is_described() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        for argument in command.get_arguments() {
            let (id, help) = (argument.get_id(), argument.get_help());
            assert!(
                argument.is_hide_set() || help.is_some(),
                "{path} --help is silent about {id}"
            );
        }
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            check(sub, &path);
        }
    }
    check(&Cli::command(), "");
}

#[test]
fn the_lines_of_the_contract_are_taken() {
    for line in [
        "init",
        "daemon start",
        "daemon start --workers 2 --listen 127.0.0.1:0 --foreground",
        "daemon stop --json",
        "daemon restart",
        "daemon status",
        "daemon logs -f -n 5",
        "agent create test-agent 0.01 60",
        "agent create atlas 10.00 30 --allowed-models gpt-oss-20b",
        "agent create my-agent 5.00 30 --allow-passthrough",
        "agent create a 5 30 --require-passthrough --max-tokens-per-minute 1 --max-input-tokens 2 \
         --max-output-tokens 3 --max-concurrency 4 --no-streaming --no-tools --no-vision --ttl 24h",
        "agent create a 5 30 --allowed-tools x,y",
        "agent create a 5 30 --allowed-providers g* --allowed-routes chat-completions,responses \
         --no-audio --files --no-structured-output --no-hosted-tools --denied-tools rm_*,del \
         --no-parallel-tool-calls --max-choices 2 --temperature 0..1.5 --on-forbidden-tool strip",
        "agent set a --clear temperature --clear on-forbidden-tool --clear allowed-providers",
        "--json agent list",
        "agent show a",
        "agent set a --budget 2.01",
        "agent set a --add -0.5",
        "agent rotate-token a --ttl 7d --grace 10m",
        "agent pause a",
        "agent resume a",
        "agent sever a",
        "agent delete a",
        "run -a a --ttl 10m -- sh -c true --json",
        "token list a",
        "token revoke 3",
        "status --socket /tmp/s",
        "metrics --watch",
        "audit --strict",
        "ledger tail -f",
        "models",
        "policy check",
        "policy check ./policies --json",
        "policy explain --agent a request.json",
        "policy explain -a a --run a/7 --route /v1/responses --own-key --session s - --json",
        "policy explain --agent a --route chat-completions ./r.json",
        "prices list",
        "prices list --provider groq --json",
        "prices show openai/gpt-4o",
        "prices import f.json",
        "group create g2 --group g1",
        "group set g2 --group kernel",
        "agent create a 5 30 --label bulk",
        "agent set a --label bulk,night",
        "config check",
        "config check f.yaml",
        "config reload",
        "rpc rpc.discover",
        "rpc agent.show {\"name\":\"a\"}",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn each_mistake_is_one_of_usage() {
    for line in [
        "",
        "nonsense",
        "agent",
        "policy",
        "policy explain",
        "policy explain --agent a",
        "policy explain request.json",
        "policy explain --agent a --route /v1/models request.json",
        "prices",
        "prices show",
        "prices import",
        "agent create",
        "agent create a",
        "agent create a 5.00",
        "agent create a 5.00 0",
        "agent create a 5.00 -1",
        "agent create a 5.00 1.5",
        "agent create a -5 30",
        "agent create a 1e3 30",
        "agent create a NaN 30",
        "agent create a 0.0000001 30",
        "agent create a 99999999 30",
        "agent create a 5 30 --ttl 10",
        "agent create a 5 30 --max-session-tokens 0",
        "agent create a 5 30 --allowed-models ,",
        "agent create a 5 30 --allow-passthrough --require-passthrough",
        "agent create a 5 30 --streaming --no-streaming",
        "agent create a 5 30 --no-tools --allowed-tools x",
        "agent create a 5 30 --max-concurrency 0",
        "agent create a 5 30 --max-choices 0",
        "agent create a 5 30 --audio --no-audio",
        "agent create a 5 30 --temperature 1",
        "agent create a 5 30 --temperature ..",
        "agent create a 5 30 --temperature 2..1",
        "agent create a 5 30 --temperature 0..1.0001",
        "agent create a 5 30 --temperature -1..1",
        "agent create a 5 30 --allowed-routes chat",
        "agent create a 5 30 --on-forbidden-tool ignore",
        "agent set a --budget 1 --add 1",
        "agent set a --ttl 1h",
        "agent set a --clear nothing-like-it",
        "agent rotate-token a --grace 10",
        "daemon start --workers 0",
        "daemon start --listen unix:agents.sock",
        "daemon start --listen unix:/run/agents",
        "daemon start --tls-cert c.pem",
        "daemon start --tls-key k.pem",
        "daemon start --tls-client-ca ca.pem",
        "daemon start --tls-cert c.pem --tls-key k.pem --plain-http",
        "agent create a 1 30 --uid there-is-no-such-user",
        "agent create a 1 30 --uid 4294967295",
        "agent create a 1 30 --client-cert abc",
        "daemon start --listen 9000",
        "daemon start --detached",
        "token revoke x",
        "token revoke 0",
        "ledger tail -n 0",
        "ledger tail -n 1001",
        "run -- true",
        "run -a a",
        "run -a a --no-such-option true",
        "run true -a a",
        "confined -- true",
        "audit extra",
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.use_stderr(), "{line}");
    }
    assert!(set("").is_err());
    assert!(set("--uid 7 --clear uid").is_err());
    assert!(set("--vision --clear vision").is_err());
    assert!(set("--temperature ..1 --clear temperature").is_err());
}

#[test]
fn options_become_settings() {
    assert_eq!(
        set(
            "--no-passthrough --no-streaming --tools --allowed-models a,b --clear vision --clear max-input-tokens"
        ),
        Ok(SetParams {
            name: "a".into(),
            settings: Settings {
                allowed_models: Some(vec!["a".into(), "b".into()]),
                passthrough: Some(Passthrough::Deny),
                streaming: Some(false),
                tools: Some(true),
                ..Settings::default()
            },
            clear: vec!["vision".into(), "max_input_tokens".into()],
            ..SetParams::default()
        })
    );
    assert_eq!(set("--add -0.5").unwrap().add_micro, Some(-500_000));
    let set = set("--temperature 0.25..1.5 --allowed-routes embeddings --no-files --clear audio");
    let set = set.unwrap();
    assert_eq!(
        *set.settings.capabilities,
        Capabilities {
            allowed_routes: Some(vec![Route::Embeddings]),
            files: Some(false),
            min_temperature_milli: Some(250),
            max_temperature_milli: Some(1500),
            ..Capabilities::default()
        }
    );
    assert_eq!(set.clear, ["audio"]);
}

#[test]
fn a_mistake_in_run_does_not_look_like_an_exit_of_its_command() {
    let code = |line: &str| usage_exit_code(line.split_whitespace().map(OsString::from));
    assert_eq!(code("run --bad"), 125);
    assert_eq!(code("--json --socket x run"), 125);
    assert_eq!(code("agent create run"), 2);
    assert_eq!(code("--socket run status"), 2);
    assert_eq!(code(""), 2);
}

#[test]
fn what_follows_a_commands_name_is_the_commands() {
    for (line, command) in [
        ("run -a a echo hi", "echo hi"),
        ("run -a a -- echo hi", "echo hi"),
        (
            "run -a a echo --json -a b --help",
            "echo --json -a b --help",
        ),
        ("run -a a echo -- -x", "echo -- -x"),
        ("run -a a -- echo -- -x", "echo -- -x"),
        ("run -a a -- -x --json", "-x --json"),
        ("run -a a --budget 0.5 --confine sh -c true", "sh -c true"),
    ] {
        let cli = parse(line).unwrap();
        assert!(!cli.json, "{line}");
        let Command::Run(args) = cli.command else {
            panic!("{line}");
        };
        assert_eq!(args.agent, "a", "{line}");
        assert_eq!(args.command.join(" ".as_ref()), *command, "{line}");
    }
}

#[test]
fn a_token_is_bound_and_set_free_again() {
    let cert = "ab".repeat(32);
    let bound = set(&format!("--uid root --client-cert {cert}")).unwrap();
    assert_eq!(bound.settings.uid, Some(0));
    assert_eq!(
        bound.settings.client_cert.map(|c| c.to_string()),
        Some(cert)
    );
    let free = set("--clear uid --clear client-cert").unwrap();
    assert_eq!(free.clear, ["uid", "client_cert"]);
}

#[test]
fn plain_http_beyond_this_host_is_seen_before_anything_starts() {
    let plan = |line: &str| match parse(&format!("daemon start {line}")).unwrap().command {
        Command::Daemon {
            command: DaemonCommand::Start(args),
        } => args.place.plan(None, 1),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        plan("").listen,
        [Listen::Tcp(crate::listen::DEFAULT_LISTEN)]
    );
    for (line, refused) in [
        ("", false),
        ("--listen 127.0.0.1:1 --listen unix:/x.sock", false),
        ("--listen 127.0.0.1:1 --listen 0.0.0.0:1", true),
        ("--listen [::]:1", true),
        ("--listen 0.0.0.0:1 --plain-http", false),
        ("--listen 0.0.0.0:1 --tls-cert c --tls-key k", false),
    ] {
        assert_eq!(plan(line).plain_beyond().is_some(), refused, "{line}");
    }
    // What a daemon starts its other half with comes to the same plan.
    let line = "--workers 3 --listen 0.0.0.0:1 --listen unix:/x.sock --tls-cert /c --tls-key /k \
                --tls-client-ca /a";
    let options: Vec<String> = (plan(line).options().into_iter())
        .map(|option| option.into_string().unwrap())
        .collect();
    assert_eq!(plan(&options.join(" ")), plan(line));
}
