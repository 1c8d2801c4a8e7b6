//! `requirements.csv`: each requirement has a test that exists, or a reason why it has none yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::architecture::{files, root};

/// Faults that this part of the product answers for.
const FAULTS: [&str; 48] = [
    "F1", "F2", "F3", "F4", "F5", "F6", "F7", "F17", "F8", "F10", "F12", "F13", "F36", "F38", "F39", "F44", "F45",
    "F49", "F50", "F51", "F52", "F53", "F54", "F62", "F63", "F65", "F66", "F67", "F69", "F73", "F75", "F29", "F56",
    "F64", "F9", "F11", "F14", "F15", "F16", "F18", "F19", "F20", "F55", "F57", "F59", "F74", "F76", "F77",
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
    let mut reserved = BTreeSet::new();
    let (mut wrong, mut rows) = (Vec::new(), BTreeMap::<String, Vec<(String, bool)>>::new());
    for line in lines {
        // A title of the browser's tests may hold commas; ids and states hold none.
        let columns = line
            .split_once(',')
            .and_then(|(id, rest)| Some((id, rest.rsplit_once(',')?)));
        let Some((id, (test, state))) = columns else {
            wrong.push(format!("three columns: {line}"));
            continue;
        };
        let covered = state == "covered";
        if covered && !tests.contains(test) {
            wrong.push(format!("{id}: no test is named {test}"));
        }
        let partly = state.strip_prefix("partly: ");
        let reason = partly.or_else(|| state.strip_prefix("later: ")).unwrap_or("");
        if !covered && (!test.is_empty() || reason.len() < 10) {
            wrong.push(format!("{id}: neither covered nor a reason: {state}"));
        }
        if partly.is_some() {
            reserved.insert(id.to_owned());
            continue;
        }
        rows.entry(id.to_owned()).or_default().push((test.to_owned(), covered));
    }
    let known: BTreeSet<String> = rows.keys().cloned().collect();
    for id in required().difference(&known) {
        wrong.push(format!("{id} has no row"));
    }
    for id in known.difference(&required()) {
        wrong.push(format!("{id} is no requirement of this part"));
    }
    // A reservation says what the tests beside it do not show.
    for id in reserved.difference(&known) {
        wrong.push(format!("{id} is partly covered by nothing"));
    }
    for (id, tests) in rows {
        let covered = tests.iter().filter(|(_, covered)| *covered).count();
        if covered > 0 && covered < tests.len() {
            wrong.push(format!("{id} is covered and put off at once"));
        }
        let own =
            |test: &str| test.starts_with(&format!("{}_", id.to_lowercase())) || test.starts_with(&format!("{id}: "));
        if covered > 0 && !tests.iter().any(|(test, _)| own(test)) {
            wrong.push(format!("{id}: none of its tests is named after it"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
