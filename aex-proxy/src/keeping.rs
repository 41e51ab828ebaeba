//! Keeps the answer of one request with an `Idempotency-Key`, and gives it again.

use aex_admin_proto::worker::{Grant, Replay};
use aex_admin_proto::{HoldId, IdempotencyConflict, Refusal};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, response};

use crate::answer;
use crate::body::Outgoing;
use crate::headers;
use crate::spool::{Gathering, Kept, Spool, SpoolKey};

/// The answer of one exchange on its way into the spool. Only a success that came to its proper end is
/// kept; the caller says which does.
pub struct Keeping {
    spool: Spool,
    id: HoldId,
    key: SpoolKey,
    answer: Option<Gathering>,
}

impl Keeping {
    #[must_use]
    pub fn new(spool: Spool, id: HoldId, key: SpoolKey) -> Self {
        Self {
            spool,
            id,
            key,
            answer: None,
        }
    }

    /// The head of the answer, as the provider gave it.
    pub fn head(&mut self, head: &response::Parts, grant: &Grant) {
        let mut for_agent = head.headers.clone();
        headers::keep_for_agent(&mut for_agent);
        headers::tell_server(&mut for_agent, &grant.provider, &grant.upstream_model);
        self.answer = Some((self.spool).gather(grant.tenant, head.status, for_agent));
    }

    /// What the client is sent of its body, or would be if it were still there.
    pub fn push(&mut self, bytes: &[u8]) {
        if let Some(answer) = &mut self.answer {
            answer.push(bytes);
        }
    }

    /// The answer came to its proper end. Returns when it is kept, or will not be.
    pub async fn keep(self) {
        if let Some(answer) = self.answer {
            self.spool.keep(self.id, self.key, answer).await;
        }
    }
}

/// The answer that was given before, or why it cannot be given again.
pub async fn replay(spool: &Spool, key: Option<&SpoolKey>, before: Replay) -> Response<Outgoing> {
    let kept = match key {
        Some(key) => spool.find(before.id, key.clone()).await,
        None => None,
    };
    match kept {
        Some(kept) => again(kept, before),
        None => {
            let conflict = IdempotencyConflict::NotKept;
            let row = answer::of_refusal(&Refusal::IdempotencyConflict { conflict });
            row.response(Some(before.id))
        }
    }
}

fn again(kept: Kept, before: Replay) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::full(kept.body));
    *response.status_mut() = kept.status;
    let head = response.headers_mut();
    *head = kept.headers;
    let is_stream =
        (head.get(CONTENT_TYPE)).is_some_and(|value| headers::is_type(value, "text/event-stream"));
    if !is_stream {
        head.insert(headers::COST, 0.into());
    }
    head.insert(headers::REQUEST_ID, answer::id_value(before.id));
    if let Some(remaining_micro) = before.remaining_micro {
        head.insert(headers::REMAINING, remaining_micro.into());
    }
    head.insert(headers::REPLAYED, HeaderValue::from_static("true"));
    response
}
