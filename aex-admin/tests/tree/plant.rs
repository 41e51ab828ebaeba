//! Makes a random tree in both: groups, agents, runs, and their limits. And moves and ends parts of it.

use aex_admin::writer::OperatorCommand;
use aex_admin_proto::TokenDigest;
use aex_admin_proto::limit::{Limit, LimitKey, Mode, Quantity, Span, Subject};
use aex_admin_proto::operator::{
    CreateParams, GroupCreateParams, GroupSetParams, NameParams, RunCreateParams, RunParams,
    SetParams, Settings,
};

use crate::naive::Scope;
use crate::{Rng, World};

fn subject(rng: &mut Rng) -> Subject {
    match rng.below(6) {
        0 => Subject::Model("plain".to_owned()),
        1 => Subject::Provider("q".to_owned()),
        _ => Subject::All,
    }
}

/// A few limits, each of another key.
fn limits(rng: &mut Rng, scale: u64) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    for _ in 0..rng.below(4) {
        let (what, span, most) = rng.pick(&[
            (Quantity::Money, Span::Day, 300),
            (Quantity::Money, Span::Whole, 500),
            (Quantity::Money, Span::Session, 200),
            (Quantity::Tokens, Span::Whole, 6_000),
            (Quantity::Tokens, Span::Day, 4_000),
            (Quantity::Tokens, Span::Minute, 1_500),
            (Quantity::Tokens, Span::Session, 2_500),
            (Quantity::Requests, Span::Minute, 9),
            (Quantity::Requests, Span::Day, 25),
            (Quantity::Parallel, Span::Whole, 4),
            (Quantity::Input, Span::Whole, 200),
            (Quantity::Output, Span::Whole, 50),
        ]);
        let key = LimitKey {
            what,
            span,
            subject: subject(rng),
        };
        if limits.iter().all(|limit| limit.key != key) {
            let most = if matches!(what, Quantity::Input | Quantity::Output) {
                most
            } else {
                1 + most * scale / 4 + rng.below(most)
            };
            limits.push(Limit {
                key,
                most,
                mode: Mode::Enforce,
            });
        }
    }
    limits
}

impl World {
    fn settings(&mut self, rng: &mut Rng, scale: u64) -> Settings {
        let limits = limits(rng, scale);
        Settings {
            limits: (!limits.is_empty()).then_some(limits),
            max_sessions: rng.percent(15).then(|| 1 + rng.below(3)),
            max_held_percent: rng.percent(20).then(|| 20 + rng.below(70)),
            ..Settings::default()
        }
    }

    fn learn(
        &mut self,
        name: &str,
        kind: &'static str,
        parent: Option<usize>,
        budget_micro: Option<i64>,
        settings: &Settings,
    ) -> usize {
        let limits = settings.limits.iter().flatten();
        self.naive.scopes.push(Scope {
            name: name.to_owned(),
            kind,
            parent,
            budget_micro,
            limits: limits
                .map(|limit| (limit.key.clone(), limit.most))
                .collect(),
            max_sessions: settings.max_sessions,
            max_held_percent: settings.max_held_percent,
            ended: false,
        });
        self.naive.scopes.len() - 1
    }

    pub(crate) fn plant(&mut self, rng: &mut Rng) {
        let settings = self.settings(rng, 8);
        let kernel = self.learn("kernel", "kernel", None, None, &settings);
        self.operator(OperatorCommand::GroupSet(Box::new(GroupSetParams {
            name: "kernel".to_owned(),
            settings: Settings {
                labels: Some(vec!["x".to_owned()]),
                ..settings
            },
            ..GroupSetParams::default()
        })));
        let mut groups = vec![kernel];
        for number in 0..rng.below(5) {
            let parent = groups[rng.index(groups.len())];
            let name = format!("group-{number}");
            let budget_micro = rng.percent(40).then(|| 100 + rng.below(900).cast_signed());
            let settings = self.settings(rng, 6);
            let params = GroupCreateParams {
                name: name.clone(),
                parent: Some(self.naive.scopes[parent].name.clone()),
                budget_micro,
                rpm: None,
                settings: settings.clone(),
            };
            self.operator(OperatorCommand::GroupCreate(Box::new(params)));
            groups.push(self.learn(&name, "group", Some(parent), budget_micro, &settings));
        }
        for number in 0..2 + rng.below(4) {
            self.plant_agent(rng, &groups, number);
        }
        for _ in 0..rng.below(6) {
            self.plant_run(rng);
        }
    }

    fn plant_agent(&mut self, rng: &mut Rng, groups: &[usize], number: u64) {
        let parent = groups[rng.index(groups.len())];
        let name = format!("agent-{number}");
        let budget_micro = 100 + rng.below(2_000).cast_signed();
        let rpm = 5 + rng.below(60);
        let settings = self.settings(rng, 4);
        let answer = self.operator(OperatorCommand::Create(Box::new(CreateParams {
            name: name.clone(),
            budget_micro,
            rpm,
            ttl_s: None,
            settings: settings.clone(),
            group: Some(self.naive.scopes[parent].name.clone()),
        })));
        let agent = self.learn(&name, "agent", Some(parent), Some(budget_micro), &settings);
        let by_minute = LimitKey::of_all(Quantity::Requests, Span::Minute);
        self.naive.scopes[agent].limits.push((by_minute, rpm));
        self.learn_token(&answer, agent);
    }

    fn learn_token(&mut self, answer: &serde_json::Value, scope: usize) {
        let token = answer["token"].as_str().unwrap();
        self.tokens.push((TokenDigest::of(token.as_bytes()), scope));
    }

    fn plant_run(&mut self, rng: &mut Rng) {
        let above: Vec<usize> = (0..self.naive.scopes.len())
            .filter(|&at| matches!(self.naive.scopes[at].kind, "agent" | "run"))
            .collect();
        let parent = above[rng.index(above.len())];
        let most = self.naive.scopes[parent].budget_micro.unwrap_or(100);
        let budget_micro = rng
            .percent(50)
            .then(|| 1 + rng.below(most.cast_unsigned()).cast_signed());
        let settings = self.settings(rng, 2);
        let answer = self.operator(OperatorCommand::RunCreate(Box::new(RunCreateParams {
            parent: self.naive.scopes[parent].name.clone(),
            run: RunParams {
                budget_micro,
                rpm: None,
                ttl_s: None,
                settings: settings.clone(),
            },
        })));
        let name = answer["run"].as_str().unwrap().to_owned();
        let run = self.learn(&name, "run", Some(parent), budget_micro, &settings);
        self.learn_token(&answer, run);
    }

    /// An agent goes to another group; what it holds stays where it was held.
    pub(crate) fn move_agent(&mut self, rng: &mut Rng) {
        let of_kind = |world: &Self, kinds: &[&str]| -> Vec<usize> {
            let scopes = 0..world.naive.scopes.len();
            scopes
                .filter(|&at| kinds.contains(&world.naive.scopes[at].kind))
                .collect()
        };
        let agents = of_kind(self, &["agent"]);
        let groups = of_kind(self, &["group", "kernel"]);
        let (agent, group) = (
            agents[rng.index(agents.len())],
            groups[rng.index(groups.len())],
        );
        self.operator(OperatorCommand::Set(Box::new(SetParams {
            name: self.naive.scopes[agent].name.clone(),
            group: Some(self.naive.scopes[group].name.clone()),
            ..SetParams::default()
        })));
        self.naive.scopes[agent].parent = Some(group);
    }

    /// A run ends, and all below it.
    pub(crate) fn end_run(&mut self, rng: &mut Rng) {
        let runs: Vec<usize> = (0..self.naive.scopes.len())
            .filter(|&at| self.naive.scopes[at].kind == "run")
            .collect();
        if runs.is_empty() {
            return;
        }
        let run = runs[rng.index(runs.len())];
        let name = self.naive.scopes[run].name.clone();
        self.operator(OperatorCommand::RunEnd(NameParams { name }));
        self.naive.scopes[run].ended = true;
    }
}
