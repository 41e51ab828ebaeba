//! Standard output and error. A reader that went away (`aex … | head`) ends the command quietly, and
//! control characters from elsewhere never reach the terminal.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::fault::Fault;

const READER_POLL: Duration = Duration::from_millis(200);

/// Where answers go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    pub(crate) json: bool,
}

impl Out {
    /// The answer of a command: `value` as one JSON document, or `text` for people.
    pub(crate) fn answer<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Fault> {
        if self.json {
            self.document(value)
        } else {
            self.text(&text())
        }
    }

    /// One JSON document on one line.
    pub(crate) fn document<T: Serialize>(self, value: &T) -> Result<(), Fault> {
        let mut line = serde_json::to_vec(value)
            .map_err(|error| Fault::failed(format!("answer cannot be written: {error}")))?;
        line.push(b'\n');
        put(&line)
    }

    /// Text for programs, as it is.
    pub(crate) fn raw(self, text: &str) -> Result<(), Fault> {
        put(text.as_bytes())
    }

    /// Text for people, one or more lines.
    pub(crate) fn text(self, text: &str) -> Result<(), Fault> {
        let mut safe = harmless(text.trim_end_matches('\n'));
        safe.push('\n');
        put(safe.as_bytes())
    }

    /// An empty screen, cursor at the top.
    pub(crate) fn clear_screen(self) -> Result<(), Fault> {
        put(b"\x1b[H\x1b[2J")
    }

    /// A note or an error, on standard error. That nobody reads it is no further error.
    pub(crate) fn complain(text: &str) {
        let _ = writeln!(std::io::stderr(), "{}", harmless(text));
    }
}

fn put(bytes: &[u8]) -> Result<(), Fault> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Fault::ClosedOutput,
            _ => Fault::failed(format!("cannot write the answer: {error}")),
        })
}

/// Ends when whoever reads standard output has gone, as `head` does: commands that follow something
/// would else learn it at their next line alone, which may never come.
pub(crate) async fn reader_left() {
    loop {
        let stdout = std::io::stdout();
        // Nothing is asked for: a broken pipe is told all the same.
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let told = poll(&mut fds, PollTimeout::ZERO).unwrap_or(0);
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if told > 0
            && fds[0]
                .revents()
                .is_some_and(|events| events.intersects(gone))
        {
            return;
        }
        tokio::time::sleep(READER_POLL).await;
    }
}

/// Without the control characters by which a name or a log line could drive a terminal.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_pass() {
        assert_eq!(
            harmless("a\u{1b}[2Jb\tc\n\u{9b}d"),
            "a\u{fffd}[2Jb\tc\n\u{fffd}d"
        );
    }
}
