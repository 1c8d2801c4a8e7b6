//! `requirements.csv`: each requirement has a test that exists, or a reason why it has none yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::architecture::{files, root};

/// Faults that this part of the product answers for.
const FAULTS: [&str; 17] = [
    "F36", "F38", "F39", "F44", "F45", "F51", "F52", "F62", "F63", "F65", "F66", "F69", "F73", "F75", "F29", "F56",
    "F64",
];

fn required() -> BTreeSet<String> {
    let groups = [("S", 17), ("C", 14), ("P", 22), ("J", 15), ("R", 16), ("L", 12)];
    let numbered = groups
        .into_iter()
        .flat_map(|(letter, last)| (1..=last).map(move |n| format!("{letter}{n}")));
    numbered.chain(FAULTS.map(str::to_owned)).collect()
}

/// Names of everything that runs as a test.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["server", "app"] {
        for (_, text) in files(&root().join(folder), &[".rs"]) {
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
                if let Some(name) = function.and_then(|rest| rest.split('(').next()) {
                    if is_test {
                        names.insert(name.to_owned());
                    }
                    is_test = false;
                }
            }
        }
    }
    for (_, text) in files(&root().join("end2end/tests"), &[".ts"]) {
        for rest in text.split("test(").skip(1) {
            let quote = rest.chars().next().unwrap_or(' ');
            if matches!(quote, '"' | '\'' | '`')
                && let Some(title) = rest[1..].split(quote).next()
            {
                names.insert(title.to_owned());
            }
        }
    }
    names
}

#[test]
fn every_requirement_has_a_test_that_exists_or_a_reason() {
    let table = std::fs::read_to_string(root().join("server/tests/requirements.csv")).expect("the table");
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("ID,test,state"));
    let tests = tests();
    assert!(
        tests.contains("every_requirement_has_a_test_that_exists_or_a_reason"),
        "tests are found in the source"
    );
    let (mut wrong, mut states) = (Vec::new(), BTreeMap::<String, BTreeSet<bool>>::new());
    for line in lines {
        let [id, test, state] = line.splitn(3, ',').collect::<Vec<_>>()[..] else {
            wrong.push(format!("three columns: {line}"));
            continue;
        };
        let covered = state == "covered";
        states.entry(id.to_owned()).or_default().insert(covered);
        if covered {
            if !tests.contains(test) {
                wrong.push(format!("{id}: no test is named {test}"));
            }
            let begins = test.to_lowercase().starts_with(&format!("{}_", id.to_lowercase()));
            let spoken = test.contains(' ');
            if !begins
                && !spoken
                && !table
                    .lines()
                    .any(|other| other.starts_with(&format!("{id},{}_", id.to_lowercase())))
            {
                // A test of another name may stand for a requirement only beside one of its own, or if it is a rule
                // read off the source.
                let of_source = ["architecture", "j1_to_j7"].iter().any(|word| test.contains(word));
                if !of_source && !test.contains('_') {
                    wrong.push(format!("{id}: {test} is not named after it"));
                }
            }
        } else {
            let reason = state.strip_prefix("later: ").unwrap_or("");
            if !test.is_empty() || reason.len() < 10 {
                wrong.push(format!("{id}: neither covered nor a reason: {state}"));
            }
        }
    }
    let known: BTreeSet<String> = states.keys().cloned().collect();
    for id in required().difference(&known) {
        wrong.push(format!("{id} has no row"));
    }
    for id in known.difference(&required()) {
        wrong.push(format!("{id} is no requirement of this part"));
    }
    for (id, kinds) in states {
        if kinds.len() > 1 {
            wrong.push(format!("{id} is covered and put off at once"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
