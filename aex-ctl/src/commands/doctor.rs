//! `aex doctor`.

use serde_json::json;

use crate::doctor::{self, State, Stranger};
use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::Out;
use crate::render;

pub(super) async fn run(
    stranger: Option<&Stranger>,
    kernel: &Kernel,
    out: Out,
) -> Result<u8, Fault> {
    let findings = doctor::look(kernel, stranger).await?;
    let holds = findings
        .iter()
        .all(|finding| finding.state != State::Failed);
    out.answer(&json!({ "ok": holds, "findings": findings }), || {
        render::findings(&findings)
    })?;
    Ok(u8::from(!holds))
}
