//! One line of the journal, as text and back. Pure.
//!
//! A line is a letter, the hold's id, and figures, separated by single spaces. What does not read
//! back exactly is damage, never guessed at.

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::{Exchange, Failure};

/// First word of a journal, with its version.
pub const MAGIC: &str = "aex-egress-journal 2";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Written before the first byte goes upstream.
    Redeemed { id: HoldId, expires_boot_ms: u64 },
    /// The exchange is over; its receipt may still be owed.
    Ended {
        id: HoldId,
        expires_boot_ms: u64,
        exchange: Exchange,
    },
    /// Over, and its receipt acknowledged: known only so that the ticket stays used.
    Used { id: HoldId, expires_boot_ms: u64 },
    /// Never to be redeemed.
    Dead { id: HoldId, until_boot_ms: u64 },
}

/// The journal's first line, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub boot_id: String,
    /// Since when the journal has been kept without a gap.
    pub begun_boot_ms: u64,
}

impl Header {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.boot_id.as_bytes());
        write_figure(out, self.begun_boot_ms);
        out.push(b'\n');
    }

    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(MAGIC)?.strip_prefix(' ')?.split(' ');
        let header = Self {
            boot_id: words.next().filter(|id| !id.is_empty())?.to_owned(),
            begun_boot_ms: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(header)
    }
}

impl Record {
    /// Appends the record with its newline. Once or twice a request, so without `core::fmt`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Redeemed {
                id,
                expires_boot_ms,
            } => write_start(out, b"R ", *id, *expires_boot_ms),
            Self::Used {
                id,
                expires_boot_ms,
            } => write_start(out, b"U ", *id, *expires_boot_ms),
            Self::Dead { id, until_boot_ms } => write_start(out, b"V ", *id, *until_boot_ms),
            Self::Ended {
                id,
                expires_boot_ms,
                exchange,
            } => {
                write_start(out, b"E ", *id, *expires_boot_ms);
                write_exchange(out, exchange);
            }
        }
        out.push(b'\n');
    }

    /// `None`: the line is damaged.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let record = match words.next()? {
            "R" => Self::Redeemed {
                id: words.next()?.parse().ok()?,
                expires_boot_ms: words.next()?.parse().ok()?,
            },
            "U" => Self::Used {
                id: words.next()?.parse().ok()?,
                expires_boot_ms: words.next()?.parse().ok()?,
            },
            "V" => Self::Dead {
                id: words.next()?.parse().ok()?,
                until_boot_ms: words.next()?.parse().ok()?,
            },
            "E" => Self::Ended {
                id: words.next()?.parse().ok()?,
                expires_boot_ms: words.next()?.parse().ok()?,
                exchange: read_exchange(&mut words)?,
            },
            _ => return None,
        };
        words.next().is_none().then_some(record)
    }
}

/// The letter, the id and the time, with which most records begin.
fn write_start(out: &mut Vec<u8>, letter: &[u8; 2], id: HoldId, at_boot_ms: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(letter);
    for byte in id.as_bytes() {
        out.extend_from_slice(&[
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    }
    write_figure(out, at_boot_ms);
}

/// A space and the words of an exchange.
fn write_exchange(out: &mut Vec<u8>, exchange: &Exchange) {
    write_word(out, if exchange.sent { "sent" } else { "unsent" });
    match exchange.status {
        Some(status) => write_figure(out, status.into()),
        None => write_word(out, "-"),
    }
    write_word(out, exchange.failure.map_or("-", Failure::as_str));
    write_figure(out, exchange.bytes_up);
    write_figure(out, exchange.bytes_down);
    write_word(out, if exchange.complete { "complete" } else { "cut" });
    write_figure(out, exchange.head_boot_ms);
}

fn write_word(out: &mut Vec<u8>, word: &str) {
    out.push(b' ');
    out.extend_from_slice(word.as_bytes());
}

fn write_figure(out: &mut Vec<u8>, mut figure: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [b' '; 21];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(figure % 10).unwrap_or(0);
        figure /= 10;
        if figure == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at - 1..]);
}

fn read_exchange<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Exchange> {
    Some(Exchange {
        sent: match words.next()? {
            "sent" => true,
            "unsent" => false,
            _ => return None,
        },
        status: match words.next()? {
            "-" => None,
            status => Some(status.parse().ok()?),
        },
        failure: match words.next()? {
            "-" => None,
            failure => Some(Failure::parse(failure)?),
        },
        bytes_up: words.next()?.parse().ok()?,
        bytes_down: words.next()?.parse().ok()?,
        complete: match words.next()? {
            "complete" => true,
            "cut" => false,
            _ => return None,
        },
        head_boot_ms: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exchange() -> impl Strategy<Value = Exchange> {
        (
            any::<bool>(),
            any::<Option<u16>>(),
            prop::option::of(prop::sample::select(vec![
                Failure::Connect,
                Failure::Reset,
                Failure::EgressGone,
            ])),
            any::<[u64; 3]>(),
            any::<bool>(),
        )
            .prop_map(|(sent, status, failure, figures, complete)| Exchange {
                sent,
                status,
                failure,
                bytes_up: figures[0],
                bytes_down: figures[1],
                complete,
                head_boot_ms: figures[2],
            })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            id in any::<[u8; 16]>(),
            at in any::<u64>(),
            exchange in exchange(),
        ) {
            let id = HoldId::from(id);
            for record in [
                Record::Redeemed { id, expires_boot_ms: at },
                Record::Used { id, expires_boot_ms: at },
                Record::Dead { id, until_boot_ms: at },
                Record::Ended { id, expires_boot_ms: at, exchange: exchange.clone() },
            ] {
                let mut line = Vec::new();
                record.write(&mut line);
                let text = String::from_utf8(line).unwrap();
                let line = text.strip_suffix('\n').unwrap();
                prop_assert_eq!(Record::read(line), Some(record));
            }
        }

        #[test]
        fn nothing_read_from_noise_panics(line in ".*") {
            let _ = Record::read(&line);
            let _ = Header::read(&line);
        }
    }

    #[test]
    fn damage_is_not_guessed_at() {
        for bad in [
            "",
            "R",
            "R 00",
            "X 1",
            "V 00112233445566778899aabbccddeeff 1 maybe",
            "V 00112233445566778899aabbccddeeff",
        ] {
            assert_eq!(Record::read(bad), None, "{bad:?}");
        }
    }
}
