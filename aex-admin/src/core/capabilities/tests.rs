//! Each capability: what it refuses, and what it lets go.

use aex_admin_proto::capabilities::Capabilities;
use aex_admin_proto::worker::Temperature;

use super::*;

fn names(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|&name| name.to_owned()).collect())
}

fn capable(capabilities: Capabilities) -> Settings {
    Settings {
        capabilities: Box::new(capabilities),
        ..Settings::default()
    }
}

fn asked(settings: &Settings, facts: &Facts) -> String {
    match check(settings, Route::ChatCompletions, "groq", facts) {
        Ok(()) => "ok".to_owned(),
        Err(Refusal::CapabilityNotAllowed { capability }) => capability,
        Err(other) => panic!("{other}"),
    }
}

fn offers(tools: &[&str]) -> Facts {
    Facts {
        tools: names(tools).unwrap(),
        ..Facts::default()
    }
}

fn params(unknown: &[&str], costly: &[&str]) -> Facts {
    Facts {
        unknown_params: names(unknown).unwrap(),
        costly_params: names(costly).unwrap(),
        ..Facts::default()
    }
}

#[test]
fn nothing_is_asked_of_a_scope_without_rules() {
    let facts = Facts {
        chosen_tools: vec!["never offered".into()],
        media: true,
        parallel_tool_calls: Some(true),
        structured_output: true,
        choices: 128,
        ..params(&["tool_config", "guided_json"], &["web_search_options"])
    };
    assert_eq!(asked(&Settings::default(), &facts), "ok");
}

#[test]
fn each_capability_refuses_what_it_names_and_nothing_else() {
    let off = |f: fn(&mut Capabilities)| {
        let mut capabilities = Capabilities::default();
        f(&mut capabilities);
        capable(capabilities)
    };
    let fact = |f: fn(&mut Facts)| {
        let mut facts = Facts::default();
        f(&mut facts);
        facts
    };
    let tools = |f: fn(&mut Settings)| {
        let mut settings = Settings::default();
        f(&mut settings);
        settings
    };
    let plain = Facts::default;
    for (settings, facts, expected) in [
        (
            off(|c| c.allowed_routes = Some(vec![Route::Embeddings])),
            plain(),
            "route chat_completions",
        ),
        (
            off(|c| c.allowed_routes = Some(vec![Route::ChatCompletions])),
            plain(),
            "ok",
        ),
        (
            off(|c| c.allowed_providers = names(&["local*"])),
            plain(),
            "provider groq",
        ),
        (
            off(|c| c.allowed_providers = names(&["gr*"])),
            plain(),
            "ok",
        ),
        (
            tools(|s| s.streaming = Some(false)),
            fact(|f| f.stream = true),
            "streaming",
        ),
        (tools(|s| s.streaming = Some(false)), plain(), "ok"),
        (tools(|s| s.tools = Some(false)), offers(&["a"]), "tools"),
        (
            tools(|s| s.tools = Some(false)),
            params(&[], &["plugins"]),
            "tools",
        ),
        (tools(|s| s.tools = Some(false)), plain(), "ok"),
        (
            tools(|s| s.allowed_tools = names(&["a*"])),
            offers(&["ab", "b"]),
            "tool b",
        ),
        (
            tools(|s| s.allowed_tools = names(&["a*"])),
            offers(&["ab"]),
            "ok",
        ),
        (
            tools(|s| s.allowed_tools = names(&["a"])),
            params(&[], &["tools[].type mcp"]),
            "tool mcp",
        ),
        (
            tools(|s| s.allowed_tools = names(&["a"])),
            params(&["tool_config"], &[]),
            "tool tool_config",
        ),
        (
            off(|c| c.denied_tools = names(&["x*"])),
            offers(&["X1"]),
            "tool X1",
        ),
        (
            off(|c| c.denied_tools = names(&["x*"])),
            offers(&["ax"]),
            "ok",
        ),
        (
            off(|c| c.hosted_tools = Some(false)),
            params(&[], &["tools[].type mcp"]),
            "hosted tool mcp",
        ),
        (
            off(|c| c.hosted_tools = Some(false)),
            offers(&["mcp"]),
            "ok",
        ),
        (
            tools(|s| s.vision = Some(false)),
            fact(|f| f.images = 1),
            "vision",
        ),
        (
            off(|c| c.audio = Some(false)),
            fact(|f| {
                f.media = true;
                f.audio = true;
            }),
            "audio",
        ),
        (
            off(|c| c.audio = Some(false)),
            fact(|f| {
                f.media = true;
                f.files = true;
            }),
            "ok",
        ),
        (
            off(|c| c.files = Some(false)),
            fact(|f| {
                f.media = true;
                f.files = true;
            }),
            "files",
        ),
        (off(|c| c.files = Some(false)), fact(|f| f.images = 1), "ok"),
        (
            off(|c| c.files = Some(false)),
            fact(|f| f.media = true),
            "files",
        ),
        (
            off(|c| c.structured_output = Some(false)),
            fact(|f| f.structured_output = true),
            "structured output",
        ),
        (
            off(|c| c.structured_output = Some(false)),
            params(&["guided_json"], &[]),
            "structured output",
        ),
        (
            off(|c| c.structured_output = Some(false)),
            params(&["top_k"], &[]),
            "ok",
        ),
        (
            off(|c| c.parallel_tool_calls = Some(false)),
            fact(|f| f.parallel_tool_calls = Some(true)),
            "parallel tool calls",
        ),
        (
            off(|c| c.parallel_tool_calls = Some(false)),
            offers(&["a", "b"]),
            "ok",
        ),
        (
            off(|c| c.max_choices = Some(2)),
            fact(|f| f.choices = 3),
            "choices above 2",
        ),
        (
            off(|c| c.max_choices = Some(2)),
            fact(|f| f.choices = 2),
            "ok",
        ),
    ] {
        assert_eq!(asked(&settings, &facts), expected, "{settings:?} {facts:?}");
    }
}

#[test]
fn a_temperature_is_compared_exactly() {
    let settings = capable(Capabilities {
        min_temperature_milli: Some(200),
        max_temperature_milli: Some(1500),
        ..Capabilities::default()
    });
    let told = |at_least_milli, at_most_milli| {
        let facts = Facts {
            temperature: Some(Temperature {
                at_least_milli,
                at_most_milli,
            }),
            ..Facts::default()
        };
        asked(&settings, &facts)
    };
    assert_eq!(told(200, 200), "ok");
    assert_eq!(told(1500, 1500), "ok");
    for (least, most) in [(199, 200), (1500, 1501), (-1, 0), (i64::MIN, i64::MAX)] {
        assert_eq!(told(least, most), "temperature outside 0.2..1.5");
    }
    assert_eq!(asked(&settings, &Facts::default()), "ok");
    let other = params(&["Temperature"], &[]);
    assert_eq!(asked(&settings, &other), "temperature outside 0.2..1.5");
}

#[test]
fn audio_and_files_follow_vision_until_they_are_said_themselves() {
    let blind = |audio| Settings {
        vision: Some(false),
        ..capable(Capabilities {
            audio,
            ..Capabilities::default()
        })
    };
    let heard = Facts {
        media: true,
        audio: true,
        ..Facts::default()
    };
    assert_eq!(asked(&blind(None), &heard), "audio");
    assert_eq!(asked(&blind(Some(true)), &heard), "ok");
    let and_seen = Facts {
        other_media: true,
        ..heard
    };
    assert_eq!(asked(&blind(Some(true)), &and_seen), "vision");
}

#[test]
fn what_is_chosen_must_be_offered_and_allowed() {
    let settings = |on_forbidden_tool| Settings {
        allowed_tools: names(&["good", "mcp"]),
        ..capable(Capabilities {
            on_forbidden_tool: Some(on_forbidden_tool),
            ..Capabilities::default()
        })
    };
    for mode in [OnForbiddenTool::Refuse, OnForbiddenTool::Strip] {
        let settings = settings(mode);
        for (offered, costly, chosen, expected) in [
            ("good", "", "good", "ok"),
            ("good", "tools[].type mcp", "type mcp", "ok"),
            ("good", "", "type mcp", "tool type mcp"),
            ("good", "", "bad", "tool bad"),
            (
                "other",
                "",
                "good",
                if mode == OnForbiddenTool::Refuse {
                    "tool other"
                } else {
                    "tool good"
                },
            ),
        ] {
            let facts = Facts {
                chosen_tools: vec![chosen.into()],
                costly_params: if costly.is_empty() {
                    Vec::new()
                } else {
                    vec![costly.into()]
                },
                ..offers(&[offered])
            };
            assert_eq!(asked(&settings, &facts), expected, "{chosen} of {offered}");
        }
    }
}

#[test]
fn stripped_tools_are_as_if_they_had_not_been_offered() {
    let settings = Settings {
        allowed_tools: names(&["good"]),
        ..capable(Capabilities {
            on_forbidden_tool: Some(OnForbiddenTool::Strip),
            ..Capabilities::default()
        })
    };
    let facts = Facts {
        tools: vec!["good".into(), "bad".into()],
        costly_params: vec!["tools[].type mcp".into(), "prediction".into()],
        ..Facts::default()
    };
    assert_eq!(asked(&settings, &facts), "ok");
    let rules = [ToolRules::of(&settings).unwrap()];
    let left = without_stripped(&rules, &facts);
    assert_eq!(left.tools, ["good"]);
    assert_eq!(left.costly_params, ["prediction"]);
    assert!(matches!(without_stripped(&rules, &left), Cow::Borrowed(_)));
    assert_eq!(stripped(&rules, &facts), ["bad", "mcp"]);
    assert!(stripped(&rules, &left).is_empty());
}

#[test]
fn a_tool_that_is_left_out_is_named_once_and_apart_from_its_namesake() {
    let strips = |capabilities: Capabilities| {
        let settings = capable(Capabilities {
            on_forbidden_tool: Some(OnForbiddenTool::Strip),
            ..capabilities
        });
        ToolRules::of(&settings).unwrap()
    };
    let no_hosted = strips(Capabilities {
        hosted_tools: Some(false),
        ..Capabilities::default()
    });
    let no_shell = strips(Capabilities {
        denied_tools: names(&["shell"]),
        ..Capabilities::default()
    });
    let facts = Facts {
        tools: vec!["web_search".into(), "shell".into(), "shell".into()],
        costly_params: vec!["tools[].type web_search".into()],
        ..Facts::default()
    };
    let of = |rules: &[ToolRules]| stripped(rules, &facts);
    assert!(of(&[]).is_empty());
    assert_eq!(of(std::slice::from_ref(&no_hosted)), ["web_search"]);
    assert_eq!(of(std::slice::from_ref(&no_shell)), ["shell"]);
    assert_eq!(of(&[no_hosted, no_shell]), ["shell", "web_search"]);
}
