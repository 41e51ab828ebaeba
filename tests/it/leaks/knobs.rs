//! Parameters that one server or another takes for more output, another model, a fee, or something
//! that it keeps.

use super::case::{
    ALL, CHAT, CHAT_AND_RESPONSES, CHAT_AND_TEXT, Case, EMBEDDINGS, FREE, GENERATING, PRICED,
    RESPONSES, Routes, TEXT_AND_EMBEDDINGS, bad, bad_body, good, good_body,
};

/// What is no known parameter, or costs: refused by its name where there is a price.
const fn costs(name: &'static str, routes: Routes, members: &'static str) -> Case {
    bad(name, routes, members).on(PRICED)
}

const fn costs_body(name: &'static str, routes: Routes, body: &'static str) -> Case {
    bad_body(name, routes, body).on(PRICED)
}

pub(super) const CASES: &[Case] = &[
    // More output than the cap: on no model.
    bad("n_predict", ALL, r#""n_predict":4000"#).saying("n_predict"),
    bad("n_predict -1", ALL, r#""n_predict":-1"#),
    bad("n_predict null", GENERATING, r#""n_predict":"4000""#),
    bad("N_PREDICT", ALL, r#""N_PREDICT":4000"#),
    bad("nPredict", ALL, r#""nPredict":4000"#),
    bad("n_predict escaped", ALL, r#""n\u005fpredict":4000"#),
    bad("num_predict", ALL, r#""num_predict":4000"#),
    bad("numPredict", ALL, r#""numPredict":4000"#),
    bad(
        "options.num_predict",
        ALL,
        r#""options":{"num_predict":4000}"#,
    )
    .saying("options"),
    bad("options empty", ALL, r#""options":{}"#),
    bad("extra_body", ALL, r#""extra_body":{"n_predict":4000}"#).saying("extra_body"),
    bad(
        "extra_body.options",
        ALL,
        r#""extra_body":{"options":{"num_predict":4000}}"#,
    ),
    bad(
        "parameters.max_new_tokens",
        ALL,
        r#""parameters":{"max_new_tokens":4000}"#,
    ),
    bad(
        "generation_config",
        ALL,
        r#""generation_config":{"max_output_tokens":4000}"#,
    ),
    bad(
        "generationConfig",
        ALL,
        r#""generationConfig":{"maxOutputTokens":4000}"#,
    ),
    bad("maxTokens", ALL, r#""maxTokens":4000"#),
    bad("maxOutputTokens", ALL, r#""maxOutputTokens":4000"#),
    bad("Max_Tokens", ALL, r#""Max_Tokens":4000"#),
    bad("max_new_tokens", ALL, r#""max_new_tokens":4000"#),
    bad("max_length", ALL, r#""max_length":4000"#),
    bad(
        "max_tokens_to_sample",
        ALL,
        r#""max_tokens_to_sample":4000"#,
    ),
    bad("auto_max_new_tokens", ALL, r#""auto_max_new_tokens":true"#),
    bad("min_tokens", ALL, r#""min_tokens":4000"#).saying("min_tokens"),
    bad(
        "min_completion_tokens",
        ALL,
        r#""min_completion_tokens":4000"#,
    ),
    bad("min_new_tokens", ALL, r#""min_new_tokens":4000"#),
    bad("min_length", ALL, r#""min_length":4000"#),
    bad("ignore_eos", ALL, r#""ignore_eos":true"#).saying("ignore_eos"),
    bad("ban_eos_token", ALL, r#""ban_eos_token":true"#),
    bad("n_cmpl", ALL, r#""n_cmpl":100"#),
    bad("num_return_sequences", ALL, r#""num_return_sequences":100"#),
    bad("candidate_count", ALL, r#""candidate_count":100"#),
    bad("use_beam_search", ALL, r#""use_beam_search":true"#),
    bad("num_beams", ALL, r#""num_beams":100"#),
    // Another model than the one that was judged: on none.
    bad("models", ALL, r#""models":["vendor/dear","vendor/dearer"]"#).saying("models"),
    bad("route", ALL, r#""route":"fallback""#).saying("route"),
    bad("fallbacks", ALL, r#""fallbacks":["vendor/dear"]"#),
    bad("engine", ALL, r#""engine":"vendor/dear""#),
    // What costs on top.
    costs("plugins", ALL, r#""plugins":[{"id":"web"}]"#).saying("plugins"),
    costs("web_search_options", ALL, r#""web_search_options":{}"#).saying("web_search_options"),
    costs(
        "search_parameters",
        ALL,
        r#""search_parameters":{"mode":"on"}"#,
    )
    .saying("extra_params"),
    costs("web_search", ALL, r#""web_search":true"#).saying("extra_params"),
    costs("transforms", ALL, r#""transforms":["middle-out"]"#).saying("transforms"),
    costs("provider", ALL, r#""provider":{"order":["dear"]}"#).saying("provider"),
    costs(
        "prediction",
        GENERATING,
        r#""prediction":{"type":"content","content":"a b c d e f g"}"#,
    )
    .saying("prediction"),
    costs(
        "prediction in parts",
        CHAT,
        r#""prediction":{"type":"content","content":[{"type":"text","text":"a b c"}]}"#,
    ),
    costs("audio", ALL, r#""audio":{"voice":"alloy","format":"wav"}"#).saying("audio"),
    costs(
        "modalities with audio",
        ALL,
        r#""modalities":["text","audio"]"#,
    )
    .saying("modalities"),
    costs(
        "modalities with images",
        CHAT,
        r#""modalities":["image","text"]"#,
    ),
    costs(
        "modalities twice text",
        CHAT,
        r#""modalities":["text","text"]"#,
    ),
    costs("modalities a string", CHAT, r#""modalities":"audio""#),
    costs("modalities escaped", CHAT, r#""modalities":["\u0061udio"]"#),
    good(
        "modalities of text",
        CHAT,
        r#""modalities":["text"]"#,
        r#"{"modalities":["text"]}"#,
    ),
    costs(
        "prompt_cache_retention",
        CHAT_AND_RESPONSES,
        r#""prompt_cache_retention":"24h""#,
    ),
    costs(
        "thinking",
        ALL,
        r#""thinking":{"type":"enabled","budget_tokens":4000}"#,
    )
    .saying("extra_params"),
    costs("cached_content", ALL, r#""cached_content":"x""#).saying("extra_params"),
    costs("n in capitals", ALL, r#""N":2"#),
    costs("n in a row of its own", ALL, r#""n ":2"#),
    // Tiers.
    good(
        "a dearer tier",
        CHAT_AND_RESPONSES,
        r#""service_tier":"priority""#,
        r#"{"service_tier":"default"}"#,
    ),
    good(
        "a tier of the account",
        CHAT_AND_RESPONSES,
        r#""service_tier":"auto""#,
        r#"{"service_tier":"default"}"#,
    ),
    good(
        "a cheaper tier",
        CHAT_AND_RESPONSES,
        r#""service_tier":"flex""#,
        r#"{"service_tier":"default"}"#,
    ),
    good(
        "no tier",
        CHAT_AND_RESPONSES,
        r#""service_tier":null"#,
        "{}",
    ),
    good(
        "a tier that is no text",
        CHAT_AND_RESPONSES,
        r#""service_tier":["priority"]"#,
        r#"{"service_tier":"default"}"#,
    ),
    costs(
        "a tier elsewhere",
        TEXT_AND_EMBEDDINGS,
        r#""service_tier":"priority""#,
    )
    .saying("service_tier"),
    // What is kept, or was.
    good(
        "store",
        CHAT_AND_RESPONSES,
        r#""store":true"#,
        r#"{"store":false}"#,
    ),
    good("store null", CHAT_AND_RESPONSES, r#""store":null"#, "{}"),
    bad("store a string", CHAT_AND_RESPONSES, r#""store":"true""#),
    costs("store elsewhere", TEXT_AND_EMBEDDINGS, r#""store":true"#).saying("store"),
    costs(
        "previous_response_id",
        ALL,
        r#""previous_response_id":"resp_kept_1""#,
    )
    .saying("previous_response_id"),
    costs("conversation", ALL, r#""conversation":"conv_1""#).saying("conversation"),
    costs(
        "conversation an object",
        RESPONSES,
        r#""conversation":{"id":"conv_1"}"#,
    ),
    costs(
        "prompt by its id",
        CHAT_AND_RESPONSES,
        r#""prompt":{"id":"pmpt_1","variables":{}}"#,
    )
    .saying("prompt"),
    costs("prompt_id", ALL, r#""prompt_id":"pmpt_1""#).saying("extra_params"),
    costs("background", ALL, r#""background":true"#).saying("background"),
    costs(
        "context_management",
        RESPONSES,
        r#""context_management":[{"type":"compaction"}]"#,
    ),
    costs_body(
        "an item by its id",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"item_reference","id":"msg_1"}],"CAP":5}"#,
    ),
    costs_body(
        "an item by its id alone",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"id":"msg_1"}],"CAP":5}"#,
    ),
    costs_body(
        "an item of type null, by its id",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":null,"id":"msg_1"}],"CAP":5}"#,
    ),
    costs_body(
        "an item by its id, escaped",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"item\u005freference","id":"msg_1"}],"CAP":5}"#,
    ),
    costs_body(
        "an item of an unknown type",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"dear_thing","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "a compaction",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"compaction","encrypted_content":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item file_search_call",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"file_search_call","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item web_search_call",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"web_search_call","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item computer_call",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"computer_call","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item computer_call_output",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"computer_call_output","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item code_interpreter_call",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"code_interpreter_call","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item image_generation_call",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"image_generation_call","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item local_shell_call",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"local_shell_call","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item local_shell_call_output",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"local_shell_call_output","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item shell_call",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"shell_call","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item apply_patch_call",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"apply_patch_call","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item mcp_call",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"mcp_call","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item mcp_list_tools",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"mcp_list_tools","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item mcp_approval_request",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"mcp_approval_request","id":"x"}],"CAP":5}"#,
    ),
    costs_body(
        "item mcp_approval_response",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"mcp_approval_response","id":"x"}],"CAP":5}"#,
    ),
    good_body(
        "reasoning by its id leads nowhere",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"hi"},{"type":"item_reference","id":"rs_1"}],"CAP":5}"#,
        r#"{"input":[{"role":"user","content":"hi"}]}"#,
    ),
    // Hosted tools, by whatever type.
    costs(
        "tool web_search",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"web_search","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool web_search_preview",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"web_search_preview","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool web_search_2025_08_26",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"web_search_2025_08_26","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool file_search",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"file_search","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool computer",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"computer","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool computer_use_preview",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"computer_use_preview","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool code_interpreter",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"code_interpreter","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool image_generation",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"image_generation","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool mcp",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"mcp","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool local_shell",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"local_shell","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool shell",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"shell","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool apply_patch",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"apply_patch","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool tool_search",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"tool_search","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool browser_search",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"browser_search","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool openrouter:web_search",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"openrouter:web_search","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool url_context",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"url_context","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool FUNCTION",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"FUNCTION","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool function ",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"function ","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "tool of no type's name",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"","name":"f","function":{"name":"f"}}]"#,
    )
    .saying("tools[].type"),
    costs(
        "a hosted tool after a function",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"function","name":"f","function":{"name":"f"}},{"type":"web_search"}]"#,
    ),
    costs(
        "a hosted tool, its type last",
        CHAT_AND_RESPONSES,
        r#""tools":[{"function":{"name":"f"},"name":"f","type":"web_search"}]"#,
    ),
    costs(
        "a hosted tool, escaped",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"web\u005fsearch"}]"#,
    ),
    costs(
        "a tool without a type",
        CHAT_AND_RESPONSES,
        r#""tools":[{"name":"web_search","function":{"name":"f"}}]"#,
    ),
    costs(
        "a tool of type null",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":null,"name":"f","function":{"name":"f"}}]"#,
    ),
    costs(
        "a namespace of tools",
        RESPONSES,
        r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"web_search"}]}]"#,
    ),
    bad(
        "tools as an object",
        CHAT_AND_RESPONSES,
        r#""tools":{"type":"web_search"}"#,
    ),
    bad(
        "tools as text",
        CHAT_AND_RESPONSES,
        r#""tools":"web_search""#,
    ),
    bad(
        "a tool without a name",
        CHAT_AND_RESPONSES,
        r#""tools":[{"type":"function"}]"#,
    ),
    costs(
        "tools where there are none",
        TEXT_AND_EMBEDDINGS,
        r#""tools":[{"type":"web_search"}]"#,
    )
    .saying("tools"),
    good(
        "a function",
        CHAT,
        r#""tools":[{"type":"function","function":{"name":"f","description":"What it does.","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}]"#,
        "{}",
    ),
    good(
        "a function",
        RESPONSES,
        r#""tools":[{"type":"function","name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}]"#,
        "{}",
    ),
    good(
        "a schema",
        CHAT,
        r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","properties":{"a,b":{"enum":["!!!!!!","??????"]}}}}}"#,
        "{}",
    ),
    good(
        "a schema",
        RESPONSES,
        r#""text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object","properties":{"a,b":{"enum":["!!!!!!","??????"]}}}}}"#,
        "{}",
    ),
    // What costs by item, and has no price here.
    costs_body(
        "an image",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}],"CAP":5}"#,
    ),
    costs_body(
        "audio",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}],"CAP":5}"#,
    ),
    costs_body(
        "a file",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}],"CAP":5}"#,
    ),
    costs_body(
        "a video",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"type":"video_url","video_url":{"url":"https://x"}}]}],"CAP":5}"#,
    ),
    costs_body(
        "a part of no type",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"text":"hi"}]}],"CAP":5}"#,
    ),
    costs_body(
        "a part of an unknown type",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"type":"dear","text":"hi"}]}],"CAP":5}"#,
    ),
    costs_body(
        "a text with an image in it",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"type":"text","text":"hi","image_url":{"url":"https://x"}}]}],"CAP":5}"#,
    ),
    costs_body(
        "a text with a file in it",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"type":"text","text":"hi","file":{"file_id":"file-1"}}]}],"CAP":5}"#,
    ),
    costs_body(
        "an image",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x/y.png"}]}],"CAP":5}"#,
    ),
    costs_body(
        "an image by its id",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":[{"type":"input_image","file_id":"file-1"}]}],"CAP":5}"#,
    ),
    costs_body(
        "a file",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}],"CAP":5}"#,
    ),
    costs_body(
        "a file by its address",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":[{"type":"input_file","file_url":"https://x"}]}],"CAP":5}"#,
    ),
    costs_body(
        "a text with a file in it",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":[{"type":"input_text","text":"hi","file_url":"https://x"}]}],"CAP":5}"#,
    ),
    costs_body(
        "a text with a file's id in it",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":[{"type":"input_text","text":"hi","file_id":"file-1"}]}],"CAP":5}"#,
    ),
    costs_body(
        "an image as a tool's output",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"https://x"}]}],"CAP":5}"#,
    ),
    costs_body(
        "an earlier answer's audio",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"assistant","audio":{"id":"audio_1"}}],"CAP":5}"#,
    ),
    // Unknown ones.
    costs("an unknown parameter", ALL, r#""no_such_thing":1"#).saying(
        "unknown parameter no_such_thing; the operator can let it through with extra_params",
    ),
    costs("an unknown parameter, null", ALL, r#""no_such_thing":null"#).saying("no_such_thing"),
    costs("an empty name", ALL, r#""":1"#),
    costs(
        "a known one of another route",
        TEXT_AND_EMBEDDINGS,
        r#""reasoning_effort":"high""#,
    )
    .saying("reasoning_effort"),
    good(
        "one that the operator lets through",
        ALL,
        r#""let_through":[1]"#,
        r#"{"let_through":[1]}"#,
    ),
    good(
        "an unknown one where nothing costs",
        ALL,
        r#""top_k":5"#,
        r#"{"top_k":5}"#,
    )
    .on(FREE),
    // Known ones, as they are.
    good(
        "known ones",
        CHAT_AND_TEXT,
        r#""temperature":0.25,"top_p":0.5,"stop":["x"],"seed":3,"user":"u","logit_bias":{"5":-100},"presence_penalty":1e0"#,
        r#"{"temperature":0.25,"seed":3,"stop":["x"],"logit_bias":{"5":-100}}"#,
    ),
    good(
        "known ones",
        RESPONSES,
        r#""temperature":0.25,"truncation":"auto","max_tool_calls":3,"reasoning":{"effort":"high"},"include":[]"#,
        r#"{"truncation":"auto","max_tool_calls":3}"#,
    ),
    good(
        "known ones",
        EMBEDDINGS,
        r#""dimensions":8,"encoding_format":"base64","user":"u""#,
        r#"{"dimensions":8}"#,
    ),
];
