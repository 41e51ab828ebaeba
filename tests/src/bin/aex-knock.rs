//! `aex-knock SOCKET`: sends what it reads to a Unix socket and prints what comes back, for at most
//! two seconds. The tests run it under another uid, which a test process cannot take by itself.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(2);
const MAX_BYTES: u64 = 64 * 1024;

fn knock(path: &str) -> std::io::Result<()> {
    let mut sent = Vec::new();
    std::io::stdin().take(MAX_BYTES).read_to_end(&mut sent)?;
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&sent)?;
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer)?;
    std::io::stdout().write_all(&answer[..count])
}

#[expect(clippy::print_stderr, reason = "the program's own messages")]
fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: aex-knock SOCKET");
        return ExitCode::from(2);
    };
    match knock(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("aex-knock: {path}: {problem}");
            ExitCode::FAILURE
        }
    }
}
