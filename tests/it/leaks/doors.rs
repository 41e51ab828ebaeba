//! Other paths to a provider, other names for a model, and other doors for a token.

use super::case::{ALL, CHAT, Case, Change, PRICED, passed, refused};

const fn no_target(name: &'static str, target: &'static str) -> Case {
    refused(name, ALL, 404, Change::Target(target)).on(PRICED)
}

const fn no_route(name: &'static str, method: &'static str, target: &'static str) -> Case {
    refused(name, CHAT, 404, Change::Line(method, target)).on(PRICED)
}

const fn no_method(name: &'static str, method: &'static str) -> Case {
    refused(name, ALL, 405, Change::Line(method, "PATH")).on(PRICED)
}

const fn no_model(name: &'static str, model: &'static str) -> Case {
    refused(name, ALL, 404, Change::Name(model)).on(PRICED)
}

const fn no_name(name: &'static str, model: &'static str) -> Case {
    refused(name, ALL, 400, Change::Name(model)).on(PRICED)
}

const fn no_door(name: &'static str, lines: &'static str) -> Case {
    refused(name, ALL, 401, Change::Door(lines)).on(PRICED)
}

pub(super) const CASES: &[Case] = &[
    // Paths.
    no_target("a slash before", "/PATH"),
    no_target("a slash after", "PATH/"),
    no_target("a double slash", "/v1/PATH"),
    no_target("no version", "/chat/completions"),
    no_target("another version", "/v2/chat/completions"),
    no_target("a capital version", "/V1/chat/completions"),
    no_target("an encoded letter", "/v1/%63hat/completions"),
    no_target("an encoded letter", "/v1/%65mbeddings"),
    no_target("an encoded letter", "/v1/%72esponses"),
    no_target("an encoded slash", "/v1%2Fchat%2Fcompletions"),
    no_target("an encoded slash at the end", "PATH%2f"),
    no_target("an encoded NUL", "PATH%00"),
    no_target("an encoded question mark", "PATH%3fx"),
    no_target("a dot", "/./PATH"),
    no_target("two dots", "/v1/chat/../chat/completions"),
    no_target("two dots, encoded", "/v1/chat/%2e%2e/chat/completions"),
    no_target("two dots out of a file", "/v1/files/..PATH"),
    no_target("a parameter of a segment", "PATH;x=1"),
    no_target("a backslash", "/v1\\chat\\completions"),
    no_target("a space at the end", "PATH%20"),
    no_target("an absolute target", "http://127.0.0.1PATH"),
    no_target("an absolute target elsewhere", "https://api.openai.comPATH"),
    no_target("an engine's path", "/v1/engines/pricedPATH"),
    no_target(
        "a deployment's path",
        "/openai/deployments/priced/chat/completions?api-version=1",
    ),
    no_target("a server's own path", "/completion"),
    no_target("a server's own path", "/api/generate"),
    no_target("a server's own path", "/api/chat"),
    no_target(
        "a server's own path",
        "/v1beta/models/priced:generateContent",
    ),
    no_target("a server's own path", "/v1/messages"),
    refused("a query", ALL, 400, Change::Target("PATH?api_key=x")).on(PRICED),
    refused("an empty query", ALL, 400, Change::Target("PATH?")).on(PRICED),
    refused(
        "a query of knobs",
        ALL,
        400,
        Change::Target("PATH?max_tokens=9"),
    )
    .on(PRICED),
    // Methods.
    no_method("GET", "GET"),
    no_method("PUT", "PUT"),
    no_method("PATCH", "PATCH"),
    no_method("DELETE", "DELETE"),
    no_method("OPTIONS", "OPTIONS"),
    no_method("TRACE", "TRACE"),
    no_method("post", "post"),
    no_method("a method of its own", "SPEND"),
    no_route("CONNECT", "CONNECT", "api.openai.com:443"),
    // What is not governed.
    no_route("files", "POST", "/v1/files"),
    no_route("files listed", "GET", "/v1/files"),
    no_route("a file", "GET", "/v1/files/file-1/content"),
    no_route("uploads", "POST", "/v1/uploads"),
    no_route("batches", "POST", "/v1/batches"),
    no_route("a batch", "GET", "/v1/batches/batch_1"),
    no_route("realtime", "GET", "/v1/realtime?model=priced"),
    no_route("realtime sessions", "POST", "/v1/realtime/sessions"),
    no_route("realtime secrets", "POST", "/v1/realtime/client_secrets"),
    no_route("a stored response", "GET", "/v1/responses/resp_1"),
    no_route(
        "a stored response deleted",
        "DELETE",
        "/v1/responses/resp_1",
    ),
    no_route(
        "a stored response's input",
        "GET",
        "/v1/responses/resp_1/input_items",
    ),
    no_route(
        "a stored response cancelled",
        "POST",
        "/v1/responses/resp_1/cancel",
    ),
    no_route("a response compacted", "POST", "/v1/responses/compact"),
    no_route("a response counted", "POST", "/v1/responses/input_tokens"),
    no_route("a stored chat", "GET", "/v1/chat/completions/chatcmpl_1"),
    no_route(
        "a stored chat changed",
        "POST",
        "/v1/chat/completions/chatcmpl_1",
    ),
    no_route("conversations", "POST", "/v1/conversations"),
    no_route("images", "POST", "/v1/images/generations"),
    no_route("images edited", "POST", "/v1/images/edits"),
    no_route("images varied", "POST", "/v1/images/variations"),
    no_route("videos", "POST", "/v1/videos"),
    no_route("speech", "POST", "/v1/audio/speech"),
    no_route("transcriptions", "POST", "/v1/audio/transcriptions"),
    no_route("translations", "POST", "/v1/audio/translations"),
    no_route("moderations", "POST", "/v1/moderations"),
    no_route("edits", "POST", "/v1/edits"),
    no_route("rerank", "POST", "/v1/rerank"),
    no_route("tokenize", "POST", "/tokenize"),
    no_route("fine-tuning", "POST", "/v1/fine_tuning/jobs"),
    no_route("fine-tunes", "POST", "/v1/fine-tunes"),
    no_route("assistants", "POST", "/v1/assistants"),
    no_route("threads", "POST", "/v1/threads/runs"),
    no_route("vector stores", "POST", "/v1/vector_stores"),
    no_route("containers", "POST", "/v1/containers"),
    no_route("evals", "POST", "/v1/evals"),
    no_route("the account", "GET", "/v1/organization/usage/completions"),
    no_route(
        "the account's keys",
        "GET",
        "/v1/organization/admin_api_keys",
    ),
    no_route("billing", "GET", "/v1/dashboard/billing/usage"),
    no_route("an index of the provider's", "GET", "/_sim/bill"),
    no_route("an index of a server's", "GET", "/metrics"),
    // Models.
    no_model("in capitals", "PRICED"),
    no_model("with one capital", "Priced"),
    no_model("with its provider", "openai/priced"),
    no_model("by its upstream name", "vendor/priced"),
    no_model("with a suffix", "priced:online"),
    no_model("with a tag", "priced:latest"),
    no_model("with a date", "priced-2026-01-01"),
    no_model("with a space after", "priced "),
    no_model("with a space before", " priced"),
    no_model("with a tab", "priced\\t"),
    no_model("with a newline", "priced\\n"),
    no_model("with a NUL", "priced\\u0000"),
    no_model("with a NUL and more", "priced\\u0000-dear"),
    no_model("with a look-alike", "pric\u{435}d"),
    no_model("in full width", "\u{ff50}riced"),
    no_model("composed", "pric\u{e9}d"),
    no_model("decomposed", "price\u{301}d"),
    no_model("with a joiner", "pri\u{200d}ced"),
    no_model("with a mark of direction", "\u{202e}priced"),
    no_model("with a soft hyphen", "pri\u{ad}ced"),
    no_model("with a slash", "priced/"),
    no_model("with a path", "../priced"),
    no_model("two of them", "priced,free"),
    no_model("a pattern", "*"),
    no_name("empty", ""),
    no_name(
        "300 bytes long",
        "pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp",
    ),
    no_name("a name that ends its string", "priced\",\"model\":\"free"),
    passed(
        "escaped, it is the same name",
        ALL,
        Change::Name("pr\\u0069ced"),
    ),
    // Doors.
    no_door("no door", ""),
    no_door("x-api-key", "x-api-key: TOKEN"),
    no_door("api-key", "api-key: TOKEN"),
    no_door("x-goog-api-key", "x-goog-api-key: TOKEN"),
    no_door("proxy-authorization", "proxy-authorization: Bearer TOKEN"),
    no_door("a cookie", "cookie: authorization=Bearer TOKEN"),
    no_door("the provider's header alone", "x-aex-provider-key: TOKEN"),
    no_door("Basic", "authorization: Basic TOKEN"),
    no_door("no scheme", "authorization: TOKEN"),
    no_door("two spaces", "authorization: Bearer  TOKEN"),
    no_door("two tokens", "authorization: Bearer TOKEN TOKEN"),
    no_door(
        "a list of tokens",
        "authorization: Bearer TOKEN, Bearer TOKEN",
    ),
    no_door(
        "twice",
        "authorization: Bearer TOKEN\nauthorization: Bearer TOKEN",
    ),
    no_door(
        "twice, once another",
        "authorization: Bearer TOKEN\nauthorization: Bearer sk-other",
    ),
    no_door("a token and more", "authorization: Bearer TOKENx"),
    no_door("a quoted token", "authorization: Bearer \"TOKEN\""),
    refused(
        "a query and no header",
        ALL,
        400,
        Change::Target("PATH?token=TOKEN"),
    )
    .on(PRICED),
    refused(
        "an own key where none is allowed",
        ALL,
        403,
        Change::Headers("x-aex-provider-key: sk-own"),
    )
    .on(PRICED),
    refused(
        "an own key twice",
        ALL,
        400,
        Change::Headers("x-aex-provider-key: sk-own\nx-aex-provider-key: sk-two"),
    )
    .on(PRICED),
    passed(
        "the scheme's case",
        ALL,
        Change::Door("authorization: bEaReR TOKEN"),
    ),
    passed(
        "another key beside the token is nobody's",
        ALL,
        Change::Headers("x-api-key: canary-of-agent\napi-key: canary-of-agent"),
    ),
];
