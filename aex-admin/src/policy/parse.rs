//! From the text of files to rules: everything that can be wrong with a policy is found here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;

use cedar_policy::{
    Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, ValidationWarning, Validator,
};
use miette::Diagnostic;

use super::error::{Place, PolicyError, Warning};
use super::known::{self, Known};
use super::rule::{self, Rule};
use super::source::Source;
use super::{MAX_BYTES, MAX_POLICIES, SCHEMA};

/// A file of policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// For messages: where it is.
    pub path: String,
    /// Its last part, of which the names of policies without `@id` are made.
    pub name: String,
    pub text: String,
}

/// A fault or a remark at an offset of a file.
type At = (usize, String);

/// Rules with their offsets, and remarks.
type ReadFile = (Vec<(usize, Rule)>, Vec<At>);

/// Longest explanation that is passed on.
const MAX_MESSAGE_CHARS: usize = 600;

pub(super) fn schema() -> Schema {
    // A test reads it; it cannot fail at an operator's.
    Schema::from_cedarschema_str(SCHEMA)
        .expect("the shipped schema")
        .0
}

/// All files' policies, in order.
pub(super) fn read(
    files: &[PolicyFile],
    known: &Known,
) -> Result<(Vec<Rule>, Vec<Warning>), PolicyError> {
    let validator = Validator::new(schema());
    let mut rules = Vec::new();
    let mut warnings = Vec::new();
    let mut names: BTreeMap<String, Place> = BTreeMap::new();
    let mut bytes = 0_usize;
    for file in files {
        let source = Source {
            file: &file.path,
            text: &file.text,
        };
        let fail = |(offset, message): At| PolicyError {
            place: source.place(offset),
            message,
        };
        bytes = bytes.saturating_add(file.text.len());
        if bytes > MAX_BYTES {
            let message =
                format!("the policies are larger than {MAX_BYTES} bytes in all: take some out");
            return Err(fail((0, message)));
        }
        let (read, remarks) = read_file(&source, &file.name, &validator, known).map_err(&fail)?;
        warnings.extend(remarks.into_iter().map(|(offset, message)| Warning {
            place: source.place(offset),
            message,
        }));
        for (offset, rule) in read {
            if let Some(first) = names.get(&rule.name) {
                let message = format!(
                    "the policy at {first} is called {:?} too: give this one another @id",
                    rule.name
                );
                return Err(fail((offset, message)));
            }
            if rules.len() == MAX_POLICIES {
                let message = format!("there are more than {MAX_POLICIES} policies: take some out");
                return Err(fail((offset, message)));
            }
            names.insert(rule.name.clone(), source.place(offset));
            rules.push(rule);
        }
    }
    Ok((rules, warnings))
}

/// One file's rules with their places, and remarks. Of several faults the first in the text is told.
fn read_file(
    source: &Source<'_>,
    name: &str,
    validator: &Validator,
    known: &Known,
) -> Result<ReadFile, At> {
    if let Some(fault) = source.too_intricate() {
        return Err(fault);
    }
    let set = PolicySet::from_str(source.text).map_err(|errors| {
        let first = errors.iter().next();
        first.map_or_else(
            || (0, errors.to_string()),
            |error| (offset(error).unwrap_or(0), told(error)),
        )
    })?;
    if let Some(template) = set.templates().next() {
        let at = template.as_ref().loc().map_or(0, |loc| loc.start());
        let message = "a policy with ?principal or ?resource has nothing that fills them: write the \
                       name itself";
        return Err((at, message.to_owned()));
    }
    let mut policies: Vec<(Range<usize>, &Policy)> = set
        .policies()
        .map(|policy| (span(policy), policy))
        .collect();
    policies.sort_by_key(|(span, _)| span.start);

    let mut found = Found::default();
    let mut rules = Vec::new();
    for (span, policy) in &policies {
        let start = span.start;
        if policy.effect() == Effect::Permit {
            found.faults.push((start, PERMIT.to_owned()));
        }
        let line = source.place(start).line;
        match rule::read(policy, source, span.clone(), format!("{name}:{line}")) {
            Ok(rule) => rules.push((start, rule)),
            Err(fault) => found.faults.push(fault),
        }
        for stray in known::strays(policy, source, span.clone(), known) {
            let of_its_kind = match stray.fatal {
                true => &mut found.faults,
                false => &mut found.remarks,
            };
            of_its_kind.push((stray.offset, stray.message));
        }
    }
    found.validate(&set, validator);
    found.remarks.sort();
    match found.faults.into_iter().min() {
        Some(fault) => Err(fault),
        None => Ok((rules, found.remarks)),
    }
}

/// What is wrong with a file.
#[derive(Default)]
struct Found {
    faults: Vec<At>,
    remarks: Vec<At>,
}

impl Found {
    /// Has Cedar check the types, and whether each policy can match anything.
    fn validate(&mut self, set: &PolicySet, validator: &Validator) {
        let span_of = |id: &PolicyId| set.policy(id).map_or(0..0, span);
        let validated = validator.validate(set, ValidationMode::Strict);
        for error in validated.validation_errors() {
            let at = offset(error).unwrap_or_else(|| span_of(error.policy_id()).start);
            self.faults.push((at, told(error)));
        }
        for warning in validated.validation_warnings() {
            let span = span_of(warning.policy_id());
            match warning {
                ValidationWarning::ImpossiblePolicy(_)
                | ValidationWarning::InvalidActionApplication(_) => {
                    // Another fault of it says why.
                    if !self.faults.iter().any(|(at, _)| span.contains(at)) {
                        let message = format!("{}: {NEVER}", told(warning));
                        self.faults.push((span.start, message));
                    }
                }
                _ => {
                    let at = offset(warning).unwrap_or(span.start);
                    self.remarks.push((at, told(warning)));
                }
            }
        }
    }
}

const PERMIT: &str = "a permit has no effect: AEX permits what settings and limits allow. Write what is \
                      to be refused: `forbid (…) when {…} unless {…};`";
const NEVER: &str = "it can match no request; mend its scope or its condition, or take it out";

fn span(policy: &Policy) -> Range<usize> {
    policy
        .as_ref()
        .loc()
        .map_or(0..usize::MAX, |loc| loc.start()..loc.end())
}

fn offset(error: &dyn Diagnostic) -> Option<usize> {
    Some(error.labels()?.next()?.offset())
}

/// What Cedar says of it, with its advice, in one line.
fn told(error: &dyn Diagnostic) -> String {
    let mut text = error.to_string();
    let label = error
        .labels()
        .and_then(|mut labels| labels.next())
        .and_then(|label| label.label().map(str::to_owned));
    for more in label
        .into_iter()
        .chain(error.help().map(|help| help.to_string()))
    {
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
    }
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE_CHARS)
        .collect();
    without_number(&text)
}

/// Cedar names a policy by a number of its own; the place says which it is.
fn without_number(text: &str) -> String {
    let cut = || {
        let (before, rest) = text.split_once("for policy `policy")?;
        let (number, after) = rest.split_once("`, ")?;
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| format!("{before}{after}"))
    };
    cut().unwrap_or_else(|| text.to_owned())
}
