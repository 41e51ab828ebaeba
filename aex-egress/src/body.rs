//! Bodies as they pass through: counted and bounded. They are looked at for one thing alone: an
//! operator's key in a provider's answer, which a [`Mask`] covers before anything else sees it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use aex_admin_proto::egress::Failure;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::flight::{Flight, Running};
use crate::mask::Mask;
use crate::pool::Lease;

/// Why a body ends before its end. Told to hyper, which then breaks the connection.
#[derive(Debug, thiserror::Error)]
#[error("cut: {}", .0.as_str())]
pub struct Cut(Failure);

/// From worker to provider.
pub struct UpBody {
    inner: Incoming,
    flight: Arc<Flight>,
    max_bytes: u64,
}

impl UpBody {
    pub(crate) fn new(inner: Incoming, flight: Arc<Flight>, max_bytes: u64) -> Self {
        Self {
            inner,
            flight,
            max_bytes,
        }
    }

    pub(crate) fn into_inner(self) -> Incoming {
        self.inner
    }

    fn broken(&self) -> Cut {
        self.flight.upload_failed.store(true, Ordering::Relaxed);
        Cut(Failure::RequestBody)
    }
}

impl Body for UpBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(why) = self.flight.cut_by() {
            return Poll::Ready(Some(Err(Cut(why))));
        }
        loop {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Some(Err(self.broken()))),
                None => return Poll::Ready(None),
            };
            // Trailers are headers that no list allows.
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let before = self
                .flight
                .bytes_up
                .fetch_add(data.len() as u64, Ordering::Relaxed);
            if before + data.len() as u64 > self.max_bytes {
                return Poll::Ready(Some(Err(self.broken())));
            }
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// From provider to worker, or an answer of the egress itself.
pub enum DownBody {
    Own(Option<Bytes>),
    Provider(Box<Answer>),
}

/// A provider's answer on its way. Dropped before its end, it ends the exchange.
pub struct Answer {
    inner: Incoming,
    running: Running,
    lease: Option<Lease>,
    /// When it is under an operator's key.
    mask: Option<Mask>,
    body_bytes: u64,
    max_bytes: u64,
    /// What follows the data that was handed on last, if it is known already.
    next: Option<End>,
    /// Before a failure, hyper got the time to write what came before.
    has_yielded: bool,
}

/// What comes after the last data of an answer.
enum End {
    Complete,
    Failed(Failure),
}

/// Data that is there already goes on in one piece, up to about this size.
const GATHER_BYTES: usize = 16 * 1024;

impl Answer {
    pub(crate) fn new(
        inner: Incoming,
        running: Running,
        lease: Lease,
        mask: Option<Mask>,
        body_bytes: u64,
        max_bytes: u64,
    ) -> Self {
        Self {
            inner,
            running,
            lease: Some(lease),
            mask,
            body_bytes,
            max_bytes,
            next: None,
            has_yielded: false,
        }
    }

    /// Ends an exchange whose answer has no body: hyper does not ask for it.
    pub(crate) fn end_if_empty(&mut self, cx: &mut Context<'_>) {
        if self.inner.is_end_stream() {
            self.complete(cx);
        }
    }

    fn complete(&mut self, cx: &mut Context<'_>) {
        self.next = Some(End::Complete);
        self.running.completed();
        let Some(lease) = self.lease.take() else {
            return;
        };
        // A provider that answered before it had the whole request keeps a broken connection.
        if self.running.flight.bytes_up.load(Ordering::Relaxed) == self.body_bytes {
            lease.give_back(cx);
        }
    }

    fn fail(&mut self, why: Failure) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.running.failed(why);
        self.lease = None;
        Poll::Ready(Some(Err(Cut(why))))
    }

    /// The next data that is there now; its end, once known, is in `next`.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.next.is_some() {
                return Poll::Ready(None);
            }
            if let Some(lease) = &mut self.lease {
                lease.drive(cx);
            }
            let (data, end) = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    // hyper does not ask again once a known length is reached.
                    Ok(data) => (data, self.inner.is_end_stream().then_some(End::Complete)),
                    Err(_) => continue,
                },
                Some(Err(_)) => (Bytes::new(), Some(End::Failed(Failure::Reset))),
                None => (Bytes::new(), Some(End::Complete)),
            };
            let data = match &mut self.mask {
                Some(mask) if end.is_some() => mask.finish(data),
                Some(mask) => mask.push(data),
                None => data,
            };
            self.running.bytes_down += data.len() as u64;
            if self.running.bytes_down > self.max_bytes {
                self.next = Some(End::Failed(Failure::ResponseTooLarge));
                continue;
            }
            match end {
                Some(End::Complete) => self.complete(cx),
                Some(End::Failed(_)) | None => self.next = end,
            }
            // All of it may be held back.
            if !data.is_empty() {
                return Poll::Ready(Some(data));
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(why) = self.running.flight.cut_by() {
            return self.fail(why);
        }
        let Some(first) = ready!(self.poll_piece(cx)) else {
            return match self.next {
                // hyper drops what it has not written when a body fails: first it writes.
                Some(End::Failed(_)) if !self.has_yielded => {
                    self.has_yielded = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(End::Failed(why)) => self.fail(why),
                _ => Poll::Ready(None),
            };
        };
        let data = self.gather(first, cx);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// Adds what has come already: small pieces go on in one write. Waits for nothing.
    fn gather(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        if self.next.is_some() || first.len() >= GATHER_BYTES {
            return first;
        }
        let Poll::Ready(Some(second)) = self.poll_piece(cx) else {
            return first;
        };
        let mut all = BytesMut::with_capacity((4 * (first.len() + second.len())).min(GATHER_BYTES));
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while all.len() < GATHER_BYTES
            && let Poll::Ready(Some(more)) = self.poll_piece(cx)
        {
            all.extend_from_slice(&more);
        }
        all.freeze()
    }

    /// Not what the connection says: bytes of an ended answer may be held back.
    fn is_end(&self) -> bool {
        matches!(self.next, Some(End::Complete))
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint();
        let held_bytes = self.mask.as_ref().map_or(0, Mask::held_bytes) as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held_bytes);
        }
        hint.set_lower(inner.lower() + held_bytes);
        hint
    }
}

impl Body for DownBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Provider(answer) => answer.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Provider(answer) => answer.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64)),
            Self::Provider(answer) => answer.size_hint(),
        }
    }
}
