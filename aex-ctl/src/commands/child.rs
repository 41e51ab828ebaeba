//! A program of AEX that is given its input and asked once.

use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::fault::Fault;

/// Runs `command` with `input` on its standard input. `name` is for people. It has no time limit of its
/// own: dropped, it ends the program.
pub(crate) async fn given(mut command: Command, name: &str, input: &[u8]) -> Result<Output, Fault> {
    let failed = |error| Fault::failed(format!("cannot run {name}: {error}"));
    command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take();
    // One that ends without reading all of it says itself why.
    let write = async {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(input).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    output.map_err(failed)
}
