//! What policies are asked about: facts of one request, and Cedar's context made from them.

use aex_admin_proto::worker::Route;
use cedar_policy::{Context, RestrictedExpression as Expr};

use super::time::PolicyTime;

/// One request, once its bounds and its hold are final.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub agent: &'a str,
    /// From the agent's own group up to the kernel's, [`super::KERNEL_GROUP`].
    pub groups: &'a [&'a str],
    pub route: Route,
    /// As models.yaml names it.
    pub model: &'a str,
    pub provider: &'a str,
    /// Upper bounds, both of all prompts and choices together.
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// The hold, rounded up.
    pub cost_micro: i64,
    pub stream: bool,
    pub images: u64,
    /// Functions and hosted tools that are offered.
    pub tools: &'a [&'a str],
    pub own_key: bool,
    pub time: PolicyTime,
    pub session: Option<&'a str>,
    /// Of the agent.
    pub labels: &'a [&'a str],
    /// Asked with the token of a run.
    pub run: bool,
}

/// No number of a context is larger: so sums and small multiples of them do not overflow, which
/// would be an error and deny.
pub(super) const LARGEST: i64 = 1_000_000_000_000_000;

fn long(number: u64) -> Expr {
    Expr::new_long(i64::try_from(number).unwrap_or(LARGEST).min(LARGEST))
}

fn set(texts: &[&str]) -> Expr {
    Expr::new_set(
        texts
            .iter()
            .map(|text| Expr::new_string((*text).to_owned())),
    )
}

impl Ask<'_> {
    /// The context, with `more` of its own kind. Made from typed values, so that it need not be
    /// checked against the schema each time.
    ///
    /// # Errors
    /// Cedar's own; the schema's tests show that there are none.
    pub(super) fn context(&self, more: Option<(String, Expr)>) -> Option<Context> {
        let time = self.time;
        let time = Expr::new_record([
            ("hour".to_owned(), long(time.hour.into())),
            ("minute".to_owned(), long(time.minute.into())),
            ("weekday".to_owned(), long(time.weekday.into())),
            ("date".to_owned(), long(time.date.into())),
        ])
        .ok()?;
        let cost_micro = u64::try_from(self.cost_micro).unwrap_or(0);
        let pairs = [
            ("inputTokens", long(self.input_tokens)),
            ("outputTokens", long(self.output_tokens)),
            ("costMicroUsd", long(cost_micro)),
            ("stream", Expr::new_bool(self.stream)),
            ("images", long(self.images)),
            ("tools", set(self.tools)),
            ("ownKey", Expr::new_bool(self.own_key)),
            ("time", time),
            ("labels", set(self.labels)),
            ("run", Expr::new_bool(self.run)),
        ];
        let session = self
            .session
            .map(|session| ("session", Expr::new_string(session.to_owned())));
        let pairs = pairs
            .into_iter()
            .chain(session)
            .map(|(name, value)| (name.to_owned(), value))
            .chain(more);
        Context::from_pairs(pairs).ok()
    }
}
