//! A fake provider: what it does is in the path, and it keeps what it saw.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) version: Version,
    pub(crate) body: Bytes,
}

#[derive(Debug, Default)]
struct Book {
    seen: Mutex<Vec<Seen>>,
    connections: watch::Sender<usize>,
    /// Answers that were given up because nobody takes them any more.
    abandoned: watch::Sender<usize>,
    /// Whether an answer in two writes may go on with the second.
    goes_on: watch::Sender<bool>,
}

#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    book: Arc<Book>,
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

impl Provider {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(crate) async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let book = Arc::new(Book::default());
        let provider = Self {
            address,
            book: Arc::clone(&book),
        };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                book.connections.send_modify(|count| *count += 1);
                let (book, tls) = (Arc::clone(&book), tls.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else {
                        return serve(stream, false, book).await;
                    };
                    if let Ok(stream) = tls.accept(stream).await {
                        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        serve(stream, is_h2, book).await;
                    }
                });
            }
        });
        provider
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.book.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.book.connections.borrow()
    }

    pub(crate) fn go_on(&self) {
        self.book.goes_on.send_replace(true);
    }

    pub(crate) async fn abandoned(&self) {
        let mut abandoned = self.book.abandoned.subscribe();
        let gone = abandoned.wait_for(|&count| count > 0);
        tokio::time::timeout(crate::PATIENCE, gone)
            .await
            .unwrap()
            .unwrap();
    }
}

async fn serve<S>(stream: S, is_h2: bool, book: Arc<Book>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, Arc::clone(&book)));
    let io = TokioIo::new(stream);
    // Connections end as their clients like.
    if is_h2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(io, service)
            .await;
    }
}

async fn answer(request: Request<Incoming>, book: Arc<Book>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes());
    let Ok(body) = body else {
        book.abandoned.send_modify(|count| *count += 1);
        return Ok(status(400, "cut"));
    };
    let path = parts.uri.path().to_owned();
    book.seen.lock().unwrap().push(Seen {
        path: path.clone(),
        headers: parts.headers.clone(),
        version: parts.version,
        body: body.clone(),
    });
    let key = parts
        .headers
        .get("authorization")
        .map_or("", |v| v.to_str().unwrap());
    Ok(match path.trim_start_matches("/v1") {
        "/echo" => {
            let mut answer = Response::new(full(body));
            let headers = answer.headers_mut();
            headers.insert("content-type", "application/json".parse().unwrap());
            headers.insert("x-request-id", "r-1".parse().unwrap());
            headers.insert("set-cookie", "a=b".parse().unwrap());
            headers.insert("openai-organization", "org-fake".parse().unwrap());
            headers.insert("x-ratelimit-remaining-requests", "9".parse().unwrap());
            answer
        }
        "/401" => {
            let mut answer = status(401, &format!("Incorrect API key provided: {key}"));
            let echoed = format!("Bearer realm=\"{key}\"").parse().unwrap();
            answer.headers_mut().insert("www-authenticate", echoed);
            answer
        }
        "/429" => {
            let mut answer = status(429, "slow down");
            answer
                .headers_mut()
                .insert("retry-after", "3".parse().unwrap());
            let echoed = format!("saw {key}").parse().unwrap();
            answer.headers_mut().insert("x-debug", echoed);
            answer
        }
        "/key/stream" => key_in_two(book, key, false),
        "/key/cut" => key_in_two(book, key, true),
        path if path.starts_with("/key/") => {
            let code = path.trim_start_matches("/key/").parse().unwrap();
            // It ends like a key that goes on.
            status(
                code,
                &format!("{{\"saw\":\"{key}\"}} {key}, {}", &key[..16]),
            )
        }
        "/moved" => {
            let mut answer = status(307, "");
            answer
                .headers_mut()
                .insert("location", "/v1/echo".parse().unwrap());
            answer
        }
        "/big" => Response::new(full(Bytes::from(vec![b'x'; 4096]))),
        "/hang" => {
            let _gone = Gone(book);
            std::future::pending().await
        }
        "/one-then-cut" => stream(book, Some(1), true),
        "/three-events" => stream(book, Some(3), false),
        "/endless" => stream(book, None, false),
        _ => status(404, "no such path"),
    })
}

fn full(text: Bytes) -> BoxBody<Bytes, std::io::Error> {
    Full::new(text).map_err(|never| match never {}).boxed()
}

fn status(code: u16, text: &str) -> Answer {
    let mut answer = Response::new(full(Bytes::copy_from_slice(text.as_bytes())));
    *answer.status_mut() = code.try_into().unwrap();
    answer
}

/// Counts what its owner gave up.
struct Gone(Arc<Book>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.abandoned.send_modify(|count| *count += 1);
    }
}

/// An event stream that breaks off in the middle of the key, for good or until it may go on.
fn key_in_two(book: Arc<Book>, key: &str, breaks: bool) -> Answer {
    let event = format!("data: {{\"saw\":\"{key}\"}}\n\n");
    let (first, second) = event.split_at(event.len() - 12);
    let pieces = [first, second].map(|piece| Bytes::copy_from_slice(piece.as_bytes()));
    let (sender, mut receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    tokio::spawn(async move {
        let [first, second] = pieces;
        sender.send(Ok(Frame::data(first))).await.unwrap();
        let mut goes_on = book.goes_on.subscribe();
        goes_on.wait_for(|&goes_on| goes_on).await.unwrap();
        let last = match breaks {
            true => Err(std::io::Error::other("cut")),
            false => Ok(Frame::data(second)),
        };
        sender.send(last).await.unwrap();
    });
    let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    let kind = "text/event-stream".parse().unwrap();
    answer.headers_mut().insert("content-type", kind);
    answer
}

/// An event stream of so many events, then its end or a broken connection; without a number it goes
/// on for as long as it is read.
fn stream(book: Arc<Book>, events: Option<usize>, breaks: bool) -> Answer {
    let (sender, mut receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    tokio::spawn(async move {
        for number in 0.. {
            if events == Some(number) {
                if breaks {
                    let _ = sender.send(Err(std::io::Error::other("cut"))).await;
                }
                return;
            }
            let event = Bytes::from(format!("data: {number}\n\n{}", " ".repeat(1024)));
            if sender.send(Ok(Frame::data(event))).await.is_err() {
                book.abandoned.send_modify(|count| *count += 1);
                return;
            }
        }
    });
    let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    let kind = "text/event-stream; charset=utf-8".parse().unwrap();
    answer.headers_mut().insert("content-type", kind);
    answer
}
