//! The tree the slow and obvious way: a list of all that was ever held, scanned anew for each question. No
//! code of `aex_admin::core` but the price of a hold, which is not what is tried here.

use aex_admin_proto::limit::{LimitKey, Quantity, Span, Subject};

pub(crate) const MINUTE_MS: u64 = 60_000;
pub(crate) const DAY_MS: i64 = 86_400_000;
const PICO: i128 = 1_000_000;

/// One scope. Limits do not change in a run; an agent's place may.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) parent: Option<usize>,
    pub(crate) budget_micro: Option<i64>,
    pub(crate) limits: Vec<(LimitKey, u64)>,
    pub(crate) max_sessions: Option<u64>,
    pub(crate) max_held_percent: Option<u64>,
    pub(crate) ended: bool,
}

/// One hold, for ever.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    /// The scopes above it when it was granted.
    pub(crate) path: Vec<usize>,
    pub(crate) model: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) session: String,
    pub(crate) pico: i128,
    pub(crate) tokens: u64,
    pub(crate) day_ms: i64,
    pub(crate) ended: Option<Ended>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) at_boot_ms: u64,
    pub(crate) pico: i128,
    pub(crate) tokens: u64,
    pub(crate) sent: bool,
}

/// What is asked, as numbers.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Of whose token it is.
    pub(crate) agent: Option<usize>,
    pub(crate) model: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) session: String,
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) pico: i128,
}

#[derive(Debug, Default)]
pub(crate) struct Naive {
    pub(crate) scopes: Vec<Scope>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) boot_ms: u64,
    pub(crate) wall_ms: i64,
}

fn covers(subject: &Subject, model: &str, provider: &str) -> bool {
    match subject {
        Subject::All => true,
        Subject::Model(name) => name == model,
        Subject::Provider(name) => name == provider,
    }
}

impl Naive {
    pub(crate) fn day_ms(&self) -> i64 {
        self.wall_ms / DAY_MS * DAY_MS
    }

    pub(crate) fn path(&self, own: usize) -> Vec<usize> {
        let mut path = vec![own];
        while let Some(parent) = self.scopes[path[path.len() - 1]].parent {
            path.push(parent);
        }
        path
    }

    /// The agent of a path.
    pub(crate) fn agent(&self, path: &[usize]) -> Option<usize> {
        path.iter()
            .copied()
            .find(|&at| self.scopes[at].kind == "agent")
    }

    /// Above an agent each agent has sessions of its own.
    fn same_owner(&self, scope: usize, hold: &Hold, agent: Option<usize>) -> bool {
        let shared = matches!(self.scopes[scope].kind, "agent" | "run");
        shared || self.agent(&hold.path) == agent
    }

    fn in_scope<'a>(
        &'a self,
        scope: usize,
        subject: &'a Subject,
    ) -> impl Iterator<Item = &'a Hold> {
        self.holds.iter().filter(move |hold| {
            hold.path.contains(&scope) && covers(subject, hold.model, hold.provider)
        })
    }

    /// What counts against a limit now: money in picodollars.
    pub(crate) fn counted(
        &self,
        scope: usize,
        key: &LimitKey,
        session: &str,
        agent: Option<usize>,
    ) -> i128 {
        let amount = |hold: &Hold| -> i128 {
            match (key.what, hold.ended) {
                (Quantity::Money, None) => hold.pico,
                (Quantity::Money, Some(ended)) => ended.pico,
                (Quantity::Tokens, None) => i128::from(hold.tokens),
                (Quantity::Tokens, Some(ended)) => i128::from(ended.tokens),
                (_, None) => 1,
                (_, Some(ended)) => i128::from(ended.sent),
            }
        };
        let counts = |hold: &&Hold| match (key.what, key.span) {
            (Quantity::Parallel, _) => hold.ended.is_none(),
            (_, Span::Minute) => {
                (hold.ended).is_none_or(|ended| ended.at_boot_ms + MINUTE_MS > self.boot_ms)
            }
            (_, Span::Day) => hold.day_ms == self.day_ms(),
            (_, Span::Session) => hold.session == session && self.same_owner(scope, hold, agent),
            _ => true,
        };
        let held = self.in_scope(scope, &key.subject).filter(counts);
        if key.what == Quantity::Parallel {
            return held.count() as i128;
        }
        held.map(amount).sum()
    }

    pub(crate) fn money(&self, scope: usize) -> i128 {
        self.counted(
            scope,
            &LimitKey::of_all(Quantity::Money, Span::Whole),
            "",
            None,
        )
    }

    fn held(&self, scope: usize) -> i128 {
        let open = self
            .in_scope(scope, &Subject::All)
            .filter(|hold| hold.ended.is_none());
        open.map(|hold| hold.pico).sum()
    }

    fn open(&self, scope: usize) -> u64 {
        self.in_scope(scope, &Subject::All)
            .filter(|hold| hold.ended.is_none())
            .count() as u64
    }

    /// The first limit of the path that this request would pass; none: it fits every scope.
    pub(crate) fn broken(&self, path: &[usize], asked: &Asked) -> Option<String> {
        for (at, &scope) in path.iter().enumerate() {
            let row = &self.scopes[scope];
            if row.ended {
                return Some(format!("{} has ended", row.name));
            }
            if let Some(budget_micro) = row.budget_micro {
                let left = i128::from(budget_micro) * PICO - self.money(scope);
                let unspent = left + self.held(scope);
                if asked.pico > left || unspent <= 0 {
                    return Some(format!("budget of {}", row.name));
                }
            }
            for (key, most) in &row.limits {
                if covers(&key.subject, asked.model, asked.provider)
                    && !self.fits(scope, key, *most, asked)
                {
                    return Some(format!("{key}={most} of {}", row.name));
                }
            }
            if self.too_many_sessions(scope, asked) {
                return Some(format!("sessions of {}", row.name));
            }
            if let Some(&child) = at.checked_sub(1).and_then(|at| path.get(at))
                && self.share_is_full(scope, child, asked)
            {
                return Some(format!(
                    "share of {} in {}",
                    self.scopes[child].name, row.name
                ));
            }
        }
        None
    }

    fn fits(&self, scope: usize, key: &LimitKey, most: u64, asked: &Asked) -> bool {
        match key.what {
            Quantity::Input => asked.input <= most,
            Quantity::Output => asked.output <= most,
            _ => {
                let more = match key.what {
                    Quantity::Money => asked.pico,
                    Quantity::Tokens => i128::from(asked.input + asked.output),
                    _ => 1,
                };
                let unit = if key.what == Quantity::Money { PICO } else { 1 };
                self.counted(scope, key, &asked.session, asked.agent) + more
                    <= i128::from(most) * unit
            }
        }
    }

    /// Sessions that were ever granted anything count for ever.
    fn too_many_sessions(&self, scope: usize, asked: &Asked) -> bool {
        let session = asked.session.as_str();
        let row = &self.scopes[scope];
        let by_session = row.limits.iter().any(|(key, _)| key.span == Span::Session);
        let most = row.max_sessions.or(by_session.then_some(64));
        let Some(most) = most else { return false };
        let mut known: Vec<&str> = Vec::new();
        let held = self.in_scope(scope, &Subject::All);
        for hold in held.filter(|hold| self.same_owner(scope, hold, asked.agent)) {
            if !known.contains(&hold.session.as_str()) {
                known.push(&hold.session);
            }
        }
        !known.contains(&session) && known.len() as u64 >= most
    }

    fn share_is_full(&self, scope: usize, child: usize, asked: &Asked) -> bool {
        let row = &self.scopes[scope];
        let Some(percent) = row.max_held_percent else {
            return false;
        };
        let all = |key: &LimitKey| key.subject == Subject::All;
        let slots = row
            .limits
            .iter()
            .filter(|(key, _)| key.what == Quantity::Parallel && all(key));
        for (_, most) in slots {
            if self.open(child) >= (most * percent / 100).max(1) {
                return true;
            }
        }
        let held = self.held(child);
        let budget = row
            .budget_micro
            .map(|budget| i128::from(budget) * PICO - self.money(scope));
        let mut left: Vec<i128> = budget.into_iter().collect();
        for (key, most) in row
            .limits
            .iter()
            .filter(|(key, _)| key.what == Quantity::Money && all(key))
        {
            left.push(
                i128::from(*most) * PICO - self.counted(scope, key, &asked.session, asked.agent),
            );
        }
        // Left with every hold freed: those of the same sum.
        let is_over = |(at, left): (usize, &i128)| {
            let freed = left + self.held_in(scope, row, at, asked);
            held > 0
                && asked.pico > 0
                && held + asked.pico > freed.max(0) * i128::from(percent) / 100
        };
        left.iter().enumerate().any(is_over)
    }

    /// What is held of the `at`th of a scope's sums of money, its budget first.
    fn held_in(&self, scope: usize, row: &Scope, at: usize, asked: &Asked) -> i128 {
        let budgets = usize::from(row.budget_micro.is_some());
        if at < budgets {
            return self.held(scope);
        }
        let mut sums = row
            .limits
            .iter()
            .filter(|(key, _)| key.what == Quantity::Money && key.subject == Subject::All);
        let Some((key, _)) = sums.nth(at - budgets) else {
            return 0;
        };
        let counts = |hold: &&Hold| match key.span {
            Span::Day => hold.day_ms == self.day_ms(),
            Span::Session => {
                hold.session == asked.session && self.same_owner(scope, hold, asked.agent)
            }
            _ => true,
        };
        let open = self
            .in_scope(scope, &Subject::All)
            .filter(|hold| hold.ended.is_none());
        open.filter(counts).map(|hold| hold.pico).sum()
    }

    /// No scope is above any of its limits.
    pub(crate) fn check(&self) {
        for (scope, row) in self.scopes.iter().enumerate() {
            if let Some(budget_micro) = row.budget_micro {
                let used = self.money(scope);
                assert!(
                    used <= i128::from(budget_micro) * PICO,
                    "{}: {used} of its budget",
                    row.name
                );
            }
            for (key, most) in &row.limits {
                let unit = if key.what == Quantity::Money { PICO } else { 1 };
                if matches!(key.what, Quantity::Input | Quantity::Output) {
                    continue;
                }
                for session in ["", "s1", "s2", "s3"] {
                    let agents =
                        (0..self.scopes.len()).filter(|&at| self.scopes[at].kind == "agent");
                    for agent in agents {
                        let used = self.counted(scope, key, session, Some(agent));
                        assert!(
                            used <= i128::from(*most) * unit,
                            "{}: {used} of {key}={most}",
                            row.name
                        );
                    }
                }
            }
        }
    }
}
