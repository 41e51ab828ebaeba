//! Where the cases are played: one kernel, a provider as greedy as they come, and a judge of what
//! reached it.

use aex_admin_proto::worker::Route;
use aex_tests::harness::{Kernel, wait_for};
use aex_tests::http::{Response, request};
use aex_tests::sim::{Behaviour, Bill, LoggedRequest, Sim};
use serde_json::{Map, Value};

use super::case::{Case, Change, Expected, Model};
use crate::common::{sim, spent_pico};

const INPUT_PICO: u64 = 1_000_000;
const OUTPUT_PICO: u64 = 4_000_000;
const CAPS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
/// What a provider sends along that is not for agents. The key is added.
const SECRETS: [(&str, &str); 8] = [
    ("set-cookie", "__cf_bm=account-canary; path=/"),
    ("set-cookie2", "account-canary"),
    ("openai-organization", "org-account-canary"),
    ("openai-project", "proj-account-canary"),
    ("www-authenticate", "Bearer realm=account-canary"),
    ("proxy-authenticate", "Basic realm=account-canary"),
    ("alt-svc", "h3=\":443\"; account-canary"),
    ("x-aex-remaining-micro", "account-canary"),
];

pub(super) struct Bench {
    kernel: Kernel,
    sim: Sim,
    token: String,
}

impl Model {
    fn name(self) -> &'static str {
        match self {
            Self::Priced => "priced",
            Self::Free => "free",
        }
    }
}

impl Bench {
    pub(super) fn start() -> Self {
        let sim = sim();
        let addr = sim.addr;
        let price = "{ input_per_mtok: 1, output_per_mtok: 4 }";
        let yaml = format!(
            "providers:
  openai: {{ base_url: http://{addr}/v1, extra_params: [let_through] }}
  local: {{ base_url: http://{addr}/v1 }}
models:
  priced: {{ provider: openai, upstream_model: vendor/priced, price: {price},
    max_output_tokens: 4096, hidden_output: false }}
  free: {{ provider: local, upstream_model: vendor/free, price: free, max_output_tokens: 4096 }}
"
        );
        let kernel = Kernel::builder()
            .models_yaml(yaml)
            .env("OPENAI_API_KEY", Kernel::SIM_KEY)
            .env("LOCAL_API_KEY", Kernel::SIM_KEY)
            .start();
        let token = kernel.create_agent("mole", "1000.00", 1_000_000, &[]);
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let key = format!("for {}", Kernel::SIM_KEY);
        let headers = SECRETS.into_iter().chain([("x-echo", key.as_str())]);
        sim.behave(Behaviour {
            greedy: true,
            headers: headers.map(own).collect(),
            ..Behaviour::default()
        });
        Self { kernel, sim, token }
    }

    /// Nothing is left behind, and the books are right.
    pub(super) fn end(self) {
        self.kernel.settled();
        self.kernel.audit();
    }

    /// A line for each route and model on which it is not as expected.
    pub(super) fn failures_of(&self, case: &Case) -> Vec<String> {
        let mut failures = Vec::new();
        for &route in case.routes {
            for &model in case.models {
                if let Err(what) = self.judge(case, route, model) {
                    let (name, path) = (case.name, route.path());
                    failures.push(format!("{name} on {path}, {model:?}: {what}"));
                }
            }
        }
        failures
    }

    fn judge(&self, case: &Case, route: Route, model: Model) -> Result<(), String> {
        let bytes = self.bytes_of(&case.change, route, model);
        self.sim.reset();
        let before = self.events();
        let mut connection = self.kernel.connect();
        // A refusal may come, and the connection go, before everything is sent.
        let _ = connection.send(&bytes);
        let answer = connection.response().unwrap_or_default();
        let said = format!("{} {}", answer.status, answer.text());
        match case.expected {
            Expected::Refused(status, words) => {
                check(answer.status == status, || said.clone())?;
                check(!answer.detail().is_empty(), || format!("no detail: {said}"))?;
                check(answer.detail().contains(words), || said.clone())?;
                self.check_nothing_came(before, &said)
            }
            Expected::Dropped => {
                let closed = matches!(answer.status, 0 | 400..=499);
                check(closed, || said.clone())?;
                self.check_nothing_came(before, &said)
            }
            Expected::Forwarded(members) => {
                check(answer.status == 200, || said)?;
                check_answer(&answer)?;
                wait_for("the books", || (self.events() == before + 2).then_some(()));
                let bill = self.sim.bill();
                let [received] = &*bill.log else {
                    return Err(format!("{} requests came", bill.log.len()));
                };
                self.check_head(received, route)?;
                check_body(&received.body, members, route, model)?;
                self.check_money(&bill, model)
            }
        }
    }

    fn events(&self) -> i64 {
        wait_for("the kernel's status", || self.kernel.look()).events
    }

    fn check_nothing_came(&self, before: i64, said: &str) -> Result<(), String> {
        let requests = self.sim.bill().requests;
        check(requests == 0, || format!("{requests} came through: {said}"))?;
        let events = self.events() - before;
        check(events == 0, || format!("{events} in the ledger: {said}"))
    }

    /// Nothing of the agent's head went on.
    fn check_head(&self, received: &LoggedRequest, route: Route) -> Result<(), String> {
        let path = format!("/v1{}", route.path());
        check(received.path == path, || received.path.clone())?;
        let allowed = [
            ("authorization", format!("Bearer {}", Kernel::SIM_KEY)),
            ("host", self.sim.addr.to_string()),
            ("accept-encoding", "identity".to_owned()),
            ("content-type", "application/json".to_owned()),
        ];
        for (name, value) in &received.headers {
            let free = matches!(name.as_str(), "accept" | "user-agent" | "content-length");
            let known = allowed.iter().any(|(n, v)| n == name && v == value);
            let canary = value.contains("canary-of-agent") || value.contains(&self.token);
            check((free || known) && !canary, || {
                format!("header {name}: {value}")
            })?;
        }
        Ok(())
    }

    /// The bill is within the charge, the charge within the hold, and the tokens within its bounds.
    fn check_money(&self, bill: &Bill, model: Model) -> Result<(), String> {
        let total = bill.total();
        let row = self.kernel.sqlite(
            "SELECT c.cost_pico, o.held_pico, json_extract(o.detail, '$.input_tokens'), \
             json_extract(o.detail, '$.output_cap') * json_extract(o.detail, '$.choices'), \
             COALESCE(json_extract(c.detail, '$.overrun'), 0) FROM events c JOIN events o \
             ON o.hold = c.hold AND o.action = 'hold.open' WHERE c.action = 'usage.commit' \
             ORDER BY c.id DESC LIMIT 1",
        );
        let numbers: Vec<u64> = row.split('|').filter_map(|n| n.parse().ok()).collect();
        let [charge, hold, input, output, overrun] = *numbers else {
            return Err(format!("no such row: {row}"));
        };
        let billed = match model {
            Model::Priced => total.cost_pico(INPUT_PICO, INPUT_PICO, OUTPUT_PICO),
            Model::Free => 0,
        };
        let told = || format!("billed {billed} {total:?}, booked {row}");
        check(billed <= u128::from(charge) && charge <= hold, told)?;
        check(total.prompt_tokens <= input, told)?;
        check(total.completion_tokens <= output && overrun == 0, told)?;
        let fee_free = model == Model::Free || (total.fees, total.kept) == (0, 0);
        check(fee_free, told)?;
        check(
            spent_pico(&self.kernel, "mole") < 1_000_000_000_000_000,
            told,
        )
    }
}

/// What a request is made of.
impl Bench {
    fn bytes_of(&self, change: &Change, route: Route, model: Model) -> Vec<u8> {
        let fill = |text: &str| self.filled(text, route, model);
        let path = format!("/v1{}", route.path());
        let own = format!("authorization: Bearer {}", self.token);
        let good = fill(&with_members("\"CAP\":5", route));
        let post = |target: &str, lines: &str, body: &[u8]| message("POST", target, lines, body);
        match change {
            Change::Members(members) => {
                let capped = members.contains("CAP") || members.contains("max");
                let members = if capped || !route.generates() {
                    (*members).to_owned()
                } else {
                    format!("\"CAP\":5,{members}")
                };
                post(&path, &own, fill(&with_members(&members, route)).as_bytes())
            }
            Change::Body(body) => post(&path, &own, fill(body).as_bytes()),
            Change::Made(make) => post(&path, &own, &make(&good)),
            Change::Name(name) => {
                let body = with_members("\"CAP\":5", route).replace("MODEL", name);
                post(&path, &own, fill(&body).as_bytes())
            }
            Change::Target(target) => post(&fill(target), &own, good.as_bytes()),
            Change::Line(method, target) => message(method, &fill(target), &own, good.as_bytes()),
            Change::Headers(lines) => {
                let lines = format!("{}\n{own}", fill(lines));
                post(&path, &lines, good.as_bytes())
            }
            Change::Door(lines) => post(&path, &fill(lines), good.as_bytes()),
            Change::Packed(lines, make) => post(&path, &format!("{lines}\n{own}"), &make(&good)),
            Change::Wire(make) => make(&path, &self.token, &good),
        }
    }

    fn filled(&self, text: &str, route: Route, model: Model) -> String {
        let cap = match route {
            Route::Responses => "max_output_tokens",
            _ => "max_tokens",
        };
        text.replace("PROMPT", prompt(route))
            .replace("CAP", cap)
            .replace("MODEL", model.name())
            .replace("PATH", &format!("/v1{}", route.path()))
            .replace("TOKEN", &self.token)
    }
}

fn prompt(route: Route) -> &'static str {
    match route {
        Route::ChatCompletions => r#""messages":[{"role":"user","content":"hi"}]"#,
        Route::Completions => r#""prompt":"hi""#,
        Route::Embeddings | Route::Responses => r#""input":"hi""#,
    }
}

fn with_members(members: &str, route: Route) -> String {
    let capless = members == "\"CAP\":5" && !route.generates();
    let comma = if members.is_empty() || capless {
        ""
    } else {
        ","
    };
    let members = if capless { "" } else { members };
    format!(r#"{{"model":"MODEL",PROMPT{comma}{members}}}"#)
}

/// A request with these lines in its head.
fn message(method: &str, target: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut headers: Vec<(&str, &str)> = lines
        .split('\n')
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.strip_prefix(' ').unwrap_or(value)))
        .collect();
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        headers.push(("content-type", "application/json"));
    }
    request(method, target, &headers, body)
}

fn check(good: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(what()) }
}

/// Nothing of the provider's account came back.
fn check_answer(answer: &Response) -> Result<(), String> {
    for (name, value) in &answer.headers {
        let secret = value.contains("account-canary") || value.contains(Kernel::SIM_KEY);
        check(!secret, || format!("the agent sees {name}: {value}"))?;
    }
    check(!answer.text().contains(Kernel::SIM_KEY), || answer.text())
}

/// The one cap, what AEX sets, and the members that are expected.
fn check_body(body: &Value, members: &str, route: Route, model: Model) -> Result<(), String> {
    let cap = match (route, model) {
        (Route::Responses, _) => "max_output_tokens",
        (Route::ChatCompletions, Model::Priced) => "max_completion_tokens",
        _ => "max_tokens",
    };
    let caps: Vec<&str> = CAPS
        .into_iter()
        .filter(|cap| body.get(cap).is_some())
        .collect();
    let wanted: &[&str] = if route.generates() { &[cap] } else { &[] };
    check(caps == wanted, || format!("caps {caps:?} in {body}"))?;
    check(body["model"] == format!("vendor/{}", model.name()), || {
        body.to_string()
    })?;
    let tiered = matches!(route, Route::ChatCompletions | Route::Responses);
    if model == Model::Priced && tiered {
        let set = body["store"] == false && body["service_tier"] == "default";
        check(set, || format!("neither store nor tier in {body}"))?;
    }
    let members: Map<String, Value> = serde_json::from_str(&members.replace("CAP", cap)).unwrap();
    for (name, value) in members {
        let there = body.get(&name).unwrap_or(&Value::Null);
        check(*there == value, || format!("{name} is {there} in {body}"))?;
    }
    Ok(())
}
