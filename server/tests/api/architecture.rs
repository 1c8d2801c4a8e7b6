//! The arrows of the architecture, read off the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the project")
        .to_owned()
}

/// Every file below a folder with one of these endings, without what tools made.
pub fn files(folder: &Path, endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        if path.is_dir() {
            if !["target", "node_modules", "test-results", "dist"].contains(&name.as_str()) && !name.starts_with('.') {
                found.extend(files(&path, endings));
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push((path.clone(), std::fs::read_to_string(&path).expect("text")));
        }
    }
    found.sort();
    found
}

/// The code of a file: without its comments and without what stands in quotes.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Fails with the places where the folder names one of these crates.
#[track_caller]
fn names_none(folder: &str, crates: &[&str]) {
    let mut found = Vec::new();
    let all = files(&root().join(folder), &[".rs"]);
    assert!(!all.is_empty(), "{folder} has files");
    for (path, text) in all {
        for (number, line) in code(&text).lines().enumerate() {
            // A crate stands at the beginning of a path; a module of another crate may have the same name.
            let words = line.replace("::", " :: ");
            let words: Vec<&str> = words
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
                .filter(|w| !w.is_empty())
                .collect();
            let named = |name: &str| {
                words
                    .iter()
                    .enumerate()
                    .any(|(at, word)| *word == name && (at == 0 || words[at - 1] != "::"))
            };
            if let Some(name) = crates.iter().find(|name| named(name)) {
                found.push(format!("{}:{}: {name}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_rules_know_neither_http_nor_pages_nor_sql() {
    names_none(
        "server/src/domain",
        &[
            "axum",
            "leptos",
            "leptos_axum",
            "sqlx",
            "sea_query",
            "tower_sessions",
            "tower",
        ],
    );
}

/// The crates of `[dependencies]`.
fn dependencies(package: &str) -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join(package).join("Cargo.toml")).expect("a manifest");
    let rest = manifest.split_once("\n[dependencies]\n").expect("dependencies").1;
    let lines = rest.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| {
        line.split(['.', ' '])
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))
    });
    names.map(|name| name.replace('-', "_")).collect()
}

#[test]
fn the_fuzz_targets_have_every_crate_that_the_rules_need() {
    // They compile the rules from these sources, in the full run only.
    let (server, fuzz) = (dependencies("server"), dependencies("server/fuzz"));
    let missing: Vec<&str> = server.difference(&fuzz).map(String::as_str).collect();
    assert!(missing.contains(&"sqlx"), "{missing:?}");
    let mut found = Vec::new();
    for (path, text) in files(&root().join("server/src/domain"), &[".rs"]) {
        for name in &missing {
            if text.contains(&format!("\nuse {name}::")) {
                found.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_services_know_neither_axum_nor_sql() {
    names_none(
        "server/src/services",
        &["axum", "leptos", "leptos_axum", "sqlx", "sea_query"],
    );
}

#[test]
fn storage_knows_neither_http_nor_pages_nor_services() {
    names_none(
        "server/src/storage",
        &["axum", "leptos", "app", "services", "tower_sessions"],
    );
}

#[test]
fn the_verifier_for_other_services_knows_nothing_of_the_inside() {
    names_none(
        "server/src/verify",
        &[
            "sqlx",
            "sea_query",
            "storage",
            "services",
            "http",
            "startup",
            "config",
            "leptos",
            "app",
            "reqwest",
        ],
    );
    for (path, text) in files(&root().join("server/src/verify"), &[".rs"]) {
        for inside in [
            "crate::storage",
            "crate::services",
            "crate::http",
            "crate::startup",
            "crate::config",
        ] {
            assert!(!code(&text).contains(inside), "{}: {inside}", path.display());
        }
    }
}

#[test]
fn the_edge_knows_no_sql() {
    names_none("server/src/http", &["sqlx", "sea_query"]);
}

#[test]
fn pages_know_neither_the_server_nor_sql() {
    names_none("app/src", &["sqlx", "axum", "tower_sessions", "jsonwebtoken", "argon2"]);
    // `server` alone is leptos' own word for a server function.
    for (path, text) in files(&root().join("app/src"), &[".rs"]) {
        assert!(!code(&text).contains("server::"), "{}", path.display());
    }
    let manifest = std::fs::read_to_string(root().join("app/Cargo.toml")).expect("a manifest");
    for name in ["sqlx", "server", "tower-sessions", "jsonwebtoken", "argon2"] {
        let depends = manifest.lines().any(|line| {
            line.starts_with(&format!("{name}."))
                || line.starts_with(&format!("{name} "))
                || line.starts_with(&format!("{name}="))
        });
        assert!(!depends, "app depends on {name}");
    }
}

#[test]
fn islands_keep_nothing_that_belongs_to_one_thread() {
    // Pages are rendered on the server, too, where the thread that drops a page need not be the one that made it.
    for (path, text) in files(&root().join("app/src"), &[".rs"]) {
        for word in ["new_local", "LocalStorage", "SendWrapper", "LocalResource"] {
            assert!(!code(&text).contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn every_statement_stands_in_storage() {
    let mut found = Vec::new();
    for (path, text) in files(&root().join("server/src"), &[".rs"]) {
        if path.starts_with(root().join("server/src/storage")) {
            continue;
        }
        for (number, line) in code(&text).lines().enumerate() {
            let statement = [
                "SELECT ",
                "INSERT INTO",
                "UPDATE ",
                "DELETE FROM",
                "CREATE TABLE",
                "PRAGMA ",
            ]
            .iter()
            .any(|word| line.contains(&format!("\"{word}")));
            if statement || line.contains("sqlx::query") {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let mut found = Vec::new();
    for folder in ["app", "frontend", "server", "xtask"] {
        for (path, text) in files(&root().join(folder), &[".rs"]) {
            let lines = text.lines().count();
            if lines > 600 {
                found.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_module_says_what_it_owns() {
    let mut found = Vec::new();
    for folder in ["app", "frontend", "server", "xtask"] {
        for (path, text) in files(&root().join(folder), &[".rs"]) {
            if !text.starts_with("//!") {
                found.push(path.display().to_string());
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Each of these decides whether a secret is the right one.
#[test]
fn j14_what_compares_secrets_does_so_in_constant_time() {
    let deciding = [
        ("domain/refresh.rs", "fn is_authentic("),
        ("domain/keys/ring.rs", "fn verify("),
        ("domain/dbsc.rs", "fn open("),
        ("domain/dpop.rs", "fn has("),
        ("domain/client.rs", "fn is_secret("),
        ("domain/password.rs", "fn verify("),
        ("services/sign_in.rs", "fn find_device_of("),
        ("http/protect/form.rs", "fn header_form_token_matches("),
        ("http/protect/form.rs", "fn same("),
    ];
    for (file, function) in deciding {
        let path = root().join("server/src").join(file);
        let text = std::fs::read_to_string(&path).expect("it is there");
        let from = text
            .find(function)
            .unwrap_or_else(|| panic!("{file} has no {function}"));
        let is_method = text[..from]
            .rsplit('\n')
            .next()
            .is_some_and(|line| line.starts_with("    "));
        let end = if is_method { "\n    }\n" } else { "\n}\n" };
        let body = text[from..].split(end).next().unwrap_or_default();
        assert!(body.contains(".ct_eq("), "{file}: {function}…) compares otherwise");
    }
}

/// Beside measuring time (`properties/timing.rs`, J14, R7), which finds a comparison byte by byte but not `==`, where many
/// bytes are compared at once: the source is searched for any that is not made by `subtle` or by the cryptographic library.
#[test]
fn j14_secrets_are_compared_in_constant_time_only() {
    // Whoever compares a tag, hash or token with == outside of tests has to come here and say why.
    let mut found = Vec::new();
    for (path, text) in files(&root().join("server/src"), &[".rs"]) {
        if path.to_string_lossy().contains("tests") {
            continue;
        }
        let tests_at = text.find("#[cfg(test)]").unwrap_or(text.len());
        for (number, line) in code(&text[..tests_at]).lines().enumerate() {
            let compares = line.contains(" == ") || line.contains(" != ");
            let secret = [
                "secret_hash",
                "code_hash",
                "form_token ==",
                "== form_token",
                "outer ==",
                "inner ==",
                "expose_secret() ==",
            ]
            .iter()
            .any(|word| line.contains(word));
            if compares && secret {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
