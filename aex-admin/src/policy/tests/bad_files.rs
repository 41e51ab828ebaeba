//! Files that do not come into force: where the fault is, and what is said of it.

use super::super::source::{MAX_DEPTH, MAX_TOKENS};
use super::super::{MAX_BYTES, MAX_POLICIES, Policies, SCHEMA};
use super::{file, known, read};

/// `expected` begins with `LINE:COLUMN: `; the rest is words that the message has, between `…`.
#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = match read(text) {
        Ok(_) => panic!("this came into force:\n{text}"),
        Err(error) => error.to_string(),
    };
    let error = error.strip_prefix("policies/a.cedar:").unwrap();
    let mut words = expected.split('…');
    let place = words.next().unwrap();
    assert!(error.starts_with(place), "{expected}\n{error}\n{text}");
    for word in words {
        assert!(error.contains(word.trim()), "{expected}\n{error}\n{text}");
    }
}

#[test]
fn the_schema_is_sound() {
    let (_, warnings) = cedar_policy::Schema::from_cedarschema_str(SCHEMA).unwrap();
    assert_eq!(warnings.count(), 0);
}

#[test]
fn what_cannot_be_read_is_refused_at_its_place() {
    refused("forbid (principal, action, resource)", "1:37: …unexpected");
    refused(
        "// ok\nforbid (principal, action, resource)\n  when { context.images > };",
        "3:27: …unexpected token",
    );
    refused(
        "forbid (principal, action, resource) when { \"é\" == é };",
        "1:52: …",
    );
    refused("forbid (agent, action, resource);", "1:9: …");
    refused(
        "forbid (principal == ?principal, action, resource);",
        "1:1: …write the name itself",
    );
}

#[test]
fn a_permit_is_refused() {
    refused(
        "forbid (principal, action, resource) when { context.run };\n\n  permit (principal, action, resource);",
        "3:3: …no effect…forbid (…unless",
    );
}

#[test]
fn types_are_checked() {
    refused(
        "forbid (principal, action, resource)\nwhen { context.inputTokens > \"9\" };",
        "2:30: …Long…String",
    );
    refused(
        "forbid (principal, action, resource)\nwhen { context.inputToken > 9 };",
        "2:8: …inputToken…inputTokens",
    );
    refused(
        "forbid (principal, action, resource)\nwhen { context.session like \"x*\" };",
        "2:8: …session",
    );
    refused(
        "forbid (principal, action == Action::\"Chatt\", resource);",
        "1:30: …Chatt…Chat",
    );
    refused(
        "forbid (principal is User, action, resource);",
        "1:22: …User",
    );
}

#[test]
fn what_can_match_nothing_is_refused() {
    let all = [
        "\nforbid (principal, action == Action::\"Chat\", resource == Tool::\"x\");",
        "\nforbid (principal, action == Action::\"CallTool\", resource == Model::\"small\");",
        "\nforbid (principal == Group::\"dev\", action, resource);",
        "\nforbid (principal, action, resource) when { principal is Group };",
        "\nforbid (principal, action, resource) when { false };",
        "\nforbid (principal, action in Action::\"Request\", resource is Tool);",
    ];
    for text in all {
        refused(text, "2:1: …can match no request");
    }
    refused(
        "forbid (principal, action, resource == Model::\"Small\");",
        "1:40: …no model \"Small\"…aex models",
    );
    refused(
        "forbid (principal, action, resource)\n// Model::\"gone\"\nwhen { \"Model::\\\"gone\\\"\" == \"\" || resource in\n [Model::\"small\", Model :: \"gone\"] };",
        "4:19: …no model \"gone\"",
    );
    refused(
        "forbid (principal, action, resource in Provider::\"elsewhere\");",
        "1:40: …no provider \"elsewhere\"",
    );
    refused(
        "forbid (principal, action, resource in Provider::\"unused\");",
        "1:40: …no model…at provider \"unused\"",
    );
}

#[test]
fn annotations_are_checked() {
    let policy =
        |annotations: &str| format!("{annotations}\nforbid (principal, action, resource);");
    refused(&policy("@reson(\"x\")"), "1:1: …@reson…@reason");
    refused(&policy("@reason(\"\")"), "1:1: …@reason");
    refused(&policy("@reason(\"a\\nb\")"), "1:1: …@reason");
    refused(&policy("@reason(\"a\\u{202e}b\")"), "1:1: …@reason");
    let long = policy(&format!("@id(\"a\")\n @reason(\"{}\")", "x".repeat(301)));
    refused(&long, "2:2: …@reason");
    refused(&policy("@mode(\"Shadow\")"), "1:1: …@mode…\"shadow\"");
    refused(&policy("@mode"), "1:1: …@mode");
    refused(&policy("@id(\"a b\")"), "1:1: …@id");
    refused(&policy("@id(\"\")"), "1:1: …@id");
    let twice = format!("{}\n{}", policy("@id(\"a\")"), policy("@id(\"a\")"));
    refused(&twice, "3:1: …policies/a.cedar:1:1…\"a\"…another @id");
    // A name that another policy has without saying so.
    let taken = format!("{}\n{}", policy(""), policy("@id(\"a.cedar:2\")"));
    refused(&taken, "3:1: …another @id");
}

#[test]
fn of_several_faults_the_first_is_told() {
    refused(
        "forbid (principal, action, resource) when { context.images > true };\npermit (principal, action, resource);\n@x forbid (principal, action, resource == Model::\"none\");",
        "1:62: …",
    );
    refused(
        "forbid (principal, action, resource == Model::\"none\") when { context.images > true };",
        "1:40: …no model",
    );
}

#[test]
fn the_file_at_fault_is_named() {
    let files = [
        file("a.cedar", "forbid (principal, action, resource);"),
        file("b.cedar", "permit (principal, action, resource);"),
    ];
    let error = Policies::parse(&files, &known()).err().unwrap();
    assert_eq!(error.place.to_string(), "policies/b.cedar:1:1");
}

#[test]
fn policies_are_bounded_in_number_and_size() {
    let one = "forbid (principal, action, resource);\n";
    assert_eq!(
        read(&one.repeat(MAX_POLICIES)).unwrap().0.len(),
        MAX_POLICIES
    );
    refused(
        &one.repeat(MAX_POLICIES + 1),
        &format!("{}:1: …more than", MAX_POLICIES + 1),
    );
    refused(&" ".repeat(MAX_BYTES + 1), "1:1: …larger than");
}

/// Cedar's parser recurses, so what it is given is bounded before. Each of these is as intricate as may
/// be, or a little more; none may end the program.
#[test]
fn policies_are_bounded_in_depth_and_length() {
    let when =
        |condition: &str| format!("forbid (principal, action, resource) when {{ {condition} }};");
    let nested = |n: usize| when(&format!("{}context.run{}", "(".repeat(n), ")".repeat(n)));
    assert!(read(&nested(MAX_DEPTH - 1)).is_ok());
    refused(&nested(MAX_DEPTH), "1:…nested more than");
    refused(&nested(20_000), "1:…nested more than");
    let chain = |n: usize| when(&vec!["context.run"; n].join(" || "));
    assert!(read(&chain(MAX_TOKENS / 5 - 5)).is_ok());
    refused(&chain(MAX_TOKENS / 5 + 5), "1:…words and signs");
    let n = MAX_TOKENS - 20;
    let texts = [
        when(&format!("{}context.run", "!".repeat(n))),
        when(&format!("{}1 < 2", "-".repeat(n))),
        when(&format!("1 < 2{}", " + 1".repeat(n / 2))),
        when(&format!("context{}", ".run".repeat(n / 2))),
        when(&format!("context{}", "[\"run\"]".repeat(n / 3))),
        when(&format!(
            "{}false",
            "if context.run then true else ".repeat(n / 6)
        )),
        when(&format!(
            "{}false{}",
            "if true then ".repeat(n / 5),
            " else true".repeat(n / 5)
        )),
        when(&format!("[{}].contains(1)", "1,".repeat(n / 2))),
        format!(
            "{}forbid (principal, action, resource);",
            "@a ".repeat(n / 2)
        ),
        format!(
            "forbid (principal, action, resource) {};",
            "when { context.run } ".repeat(n / 6)
        ),
    ];
    for text in texts {
        if let Ok((policies, _)) = read(&text) {
            let _ = policies.judge(&super::ask());
        }
    }
}

#[test]
fn unknown_agents_and_groups_are_remarked_upon() {
    let text = "forbid (principal in Group::\"dev\", action, resource);\n\
                forbid (principal in Group::\"kernel\", action, resource);\n\
                forbid (principal, action, resource)\n  when { principal in [Group::\"ops\", Group::\"eng\"] ||\n principal in [Agent::\"atlas\", Agent::\"zed\"] };";
    let (policies, warnings) = read(text).unwrap();
    assert_eq!(policies.len(), 3);
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "policies/a.cedar:4:24: there is no group \"ops\" yet",
            "policies/a.cedar:5:32: there is no agent \"zed\" yet",
        ]
    );
    let mut nobody_looked = known();
    nobody_looked.agents = None;
    nobody_looked.groups = None;
    let (_, warnings) = Policies::parse(&[file("a.cedar", text)], &nobody_looked).unwrap();
    assert_eq!(warnings, []);
}

#[test]
fn no_file_is_no_policy() {
    for files in [vec![], vec![file("a.cedar", "// nothing yet\n")]] {
        let (policies, warnings) = Policies::parse(&files, &known()).unwrap();
        assert!(policies.is_empty() && warnings.is_empty());
    }
}
