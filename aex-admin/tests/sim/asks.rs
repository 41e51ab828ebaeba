//! What is asked of the core and what it answers, as data: the same goes to the real one and to the
//! naive model.

use aex_admin::writer::OperatorCommand;
use aex_admin_proto::egress::ReceiptsParams;
use aex_admin_proto::operator::{CreateParams, NameParams, RotateParams, SetParams};
use aex_admin_proto::worker::{ReserveParams, ReserveReply, SettleParams, SettleReply};
use aex_admin_proto::{HoldId, Refusal};
use serde_json::Value;

/// Number of one ask; its answer bears it too.
pub(crate) type Tag = usize;

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a simulation makes few of them")]
pub(crate) enum Ask {
    Reserve { params: ReserveParams, session: u64 },
    Settle(SettleParams),
    Receipts(ReceiptsParams),
    Change(Change),
    Cancel(HoldId),
    Reclaim { tickets: Vec<String>, session: u64 },
    SessionGone(u64),
    OperatorKeys(Vec<String>),
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Create(Box<CreateParams>),
    Set(Box<SetParams>),
    Rotate(RotateParams),
    Turn(Turn, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Pause,
    Resume,
    Sever,
    Delete,
}

impl Change {
    pub(crate) fn command(self) -> OperatorCommand {
        match self {
            Self::Create(params) => OperatorCommand::Create(params),
            Self::Set(params) => OperatorCommand::Set(params),
            Self::Rotate(params) => OperatorCommand::Rotate(params),
            Self::Turn(turn, name) => {
                let params = NameParams { name };
                match turn {
                    Turn::Pause => OperatorCommand::Pause(params),
                    Turn::Resume => OperatorCommand::Resume(params),
                    Turn::Sever => OperatorCommand::Sever(params),
                    Turn::Delete => OperatorCommand::Delete(params),
                }
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Reserve(ReserveReply),
    Settle(SettleReply),
    Receipts,
    Changed(Value),
    Reclaimed(Vec<HoldId>),
    /// By its code: the text is for people.
    Error(i32),
    /// Given up without an answer, as for a connection that is gone.
    Dropped,
}

impl Answer {
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self::Reserve(ReserveReply::Refused(refusal))
    }

    /// What it comes to, in a word or two.
    pub(crate) fn name(&self) -> String {
        let told = match self {
            Self::Reserve(ReserveReply::Granted(_)) => "Granted".to_owned(),
            Self::Reserve(ReserveReply::Refused(refusal)) => format!("{refusal:?}"),
            Self::Reserve(ReserveReply::Measure { .. }) => "Measure".to_owned(),
            Self::Reserve(ReserveReply::Replay(_)) => "Replay".to_owned(),
            Self::Settle(reply) => format!("{:?}", reply.basis),
            Self::Error(code) => format!("Error{}", -code),
            other => format!("{other:?}"),
        };
        let end = told.find(|c: char| !c.is_alphanumeric());
        told[..end.unwrap_or(told.len())].to_owned()
    }

    /// Without what is for people, or random: texts of refusals, tokens.
    pub(crate) fn comparable(mut self) -> Self {
        match &mut self {
            Self::Reserve(
                ReserveReply::Refused(Refusal::InvalidRequest { message, .. })
                | ReserveReply::Measure {
                    refusal: Refusal::InvalidRequest { message, .. },
                    ..
                },
            ) => message.clear(),
            Self::Changed(Value::Object(fields)) => {
                fields.remove("token");
                fields.remove("token_id");
            }
            _ => {}
        }
        self
    }
}
