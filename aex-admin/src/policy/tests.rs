//! What files become policies, and what policies say.

mod bad_files;
mod decisions;
mod examples;
mod slices;

use aex_admin_proto::worker::Route;

use super::{Ask, Known, Policies, PolicyError, PolicyFile, PolicyTime, Warning};

fn known() -> Known {
    Known {
        models: ["small", "large", "vector"].map(str::to_owned).into(),
        providers: ["near", "far", "unused"].map(str::to_owned).into(),
        serving: ["near", "far"].map(str::to_owned).into(),
        agents: Some(["atlas", "borg"].map(str::to_owned).into()),
        groups: Some(["dev", "eng"].map(str::to_owned).into()),
    }
}

fn file(name: &str, text: &str) -> PolicyFile {
    PolicyFile {
        path: format!("policies/{name}"),
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn read(text: &str) -> Result<(Policies, Vec<Warning>), PolicyError> {
    Policies::parse(&[file("a.cedar", text)], &known())
}

fn policies(text: &str) -> Policies {
    match read(text) {
        Ok((policies, _)) => policies,
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// Atlas of dev, below eng, asks small a little on a Tuesday morning.
fn ask() -> Ask<'static> {
    Ask {
        agent: "atlas",
        groups: &["dev", "eng", "kernel"],
        route: Route::ChatCompletions,
        model: "small",
        provider: "near",
        input_tokens: 100,
        output_tokens: 50,
        cost_micro: 1_000,
        stream: false,
        images: 0,
        tools: &[],
        own_key: false,
        time: PolicyTime {
            hour: 9,
            minute: 30,
            weekday: 2,
            date: 20260203,
        },
        session: None,
        labels: &[],
        run: false,
    }
}
