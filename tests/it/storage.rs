//! Faults of the storage below the ledger: full, failing, read-only, locked, corrupt.
//!
//! In each the kernel says what is wrong, answers no request that it could not book, loses nothing
//! that it answered before, and goes on by itself where it can.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use aex_admin_proto::clock;
use aex_tests::harness::{Kernel, process, wait_for, wait_until};
use aex_tests::sim::{Behaviour, Sim};
use nix::errno::Errno;
use serde_json::json;

use crate::common::{
    assert_error, assert_retry_after, bill_pico, hello, in_flight, sim, spent_pico,
};

const LOCK_WAIT_MS: u64 = 2_000;
/// What the lock's holder keeps it for.
const LOCKED_FOR_MS: u64 = 10_000;
/// What an answer may take that waits for nothing, on a machine that does other things too.
const QUICK_MS: u64 = 1_000;
/// The longest pause of the supervisor between two starts is five seconds.
const GOES_ON: Duration = Duration::from_secs(15);
const PAGE_BYTES: u64 = 4096;

fn kernel(sim: &Sim) -> (Kernel, String) {
    let kernel = Kernel::builder()
        .default_models_and(sim, &format!("lock_wait: {LOCK_WAIT_MS}ms"))
        .workers(1)
        .interposed()
        .start();
    let token = kernel.create_agent("a", "5.00", 1_000_000, &[]);
    (kernel, token)
}

fn answered(kernel: &Kernel, token: &str, count: usize) {
    for _ in 0..count {
        let answer = kernel.chat(token, &hello(json!({})));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// A request is refused in the error form, and the provider does not see it.
fn fails_closed(kernel: &Kernel, sim: &Sim, token: &str) {
    let seen = sim.bill().requests;
    let answer = kernel.chat(token, &hello(json!({})));
    assert_error(&answer, 503, "kernel_unavailable");
    assert_retry_after(&answer);
    assert_eq!(sim.bill().requests, seen, "it was forwarded");
}

/// Answers come again without anybody's doing.
fn goes_on(kernel: &Kernel, token: &str) {
    let since_boot_ms = clock::boot_ms();
    let body = hello(json!({}));
    let again = wait_until(GOES_ON, || {
        (kernel.chat(token, &body).status == 200).then_some(())
    });
    let took_ms = clock::boot_ms() - since_boot_ms;
    assert!(again.is_some(), "not after {took_ms} ms");
}

/// Every answer is in the ledger, at what the provider bills.
fn nothing_is_lost(kernel: &Kernel, sim: &Sim) {
    kernel.settled();
    let (spent, billed) = (spent_pico(kernel, "a"), bill_pico(&sim.bill()));
    let inexact = kernel.sqlite(
        "SELECT at_ms, action, detail FROM events WHERE action IN ('usage.commit', 'hold.release') AND \
         detail->>'basis' IS NOT 'exact'",
    );
    assert_eq!(spent, billed, "inexact: {inexact}");
    kernel.audit();
}

/// What the kernel says it misses.
fn says_why(kernel: &Kernel, text: &str) {
    wait_for(text, || {
        let status = kernel.look()?;
        let why = status.why.unwrap_or_default();
        (!status.ready && why.contains(text)).then_some(())
    });
    let output = kernel.aex(&["status"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains(text), "aex status: {output:?}");
}

/// A request may be refused a moment before the log says why.
fn log_says(kernel: &Kernel, texts: &[&str]) {
    wait_for(&format!("one of {texts:?} in the log of aex-admin"), || {
        let log = std::fs::read_to_string(kernel.places.logs.join("aex-admin.log")).unwrap();
        texts.iter().any(|text| log.contains(text)).then_some(())
    });
}

/// The kernel cannot be started, says one of `texts`, and leaves nothing running.
fn cannot_start(kernel: &Kernel, texts: &[&str]) {
    let output = start(kernel);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{output:?}");
    assert!(texts.iter().any(|text| told.contains(text)), "{told}");
    let left = programs_of(kernel);
    assert!(
        left.is_empty(),
        "still there after a failed start: {left:?}"
    );
}

fn start(kernel: &Kernel) -> Output {
    kernel
        .command(&["daemon", "start", "--listen", "127.0.0.1:0"])
        .env("SIM_API_KEY", Kernel::SIM_KEY)
        .output()
        .unwrap()
}

/// Processes that work in the kernel's home.
fn programs_of(kernel: &Kernel) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| process::is_alive(pid))
        .filter(|pid| {
            std::fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|directory| directory == kernel.home())
        })
        .collect()
}

fn full() -> String {
    let errno = Errno::ENOSPC as i32;
    format!("call write\npath /aex.db\nerrno {errno}\n")
}

#[test]
fn a_full_disk_is_waited_for() {
    let sim = sim();
    let (kernel, token) = kernel(&sim);
    answered(&kernel, &token, 5);
    sim.behave(Behaviour {
        times: Some(1),
        delay_ms: 300,
        ..Behaviour::default()
    });
    let mut caught = in_flight(&kernel, &sim, &token, &hello(json!({})));
    let admin = kernel.pid("aex-admin");
    kernel.steer("aex-admin").fault(&full());
    fails_closed(&kernel, &sim, &token);
    says_why(&kernel, "no space left for the ledger");
    assert_eq!(kernel.get("/readyz", &token).status, 503);
    assert_eq!(kernel.get("/healthz", &token).status, 200);
    // The answer that was paid for comes, whether or not it could be booked by now.
    assert_eq!(caught.response().unwrap().status, 200);
    fails_closed(&kernel, &sim, &token);

    kernel.steer("aex-admin").lift();
    goes_on(&kernel, &token);
    assert_eq!(kernel.pid("aex-admin"), admin, "it did not have to restart");
    nothing_is_lost(&kernel, &sim);
}

/// What the ledger cannot tell is not in force: the old configuration goes on.
#[test]
fn a_configuration_that_cannot_be_recorded_does_not_come_into_force() {
    let sim = sim();
    let (kernel, token) = kernel(&sim);
    answered(&kernel, &token, 1);
    let models = std::fs::read_to_string(&kernel.places.config_file).unwrap();
    kernel.write_config(&models.replace("gpt-oss-20b:", "gpt-oss-renamed:"));
    let steer = kernel.steer("aex-admin");
    steer.fault(&full());
    let refused = kernel.aex(&["config", "reload"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{refused:?}");
    assert!(
        told.contains("the old configuration stays in force"),
        "{told}"
    );
    steer.lift();
    goes_on(&kernel, &token);
    let reloads = "SELECT COUNT(*) FROM events WHERE action = 'config.reload'";
    assert_eq!(kernel.sqlite_number(reloads), 0);

    kernel.aex_json(&["config", "reload"]);
    assert_eq!(kernel.sqlite_number(reloads), 1);
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 404);
    nothing_is_lost(&kernel, &sim);
}

/// What is under way while a batch is undone is still its worker's.
#[test]
fn a_stream_outlives_a_full_disk() {
    let sim = sim();
    let (kernel, token) = kernel(&sim);
    sim.behave(Behaviour {
        times: Some(1),
        chunk_delay_ms: 150,
        ..Behaviour::default()
    });
    let mut events = kernel.chat_stream(&token, &hello(json!({"stream": true})));
    assert!(events.nth(2).is_some());
    let steer = kernel.steer("aex-admin");
    steer.fault(&full());
    fails_closed(&kernel, &sim, &token);
    steer.lift();
    goes_on(&kernel, &token);
    assert_eq!(events.by_ref().last().unwrap().data, "[DONE]");
    nothing_is_lost(&kernel, &sim);
}

fn failing_sync() -> String {
    let errno = Errno::EIO as i32;
    format!("call sync\npath /aex.db\nerrno {errno}\n")
}

#[test]
fn a_failed_sync_ends_the_process_and_it_recovers() {
    let sim = sim();
    let (kernel, token) = kernel(&sim);
    answered(&kernel, &token, 5);
    let admin = kernel.pid("aex-admin");
    let steer = kernel.steer("aex-admin");
    steer.fault(&format!("{}once\n", failing_sync()));
    // The worker asks again, and the same hold is granted once.
    let answer = kernel.chat(&token, &hello(json!({})));
    assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
    assert!(steer.has_failed());
    goes_on(&kernel, &token);
    assert_ne!(kernel.pid("aex-admin"), admin);
    log_says(&kernel, &["the ledger failed; ending"]);
    nothing_is_lost(&kernel, &sim);
}

/// What a failed sync left in the log reads like a commit after the restart. It is none.
#[test]
fn a_device_that_fails_every_sync() {
    let sim = sim();
    let (kernel, token) = kernel(&sim);
    answered(&kernel, &token, 5);
    let steer = kernel.steer("aex-admin");
    steer.fault(&failing_sync());
    fails_closed(&kernel, &sim, &token);
    fails_closed(&kernel, &sim, &token);
    steer.lift();
    goes_on(&kernel, &token);
    nothing_is_lost(&kernel, &sim);
}

#[test]
fn a_file_system_that_becomes_read_only() {
    let sim = sim();
    let (mut kernel, token) = kernel(&sim);
    answered(&kernel, &token, 5);
    let read_only = format!(
        "call write\ncall truncate\ncall open\npath /aex.db\nerrno {}\n",
        Errno::EROFS as i32
    );
    let steer = kernel.steer("aex-admin");
    steer.fault(&read_only);
    fails_closed(&kernel, &sim, &token);
    log_says(&kernel, &["Read-only file system", "readonly database"]);
    fails_closed(&kernel, &sim, &token);
    steer.lift();
    goes_on(&kernel, &token);
    nothing_is_lost(&kernel, &sim);

    kernel.stop();
    steer.fault(&read_only);
    cannot_start(&kernel, &["Read-only file system", "readonly database"]);
    steer.lift();
    kernel.start_again();
    answered(&kernel, &token, 1);
    nothing_is_lost(&kernel, &sim);
}

/// Another program that has the ledger's write lock.
struct Locked(Child);

impl Locked {
    fn take(kernel: &Kernel) -> Self {
        let mut shell = Command::new("sqlite3")
            .args(["-batch", "-cmd", ".timeout 5000"])
            .arg(&kernel.places.ledger)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = shell.stdin.as_mut().unwrap();
        input
            .write_all(b"BEGIN IMMEDIATE;\nSELECT 'taken';\n")
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(shell.stdout.as_mut().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "taken");
        Self(shell)
    }

    fn give_back(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Milliseconds that `act` took.
fn timed(act: impl FnOnce()) -> u64 {
    let since_boot_ms = clock::boot_ms();
    act();
    clock::boot_ms() - since_boot_ms
}

#[test]
fn a_lock_held_by_another_program() {
    let sim = sim();
    let (kernel, token) = kernel(&sim);
    answered(&kernel, &token, 5);
    let since_boot_ms = clock::boot_ms();
    let locked = Locked::take(&kernel);
    let mut refused = 0;
    let mut longest_ms = 0;
    while clock::boot_ms() - since_boot_ms < LOCKED_FOR_MS {
        std::thread::scope(|scope| {
            let request = scope.spawn(|| timed(|| fails_closed(&kernel, &sim, &token)));
            for path in ["/healthz", "/readyz"] {
                let took_ms = timed(|| {
                    let status = kernel.get(path, &token).status;
                    assert!(status == 200 || path == "/readyz", "{path}: {status}");
                });
                assert!(took_ms <= QUICK_MS, "{path} took {took_ms} ms");
            }
            let took_ms = timed(|| assert!(kernel.aex(&["status"]).status.success()));
            assert!(took_ms <= QUICK_MS, "aex status took {took_ms} ms");
            longest_ms = longest_ms.max(request.join().unwrap());
        });
        refused += 1;
    }
    says_why(&kernel, "locked by another process");
    locked.give_back();
    goes_on(&kernel, &token);
    nothing_is_lost(&kernel, &sim);
    assert!(refused >= 2, "{refused}");
    let limit_ms = LOCK_WAIT_MS + QUICK_MS;
    assert!(longest_ms <= limit_ms, "a request waited {longest_ms} ms");
}

/// Moves into the file what still lies in the log beside it.
fn put_together(kernel: &Kernel) {
    assert_eq!(kernel.sqlite("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
}

/// Noise over everything from `from_byte` on.
fn garble(kernel: &Kernel, from_byte: u64) {
    let file = std::fs::File::options()
        .write(true)
        .open(&kernel.places.ledger)
        .unwrap();
    let bytes = file.metadata().unwrap().len();
    let noise: Vec<u8> = (from_byte..bytes)
        .map(|at| u8::try_from((at.wrapping_mul(2_654_435_761) >> 13) & 0xff).unwrap())
        .collect();
    assert!(!noise.is_empty());
    file.write_all_at(&noise, from_byte).unwrap();
}

#[test]
fn a_corrupt_file_is_not_started_on() {
    let sim = sim();
    let (mut kernel, token) = kernel(&sim);
    answered(&kernel, &token, 5);
    kernel.stop();
    put_together(&kernel);
    let whole = std::fs::read(&kernel.places.ledger).unwrap();
    garble(&kernel, PAGE_BYTES);
    cannot_start(&kernel, &["malformed"]);
    garble(&kernel, 0);
    cannot_start(&kernel, &["not a database"]);
    std::fs::write(&kernel.places.ledger, whole).unwrap();
    kernel.start_again();
    answered(&kernel, &token, 1);
    nothing_is_lost(&kernel, &sim);
}

#[test]
fn a_file_that_becomes_corrupt_while_it_is_used() {
    let sim = sim();
    let (mut kernel, token) = kernel(&sim);
    answered(&kernel, &token, 5);
    // Started anew, so that its pages are in the file, and not in its memory.
    kernel.stop();
    put_together(&kernel);
    let whole = std::fs::read(&kernel.places.ledger).unwrap();
    kernel.start_again();
    garble(&kernel, PAGE_BYTES);
    fails_closed(&kernel, &sim, &token);
    log_says(&kernel, &["malformed"]);
    kernel.stop();
    cannot_start(&kernel, &["malformed"]);
    for beside in ["aex.db-wal", "aex.db-shm"] {
        let _ = std::fs::remove_file(kernel.home().join(beside));
    }
    std::fs::write(&kernel.places.ledger, whole).unwrap();
    kernel.start_again();
    answered(&kernel, &token, 1);
    nothing_is_lost(&kernel, &sim);
}
