//! What a panic says: which program, where in its source, and on which thread.
//!
//! Absent on purpose: the message, which may quote what the program was working on (a slice of a prompt, the
//! value that an `unwrap` met), also where it looks fixed; and backtraces, whatever `RUST_BACKTRACE` asks for.

use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{PanicHookInfo, set_hook};
use std::path::Path;

/// From now on each panic of this process says its place alone, in one line on standard error.
pub fn tell_place_alone() {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    set_hook(Box::new(move |panic| {
        // One write, so that no other line comes in between. With stderr closed there is nobody to tell.
        let _ = std::io::stderr().write_all(line(&name, panic).as_bytes());
    }));
}

fn line(program: &str, panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let mut text = format!("{program}: a bug: panicked");
    if let Some(place) = panic.location() {
        let _ = write!(text, " at {place}");
    }
    let _ = writeln!(
        text,
        ", thread {}; its message is not shown, since it may quote a request or a key",
        thread.name().unwrap_or("without a name")
    );
    text
}
