//! Where keys and tokens are, and where they are not.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aex_tests::harness::{Kernel, root_or_skip};
use aex_tests::sim::Behaviour;
use serde_json::json;

use crate::common::{hello, sim};

const READ_BYTES: u64 = 4 * 1024 * 1024;

pub(crate) fn holds(haystack: &[u8], needle: &str) -> bool {
    let needle = needle.as_bytes();
    // The first byte alone is searched fast; memory is large.
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|&byte| byte == needle[0]) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Whether `needle` is anywhere in the process's memory. What cannot be read (devices, guard pages)
/// is passed over, so a caller must show that the search finds what is there.
pub(crate) fn memory_holds(pid: u32, needle: &str) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps of our own process");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("memory, as root");
    let mut buffer = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, permissions) = (fields.next().unwrap(), fields.next().unwrap());
        if !permissions.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]")
        {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let mut at = u64::from_str_radix(start, 16).unwrap();
        let end = u64::from_str_radix(end, 16).unwrap();
        while at < end {
            let count = READ_BYTES.min(end - at);
            buffer.resize(usize::try_from(count).unwrap(), 0);
            let Ok(read) = memory.read_at(&mut buffer, at) else {
                break;
            };
            if holds(&buffer[..read], needle) {
                return true;
            }
            // Overlapping, so that nothing hides across a step's edge.
            let overlap = needle.len() as u64;
            let step = (read as u64).max(1);
            at += if at + step < end && step > overlap {
                step - overlap
            } else {
                step
            };
        }
    }
    false
}

fn proc_file(pid: u32, file: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{file}"))
        .unwrap_or_else(|problem| panic!("{file} of {pid}: {problem}"))
}

/// A kernel that has used its operator key in every way: plain, streamed, refused with an echo.
fn used_kernel(sim: &aex_tests::sim::Sim) -> (Kernel, String) {
    let kernel = Kernel::on(sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    for _ in 0..20 {
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
        kernel
            .chat_stream(&token, &hello(json!({"stream": true})))
            .for_each(drop);
    }
    sim.behave(Behaviour {
        status: Some(401),
        echo_authorization: true,
        times: Some(4),
        ..Behaviour::default()
    });
    for _ in 0..4 {
        let answer = kernel.chat(&token, &hello(json!({})));
        assert!(answer.status == 502 && !answer.text().contains(Kernel::SIM_KEY));
    }
    kernel.settled();
    (kernel, token)
}

#[test]
fn the_operators_key_is_in_the_egress_alone() {
    if !root_or_skip("the_operators_key_is_in_the_egress_alone") {
        return;
    }
    let sim = sim();
    let (kernel, _) = used_kernel(&sim);
    let egress = kernel.pid("aex-egress");
    assert!(
        memory_holds(egress, Kernel::SIM_KEY),
        "the search finds what is there"
    );

    let mut others = kernel.worker_pids();
    assert_eq!(others.len(), 2);
    others.push(kernel.pid("aex-admin"));
    for &pid in &others {
        assert!(
            !memory_holds(pid, Kernel::SIM_KEY),
            "the key is in the memory of {pid}"
        );
    }
    others.push(egress);
    for pid in others {
        for file in ["environ", "cmdline"] {
            assert!(
                !holds(&proc_file(pid, file), Kernel::SIM_KEY),
                "{file} of {pid}"
            );
        }
    }
    let daemon = kernel.pid("daemon");
    assert!(!holds(&proc_file(daemon, "cmdline"), Kernel::SIM_KEY));
}

#[test]
fn no_key_or_token_is_in_any_file_of_the_home() {
    let sim = sim();
    let (mut kernel, token) = used_kernel(&sim);
    let own = "sk-fake-own-key-canary-9876543210";
    let byok = kernel.create_agent("byok", "1.00", 1000, &["--allow-passthrough"]);
    let answer = kernel.chat_with(&byok, &hello(json!({})), &[("x-aex-provider-key", own)]);
    assert_eq!(answer.status, 200);
    let prompt = "a-prompt-that-nobody-may-keep";
    let words = json!([{"role": "user", "content": prompt}]);
    let _ = kernel.chat(&token, &hello(json!({"messages": words})));
    let _ = kernel.chat(&token, &hello(json!({"messages": words, "top_k": prompt})));
    kernel.settled();
    kernel.stop();
    let mut files_with_the_agents_name = 0;
    for_each_file(kernel.home(), &mut |path, bytes| {
        files_with_the_agents_name += usize::from(holds(bytes, "byok"));
        for secret in [Kernel::SIM_KEY, own, &token, &byok, prompt] {
            assert!(!holds(bytes, secret), "{secret} is in {}", path.display());
        }
    });
    assert!(
        files_with_the_agents_name > 0,
        "the search finds what is there"
    );
}

fn for_each_file(dir: &Path, visit: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            for_each_file(&path, visit);
        } else if kind.is_file() {
            visit(&path, &fs::read(&path).unwrap());
        }
    }
}

#[test]
fn the_key_survives_a_restart_of_the_egress_and_of_all() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let bearer = format!("Bearer {}", Kernel::SIM_KEY);
    let serves = || {
        (kernel.chat(&token, &hello(json!({}))).status == 200).then(|| {
            let log = sim.bill().log;
            assert_eq!(
                log.last().unwrap().header("authorization"),
                Some(bearer.as_str())
            );
        })
    };
    serves().expect("it serves");
    let egress = kernel.pid("aex-egress");
    aex_tests::harness::process::send_signal(egress, nix::sys::signal::Signal::SIGKILL);
    aex_tests::harness::wait_for("a new egress", serves);
    assert!(kernel.aex(&["daemon", "restart"]).status.success());
    serves().expect("it serves at once after a restart");
    kernel.audit();
}

#[test]
fn a_worker_has_no_descriptor_of_the_ledger() {
    let sim = sim();
    let (kernel, _) = used_kernel(&sim);
    let opens = |pid: u32, what: &str| -> bool {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap_or_else(|problem| panic!("descriptors of {pid}: {problem}"))
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .any(|link| link.to_string_lossy().contains(what))
    };
    if !root_or_skip("a_worker_has_no_descriptor_of_the_ledger") {
        return;
    }
    assert!(
        opens(kernel.pid("aex-admin"), "aex.db"),
        "the search finds what is there"
    );
    for pid in kernel
        .worker_pids()
        .into_iter()
        .chain([kernel.pid("aex-egress")])
    {
        assert!(!opens(pid, "aex.db"), "{pid} has the ledger open");
    }
}
