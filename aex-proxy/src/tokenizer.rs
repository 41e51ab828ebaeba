//! Counts tokens as a model's own tokenizer does, for the two whose tables are public and common.
//!
//! A table is built at its first use, and takes memory from then on: about 53 MB for `o200k_base`,
//! 20 MB for `cl100k_base`. The tables as they are shipped are 47 MB of the program's file, which all
//! workers share. Time is linear in the text, whatever it is.

use aex_admin_proto::worker::TOKENIZERS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokenizer(Table);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    O200k,
    Cl100k,
}

impl Tokenizer {
    /// One of [`TOKENIZERS`] by its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let tables = [Table::O200k, Table::Cl100k];
        let at = TOKENIZERS.iter().position(|known| *known == name)?;
        tables.get(at).copied().map(Self)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        let [o200k, cl100k] = TOKENIZERS;
        match self.0 {
            Table::O200k => o200k,
            Table::Cl100k => cl100k,
        }
    }

    /// Tokens of a text that stands alone.
    #[must_use]
    pub fn count(self, text: &str) -> u64 {
        let tokenizer = match self.0 {
            Table::O200k => bpe_openai::o200k_base(),
            Table::Cl100k => bpe_openai::cl100k_base(),
        };
        tokenizer.count(text) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_its_table() {
        for (name, text, tokens) in [
            ("o200k_base", "Hello, world!", 4),
            ("cl100k_base", "Hello, world!", 4),
            ("o200k_base", "", 0),
            // The tables differ here.
            ("o200k_base", "안녕하세요", 2),
            ("cl100k_base", "안녕하세요", 5),
        ] {
            let tokenizer = Tokenizer::named(name).unwrap();
            assert_eq!(tokenizer.count(text), tokens, "{name} {text}");
            assert_eq!(tokenizer.name(), name);
        }
        assert_eq!(Tokenizer::named("p50k_base"), None);
    }
}
