//! Numbers that are none, too large, or multiplied.

use super::case::{
    ALL, CHAT, CHAT_AND_TEXT, Case, EMBEDDINGS, EMBEDDINGS_AND_RESPONSES, FREE, GENERATING,
    NOT_TEXT, RESPONSES, TEXT, TEXT_AND_EMBEDDINGS, bad, bad_body, bad_made, good, good_body,
};

fn too_many_prompts(body: &str) -> Vec<u8> {
    let list = vec!["\"x\""; 2049].join(",");
    body.replace("\"hi\"", &format!("[{list}]")).into_bytes()
}

fn too_long_a_number(body: &str) -> Vec<u8> {
    body.replacen('{', &format!("{{\"seed\":{},", "9".repeat(400)), 1)
        .replace(":5", &format!(":{}", "9".repeat(5000)))
        .into_bytes()
}

pub(super) const CASES: &[Case] = &[
    bad("cap negative", GENERATING, r#""CAP":-1"#),
    bad("cap zero", GENERATING, r#""CAP":0"#),
    bad("cap negative zero", GENERATING, r#""CAP":-0"#),
    bad("cap 2^31", GENERATING, r#""CAP":2147483648"#),
    bad("cap 2^32-1", GENERATING, r#""CAP":4294967295"#),
    bad("cap 2^32+5", GENERATING, r#""CAP":4294967301"#),
    bad("cap 2^63", GENERATING, r#""CAP":9223372036854775808"#),
    bad("cap 2^64-1", GENERATING, r#""CAP":18446744073709551615"#),
    bad("cap 2^64+5", GENERATING, r#""CAP":18446744073709551621"#),
    bad("cap 1e999", GENERATING, r#""CAP":1e999"#),
    bad("cap -1e999", GENERATING, r#""CAP":-1e999"#),
    bad("cap 5e0", GENERATING, r#""CAP":5e0"#),
    bad("cap 5.0", GENERATING, r#""CAP":5.0"#),
    bad("cap a fraction", GENERATING, r#""CAP":1.5"#),
    bad("cap with a zero before", GENERATING, r#""CAP":05"#),
    bad("cap with a plus", GENERATING, r#""CAP":+5"#),
    bad("cap hexadecimal", GENERATING, r#""CAP":0x5"#),
    bad("cap NaN", GENERATING, r#""CAP":NaN"#),
    bad("cap Infinity", GENERATING, r#""CAP":Infinity"#),
    bad("cap a string", GENERATING, r#""CAP":"5""#),
    bad("cap true", GENERATING, r#""CAP":true"#),
    bad("cap false", GENERATING, r#""CAP":false"#),
    bad("cap a list", GENERATING, r#""CAP":[5]"#),
    bad("cap an object", GENERATING, r#""CAP":{"value":5}"#),
    bad("cap above the model's", GENERATING, r#""CAP":4097"#),
    bad_made("cap of 5000 digits", GENERATING, too_long_a_number),
    good("cap as it is", GENERATING, r#""CAP":5"#, r#"{"CAP":5}"#),
    good(
        "cap at the model's own",
        GENERATING,
        r#""CAP":4096"#,
        r#"{"CAP":4096}"#,
    ),
    good(
        "cap null is no cap",
        GENERATING,
        r#""CAP":null"#,
        r#"{"CAP":4096}"#,
    ),
    good_body(
        "no cap at all",
        GENERATING,
        r#"{"model":"MODEL",PROMPT}"#,
        r#"{"CAP":4096}"#,
    ),
    good_body(
        "no generation, no cap",
        EMBEDDINGS,
        r#"{"model":"MODEL",PROMPT}"#,
        "{}",
    ),
    bad("n negative", ALL, r#""n":-1"#),
    bad("n zero", ALL, r#""n":0"#),
    bad("n 129", ALL, r#""n":129"#),
    bad("n 2^32+1", ALL, r#""n":4294967297"#),
    bad("n 2^64+1", ALL, r#""n":18446744073709551617"#),
    bad("n 1e999", ALL, r#""n":1e999"#),
    bad("n 2.0", ALL, r#""n":2.0"#),
    bad("n a string", ALL, r#""n":"2""#),
    bad("n true", ALL, r#""n":true"#),
    bad(
        "n where there are no choices",
        EMBEDDINGS_AND_RESPONSES,
        r#""n":2"#,
    ),
    good(
        "n multiplies",
        CHAT_AND_TEXT,
        r#""n":3"#,
        r#"{"n":3,"CAP":5}"#,
    ),
    good(
        "n multiplies a cap that is ours",
        CHAT_AND_TEXT,
        r#""CAP":null,"n":128"#,
        r#"{"n":128}"#,
    ),
    good("n null", CHAT_AND_TEXT, r#""n":null"#, "{}"),
    bad("best_of negative", ALL, r#""best_of":-1"#),
    bad("best_of zero", ALL, r#""best_of":0"#),
    bad("best_of 2^64+1", ALL, r#""best_of":18446744073709551617"#),
    bad("best_of a string", ALL, r#""best_of":"2""#),
    bad("best_of elsewhere", NOT_TEXT, r#""best_of":2"#),
    good(
        "best_of multiplies",
        TEXT,
        r#""best_of":4"#,
        r#"{"best_of":4}"#,
    ),
    good(
        "best_of over n",
        TEXT,
        r#""n":2,"best_of":7"#,
        r#"{"n":2,"best_of":7}"#,
    ),
    good(
        "n under best_of",
        TEXT,
        r#""best_of":7,"n":2"#,
        r#"{"n":2,"best_of":7}"#,
    ),
    good_body(
        "a list of prompts",
        TEXT,
        r#"{"model":"MODEL","prompt":["a","b","c"],"CAP":5,"n":2}"#,
        r#"{"n":2}"#,
    ),
    good_body(
        "a list of inputs",
        EMBEDDINGS,
        r#"{"model":"MODEL","input":["a","b","c"]}"#,
        "{}",
    ),
    good_body(
        "tokens",
        TEXT,
        r#"{"model":"MODEL","prompt":[1,2,4294967295],"CAP":5}"#,
        "{}",
    ),
    good_body(
        "lists of tokens",
        TEXT,
        r#"{"model":"MODEL","prompt":[[1,2],[3]],"CAP":5,"best_of":3}"#,
        "{}",
    ),
    good_body(
        "inputs as tokens",
        EMBEDDINGS,
        r#"{"model":"MODEL","input":[1,2,3]}"#,
        "{}",
    ),
    good_body(
        "inputs as lists of tokens",
        EMBEDDINGS,
        r#"{"model":"MODEL","input":[[1,2],[3]]}"#,
        "{}",
    ),
    good(
        "a suffix for each prompt",
        TEXT,
        r#""suffix":"and so on""#,
        r#"{"suffix":"and so on"}"#,
    ),
    bad_body(
        "a suffix for many",
        TEXT,
        r#"{"model":"MODEL","prompt":["a","b","c","d","e","f"],"CAP":5,"suffix":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#,
    ),
    good("an echo", TEXT, r#""echo":true"#, r#"{"echo":true}"#),
    bad_body(
        "a token that is negative",
        TEXT,
        r#"{"model":"MODEL","prompt":[-1],"CAP":5}"#,
    ),
    bad_body(
        "a token that is a fraction",
        TEXT,
        r#"{"model":"MODEL","prompt":[1.5],"CAP":5}"#,
    ),
    bad_body(
        "a token of 33 bits",
        TEXT,
        r#"{"model":"MODEL","prompt":[4294967296],"CAP":5}"#,
    ),
    bad_body(
        "a token that is null",
        TEXT,
        r#"{"model":"MODEL","prompt":[null],"CAP":5}"#,
    ),
    bad_body(
        "tokens among prompts",
        TEXT,
        r#"{"model":"MODEL","prompt":["a",1],"CAP":5}"#,
    ),
    bad_body(
        "lists of lists of tokens",
        TEXT,
        r#"{"model":"MODEL","prompt":[[[1]]],"CAP":5}"#,
    ),
    bad_body(
        "no prompts",
        TEXT,
        r#"{"model":"MODEL","prompt":[],"CAP":5}"#,
    ),
    bad_body(
        "an empty prompt of tokens",
        TEXT,
        r#"{"model":"MODEL","prompt":[[]],"CAP":5}"#,
    ),
    bad_body(
        "a prompt that is an object",
        TEXT,
        r#"{"model":"MODEL","prompt":{"id":"pmpt_1"},"CAP":5}"#,
    ),
    bad_body(
        "a prompt that is null",
        TEXT,
        r#"{"model":"MODEL","prompt":null,"CAP":5}"#,
    ),
    bad_body(
        "an input that is null",
        EMBEDDINGS_AND_RESPONSES,
        r#"{"model":"MODEL","input":null}"#,
    ),
    bad_body(
        "no inputs",
        EMBEDDINGS_AND_RESPONSES,
        r#"{"model":"MODEL","input":[]}"#,
    ),
    bad_body(
        "tokens as a response's input",
        RESPONSES,
        r#"{"model":"MODEL","input":[1,2]}"#,
    ),
    bad_body(
        "no messages",
        CHAT,
        r#"{"model":"MODEL","messages":[],"CAP":5}"#,
    ),
    bad_body(
        "messages that are text",
        CHAT,
        r#"{"model":"MODEL","messages":"hi","CAP":5}"#,
    ),
    bad_made("2049 of them", TEXT_AND_EMBEDDINGS, too_many_prompts),
    bad("echo a string", TEXT, r#""echo":"true""#).on(FREE),
    bad("top_logprobs is not n", ALL, r#""num_return_sequences":2"#),
];
