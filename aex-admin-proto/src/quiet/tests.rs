use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;

fn pair() -> (QuietStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (QuietStream::new(ours).unwrap(), theirs)
}

#[tokio::test]
async fn what_does_not_fit_is_written_when_the_peer_reads() {
    let (mut ours, mut theirs) = pair();
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let expected = sent.clone();
    let writing = async move {
        ours.write_all(&sent).await.unwrap();
        ours.shutdown().await.unwrap();
        assert!(ours.full.is_none(), "it listens for room and has it");
        ours
    };
    let reading = async {
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).await.unwrap();
        read
    };
    let (_open, read) = tokio::join!(writing, reading);
    assert!(read == expected);
}

#[tokio::test]
async fn writable_waits_for_room() {
    let (ours, mut theirs) = pair();
    let chunk = [7_u8; 4096];
    let mut sent = 0;
    let full = loop {
        match ours.try_write(&chunk) {
            Ok(bytes) => sent += bytes,
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(full, io::ErrorKind::WouldBlock);
    let mut taken = vec![0; sent];
    let (room, _) = tokio::join!(ours.writable(), theirs.read_exact(&mut taken));
    room.unwrap();
    assert_eq!(ours.try_write(&chunk).unwrap(), chunk.len());
}

#[tokio::test]
async fn reads_what_comes_and_then_the_end() {
    let (mut ours, mut theirs) = pair();
    let mut read = Vec::new();
    for text in ["one", "two"] {
        let sending = theirs.write_all(text.as_bytes());
        let (bytes, sent) = tokio::join!(ours.read(&mut read), sending);
        sent.unwrap();
        assert_eq!(bytes.unwrap(), text.len());
    }
    assert_eq!(read, b"onetwo");
    // Bytes and the end at once.
    theirs.write_all(&vec![3; READ_BYTES + 5]).await.unwrap();
    drop(theirs);
    assert_eq!(ours.read(&mut read).await.unwrap(), READ_BYTES);
    let mut rest = Vec::new();
    ours.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [3; 5]);
    assert_eq!(ours.read(&mut read).await.unwrap(), 0);
}

#[tokio::test]
async fn a_peer_that_has_gone_is_an_error() {
    let (mut ours, theirs) = pair();
    drop(theirs);
    let error = ours.write_all(b"anybody?").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    ours.shutdown().await.unwrap();
}
