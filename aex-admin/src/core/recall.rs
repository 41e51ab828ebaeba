//! What a hold keeps of its request beyond its terms, so that other rules can be rehearsed on it later: what
//! it offered and asked for by name, never its text and never its sizes. Pure.

use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::worker::{Facts, Measured};

use super::bound::Rendering;
use super::hold::Terms;

/// Names of tools that are kept, and their bytes together: each hold's event bears them.
pub const MOST_NAMES: usize = 32;
pub const MOST_NAME_BYTES: usize = 1024;

/// What of `facts` is kept, and how many names did not fit. What the terms say themselves is left out, as are
/// names that only the client knows.
#[must_use]
pub fn kept(facts: &Facts) -> (Facts, u64) {
    let mut room = (MOST_NAMES, MOST_NAME_BYTES);
    let tools = within(&facts.tools, &mut room);
    let chosen_tools = within(&facts.chosen_tools, &mut room);
    let costly_params = within(&facts.costly_params, &mut room);
    let named = [
        (&facts.tools, &tools),
        (&facts.chosen_tools, &chosen_tools),
        (&facts.costly_params, &costly_params),
    ];
    let left_out = named
        .iter()
        .map(|(all, kept)| all.len() - kept.len())
        .sum::<usize>();
    let kept = Facts {
        stream: facts.stream,
        tools,
        chosen_tools,
        parallel_tool_calls: facts.parallel_tool_calls,
        structured_output: facts.structured_output,
        temperature: facts.temperature,
        images: facts.images,
        media: facts.media,
        audio: facts.audio,
        files: facts.files,
        other_media: facts.other_media,
        costly_params,
        session: facts.session.clone(),
        measured_by: facts.measured_by.clone(),
        ..Facts::default()
    };
    (kept, left_out as u64)
}

fn within(names: &[String], room: &mut (usize, usize)) -> Vec<String> {
    let fits = |name: &&String| {
        let (count, bytes) = *room;
        let written = written_bytes(name);
        let fits = count > 0 && written <= bytes;
        if fits {
            *room = (count - 1, bytes - written);
        }
        fits
    };
    // One that does not fit ends it: which ones are kept does not depend on their lengths.
    names.iter().take_while(fits).cloned().collect()
}

/// In JSON.
fn written_bytes(name: &str) -> usize {
    let of = |byte: u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    name.bytes().map(of).sum()
}

/// The facts of a request that was granted, as far as they are known. By [`AS_RECORDED`] they come to the
/// bound of its prompt that its terms have.
#[must_use]
pub fn facts_of(terms: &Terms) -> Facts {
    let prompts = terms.prompts.max(1);
    Facts {
        prompts,
        choices: terms.choices / prompts,
        output_cap: (!terms.cap_is_ours && terms.route.generates()).then_some(terms.output_cap),
        own_key: terms.key == KeyMode::Own,
        measured: Some(Measured {
            text: terms.input_tokens,
            tools: 0,
        }),
        ..terms.asked.clone()
    }
}

/// A rendering that adds nothing to what was recorded.
pub const AS_RECORDED: Rendering<'static> = Rendering {
    tokenizer: None,
    context_window: None,
    template_tokens: 0,
    message_tokens: 0,
    tool_factor: 0,
    image_tokens: Some(0),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_up_to_a_bound_and_the_rest_is_counted() {
        let names = |count: usize, bytes: usize| vec!["x".repeat(bytes); count];
        for (tools, chosen, kept_of_tools, left_out) in [
            (names(3, 10), names(1, 10), 3, 0),
            (names(40, 10), names(1, 10), 32, 9),
            (names(20, 100), vec![], 10, 10),
            (names(1, 2000), vec![], 0, 1),
            (vec!["\u{1}".repeat(200)], vec![], 0, 1),
        ] {
            let facts = Facts {
                tools,
                chosen_tools: chosen,
                body_bytes: 7,
                ascii_bytes: 7,
                ..Facts::default()
            };
            let (kept, left) = kept(&facts);
            assert_eq!((kept.tools.len(), left), (kept_of_tools, left_out));
            assert_eq!((kept.body_bytes, kept.ascii_bytes), (0, 0));
        }
    }

    #[test]
    fn what_the_terms_say_comes_back() {
        let (asked, _) = kept(&Facts {
            stream: true,
            session: Some("s".into()),
            ..Facts::default()
        });
        let terms: Terms = serde_json::from_value(serde_json::json!({
            "model": "m", "provider": "p", "upstream_model": "u", "key": "own",
            "price": crate::core::price::Price::FREE,
            "price_source": "s", "hold_pico": 1, "input_tokens": 77, "output_cap": 5, "choices": 6,
            "prompts": 2, "on_disconnect": "drain", "asked": asked,
        }))
        .unwrap();
        let facts = facts_of(&terms);
        assert_eq!((facts.prompts, facts.choices), (2, 3));
        assert_eq!((facts.output_cap, facts.own_key), (Some(5), true));
        assert_eq!(AS_RECORDED.prompt_tokens(&facts), 77);
        assert!(facts.stream && facts.session.as_deref() == Some("s"));
    }
}
