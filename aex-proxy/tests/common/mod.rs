//! A worker between a fake `aex-admin` and a fake `aex-egress`, and a client for it.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "a module shared by test crates")]

pub mod admin;
pub mod egress;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::{Grant, OnDisconnect};
use aex_proxy::server::{self, Options};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use admin::FakeAdmin;
pub use egress::{FakeEgress, Reply};

/// No test waits longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const CHAT: &str = "/v1/chat/completions";
pub const TOKEN: &str = "aex-fake-token";

pub async fn soon<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen in time"))
}

pub struct World {
    pub admin: FakeAdmin,
    pub egress: FakeEgress,
    pub address: SocketAddr,
    pub directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    /// It takes no more connections.
    heard: oneshot::Receiver<()>,
    worker: JoinHandle<Result<(), server::ServeError>>,
}

impl World {
    /// Everything up, and the settings known.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let admin = FakeAdmin::start(directory.path().join("worker.sock"));
        let world = Self::around(directory, admin, |_| {});
        world.admin.called("worker.settings").await;
        world
    }

    /// A worker whose admin is as the caller made it.
    pub fn around(
        directory: tempfile::TempDir,
        admin: FakeAdmin,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let socket: PathBuf = directory.path().join("egress.sock");
        let egress = FakeEgress::start(socket.clone());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut options = Options::new(1, directory.path().join("worker.sock"), socket);
        change(&mut options);
        let (stop, stopped) = oneshot::channel();
        let (hears, heard) = oneshot::channel();
        let worker = tokio::spawn(server::run(vec![listener.into()], options, async {
            let _ = stopped.await;
            // Nobody may want to know.
            let _ = hears.send(());
        }));
        Self {
            admin,
            egress,
            address,
            directory,
            stop: Some(stop),
            heard,
            worker,
        }
    }

    pub fn tell_to_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Until it has heard that it is to stop.
    pub async fn stops(&mut self) {
        soon("that it hears", &mut self.heard).await.unwrap();
    }

    pub async fn stopped(self) {
        soon("the worker's end", self.worker)
            .await
            .unwrap()
            .unwrap();
    }

    pub async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = Client::connect(self.address).await.send(request).await;
        Answer::of(response).await
    }

    pub async fn chat(&self, body: &str) -> Answer {
        self.ask(chat(body)).await
    }

    /// Writes raw bytes and reads until the worker closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut out = Vec::new();
        soon("the end of a raw exchange", stream.read_to_end(&mut out))
            .await
            .unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }
}

pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { sender }
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        soon("a response", self.sender.send_request(request))
            .await
            .unwrap()
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub async fn of(response: http::Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = soon("a body", body.collect()).await.unwrap().to_bytes();
        Self {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Status and code, after checking that the error has its form.
    pub fn error(&self) -> (u16, String) {
        let json = self.json();
        assert!(json["detail"].is_string(), "{json}");
        assert_eq!(json["detail"], json["error"]["message"]);
        assert!(json["error"]["type"].is_string(), "{json}");
        let code = json["error"]["code"].as_str().unwrap().to_owned();
        (self.status.as_u16(), code)
    }
}

pub fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "127.0.0.1")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

pub fn chat(body: &str) -> Request<Full<Bytes>> {
    request("POST", CHAT, body)
}

/// A good body with `more` at its end.
pub fn body(more: &str) -> String {
    format!(r#"{{"model":"small","messages":[{{"role":"user","content":"hi"}}]{more}}}"#)
}

pub fn grant() -> Grant {
    Grant {
        ticket: "v2.1.fake.ticket".into(),
        tenant: ScopeId::Agent(1),
        provider: "fake".into(),
        path: "/chat/completions".into(),
        upstream_model: "vendor/small".into(),
        output_cap: 64,
        output_cap_param: "max_tokens".into(),
        output_tokens: 4096,
        cap_is_ours: true,
        stream_usage: true,
        service_tier: None,
        force_store_off: true,
        knows_store: false,
        hidden_output: false,
        remaining_micro: Some(900),
        warnings: Vec::new(),
        on_disconnect: OnDisconnect::Drain,
        drain_timeout_ms: 10_000,
        deadline_boot_ms: aex_admin_proto::clock::boot_ms() + 60_000,
        max_response_bytes: 1_000_000,
        retry_until_boot_ms: 0,
        first_byte_ms: 0,
        tools: Vec::new(),
    }
}
