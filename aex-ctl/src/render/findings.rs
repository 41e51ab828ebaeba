//! What `aex doctor` found, the worst last: there a terminal stands.

use crate::doctor::{Finding, State};

pub(crate) fn findings(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max();
    let width = width.unwrap_or(0);
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.state);
    let mut text = String::new();
    for finding in &sorted {
        let state = match finding.state {
            State::Ok => "ok     ",
            State::Skipped => "skipped",
            State::Warning => "warning",
            State::Failed => "FAILED ",
        };
        let check = finding.check;
        text.push_str(&format!("{state}  {check:<width$}  {}\n", finding.says));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("{:9}{:width$}  -> {fix}\n", "", ""));
        }
    }
    let count = |state| {
        sorted
            .iter()
            .filter(|finding| finding.state == state)
            .count()
    };
    text.push_str(&match (count(State::Failed), count(State::Warning)) {
        (0, 0) => "Nothing wrong was found.\n".to_owned(),
        (0, warnings) => format!("Nothing fails; {warnings} to look at.\n"),
        (failed, _) => format!("{failed} of {} do not hold.\n", sorted.len()),
    });
    text
}
