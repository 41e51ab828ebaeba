//! A blocking HTTP/1.1 client that hides nothing: it sends the bytes it is given, over TCP or a Unix
//! socket, and shows the answer as it came, chunk by chunk with the time of each.
//!
//! Absent on purpose: retries, redirects, pooling, proxies. Reads are bounded in time.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use aex_admin_proto::clock;
use serde_json::Value;

/// A read that takes longer ends in an error.
const READ_LIMIT: Duration = Duration::from_secs(90);
const MAX_HEAD_BYTES: usize = 256 * 1024;
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side closed before the end.
    #[error("the connection was closed before the answer's end")]
    Cut,
    #[error("not HTTP: {0}")]
    Malformed(String),
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// One connection, for as many requests as both sides keep it open.
pub struct Connection {
    wire: Box<dyn Wire>,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body came to its proper end.
    pub complete: bool,
}

/// The value of a header, by its lower-case name.
fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

impl Head {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl Response {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// `detail` of an error.
    #[must_use]
    pub fn detail(&self) -> String {
        self.json()["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// `error.code` of an error.
    #[must_use]
    pub fn code(&self) -> String {
        let body = self.json();
        body["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    ToClose,
}

impl Framing {
    fn of(head: &Head) -> Self {
        let length = head.header("content-length").and_then(|v| v.parse().ok());
        match (head.header("transfer-encoding"), length) {
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Self::Chunked,
            (_, Some(length)) => Self::Length(length),
            _ if matches!(head.status, 204 | 304) => Self::Length(0),
            _ => Self::ToClose,
        }
    }
}

impl Connection {
    /// # Errors
    /// The connect's own.
    pub fn tcp(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        stream.set_write_timeout(Some(READ_LIMIT))?;
        Ok(Self::over(Box::new(stream)))
    }

    /// # Errors
    /// The connect's own.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        stream.set_write_timeout(Some(READ_LIMIT))?;
        Ok(Self::over(Box::new(stream)))
    }

    fn over(wire: Box<dyn Wire>) -> Self {
        Self {
            wire,
            buffer: Vec::new(),
        }
    }

    /// # Errors
    /// The other side is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)?;
        self.wire.flush()
    }

    /// Nothing: the other side closed.
    fn fill(&mut self) -> io::Result<Option<()>> {
        let mut chunk = [0; 16 * 1024];
        // A read with a time limit is not begun again by itself after a stopped process goes on.
        let read = loop {
            match self.wire.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        match read {
            0 => Ok(None),
            count => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(Some(()))
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    fn take_until(&mut self, end: &[u8], limit: usize) -> Result<Vec<u8>, HttpError> {
        loop {
            if let Some(at) = position(&self.buffer, end) {
                return Ok(self.take(at + end.len()));
            }
            if self.buffer.len() > limit {
                return Err(HttpError::Malformed("line or head too long".into()));
            }
            self.fill()?.ok_or(HttpError::Cut)?;
        }
    }

    /// The next answer's head; interim answers (1xx) are passed over.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub fn head(&mut self) -> Result<Head, HttpError> {
        loop {
            let bytes = self.take_until(b"\r\n\r\n", MAX_HEAD_BYTES)?;
            let head = parse_head(&String::from_utf8_lossy(&bytes))?;
            if !(100..200).contains(&head.status) {
                return Ok(head);
            }
        }
    }

    /// The next answer, whole.
    ///
    /// # Errors
    /// There was no head. A body that is cut is an answer that is not `complete`.
    pub fn response(&mut self) -> Result<Response, HttpError> {
        let head = self.head()?;
        let mut chunks = Chunks::new(&head);
        let mut body = Vec::new();
        let complete = loop {
            match chunks.next(self) {
                Ok(Some(bytes)) => body.extend(bytes),
                Ok(None) => break true,
                Err(HttpError::Malformed(text)) => return Err(HttpError::Malformed(text)),
                Err(_) => break false,
            }
            if body.len() > MAX_BODY_BYTES {
                return Err(HttpError::Malformed("body too long".into()));
            }
        };
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body,
            complete,
        })
    }

    /// The next answer, as server-sent events.
    ///
    /// # Errors
    /// There was no head.
    pub fn events(mut self) -> Result<Events, HttpError> {
        let head = self.head()?;
        let head_at_ms = clock::boot_ms();
        let chunks = Chunks::new(&head);
        Ok(Events {
            head,
            head_at_ms,
            connection: self,
            chunks,
            pending: Vec::new(),
            ready: VecDeque::new(),
            complete: false,
        })
    }
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn parse_head(text: &str) -> Result<Head, HttpError> {
    let mut lines = text.split("\r\n");
    let malformed = || HttpError::Malformed(text.lines().next().unwrap_or_default().to_owned());
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(malformed)?;
    let headers = lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(malformed)?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect::<Result<_, HttpError>>()?;
    Ok(Head { status, headers })
}

/// The body's state between two chunks.
struct Chunks {
    framing: Framing,
    left: usize,
}

impl Chunks {
    fn new(head: &Head) -> Self {
        let framing = Framing::of(head);
        let left = match framing {
            Framing::Length(length) => length,
            Framing::Chunked | Framing::ToClose => 0,
        };
        Self { framing, left }
    }

    /// The next bytes; nothing at the proper end.
    fn next(&mut self, connection: &mut Connection) -> Result<Option<Vec<u8>>, HttpError> {
        match self.framing {
            Framing::Length(_) => {
                if self.left == 0 {
                    return Ok(None);
                }
                if connection.buffer.is_empty() {
                    connection.fill()?.ok_or(HttpError::Cut)?;
                }
                let count = connection.buffer.len().min(self.left);
                self.left -= count;
                Ok(Some(connection.take(count)))
            }
            Framing::ToClose => {
                if connection.buffer.is_empty() && connection.fill()?.is_none() {
                    return Ok(None);
                }
                Ok(Some(connection.take(connection.buffer.len())))
            }
            Framing::Chunked => {
                let line = connection.take_until(b"\r\n", 1024)?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let digits = line.trim_end().split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(digits, 16)
                    .ok()
                    .filter(|&size| size <= MAX_BODY_BYTES)
                    .ok_or_else(|| HttpError::Malformed(format!("chunk size {line:?}")))?;
                while connection.buffer.len() < size + 2 {
                    connection.fill()?.ok_or(HttpError::Cut)?;
                }
                let mut bytes = connection.take(size + 2);
                bytes.truncate(size);
                Ok((size > 0).then_some(bytes))
            }
        }
    }
}

/// One `data:` event and when it was read (boot clock).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub data: String,
    pub at_ms: u64,
}

impl Event {
    /// The data as JSON; `null` when it is none, as `[DONE]`.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

/// A streamed answer. Dropping it hangs up.
pub struct Events {
    pub head: Head,
    pub head_at_ms: u64,
    connection: Connection,
    chunks: Chunks,
    pending: Vec<u8>,
    ready: VecDeque<Event>,
    /// The body came to its proper end; known once the iterator has ended.
    pub complete: bool,
}

impl Events {
    fn split(&mut self) {
        let at_ms = clock::boot_ms();
        while let Some(end) = position(&self.pending, b"\n\n") {
            let event: Vec<u8> = self.pending.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&event).into_owned();
            for line in text.lines() {
                if let Some(data) = line.strip_prefix("data:") {
                    self.ready.push_back(Event {
                        data: data.trim_start().to_owned(),
                        at_ms,
                    });
                }
            }
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.chunks.next(&mut self.connection) {
                Ok(Some(bytes)) => {
                    self.pending.extend(bytes);
                    self.split();
                }
                Ok(None) => {
                    self.complete = true;
                    return None;
                }
                Err(_) => return None,
            }
        }
    }
}

/// A request's bytes. `content-length` and `host` are added.
#[must_use]
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if !body.is_empty() || method == "POST" {
        bytes.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}
