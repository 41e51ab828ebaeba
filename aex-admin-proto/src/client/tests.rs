use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// Answers `count` calls of one connection, the last first, then hangs up.
async fn answer_backwards(listener: &UnixListener, count: usize) {
    let (stream, _) = listener.accept().await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut calls = Vec::new();
    while calls.len() < count {
        let line = lines.next_line().await.unwrap().unwrap();
        calls.push(serde_json::from_str::<Value>(&line).unwrap());
    }
    for call in calls.iter().rev() {
        let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": call["params"]});
        writer
            .write_all(format!("{answer}\n").as_bytes())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn calls_are_pipelined_and_matched_by_id() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move { answer_backwards(&listener, 2).await });
    let client = Client::new(&path);
    let (a, b) = tokio::join!(
        client.call::<_, u32>("echo", &1, LIMIT),
        client.call::<_, u32>("echo", &2, LIMIT),
    );
    assert_eq!((a.unwrap(), b.unwrap()), (1, 2));
    server.await.unwrap();
}

#[tokio::test]
async fn a_broken_connection_loses_the_call_and_the_next_connects_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Take the call, then hang up without an answer.
        BufReader::new(stream).lines().next_line().await.unwrap();
        answer_backwards(&listener, 2).await;
    });
    let client = Client::new(&path);
    let lost = client.call::<_, u32>("echo", &1, LIMIT).await;
    assert!(matches!(lost, Err(CallError::Lost)), "{lost:?}");
    let (a, b) = tokio::join!(
        client.call_until::<_, u32>("echo", &3, LIMIT),
        client.call_until::<_, u32>("echo", &4, LIMIT),
    );
    assert_eq!((a.unwrap(), b.unwrap()), (3, 4));
    server.await.unwrap();
}

#[tokio::test]
async fn without_a_server_a_call_ends_in_time_and_says_where() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("nobody");
    let client = Client::new(&path);
    let answer = client
        .call::<_, u32>("echo", &1, Duration::from_millis(30))
        .await;
    assert!(matches!(answer, Err(CallError::NotConnected(p)) if p == path));
    assert!(Client::connect(&path).await.is_err());
}

#[tokio::test]
async fn a_server_that_speaks_nonsense_is_hung_up_on() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"hello?\n").await.unwrap();
        // Answers nothing more; the client leaves.
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(_)) = lines.next_line().await {}
    });
    let client = Client::new(&path);
    let answer = client.call::<_, u32>("echo", &1, LIMIT).await;
    assert!(matches!(answer, Err(CallError::Lost)), "{answer:?}");
    server.await.unwrap();
}

#[test]
fn the_short_way_to_a_result_gives_what_reading_it_all_does() {
    let mut frame = Vec::new();
    let answer = crate::rpc::Answer::result(7, &["}", "a\"b"]);
    frame::encode(&answer, &mut frame).unwrap();
    frame.pop();
    assert_eq!(plain_result(&frame), Some((7, r#"["}","a\"b"]"#)));
    for other in [
        r#"{"id":7,"jsonrpc":"2.0","result":1}"#,
        r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"no"}}"#,
        r#"{"jsonrpc":"2.0","id":null,"result":1}"#,
        r#"{"jsonrpc":"2.0","id":99999999999999999999,"result":1}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":1"#,
    ] {
        assert_eq!(plain_result(other.as_bytes()), None, "{other}");
    }
    // What is more than a result is no value, so its caller refuses it.
    let both = br#"{"jsonrpc":"2.0","id":7,"result":1,"error":null}"#;
    let (_, text) = plain_result(both).unwrap();
    assert!(serde_json::from_str::<u64>(text).is_err());
}
