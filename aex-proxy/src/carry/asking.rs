//! Asks for the hold of a request, once or, where its prompt is to be counted, twice.

use aex_admin_proto::worker::{Grant, Replay, ReserveParams, ReserveReply};

use super::{Answer, Job};
use crate::admin::{Admin, Unavailable};
use crate::answer::{self, Fault, Row};
use crate::measure::{self, NotCounted};

/// Why a request is not carried out.
pub(super) enum NoGrant {
    Row(Row),
    /// It was carried out before.
    Before(Replay),
}

/// The grant, or what the client is told instead. A prompt that does not fit by its bytes is counted,
/// and asked for again.
pub(super) async fn reserve(
    admin: &Admin,
    job: &mut Job,
    client: &mut Answer,
) -> Result<Box<Grant>, NoGrant> {
    let mut reply = ask(admin, &job.params, client).await;
    if let Ok(ReserveReply::Measure { tokenizer, refusal }) = reply {
        reply = match measure::count(&job.params, job.body.clone(), &tokenizer).await {
            Ok(measured) => {
                job.params.facts.measured = Some(measured);
                job.params.facts.measured_by = Some(tokenizer);
                ask(admin, &job.params, client).await
            }
            Err(NotCounted::Unknown) => Ok(ReserveReply::Refused(refusal)),
            Err(NotCounted::Busy) => {
                let why = "too many long prompts are being counted; try again shortly";
                return Err(NoGrant::Row(Fault::Kernel(why.into()).row()));
            }
        };
    }
    Err(NoGrant::Row(match reply {
        Ok(ReserveReply::Granted(grant)) => return Ok(grant),
        Ok(ReserveReply::Replay(before)) => return Err(NoGrant::Before(before)),
        Ok(ReserveReply::Refused(refusal) | ReserveReply::Measure { refusal, .. }) => {
            answer::of_refusal(&refusal)
        }
        Err(why) => Fault::Kernel(why.to_string()).row(),
    }))
}

/// Asks for the hold; a client that leaves ends the wait.
async fn ask(
    admin: &Admin,
    params: &ReserveParams,
    client: &mut Answer,
) -> Result<ReserveReply, Unavailable> {
    let asking = admin.reserve(params);
    tokio::pin!(asking);
    tokio::select! {
        biased;
        reply = &mut asking => reply,
        () = client.closed() => {
            admin.cancel(params.id);
            asking.await
        }
    }
}
