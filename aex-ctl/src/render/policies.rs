//! Policies that were checked.

use aex_admin_proto::policies::PolicyCheck;

use super::counted;
use super::table::table;

pub(crate) fn policies(checked: &PolicyCheck) -> String {
    let mut text: String = checked
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect();
    if checked.policies.is_empty() {
        text.push_str(&format!(
            "{} has no policies: settings and limits alone decide.",
            checked.directory.display()
        ));
        return text;
    }
    let rows: Vec<Vec<String>> = checked
        .policies
        .iter()
        .map(|policy| vec![policy.name.clone(), policy.mode.clone()])
        .collect();
    text.push_str(&table(&["policy", "mode"], &rows));
    text.push_str(&format!(
        "{} is good: {}. `aex config reload` puts them in force.",
        checked.directory.display(),
        counted(checked.policies.len() as u64, "policy", "policies")
    ));
    text
}
