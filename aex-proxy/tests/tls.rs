//! What a client may do to a worker over TLS and HTTP/2, within bounds.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it must be"
)]

mod common;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aex_proxy::tls::{Tls, TlsFiles};
use bytes::Bytes;
use common::{Answer, CHAT, FakeAdmin, Reply, TOKEN, World, body, soon};
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HEAD_LIMIT: Duration = Duration::from_millis(300);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames, and flags of a head.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET https://x/`, from HPACK's static table.
const HEAD: &[u8] = &[0x82, 0x87, 0x84, 0x41, 1, b'x'];
const ENHANCE_YOUR_CALM: u32 = 11;

struct Secure {
    world: World,
    connector: TlsConnector,
}

fn private(path: &Path, text: &str) {
    let mut options = std::fs::File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

impl Secure {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            cert: directory.path().join("cert.pem"),
            key: directory.path().join("key.pem"),
            client_ca: None,
        };
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        private(&files.cert, &cert.pem());
        private(&files.key, &key.serialize_pem());
        let admin = FakeAdmin::start(directory.path().join("worker.sock"));
        let tls = Tls::load(files).unwrap();
        let world = World::around(directory, admin, |options| {
            options.tls = Some(tls);
            options.head_limit = HEAD_LIMIT;
        });
        world.admin.called("worker.settings").await;
        Self {
            world,
            connector: connector(cert.der().clone()),
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.world.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        stream
    }

    async fn client(&self) -> http2::SendRequest<Full<Bytes>> {
        let stream = TokioIo::new(self.connect().await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        sender
    }

    /// The preface, `frames`, and all that the worker says until it closes.
    async fn until_closed(&self, frames: Vec<u8>) -> Vec<u8> {
        let (mut reader, mut writer) = tokio::io::split(self.connect().await);
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
        let writing = tokio::spawn(async move {
            // It may close before everything is written; an open half keeps the rest open.
            let _ = writer.write_all(&[hello, frames].concat()).await;
            writer
        });
        let mut said = Vec::new();
        let _ = soon("the end of the connection", reader.read_to_end(&mut said)).await;
        drop(writing.await);
        said
    }
}

fn connector(cert: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(cert).unwrap();
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(crypto);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The reason of the last GOAWAY, if there is one.
fn goaway(mut said: &[u8]) -> Option<u32> {
    let mut reason = None;
    while let Some((head, rest)) = said.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length)?;
        if head[3] == GOAWAY {
            reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        said = rest;
    }
    reason
}

fn ask(path: &str, headers: usize) -> Request<Full<Bytes>> {
    let mut request = Request::builder().uri(format!("https://localhost{path}"));
    for number in 0..headers {
        request = request.header(format!("x-{number}"), "v");
    }
    request.body(Full::default()).unwrap()
}

#[tokio::test]
async fn requests_share_a_connection_and_are_bounded_like_those_of_http1() {
    let secure = Secure::start().await;
    let mut client = secure.client().await;
    let (chunks, reply) = Reply::open(200, "text/event-stream");
    secure.world.egress.answers(reply);
    let stream = Request::post(format!("https://localhost{CHAT}"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .body(Full::from(body(r#","stream":true"#)))
        .unwrap();
    let open = client.send_request(stream).await.unwrap();
    assert_eq!(open.status(), 200);
    assert_eq!(open.version(), http::Version::HTTP_2);
    // Beside it.
    for (headers, status) in [(0, 200), (90, 200), (101, 431)] {
        let answer = client.send_request(ask("/healthz", headers)).await.unwrap();
        assert_eq!(answer.status(), status, "{headers} headers");
    }
    for (path, status) in [
        ("/", 404),
        ("/v1/../healthz", 404),
        ("/v1/chat/completions", 405),
    ] {
        let answer = client.send_request(ask(path, 0)).await.unwrap();
        let (got, code) = Answer::of(answer).await.error();
        assert_eq!(got, status, "{path}: {code}");
    }
    chunks.send(Ok("data: [DONE]\n\n".into())).await.unwrap();
    drop(chunks);
    assert_eq!(Answer::of(open).await.body, "data: [DONE]\n\n");
    let peer = secure.world.admin.called("worker.reserve").await;
    assert_eq!(peer.get("peer"), None, "no certificate, no uid");
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection() {
    let secure = Secure::start().await;
    let flood = (0..2000).flat_map(|number| {
        let stream = 2 * number + 1;
        let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        [
            frame(HEADERS, END_STREAM | END_HEADERS, stream, HEAD),
            reset,
        ]
        .concat()
    });
    let said = secure.until_closed(flood.collect()).await;
    assert_eq!(goaway(&said), Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn a_head_without_an_end_ends_its_connection() {
    let secure = Secure::start().await;
    // A header that is never indexed: `a: aaaa…`, 127 bytes of value each.
    let piece = [&[0x10, 1, b'a', 126][..], &[b'a'; 126]]
        .concat()
        .repeat(100);
    let mut flood = frame(HEADERS, END_STREAM, 1, HEAD);
    for _ in 0..1000 {
        flood.extend(frame(CONTINUATION, 0, 1, &piece));
    }
    let said = secure.until_closed(flood).await;
    assert!(goaway(&said).is_some_and(|reason| reason != 0), "{said:?}");
    assert_eq!(
        secure
            .client()
            .await
            .send_request(ask("/healthz", 0))
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn connections_on_which_nothing_goes_on_end() {
    let secure = Secure::start().await;
    // Not even a handshake.
    let mut silent = TcpStream::connect(secure.world.address).await.unwrap();
    let mut said = Vec::new();
    soon("its end", silent.read_to_end(&mut said))
        .await
        .unwrap();
    assert_eq!(said, b"");
    // No request; half of one, with whatever comes beside it.
    assert_eq!(goaway(&secure.until_closed(Vec::new()).await), Some(0));
    let half = frame(HEADERS, END_STREAM, 1, HEAD);
    secure.until_closed(half).await;
    // Nothing after one.
    let one = frame(HEADERS, END_STREAM | END_HEADERS, 1, HEAD);
    assert_eq!(goaway(&secure.until_closed(one).await), Some(0));
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_a_stop() {
    let mut secure = Secure::start().await;
    let mut client = secure.client().await;
    client.send_request(ask("/healthz", 0)).await.unwrap();
    secure.world.tell_to_stop();
    secure.world.stopped().await;
    let ended =
        client.ready().await.is_err() || client.send_request(ask("/healthz", 0)).await.is_err();
    assert!(ended);
}
