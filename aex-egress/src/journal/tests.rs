use std::fs;
use std::os::unix::fs::PermissionsExt;

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::Exchange;

use super::*;

const BOOT: &str = "11111111-2222-3333-4444-555555555555";
/// When the first process began, and when the next.
const NOW: u64 = 1_000;
const LATER: u64 = 2_000;

fn redeemed(n: u8) -> Record {
    Record::Redeemed {
        id: HoldId::from([n; 16]),
        expires_boot_ms: 7,
    }
}

fn ended(n: u8) -> Record {
    Record::Ended {
        id: HoldId::from([n; 16]),
        expires_boot_ms: 7,
        exchange: Exchange::default(),
    }
}

fn written(path: &Path, records: &[Record]) {
    let (mut journal, _) = Journal::open(path, BOOT, NOW).unwrap();
    journal.rewrite(std::iter::empty()).unwrap();
    for record in records {
        journal.append(record).unwrap();
    }
}

fn found(path: &Path, boot: &str) -> Found {
    Journal::open(path, boot, LATER).unwrap().1
}

#[test]
fn what_was_appended_is_found_after_the_process_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    assert_eq!(
        found(&path, BOOT),
        Found::default(),
        "a new one knows nothing"
    );
    written(&path, &[redeemed(1), ended(1), redeemed(2)]);
    let found = found(&path, BOOT);
    assert_eq!(found.records, [redeemed(1), ended(1), redeemed(2)]);
    assert_eq!(found.begun_boot_ms, Some(NOW));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_was_pushed_goes_before_the_next_record_in_its_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let (mut journal, _) = Journal::open(&path, BOOT, NOW).unwrap();
    journal.rewrite(std::iter::empty()).unwrap();
    let header_bytes = fs::metadata(&path).unwrap().len();
    journal.push(&ended(1));
    assert_eq!(fs::metadata(&path).unwrap().len(), header_bytes);
    journal.append(&redeemed(2)).unwrap();
    let written = fs::read(&path).unwrap();
    assert_eq!(interpret(&written, BOOT).records, [ended(1), redeemed(2)]);
    journal.push(&ended(2));
    drop(journal);
    assert_eq!(
        found(&path, BOOT).records,
        [ended(1), redeemed(2), ended(2)]
    );
}

#[test]
fn a_torn_last_line_is_left_out_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    written(&path, &[redeemed(1), redeemed(2)]);
    let whole = fs::read(&path).unwrap();
    let second = whole.iter().rposition(|&b| b == b'R').unwrap();
    for cut in second..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let found = found(&path, BOOT);
        assert_eq!(found.records, [redeemed(1)], "cut at {cut}");
        assert_eq!(found.begun_boot_ms, Some(NOW), "cut at {cut}");
    }
}

#[test]
fn another_boot_or_no_header_is_believed_in_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    written(&path, &[redeemed(1)]);
    assert_eq!(found(&path, "another-boot"), Found::default());
    for bad in ["", "noise", "\n", "aex-egress-journal 3 x 1\n"] {
        fs::write(&path, bad).unwrap();
        assert_eq!(found(&path, BOOT), Found::default(), "{bad:?}");
    }
}

#[test]
fn damage_in_the_middle_keeps_the_rest_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    written(&path, &[redeemed(1), redeemed(2)]);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.iter().position(|&b| b == b'R').unwrap();
    bytes[at] = 0xff;
    fs::write(&path, &bytes).unwrap();
    let found = found(&path, BOOT);
    assert_eq!(found.records, [redeemed(2)]);
    assert_eq!(found.begun_boot_ms, None);
}

#[test]
fn it_says_since_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    written(&path, &[redeemed(1)]);
    let (mut journal, _) = Journal::open(&path, BOOT, LATER).unwrap();
    assert_eq!(journal.begun_boot_ms(), NOW, "an earlier process's goes on");
    journal.rewrite(std::iter::once(redeemed(1))).unwrap();
    drop(journal);
    let (journal, _) = Journal::open(&path, BOOT, LATER).unwrap();
    assert_eq!(journal.begun_boot_ms(), NOW);
    drop(journal);
    fs::write(&path, "noise\n").unwrap();
    let (journal, _) = Journal::open(&path, BOOT, LATER).unwrap();
    assert_eq!(journal.begun_boot_ms(), LATER, "what was before is lost");
}

#[test]
fn it_vouches_for_no_ticket_that_it_may_have_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let (journal, _) = Journal::open(&path, BOOT, NOW).unwrap();
    assert!(!journal.vouches_for(NOW + TICKET_LIFE_MS - 1, NOW));
    assert!(journal.vouches_for(NOW + TICKET_LIFE_MS, NOW));
    // Of another boot, whose clock was further on.
    assert!(!journal.vouches_for(NOW + TICKET_LIFE_MS + 2, NOW + 1));
}

#[test]
fn a_restore_reads_what_was_sent_of_whichever_boot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    assert_eq!(sent(&path).unwrap(), []);
    let ended = |n: u8, sent: bool| Record::Ended {
        id: HoldId::from([n; 16]),
        expires_boot_ms: 7,
        exchange: Exchange {
            sent,
            ..Exchange::default()
        },
    };
    let dead = Record::Dead {
        id: HoldId::from([9; 16]),
        until_boot_ms: 7,
    };
    written(
        &path,
        &[
            redeemed(1),
            ended(1, true),
            redeemed(2),
            ended(3, false),
            dead,
        ],
    );
    let ids: Vec<HoldId> = [1, 2].map(|n| HoldId::from([n; 16])).to_vec();
    assert_eq!(sent(&path).unwrap(), ids);
}

#[test]
fn two_processes_cannot_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let first = Journal::open(&path, BOOT, NOW).unwrap();
    assert!(matches!(
        Journal::open(&path, BOOT, NOW),
        Err(EgressError::AlreadyRunning(_))
    ));
    drop(first);
    assert!(Journal::open(&path, BOOT, NOW).is_ok());
}

#[test]
fn it_does_not_grow_with_history() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let (mut journal, _) = Journal::open(&path, BOOT, NOW).unwrap();
    journal.rewrite(std::iter::empty()).unwrap();
    let mut rewrites = 0;
    for _ in 0..60_000 {
        journal.append(&redeemed(1)).unwrap();
        if journal.wants_rewrite() {
            rewrites += 1;
            journal.rewrite(std::iter::once(redeemed(1))).unwrap();
        }
    }
    assert!(rewrites >= 2, "{rewrites}");
    let size = fs::metadata(&path).unwrap().len();
    assert!(size <= REWRITE_ABOVE_BYTES + 200, "{size}");
    drop(journal);
    assert!(found(&path, BOOT).records.contains(&redeemed(1)));
    assert!(!with_suffix(&path, ".new").exists());
}

#[test]
fn a_new_file_left_by_a_kill_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    written(&path, &[redeemed(1)]);
    fs::write(with_suffix(&path, ".new"), "half a journ").unwrap();
    let (mut journal, found) = Journal::open(&path, BOOT, NOW).unwrap();
    assert_eq!(found.records, [redeemed(1)]);
    journal.rewrite(found.records.into_iter()).unwrap();
    drop(journal);
    assert_eq!(super::tests::found(&path, BOOT).records, [redeemed(1)]);
}
