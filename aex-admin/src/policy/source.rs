//! The text of a file: offsets to lines and columns, and where a word of it stands. Cedar's parser
//! has judged the text before; this only finds places in it.

use std::ops::Range;

use super::error::Place;

/// Brackets within brackets.
pub(super) const MAX_DEPTH: usize = 32;
/// Of one policy.
pub(super) const MAX_TOKENS: usize = 2000;

pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    /// With its quotes, escapes as they are written.
    Text,
    Sign,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) offset: usize,
    pub(super) text: &'a str,
}

impl<'a> Source<'a> {
    /// The place of a byte; past the end is the end.
    pub(super) fn place(&self, offset: usize) -> Place {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            file: self.file.to_owned(),
            line: before.matches('\n').count() as u64 + 1,
            column: before[line_start..].chars().count() as u64 + 1,
        }
    }

    /// Where `@name` stands in a part of the text.
    pub(super) fn annotation(&self, within: Range<usize>, name: &str) -> Option<usize> {
        let tokens: Vec<Token<'_>> = self.tokens(within).collect();
        tokens.windows(2).find_map(|pair| match pair {
            [at, word] if at.text == "@" && word.text == name => Some(at.offset),
            _ => None,
        })
    }

    /// Where the literal `kind::"id"` stands in a part of the text. `is_it` is asked of each string
    /// that follows `kind::`.
    pub(super) fn literal(
        &self,
        within: Range<usize>,
        kind: &str,
        is_it: impl Fn(&str) -> bool,
    ) -> Option<usize> {
        let tokens: Vec<Token<'_>> = self.tokens(within).collect();
        tokens.windows(4).find_map(|four| match four {
            [word, first, second, id]
                if word.text == kind
                    && first.text == ":"
                    && second.text == ":"
                    && id.kind == Kind::Text
                    && is_it(id.text) =>
            {
                Some(word.offset)
            }
            _ => None,
        })
    }

    /// Where a policy begins to be longer or deeper than Cedar's parser, which recurses, has stack for.
    pub(super) fn too_intricate(&self) -> Option<(usize, String)> {
        let mut depth = 0_usize;
        let mut tokens = 0_usize;
        for token in self.tokens(0..self.text.len()) {
            tokens += 1;
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                ";" => tokens = 0,
                _ => {}
            }
            let message = if depth > MAX_DEPTH {
                format!("brackets are nested more than {MAX_DEPTH} deep: say it more simply")
            } else if tokens > MAX_TOKENS {
                format!("this policy has more than {MAX_TOKENS} words and signs: make two of it")
            } else {
                continue;
            };
            return Some((token.offset, message));
        }
        None
    }

    fn tokens(&self, within: Range<usize>) -> Tokens<'a> {
        let end = within.end.min(self.text.len());
        Tokens {
            text: self.text.get(..end).unwrap_or(self.text),
            offset: within.start.min(end),
        }
    }
}

struct Tokens<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = self.text.get(self.offset..)?;
            let first = rest.chars().next()?;
            let (kind, length) = if first.is_whitespace() {
                self.offset += first.len_utf8();
                continue;
            } else if rest.starts_with("//") {
                self.offset += rest.find('\n').unwrap_or(rest.len());
                continue;
            } else if first == '"' {
                (Kind::Text, quoted(rest))
            } else if is_of_word(first) {
                let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
                (Kind::Word, end)
            } else {
                (Kind::Sign, first.len_utf8())
            };
            let token = Token {
                kind,
                offset: self.offset,
                text: &rest[..length],
            };
            self.offset += length;
            return Some(token);
        }
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Bytes of the string that `rest` begins with, quotes included.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
