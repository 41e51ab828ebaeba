//! What a gate or a fault is for: a few lines of `key value`, read anew on each call. Pure.

use crate::target::Target;

/// The kinds of calls, as rules name them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Write,
    Sync,
    Truncate,
    /// To write.
    Open,
}

impl Call {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Write => b"write",
            Self::Sync => b"sync",
            Self::Truncate => b"truncate",
            Self::Open => b"open",
        }
    }
}

#[derive(Default)]
pub(crate) struct Rule {
    calls: Vec<Vec<u8>>,
    path: Vec<u8>,
    /// In the bytes of a write; for a sync, in a write of the same file since the last sync.
    pub(crate) text: Vec<u8>,
    /// A gate's: wait when the call is done, not before.
    pub(crate) after: bool,
    /// A fault's.
    pub(crate) errno: i32,
    /// A fault's: only the first call.
    pub(crate) once: bool,
}

impl Rule {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut rule = Self::default();
        for line in bytes.split(|&b| b == b'\n') {
            let at = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
            let (key, value) = (&line[..at], line.get(at + 1..).unwrap_or_default());
            match key {
                b"call" => rule.calls.push(value.to_vec()),
                b"path" => rule.path = value.to_vec(),
                b"text" => rule.text = value.to_vec(),
                b"after" => rule.after = true,
                b"once" => rule.once = true,
                b"errno" => {
                    let number = std::str::from_utf8(value).ok();
                    rule.errno = number.and_then(|n| n.parse().ok()).unwrap_or(libc::EIO);
                }
                _ => {}
            }
        }
        rule
    }

    pub(crate) fn is_of(&self, call: Call) -> bool {
        self.calls.iter().any(|name| name == call.name())
    }

    pub(crate) fn is_at(&self, target: &Target) -> bool {
        contains(&target.name, &self.path)
    }
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|part| part == needle)
}
