//! A fake `aex-egress`: records what it is given and answers as told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::soon;

/// What a request brought.
#[derive(Clone)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// An answer: its head, and where its chunks come from.
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    chunks: mpsc::Receiver<io::Result<Bytes>>,
}

impl Reply {
    /// An answer whose chunks the test sends.
    pub fn open(status: u16, content_type: &str) -> (Chunks, Self) {
        let (sender, chunks) = mpsc::channel(16);
        let headers = vec![("content-type", content_type.to_owned())];
        let reply = Self {
            status,
            headers,
            chunks,
        };
        (sender, reply)
    }

    pub fn whole(status: u16, body: &str) -> Self {
        let (sender, reply) = Self::open(status, "application/json");
        sender
            .try_send(Ok(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        reply
    }

    pub fn events(events: &[&str]) -> Self {
        let (sender, reply) = Self::open(200, "text/event-stream");
        for event in events {
            sender
                .try_send(Ok(Bytes::copy_from_slice(event.as_bytes())))
                .unwrap();
        }
        reply
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

struct ChunkBody(mpsc::Receiver<io::Result<Bytes>>);

impl Body for ChunkBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

pub struct FakeEgress {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<watch::Sender<Vec<Seen>>>,
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for FakeEgress {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeEgress {
    pub fn start(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let replies: Arc<Mutex<VecDeque<Reply>>> = Arc::default();
        let seen = Arc::new(watch::Sender::new(Vec::new()));
        let (scripted, record) = (Arc::clone(&replies), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (scripted, record) = (Arc::clone(&scripted), Arc::clone(&record));
                connections.spawn(async move {
                    let service = service_fn(|request| serve(request, &scripted, &record));
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            replies,
            seen,
            path,
            task,
        }
    }

    pub fn go_away(&self) {
        self.task.abort();
        std::fs::remove_file(&self.path).unwrap();
    }

    pub fn answers(&self, reply: Reply) {
        self.replies.lock().unwrap().push_back(reply);
    }

    /// What it was given so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub async fn asked(&self) -> Seen {
        let mut seen = self.seen.subscribe();
        let all = soon(
            "a forwarded request",
            seen.wait_for(|seen| !seen.is_empty()),
        );
        all.await.unwrap()[0].clone()
    }
}

async fn serve(
    request: Request<Incoming>,
    replies: &Mutex<VecDeque<Reply>>,
    seen: &watch::Sender<Vec<Seen>>,
) -> Result<Response<ChunkBody>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    seen.send_modify(|seen| {
        seen.push(Seen {
            path: head.uri.path().to_owned(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        });
    });
    let reply = replies
        .lock()
        .unwrap()
        .pop_front()
        .expect("an answer for each request");
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(ChunkBody(reply.chunks)).unwrap())
}
