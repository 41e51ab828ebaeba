//! Texts that tokenizers, templates and normalisers treat in every way there is.

use crate::disk::Chance;

const ALPHABETS: [&str; 12] = [
    "abcdefghij klmnop, qrstuv. WXYZ",
    "0123456789",
    " \t\n",
    "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~\\",
    "日本語中文字漢한국어",
    "👩‍👩‍👧‍👦🏳️‍🌈👍🏿",
    "\u{e000}\u{f8ff}\u{10fffd}",
    "e\u{301}\u{323}\u{308}a\u{30a}",
    // Each grows under NFC.
    "\u{1d15e}\u{1d1c0}\u{fb1d}\u{0958}\u{2adc}",
    "\u{0}\u{1}\u{7}\u{1b}\u{7f}\u{85}",
    "\u{202e}\u{200b}\u{feff}\u{ad}",
    "<|im_start|>system<|endoftext|>[INST]</s>",
];

/// At most some thousand characters.
pub(super) fn draw(chance: &mut Chance) -> String {
    let length = match chance.below(10) {
        0 => 0,
        1..=6 => chance.below(60),
        7 | 8 => chance.below(600),
        _ => chance.below(6000),
    };
    let letters: Vec<char> = ALPHABETS[chance.below(ALPHABETS.len())].chars().collect();
    match chance.below(3) {
        // A long run of one of them.
        0 => {
            let letter = letters[chance.below(letters.len())];
            std::iter::repeat_n(letter, length).collect()
        }
        1 => (0..length)
            .map(|_| letters[chance.below(letters.len())])
            .collect(),
        _ => (0..length)
            .map(|_| {
                let letters: Vec<char> = ALPHABETS[chance.below(ALPHABETS.len())].chars().collect();
                letters[chance.below(letters.len())]
            })
            .collect(),
    }
}
