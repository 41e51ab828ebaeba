//! A fake worker: one request over one connection, with whatever headers a test likes.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

pub(crate) struct Worker {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

/// A whole answer, or as much as came before it broke off.
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) is_whole: bool,
}

impl Got {
    pub(crate) fn failure(&self) -> Option<&str> {
        let value = self.headers.get("x-aex-egress-failure")?;
        Some(value.to_str().unwrap())
    }

    /// Everything that the worker could read, to look for a key in.
    pub(crate) fn everything(&self) -> String {
        format!("{} {:?} {}", self.status, self.headers, self.body)
    }
}

impl Worker {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(async move {
            // A broken connection shows in the answer.
            let _ = connection.await;
        });
        Self { sender, connection }
    }

    /// The answer's head; its body is still to be read.
    pub(crate) async fn head(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        self.sender.ready().await?;
        self.sender.send_request(request.body(body).unwrap()).await
    }

    pub(crate) async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        read(self.head(path, headers, body).await.unwrap()).await
    }

    /// Goes away in the middle of whatever it does.
    pub(crate) fn vanish(self) {
        self.connection.abort();
    }
}

pub(crate) async fn read(answer: Response<Incoming>) -> Got {
    let (head, mut body) = answer.into_parts();
    let mut text = Vec::new();
    let mut is_whole = true;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text.extend_from_slice(frame.data_ref().unwrap()),
            Err(_) => {
                is_whole = false;
                break;
            }
        }
    }
    Got {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(text).unwrap(),
        is_whole,
    }
}

/// One request with a ticket, over a connection of its own.
pub(crate) async fn post(socket: &Path, path: &str, ticket: &str, body: &str) -> Got {
    let mut worker = Worker::connect(socket).await;
    worker.post(path, &[("x-aex-ticket", ticket)], body).await
}
