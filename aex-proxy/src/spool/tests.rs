use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use aex_admin_proto::clock;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, SET_COOKIE};

use super::shelf::KEEP_MS;
use super::*;

const ANSWER: &[u8] = b"{\"choices\":[{\"message\":{\"content\":\"a secret answer\"}}]}";

const A: ScopeId = ScopeId::Agent(1);
const B: ScopeId = ScopeId::Node(1);

fn id(number: u8) -> HoldId {
    HoldId::from([number; 16])
}

fn key(number: u8) -> SpoolKey {
    SpoolKey::from([number; 32])
}

fn kept() -> Kept {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.append(SET_COOKIE, HeaderValue::from_static("a"));
    headers.append(SET_COOKIE, HeaderValue::from_bytes(b"b\xff").unwrap());
    Kept {
        status: StatusCode::CREATED,
        headers,
        body: Bytes::from_static(ANSWER),
    }
}

fn spool(directory: &Path) -> Spool {
    Spool::open(Some(directory))
}

async fn keep(spool: &Spool, number: u8, body: &[u8]) {
    let mut answer = spool.gather(A, StatusCode::OK, HeaderMap::new());
    answer.push(body);
    spool.keep(id(number), key(number), answer).await;
}

async fn finds(spool: &Spool, number: u8) -> bool {
    spool.find(id(number), key(number)).await.is_some()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Makes a file as old as said; negative: of the future.
fn age(path: &Path, ms: i64) {
    let at_ms = u64::try_from(clock::wall_ms() - ms).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_millis(at_ms))
        .unwrap();
}

#[test]
fn what_was_sealed_opens_as_it_was_and_is_in_no_file_in_clear() {
    let sealed = key(1).seal(id(1), &kept()).unwrap();
    assert_eq!(key(1).open(id(1), &sealed), Some(kept()));
    for part in [&b"secret"[..], b"application", b"choices"] {
        assert!(!sealed.windows(part.len()).any(|window| window == part));
    }
    assert_ne!(sealed, key(1).seal(id(1), &kept()).unwrap(), "a nonce each");
}

#[test]
fn nothing_opens_for_another_key_or_hold_or_when_one_bit_differs() {
    let sealed = key(1).seal(id(1), &kept()).unwrap();
    assert_eq!(key(2).open(id(1), &sealed), None);
    assert_eq!(key(1).open(id(2), &sealed), None);
    for at in 0..sealed.len() {
        let mut tampered = sealed.clone();
        tampered[at] ^= 1;
        assert_eq!(key(1).open(id(1), &tampered), None, "byte {at}");
        assert_eq!(key(1).open(id(1), &sealed[..at]), None, "torn at {at}");
    }
}

#[test]
fn an_empty_answer_is_one_too() {
    let empty = Kept {
        status: StatusCode::NO_CONTENT,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let sealed = key(1).seal(id(1), &empty).unwrap();
    assert_eq!(key(1).open(id(1), &sealed), Some(empty));
}

#[tokio::test]
async fn an_answer_is_private_and_every_worker_finds_it() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("spool");
    let (one, other) = (spool(&directory), spool(&directory));
    keep(&one, 1, ANSWER).await;
    let found = other.find(id(1), key(1)).await.unwrap();
    assert_eq!((found.status, &found.body[..]), (StatusCode::OK, ANSWER));
    assert!(other.find(id(1), key(2)).await.is_none());
    assert!(!finds(&other, 2).await);
    assert_eq!(names(&directory), [id(1).to_string()]);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory.clone()), 0o700);
    assert_eq!(mode(directory.join(id(1).to_string())), 0o600);
}

#[tokio::test]
async fn a_directory_that_others_could_read_is_closed_and_one_that_is_none_not_used() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("spool");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    keep(&spool(&directory), 1, ANSWER).await;
    let mode = fs::metadata(&directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let (file, link) = (home.path().join("file"), home.path().join("link"));
    fs::write(&file, "").unwrap();
    symlink(&directory, &link).unwrap();
    for not_used in [file.as_path(), link.as_path(), Path::new("/nowhere/spool")] {
        let spool = spool(not_used);
        keep(&spool, 2, ANSWER).await;
        assert!(!finds(&spool, 2).await);
    }
    assert_eq!(names(&directory), [id(1).to_string()]);
    keep(&Spool::open(None), 2, ANSWER).await;
}

#[tokio::test]
async fn a_directory_that_is_removed_is_made_anew() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("spool");
    let spool = spool(&directory);
    fs::remove_dir(&directory).unwrap();
    keep(&spool, 1, ANSWER).await;
    assert!(finds(&spool, 1).await);
}

#[tokio::test]
async fn a_large_answer_is_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let spool = spool(home.path());
    keep(&spool, 1, &vec![b'x'; MAX_ANSWER_BYTES]).await;
    assert!(finds(&spool, 1).await);
    keep(&spool, 2, &vec![b'x'; MAX_ANSWER_BYTES + 1]).await;
    assert!(!finds(&spool, 2).await);
    // Also one that grows.
    let mut answer = spool.gather(A, StatusCode::OK, HeaderMap::new());
    for _ in 0..=MAX_ANSWER_BYTES / 1000 {
        answer.push(&[b'x'; 1000]);
    }
    spool.keep(id(3), key(3), answer).await;
    assert_eq!(names(home.path()), [id(1).to_string()]);
}

#[tokio::test]
async fn answers_that_are_gathered_have_a_bound_together_and_half_of_it_is_not_one_tenants() {
    let home = tempfile::tempdir().unwrap();
    let spool = spool(home.path());
    let large = vec![b'x'; MAX_ANSWER_BYTES];
    let gathers = |tenant, count| -> Vec<_> {
        let all = (0..count).map(|_| {
            let mut answer = spool.gather(tenant, StatusCode::OK, HeaderMap::new());
            answer.push(&large);
            answer
        });
        all.filter(|answer| answer.body.is_some()).collect()
    };
    // 64 in all; whatever one has, as much is left, and of that half is the next one's.
    let (mut flood, other) = (gathers(A, 100), gathers(B, 100));
    assert_eq!((flood.len(), other.len()), (32, 16));
    let more = gathers(A, 1).len() + gathers(B, 1).len();
    assert_eq!(more, 0);
    // One that is given up gives its room back at once.
    flood[0].push(b"x");
    assert!(flood[0].body.is_none());
    assert_eq!(gathers(B, 1).len(), 0);
    flood[1].push(b"x");
    assert_eq!(gathers(B, 1).len(), 1);
    drop((flood, other));
    assert_eq!(gathers(B, 100).len(), 32);
    keep(&spool, 1, &large).await;
    assert!(finds(&spool, 1).await);
}

#[test]
fn what_is_old_torn_or_too_much_goes_and_the_oldest_first() {
    let home = tempfile::tempdir().unwrap();
    let shelf = Shelf::bounded(home.path(), 3 * 4096);
    for number in 1..=6 {
        shelf.put(id(number), A, &[number; 100]).unwrap();
        age(&shelf.path(id(number)), 60_000 - i64::from(number) * 1000);
    }
    age(&shelf.path(id(6)), KEEP_MS + 1000);
    // Somebody else's, and one that was never finished.
    fs::write(home.path().join("theirs"), "x").unwrap();
    let torn = home.path().join(format!("{}.new", id(7)));
    fs::write(&torn, "x").unwrap();
    age(&torn, 61_000);
    shelf.tidy();
    let left = [3, 4, 5].map(|number| id(number).to_string());
    assert_eq!(names(home.path())[..3], left);
    assert_eq!(names(home.path()).len(), 4);
    // One of the future ages from here on.
    age(&shelf.path(id(3)), -KEEP_MS);
    shelf.tidy();
    let mtime = fs::metadata(shelf.path(id(3))).unwrap().modified().unwrap();
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(clock::wall_ms()).unwrap());
    assert!(mtime <= now + Duration::from_secs(1));
}

#[test]
fn a_tenant_that_floods_loses_its_own_whoever_wrote_them_and_whoever_looks() {
    let home = tempfile::tempdir().unwrap();
    let (one, other) = (
        Shelf::bounded(home.path(), u64::MAX),
        Shelf::bounded(home.path(), 8 * 4096),
    );
    // The oldest of all, by two workers, and then a flood.
    for (number, shelf) in [(1, &one), (2, &other)] {
        shelf.put(id(number), B, b"small").unwrap();
        age(&shelf.path(id(number)), 100_000);
    }
    for number in 10..40 {
        one.put(id(number), A, &[0; 3 * 4096 - 9]).unwrap();
        age(&one.path(id(number)), 60_000 - i64::from(number) * 1000);
    }
    other.tidy();
    let left = [1, 2, 38, 39].map(|number| id(number).to_string());
    assert_eq!(names(home.path()), left);
    // A worker that has only just started knows as much; so does one that has looked before.
    for number in 40..50 {
        one.put(id(number), A, &[0; 3 * 4096 - 9]).unwrap();
    }
    Shelf::bounded(home.path(), 3 * 4096).tidy();
    assert_eq!(names(home.path()), left[..2]);
    one.put(id(60), A, b"small").unwrap();
    Shelf::bounded(home.path(), 4096).tidy();
    assert_eq!(names(home.path()).len(), 1);
}

#[test]
fn a_file_that_does_not_say_whose_it_is_is_bounded_too() {
    let home = tempfile::tempdir().unwrap();
    let shelf = Shelf::bounded(home.path(), 2 * 4096);
    shelf.put(id(1), B, b"small").unwrap();
    age(&shelf.path(id(1)), 100_000);
    for (number, text) in [(2, "x"), (3, "aexspl1 of another format"), (4, "")] {
        fs::write(shelf.path(id(number)), text).unwrap();
        age(&shelf.path(id(number)), 50_000 - i64::from(number));
    }
    shelf.tidy();
    assert_eq!(
        names(home.path()),
        [1, 4].map(|number| id(number).to_string())
    );
    assert!(shelf.get(id(4)).is_err());
}

#[test]
fn a_worker_tidies_by_itself_after_two_megabytes_whoever_wrote_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let bound = 4 * 1024 * 1024;
    let (dead, live) = (
        Shelf::bounded(home.path(), u64::MAX),
        Shelf::bounded(home.path(), bound),
    );
    let mut answer = vec![b'x'; 1024 * 1024 - 9];
    for number in 0..8 {
        dead.put(id(number), A, &answer).unwrap();
        age(&dead.path(id(number)), 60_000);
    }
    answer.truncate(1024 * 1024 - 100);
    live.put(id(8), A, &answer).unwrap();
    assert_eq!(names(home.path()).len(), 9);
    live.put(id(9), A, &answer).unwrap();
    assert_eq!(names(home.path()).len(), 4);
    assert!(live.get(id(8)).is_ok() && live.get(id(9)).is_ok());
}

#[test]
fn no_link_is_followed() {
    let home = tempfile::tempdir().unwrap();
    let shelf = Shelf::bounded(home.path(), u64::MAX);
    shelf.put(id(1), A, b"x").unwrap();
    symlink(shelf.path(id(1)), shelf.path(id(2))).unwrap();
    assert!(shelf.get(id(2)).is_err());
    shelf.put(id(2), A, b"y").unwrap();
    assert_eq!(shelf.get(id(1)).unwrap(), b"x");
}
