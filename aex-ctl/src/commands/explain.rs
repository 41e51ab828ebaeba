//! `aex policy explain`. The reader of requests is `aex-proxy`, the judge is `aex-admin`: this brings
//! what the one read to the other.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use aex_admin_proto::explain::{
    BodyRead, ExplainParams, ExplainReply, Explained, Invalid, MAX_BODY_BYTES,
};
use aex_admin_proto::operator::method;
use tokio::process::Command;

use super::child;
use crate::args::ExplainArgs;
use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::Out;
use crate::render;
use crate::supervisor::check;

/// The longest body, its tokens counted, takes some ten seconds.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run(args: ExplainArgs, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let body = body(&args.request)?;
    let read = read(&args, &body, None).await?;
    match read {
        BodyRead::Request { model, facts } => {
            let params = ExplainParams {
                agent: args.agent.clone(),
                run: args.run.clone(),
                route: args.route,
                model,
                facts: *facts,
            };
            let explained = explained(&args, &body, params, kernel).await?;
            // The question was answered, whatever the answer is.
            out.answer(&explained, || render::explained(&explained))?;
            Ok(0)
        }
        BodyRead::NotARequest { ref invalid } => {
            if out.json {
                out.document(&read)?;
            }
            Err(Fault::Failed(told(invalid)))
        }
    }
}

fn told(invalid: &Invalid) -> String {
    let message = &invalid.message;
    match &invalid.param {
        Some(param) => format!("the agent would get 400: {message} ({param})"),
        None => format!("the agent would get 400: {message}"),
    }
}

/// Asks, and once more with the prompt counted where the kernel wants to know that.
async fn explained(
    args: &ExplainArgs,
    body: &[u8],
    mut params: ExplainParams,
    kernel: &Kernel,
) -> Result<Explained, Fault> {
    let link = kernel.open().await?;
    let tokenizer = match link.call(method::POLICY_EXPLAIN, &params).await? {
        ExplainReply::Explained(explained) => return Ok(*explained),
        ExplainReply::Measure { tokenizer } => tokenizer,
    };
    if let BodyRead::Request { facts, .. } = read(args, body, Some(&tokenizer)).await? {
        params.facts = *facts;
    }
    match link.call(method::POLICY_EXPLAIN, &params).await? {
        ExplainReply::Explained(explained) => Ok(*explained),
        ExplainReply::Measure { tokenizer: again } => Err(Fault::failed(format!(
            "the kernel wants the prompt counted with {again}, after it was counted with {tokenizer}: \
             are `aex-proxy` and `aex-admin` of the same version?"
        ))),
    }
}

/// The request: a file, or standard input.
fn body(file: &Path) -> Result<Vec<u8>, Fault> {
    let standard_input = file == Path::new("-");
    let named = if standard_input {
        "standard input".into()
    } else {
        file.display().to_string()
    };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Fault::NotFound(format!(
            "there is no {named}: name a file that has the body of the request as JSON, or - to give \
             it on standard input"
        )),
        _ => Fault::file("read", Path::new(&named), &error),
    };
    let mut body = Vec::new();
    // One byte more, by which one that is too long is known.
    let most = MAX_BODY_BYTES + 1;
    if standard_input {
        std::io::stdin().take(most).read_to_end(&mut body)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut body))
    }
    .map_err(failed)?;
    if body.len() as u64 > MAX_BODY_BYTES {
        return Err(Fault::failed(format!(
            "{named} is longer than {MAX_BODY_BYTES} bytes, the most that max_body_bytes can allow"
        )));
    }
    Ok(body)
}

/// What a worker sees in it.
async fn read(args: &ExplainArgs, body: &[u8], tokenizer: Option<&str>) -> Result<BodyRead, Fault> {
    let mut reader = Command::new(check::beside("aex-proxy")?);
    reader.arg("facts").args(arguments(args, tokenizer));
    let output = tokio::time::timeout(LIMIT, child::given(reader, "aex-proxy facts", body))
        .await
        .map_err(|_| Fault::failed("aex-proxy facts did not end in time"))??;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("aex-proxy: ");
        let why = if said.is_empty() { error.to_string() } else { said.to_owned() };
        Fault::failed(format!(
            "aex-proxy facts does not tell what the request is ({}): {why}\nAre `aex` and `aex-proxy` of \
             the same version?",
            output.status
        ))
    })
}

/// Each value is in one argument with its option: it may look like an option itself.
fn arguments(args: &ExplainArgs, tokenizer: Option<&str>) -> Vec<OsString> {
    let mut arguments = vec![format!("--route=/v1{}", args.route.path())];
    arguments.extend(args.own_key.then(|| "--own-key".to_owned()));
    arguments.extend(args.session.iter().map(|id| format!("--session={id}")));
    arguments.extend(tokenizer.map(|name| format!("--tokenizer={name}")));
    arguments.into_iter().map(OsString::from).collect()
}
