//! Files made to hurt: refused before they take time or memory.

use proptest::prelude::*;

use super::*;

/// Nine levels of nine aliases each, where any value is taken: 9^10 scalars if it were unfolded.
#[test]
fn an_alias_bomb_is_cut_short() {
    let mut text = "models:\n  m0: { price: &a0 [x, x, x, x, x, x, x, x, x] }\n".to_owned();
    for level in 1..10 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        text += &format!("  m{level}: {{ price: &a{level} [{before}] }}\n");
    }
    let error = bad(&text);
    assert!(
        error.message.contains("too large or too complex"),
        "{error}"
    );
}

#[test]
fn a_merge_bomb_is_cut_short() {
    let mut text = "models:\n  m0: &a0 { provider: far }\n".to_owned();
    for level in 1..40 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        text += &format!("  m{level}: &a{level} {{ <<: [{before}] }}\n");
    }
    let error = bad(&with_provider(&text));
    assert!(
        error.message.contains("too large or too complex"),
        "{error}"
    );
}

#[test]
fn deep_nesting_is_refused() {
    let deep = |open: &str| format!("models: {}\n", open.repeat(200_000));
    for open in ["[", "{", "{a: ", "[[], "] {
        bad(&deep(open));
    }
    let lines: String = (0..1_000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    bad(&lines);
}

#[test]
fn a_long_list_has_an_end() {
    let params = "x, ".repeat(300_000);
    bad(&with_provider(&format!("    extra_params: [{params}]\n")));
    let many: String = (0..257)
        .map(|n| format!("  p{n}: {{ base_url: https://a }}\n"))
        .collect();
    let error = bad(&format!("providers:\n{many}"));
    assert_eq!((error.line, error.column), (Some(258), Some(3)));
    assert_eq!(error.message, "more than 256 providers");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text, Catalogue::builtin());
    }

    /// Pieces of the format in any order: closer to the mark than plain noise.
    #[test]
    fn no_mix_of_pieces_panics(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        let _ = parse(&pieces.concat(), Catalogue::builtin());
    }
}

const PIECES: &[&str] = &[
    "providers:",
    "models:",
    "limits:",
    "price:",
    "free",
    "groq:",
    " ",
    "  ",
    "\n",
    "\n  ",
    "\n    ",
    "base_url: ",
    "https://a/v1",
    "{",
    "}",
    "[",
    "]",
    ",",
    ": ",
    "&a ",
    "*a",
    "<<: ",
    "- ",
    "'",
    "\"",
    "|",
    ">",
    "#",
    "!!str ",
    "---\n",
    "...",
    "? ",
    "~",
    "\t",
    "\u{feff}",
    "\0",
    "0.075",
    "input_per_mtok: ",
    "provider: ",
];
