//! Bodies of the simulator's answers: whole, streamed event by event, or broken off on purpose.
//!
//! A streamed token is billed in the moment it is generated, so a client that hangs up has paid for
//! what there was until then.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::behaviour::Behaviour;
use super::bill::{Ended, Running};
use super::script::{Event, Script};

/// How long a broken-off answer waits, so that the bytes before the break are on the wire.
const FLUSH: Duration = Duration::from_millis(20);

/// The connection is dropped on purpose.
#[derive(Debug, thiserror::Error)]
#[error("cut by the simulated behaviour")]
pub(super) struct CutOnPurpose;

pub(super) enum SimBody {
    Whole(Option<Bytes>),
    Broken(Broken),
    Stream(Box<Stream>),
}

impl SimBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

/// The first bytes of an answer that never ends. Cut when the request is dropped.
pub(super) struct Broken {
    bytes: Option<Bytes>,
    pause: Option<Pin<Box<Sleep>>>,
    _running: Running,
}

impl Broken {
    pub(super) fn new(bytes: Bytes, running: Running) -> Self {
        Self {
            bytes: Some(bytes),
            pause: None,
            _running: running,
        }
    }
}

pub(super) struct Stream {
    script: Script,
    running: Running,
    behaviour: Arc<Behaviour>,
    started: bool,
    content_sent: u64,
    pause: Option<Pin<Box<Sleep>>>,
    cutting: bool,
}

impl Stream {
    pub(super) fn new(script: Script, running: Running, behaviour: Arc<Behaviour>) -> Self {
        Self {
            script,
            running,
            behaviour,
            started: false,
            content_sent: 0,
            pause: None,
            cutting: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOnPurpose>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
            if self.cutting {
                return Poll::Ready(Some(Err(CutOnPurpose)));
            }
        } else if self.behaviour.cut_after_chunks == Some(self.content_sent) && self.started {
            self.cutting = true;
            return self.pause_for(FLUSH, cx);
        } else if self.started && self.behaviour.chunk_delay_ms > 0 {
            let delay = Duration::from_millis(self.behaviour.chunk_delay_ms);
            return self.pause_for(delay, cx);
        }
        if self.behaviour.mute && self.behaviour.hang {
            return Poll::Pending;
        }
        if self.behaviour.mute {
            self.cutting = true;
            return self.pause_for(FLUSH, cx);
        }
        self.started = true;
        let Some(event) = self.script.next() else {
            self.running.end(Ended::Complete);
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(self.generate(event))))
    }

    /// Called again once the time is over, and so by whoever polls the body.
    fn pause_for<T>(&mut self, time: Duration, cx: &mut Context<'_>) -> Poll<T> {
        let mut pause = Box::pin(sleep(time));
        if pause.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.pause = Some(pause);
        Poll::Pending
    }

    fn generate(&mut self, event: Event) -> Bytes {
        self.running.bill_output(event.tokens);
        self.content_sent += u64::from(event.content);
        event.bytes
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = CutOnPurpose;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOnPurpose>>> {
        let next = match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Self::Broken(broken) => match broken.bytes.take() {
                Some(bytes) => {
                    broken.pause = Some(Box::pin(sleep(FLUSH)));
                    Poll::Ready(Some(Ok(bytes)))
                }
                None => {
                    if let Some(pause) = &mut broken.pause {
                        ready!(pause.as_mut().poll(cx));
                    }
                    Poll::Ready(Some(Err(CutOnPurpose)))
                }
            },
            Self::Stream(stream) => stream.poll(cx),
        };
        next.map(|item| item.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Broken(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}
