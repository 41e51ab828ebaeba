//! Whether the kernel would answer a request: `GET /readyz` where agents connect to, and when it says
//! no, what `aex-admin` misses.

use std::time::Duration;

use aex_admin_proto::client::Client;
use aex_admin_proto::listen::{Listen, reachable};
use aex_admin_proto::operator::{Status, method};
use aex_admin_proto::places::Places;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

const PROBE_LIMIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const STATUS_LIMIT: Duration = Duration::from_secs(1);
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Ready,
    /// With the answer's own reason.
    NotReady(String),
    NoAnswer,
}

pub(crate) async fn probe(address: &str) -> Probe {
    let Ok(place) = address.parse::<Listen>() else {
        return Probe::NoAnswer;
    };
    match timeout(PROBE_LIMIT, ask(place)).await {
        Ok(Ok(answer)) => read(&answer),
        _ => Probe::NoAnswer,
    }
}

/// Looks now and then until it does.
pub(super) async fn becomes_ready(address: &str) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if probe(address).await == Probe::Ready {
            return;
        }
    }
}

async fn ask(place: Listen) -> std::io::Result<Vec<u8>> {
    match place {
        Listen::Tcp(address) => answer(TcpStream::connect(reachable(address)).await?).await,
        Listen::Unix(path) => answer(UnixStream::connect(path).await?).await,
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<Vec<u8>> {
    let request = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(MAX_ANSWER_BYTES)
        .read_to_end(&mut answer)
        .await?;
    Ok(answer)
}

/// Pure: status line, and a reason out of a JSON body.
fn read(answer: &[u8]) -> Probe {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1);
    match status {
        Some("200") => Probe::Ready,
        Some(code) => {
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            let reason = ["why", "detail"]
                .iter()
                .find_map(|name| body.get(name)?.as_str());
            Probe::NotReady(reason.map_or_else(|| format!("HTTP {code}"), str::to_owned))
        }
        None => Probe::NoAnswer,
    }
}

/// Why a kernel whose programs are all there still is not ready: then waiting does not help.
pub(super) async fn lasting_reason(places: &Places, workers: u32) -> Option<String> {
    let client = Client::connect(&places.operator_socket()).await.ok()?;
    let status: Status = client
        .call(method::STATUS, &serde_json::json!({}), STATUS_LIMIT)
        .await
        .ok()?;
    let all_there = status.egress_pid.is_some()
        && u32::try_from(status.workers.len()).is_ok_and(|there| there >= workers);
    if all_there && !status.ready {
        status.why
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let no = |reason: &str| Probe::NotReady(reason.into());
        for (answer, probe) in [
            ("HTTP/1.1 200 OK\r\n\r\nok", Probe::Ready),
            ("HTTP/1.1 503 X\r\na: b\r\n\r\n{\"detail\":\"d\"}", no("d")),
            (
                "HTTP/1.1 503 X\r\n\r\n{\"why\":\"w\",\"detail\":\"d\"}",
                no("w"),
            ),
            ("HTTP/1.1 503 X\r\n\r\n", no("HTTP 503")),
            ("", Probe::NoAnswer),
        ] {
            assert_eq!(read(answer.as_bytes()), probe, "{answer}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_no_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert_eq!(probe(&address).await, Probe::NoAnswer);
        assert_eq!(probe("nonsense").await, Probe::NoAnswer);
    }
}
