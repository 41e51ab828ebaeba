//! Power loss: `aex-admin` under load is recorded write by write, and at hundreds of points of the
//! record the disk is put together as it would be found afterwards. Whatever was answered before the
//! point is there, and the ledger holds.
//!
//! A run that failed is repeated with `AEX_TEST_RECORD`, the record that it left in cargo's directory
//! for tests, and `AEX_TEST_SEED`, which it printed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aex_admin_proto::client::Client;
use aex_admin_proto::peer::Peer;
use aex_admin_proto::worker::{
    Facts, Grant, Observed, RESERVE, ReserveParams, ReserveReply, Route, SETTLE, SettleParams,
    SettleReply, Usage, UsageSeen,
};
use aex_admin_proto::{HoldId, TokenDigest, clock};
use aex_tests::harness::{Kernel, process, program, wait_for};
use aex_tests::sim::{Behaviour, Sim};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{DEAR_MODEL, bill_pico, hello, in_flight, sim, spent_pico};
use crate::disk::{Chance, Disk, Entry, Image, entries};

/// Requests at once, and of each how many one after the other.
const WORKERS: u64 = 4;
const REQUESTS: u64 = 500;
/// Points right after an answer, and points anywhere.
const AFTER_ANSWERS: usize = 130;
const ANYWHERE: usize = 110;
/// Points at which `aex-admin` is started on what it finds.
const STARTS: usize = 6;
const CALL_LIMIT: Duration = Duration::from_secs(20);
const INPUT_PICO: u64 = 30_000_000;
const OUTPUT_PICO: u64 = 60_000_000;

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `aex-admin serve` alone on a home.
fn serve(program: &Path, home: &Path) -> Running {
    let child = Command::new(program)
        .arg("serve")
        .env_clear()
        .env("AEX_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Running(child)
}

/// One that is found in the environment is run again.
#[expect(clippy::print_stderr, reason = "a failed run can be repeated")]
fn seed() -> u64 {
    let given = std::env::var("AEX_TEST_SEED").ok();
    let seed = given.map_or_else(
        || u64::try_from(clock::wall_ms()).unwrap(),
        |seed| seed.parse().expect("AEX_TEST_SEED is a number"),
    );
    eprintln!("AEX_TEST_SEED={seed}");
    seed
}

/// What a settle costs says which request it was of: each has a prompt length of its own.
fn cost_pico(number: u64) -> i64 {
    i64::try_from((number + 1) * INPUT_PICO + OUTPUT_PICO).unwrap()
}

/// Reserves and settles, as a worker does.
async fn request(client: &Client, token: TokenDigest, number: u64) {
    let id = HoldId::random().unwrap();
    let facts = Facts {
        body_bytes: 9_000,
        ascii_bytes: 8_000,
        messages: 1,
        output_cap: Some(20),
        choices: 1,
        ..Facts::default()
    };
    let params = ReserveParams {
        id,
        token,
        route: Route::ChatCompletions,
        model: DEAR_MODEL.into(),
        facts,
        idempotency: None,
        again: None,
        peer: Peer::default(),
    };
    let reply: ReserveReply = client.call(RESERVE, &params, CALL_LIMIT).await.unwrap();
    let ReserveReply::Granted(grant) = reply else {
        panic!("{reply:?}");
    };
    let settle = settle_params(id, &grant, number);
    let reply: SettleReply = client.call(SETTLE, &settle, CALL_LIMIT).await.unwrap();
    assert_eq!(reply.cost_pico, cost_pico(number));
}

fn settle_params(id: HoldId, grant: &Grant, number: u64) -> SettleParams {
    let usage = Usage {
        prompt: number + 1,
        output: 1,
        ..Usage::default()
    };
    let observed = Observed {
        status: Some(200),
        complete: true,
        usage: UsageSeen::Reported(usage),
        own_output_tokens: 1,
        ..Observed::default()
    };
    SettleParams {
        id,
        ticket: grant.ticket.clone(),
        observed,
    }
}

fn load(socket: &Path, token: &str) {
    let token = TokenDigest::of(token.as_bytes());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::connect(socket).await.unwrap();
        let tasks: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let client = client.clone();
                tokio::spawn(async move {
                    for turn in 0..REQUESTS {
                        request(&client, token, worker * REQUESTS + turn).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// The record of `aex-admin` from its first start on, under load, until it was killed.
fn recorded(kernel: &Kernel) -> Vec<Entry> {
    let steer = kernel.steer("aex-admin");
    steer.record(kernel.home());
    let mut admin = serve(&kernel.program("aex-admin"), kernel.home());
    wait_for("aex-admin", || kernel.look());
    let token = kernel.create_agent("a", "9000.00", 1_000_000, &["--max-concurrency", "64"]);
    load(&kernel.places.worker_socket(), &token);
    admin.kill();
    let record = steer.recorded();
    std::fs::write(
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("power.record"),
        &record,
    )
    .unwrap();
    entries(&record)
}

/// All requests were answered, and the log was moved into the file meanwhile, more than once.
fn has_everything(record: &[Entry]) {
    let mut answered = Answered::default();
    let mut moves = 0;
    for entry in record {
        match entry {
            Entry::Answer { text } => answered.take(text),
            Entry::Synced { file, .. } if file.ends_with("/aex.db") => moves += 1,
            _ => {}
        }
    }
    let requests = usize::try_from(WORKERS * REQUESTS).unwrap();
    assert_eq!(answered.holds.len(), requests);
    assert_eq!(answered.costs_pico.len(), requests);
    assert!(moves >= 2, "{moves}");
}

/// What was answered, as it stood in the bytes that were sent.
#[derive(Debug, Default, Clone)]
struct Answered {
    holds: HashSet<String>,
    costs_pico: HashSet<i64>,
}

impl Answered {
    fn take(&mut self, text: &str) {
        for ticket in text.split("\"ticket\":\"").skip(1) {
            // `v2.<key id>.<claims>.<mac>`; the hold's id is the first claim.
            let claims = ticket.splitn(3, '.').nth(2).unwrap();
            self.holds.insert(claims[..32].to_owned());
        }
        for cost in text.split("\"cost_pico\":").skip(1) {
            let digits = cost.split(|c: char| !c.is_ascii_digit()).next();
            self.costs_pico.insert(digits.unwrap().parse().unwrap());
        }
    }
}

/// The disk as it is found after a point, and what was promised by then.
struct Found {
    point: usize,
    torn: bool,
    image: Image,
    answered: Answered,
    /// Somebody was told that the agent is there.
    has_agent: bool,
}

/// Images of all points, in order, each handed to `each` as it is made.
fn at_points(
    record: &[Entry],
    points: &[usize],
    chance: &mut Chance,
    mut each: impl FnMut(Found, Found),
) {
    let mut disk = Disk::default();
    let mut answered = Answered::default();
    let mut has_agent = false;
    for (index, entry) in record.iter().enumerate() {
        disk.take(entry);
        if let Entry::Answer { text } = entry {
            answered.take(text);
            has_agent |= text.contains("\"token\":");
        }
        let point = index + 1;
        if points.binary_search(&point).is_ok() {
            let found = |torn, image| Found {
                point,
                torn,
                image,
                answered: answered.clone(),
                has_agent,
            };
            let torn = disk.with_torn_tails(chance);
            each(found(false, disk.without_tails()), found(true, torn));
        }
    }
}

fn points(record: &[Entry], chance: &mut Chance) -> Vec<usize> {
    let answers: Vec<usize> = record
        .iter()
        .enumerate()
        .filter(|(_, entry)| matches!(entry, Entry::Answer { .. }))
        .map(|(index, _)| index + 1)
        .collect();
    assert!(answers.len() >= AFTER_ANSWERS, "{} answers", answers.len());
    let mut points = HashSet::new();
    while points.len() < AFTER_ANSWERS {
        points.insert(answers[chance.below(answers.len())]);
    }
    while points.len() < AFTER_ANSWERS + ANYWHERE {
        points.insert(1 + chance.below(record.len()));
    }
    let mut points: Vec<usize> = points.into_iter().collect();
    points.sort_unstable();
    points
}

/// Writes an image into a directory that takes the home's place.
fn write_image(image: &Image, directory: &Path) {
    for (name, content) in image {
        let (_, below) = name.split_once("/home/").unwrap();
        let path = directory.join(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).unwrap();
    }
}

fn sqlite(ledger: &Path, sql: &str) -> Vec<String> {
    let output = Command::new("sqlite3")
        .args(["-batch"])
        .arg(ledger)
        .arg(sql)
        .output()
        .unwrap();
    assert!(output.status.success(), "{sql}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(str::to_owned).collect()
}

fn audit(ledger: &Path) -> Value {
    let output = Command::new(program("aex-admin"))
        .args(["audit", "--json", "--db"])
        .arg(ledger)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|problem| panic!("audit: {problem}: {output:?}"));
    assert_eq!(report["ok"], true, "{report}");
    report
}

impl Found {
    fn check(&self) {
        let directory = tempfile::tempdir().unwrap();
        write_image(&self.image, directory.path());
        let ledger = directory.path().join("aex.db");
        let told = format!("point {}, torn: {}", self.point, self.torn);
        if !self.has_agent {
            // Nothing was promised; a ledger that was only being made may be none yet.
            return;
        }
        let report = audit(&ledger);
        assert_eq!(report["agents"], 1, "{told}");
        let opened = "SELECT hold FROM events WHERE action='hold.open'";
        let kept: HashSet<String> = sqlite(&ledger, opened).into_iter().collect();
        let lost: Vec<_> = self.answered.holds.difference(&kept).collect();
        assert!(lost.is_empty(), "{told}: holds lost: {lost:?}");
        let ended = "SELECT cost_pico FROM events WHERE action='usage.commit'";
        let kept: HashSet<i64> = sqlite(&ledger, ended)
            .iter()
            .map(|cost| cost.parse().unwrap())
            .collect();
        let lost: Vec<_> = self.answered.costs_pico.difference(&kept).collect();
        assert!(lost.is_empty(), "{told}: settles lost: {lost:?}");
    }

    /// `aex-admin` itself takes the image up, and its ledger still holds.
    fn start(&self, kernel: &Kernel) {
        let directory = tempfile::tempdir().unwrap();
        write_image(&self.image, directory.path());
        let config = directory.path().join("config");
        std::fs::create_dir(&config).unwrap();
        std::fs::copy(&kernel.places.config_file, config.join("models.yaml")).unwrap();
        let mut admin = serve(&program("aex-admin"), directory.path());
        let socket = directory.path().join("run/admin.sock");
        wait_for("aex-admin on an image", || socket.exists().then_some(()));
        admin.kill();
        audit(&directory.path().join("aex.db"));
    }
}

#[test]
fn what_was_answered_is_there_after_any_point() {
    let kernel = Kernel::builder()
        .models_yaml(loopback_model())
        .interposed()
        .prepare();
    let record = match std::env::var_os("AEX_TEST_RECORD") {
        Some(path) => entries(&std::fs::read(path).unwrap()),
        None => recorded(&kernel),
    };
    has_everything(&record);
    let mut chance = Chance(seed());
    let points = points(&record, &mut chance);
    let mut number = 0;
    at_points(&record, &points, &mut chance, |clean, torn| {
        std::thread::scope(|scope| {
            scope.spawn(|| clean.check());
            torn.check();
        });
        if clean.has_agent && number % (points.len() / STARTS) == 0 {
            torn.start(&kernel);
        }
        number += 1;
    });
    assert_eq!(number, points.len());
}

/// A provider that nobody calls: this test is the worker.
fn loopback_model() -> String {
    format!(
        "providers:
  sim: {{ base_url: 'http://127.0.0.1:9/v1' }}
models:
  {DEAR_MODEL}:
    provider: sim
    price: {{ input_per_mtok: 30, output_per_mtok: 60 }}
    max_output_tokens: 4096
    context_window: 131072
"
    )
}

/// Kills a whole kernel at once, supervisor first.
fn cut_the_power(kernel: &Kernel) {
    let daemon = kernel.pid("daemon");
    let mut pids = process::children(daemon);
    pids.insert(0, daemon);
    for &pid in &pids {
        process::send_signal(pid, Signal::SIGKILL);
    }
    wait_for("their end", || {
        let gone = pids.iter().all(|&pid| !process::is_alive(pid));
        gone.then_some(())
    });
}

/// The home as the disk kept it, and as another boot finds it.
fn boot_again(kernel: &Kernel, image: &Image) {
    for name in ["aex.db", "aex.db-wal", "aex.db-shm"] {
        // Not all are always there.
        let _ = std::fs::remove_file(kernel.home().join(name));
    }
    write_image(image, kernel.home());
    kernel.sqlite("UPDATE meta SET value = CAST('another' AS BLOB) WHERE key = 'boot_id'");
    let journal: PathBuf = kernel.places.egress_journal();
    let text = std::fs::read_to_string(&journal).unwrap();
    let this_boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(this_boot.trim()));
    std::fs::write(journal, text.replace(this_boot.trim(), "another")).unwrap();
}

/// Requests that are answered and one that is under way.
fn work(kernel: &Kernel, sim: &Sim) {
    let token = kernel.create_agent("a", "5.00", 1000, &[]);
    for _ in 0..3 {
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    }
    // Before it is asked for: in the ledger's copy they must be settled.
    kernel.settled();
    sim.behave(Behaviour {
        hang: true,
        times: Some(1),
        ..Behaviour::default()
    });
    drop(in_flight(
        kernel,
        sim,
        &token,
        &hello(json!({"model": DEAR_MODEL})),
    ));
}

#[test]
fn a_whole_kernel_after_another_boot() {
    let sim = sim();
    let mut kernel = Kernel::builder()
        .default_models(&sim)
        .workers(1)
        .interposed()
        .prepare();
    let steer = kernel.steer("aex-admin");
    steer.record(kernel.home());
    kernel.start_again();
    work(&kernel, &sim);
    let answered_pico = spent_pico(&kernel, "a");
    cut_the_power(&kernel);

    let mut disk = Disk::default();
    entries(&steer.recorded())
        .iter()
        .for_each(|entry| disk.take(entry));
    boot_again(&kernel, &disk.without_tails());
    let held_pico = kernel.sqlite_number("SELECT held_pico FROM agents WHERE name='a'");
    assert!(held_pico > 0, "the hold was durable before it was sent");
    assert_eq!(spent_pico(&kernel, "a"), answered_pico);

    kernel.start_again();
    kernel.settled();
    assert_eq!(spent_pico(&kernel, "a"), answered_pico + held_pico);
    let reason = kernel.sqlite(
        "SELECT detail->>'basis' FROM events WHERE action='usage.commit' ORDER BY id DESC LIMIT 1",
    );
    assert_eq!(reason, "ceiling");
    assert!(spent_pico(&kernel, "a") >= bill_pico(&sim.bill()));
    kernel.audit();
    let token = kernel.create_agent("b", "1.00", 1000, &[]);
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    kernel.audit();
}
