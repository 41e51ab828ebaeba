//! What is done to a good input.

/// Not to be guessed, but the same again for the same seed (splitmix64).
pub(crate) struct Chance(pub(crate) u64);

/// No mutant is longer.
const MOST_BYTES: usize = 64 * 1024;
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "-0",
    "1.5",
    "1e999",
    "1e3",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
    "null",
    "true",
    "\"5\"",
    "99999999999999999999999999",
];
const PIECES: [&str; 20] = [
    "\"max_tokens\":9,",
    "\"max_output_tokens\":9,",
    "\"n\":9,",
    "\"model\":\"x\",",
    "\"usage\":null,",
    "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1},",
    "\"stream\":true,",
    "{}",
    "[]",
    "\\ud800",
    "\\u0000",
    "\u{feff}",
    "\n\n",
    "\r",
    "data: ",
    "\"type\":\"web_search\",",
    "\"store\":true,",
    "\"stream_options\":{\"include_usage\":true},",
    "\"best_of\":3,",
    "\"choices\":[],",
];

impl Chance {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let limit = u64::try_from(limit.max(1)).unwrap();
        usize::try_from(z % limit).unwrap()
    }

    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len());
        let length = 1 + self.below(64);
        start..(start + length).min(bytes.len())
    }
}

/// One to three changes; `other` is another good input.
pub(crate) fn mutated(chance: &mut Chance, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=chance.below(3) {
        if !out.is_empty() {
            change(chance, &mut out, other);
        }
    }
    out.truncate(MOST_BYTES);
    out
}

fn change(chance: &mut Chance, out: &mut Vec<u8>, other: &[u8]) {
    let at = chance.below(out.len());
    match chance.below(10) {
        0 => out[at] ^= 1 << chance.below(8),
        1 => out.truncate(at),
        2 => {
            let from = chance.below(other.len());
            out.truncate(at);
            out.extend_from_slice(&other[from..]);
        }
        3 => {
            let slice = out[chance.range(out)].to_vec();
            let many = slice.repeat(1 + chance.below(20));
            drop(out.splice(at..at, many));
        }
        4 => number(chance, out),
        5 => escape(chance, out),
        6 => member_twice(chance, out),
        7 => {
            let depth = [1, 70, 5_000][chance.below(3)];
            let (open, close) = [("[", "]"), ("{\"a\":", "}")][chance.below(2)];
            let nest = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let place = after(out, at, b':');
            drop(out.splice(place..place, format!("{nest},\"x\":").into_bytes()));
        }
        8 => {
            let place = after(out, at, b',');
            drop(out.splice(place..place, PIECES[chance.below(PIECES.len())].bytes()));
        }
        _ => {
            let range = chance.range(out);
            drop(out.drain(range));
        }
    }
}

/// Behind the next such byte, or where it is.
fn after(bytes: &[u8], at: usize, wanted: u8) -> usize {
    let found = bytes[at..].iter().position(|&byte| byte == wanted);
    found.map_or(at, |found| at + found + 1)
}

/// Another number in place of one.
fn number(chance: &mut Chance, out: &mut Vec<u8>) {
    let at = chance.below(out.len());
    let Some(start) = out[at..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let start = at + start;
    let digits = out[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let text = NUMBERS[chance.below(NUMBERS.len())].bytes();
    drop(out.splice(start..start + digits, text));
}

/// A letter written as its escape, which within a string is the same.
fn escape(chance: &mut Chance, out: &mut Vec<u8>) {
    let at = chance.below(out.len());
    if out[at].is_ascii_lowercase() && !(at > 0 && out[at - 1] == b'\\') {
        let text = format!("\\u{:04x}", out[at]);
        drop(out.splice(at..=at, text.into_bytes()));
    }
}

/// A member, from a quote to the next comma, once more somewhere.
fn member_twice(chance: &mut Chance, out: &mut Vec<u8>) {
    let start = chance.below(out.len());
    let Some(quote) = out[start..].iter().position(|&byte| byte == b'"') else {
        return;
    };
    let start = start + quote;
    let member = out[start..after(out, start, b',')].to_vec();
    let at = chance.below(out.len());
    let place = after(out, at, b',');
    drop(out.splice(place..place, member));
}
