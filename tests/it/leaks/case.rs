//! One case: a good request, what is changed of it, and what must come of that.

use aex_admin_proto::worker::Route;

pub(super) type Routes = &'static [Route];
pub(super) const CHAT: Routes = &[Route::ChatCompletions];
pub(super) const TEXT: Routes = &[Route::Completions];
pub(super) const EMBEDDINGS: Routes = &[Route::Embeddings];
pub(super) const RESPONSES: Routes = &[Route::Responses];
pub(super) const CHAT_AND_TEXT: Routes = &[Route::ChatCompletions, Route::Completions];
pub(super) const CHAT_AND_RESPONSES: Routes = &[Route::ChatCompletions, Route::Responses];
pub(super) const TEXT_AND_EMBEDDINGS: Routes = &[Route::Completions, Route::Embeddings];
pub(super) const EMBEDDINGS_AND_RESPONSES: Routes = &[Route::Embeddings, Route::Responses];
pub(super) const GENERATING: Routes =
    &[Route::ChatCompletions, Route::Completions, Route::Responses];
pub(super) const NOT_TEXT: Routes = &[Route::ChatCompletions, Route::Embeddings, Route::Responses];
pub(super) const NOT_RESPONSES: Routes = &[
    Route::ChatCompletions,
    Route::Completions,
    Route::Embeddings,
];
pub(super) const ALL: Routes = &Route::ALL;

/// Models of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    /// Has a price, at a provider that has tiers and keeps what it is not told to forget.
    Priced,
    /// Costs nothing, on this machine.
    Free,
}

pub(super) const PRICED: &[Model] = &[Model::Priced];
pub(super) const FREE: &[Model] = &[Model::Free];
pub(super) const BOTH: &[Model] = &[Model::Priced, Model::Free];

/// What is changed. In texts, `CAP` is the route's own output cap, `MODEL` the model's name, `PROMPT`
/// the member that the route is about, `PATH` the route's path, `TOKEN` the agent's token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// Members put at the body's end; where no cap is among them, a cap of 5 goes before.
    Members(&'static str),
    /// The whole body.
    Body(&'static str),
    /// Bytes made of a good body.
    Made(fn(&str) -> Vec<u8>),
    /// The model's name, as it stands in the JSON.
    Name(&'static str),
    Target(&'static str),
    /// A method and a target.
    Line(&'static str, &'static str),
    /// Header lines besides the usual ones.
    Headers(&'static str),
    /// Header lines in place of the authorization.
    Door(&'static str),
    /// Header lines besides the authorization, and bytes made of a good body.
    Packed(&'static str, fn(&str) -> Vec<u8>),
    /// All bytes of the request, of path, token and good body.
    Wire(fn(&str, &str, &str) -> Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// With this status, and in its detail these words. Nothing is forwarded or held.
    Refused(u16, &'static str),
    /// By a 4xx, or by the end of the connection. Nothing is forwarded or held.
    Dropped,
    /// With these members in the body, `CAP` being the provider's own name for the output cap; null
    /// ones are absent. And with the one cap, within the hold, and without a fee.
    Forwarded(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) routes: Routes,
    pub(super) models: &'static [Model],
    pub(super) change: Change,
    pub(super) expected: Expected,
}

impl Case {
    const fn new(name: &'static str, routes: Routes, change: Change, expected: Expected) -> Self {
        Self {
            name,
            routes,
            models: BOTH,
            change,
            expected,
        }
    }

    /// On these models alone.
    pub(super) const fn on(mut self, models: &'static [Model]) -> Self {
        self.models = models;
        self
    }

    /// With these words in the refusal's detail.
    pub(super) const fn saying(mut self, words: &'static str) -> Self {
        if let Expected::Refused(status, _) = self.expected {
            self.expected = Expected::Refused(status, words);
        }
        self
    }
}

/// A body that is refused for these members.
pub(super) const fn bad(name: &'static str, routes: Routes, members: &'static str) -> Case {
    Case::new(
        name,
        routes,
        Change::Members(members),
        Expected::Refused(400, ""),
    )
}

/// A body that is refused as a whole.
pub(super) const fn bad_body(name: &'static str, routes: Routes, body: &'static str) -> Case {
    Case::new(name, routes, Change::Body(body), Expected::Refused(400, ""))
}

/// A body that is refused for what is made of it.
pub(super) const fn bad_made(
    name: &'static str,
    routes: Routes,
    make: fn(&str) -> Vec<u8>,
) -> Case {
    Case::new(name, routes, Change::Made(make), Expected::Refused(400, ""))
}

/// Members that are forwarded as such others.
pub(super) const fn good(
    name: &'static str,
    routes: Routes,
    members: &'static str,
    forwarded: &'static str,
) -> Case {
    let change = Change::Members(members);
    Case::new(name, routes, change, Expected::Forwarded(forwarded))
}

pub(super) const fn good_body(
    name: &'static str,
    routes: Routes,
    body: &'static str,
    forwarded: &'static str,
) -> Case {
    Case::new(
        name,
        routes,
        Change::Body(body),
        Expected::Forwarded(forwarded),
    )
}

pub(super) const fn refused(
    name: &'static str,
    routes: Routes,
    status: u16,
    change: Change,
) -> Case {
    Case::new(name, routes, change, Expected::Refused(status, ""))
}

pub(super) const fn dropped(name: &'static str, routes: Routes, change: Change) -> Case {
    Case::new(name, routes, change, Expected::Dropped).on(PRICED)
}

pub(super) const fn passed(name: &'static str, routes: Routes, change: Change) -> Case {
    Case::new(name, routes, change, Expected::Forwarded("{}")).on(PRICED)
}
