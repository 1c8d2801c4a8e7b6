//! Every SQL text, read by both databases before anybody uses it.

use std::path::{Path, PathBuf};

use server::storage::all_statements;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _, SqlSafeStr as _};

use crate::database::{Database, Raw, on_postgres};

#[tokio::test]
async fn every_statement_prepares() {
    let database = Database::new().await;
    let mut connection = database.raw().await;
    let mut failures = Vec::new();
    for (name, sql) in all_statements(on_postgres()) {
        let prepared = match &mut connection {
            Raw::Sqlite(connection) => connection.prepare(sql.into_sql_str()).await.map(drop),
            Raw::Postgres(connection) => connection.prepare(sql.into_sql_str()).await.map(drop),
        };
        if let Err(error) = prepared {
            failures.push(format!("{name}: {error}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(all_statements(on_postgres()).count() > 60, "the list is there");
}

/// What grows with use, and as what the statements speak of it.
const GROWING: [(&str, &str); 7] = [
    ("sessions", "s"),
    ("audit_events", "e"),
    ("audit_seals", "s"),
    ("flows", "flows"),
    ("devices", "devices"),
    ("recovery_codes", "recovery_codes"),
    ("client_assertions", "a"),
];

/// The steps of a plan made before any value is known.
async fn plan(connection: &mut Raw, sql: &str) -> Vec<String> {
    match connection {
        Raw::Sqlite(connection) => {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
            let steps = plan.fetch_all(connection).await.expect("a plan");
            steps.into_iter().map(|step| step.get("detail")).collect()
        }
        Raw::Postgres(connection) => {
            let run = async |connection: &mut PgConnection, sql: String| {
                sqlx::raw_sql(AssertSqlSafe(sql))
                    .fetch_all(connection)
                    .await
                    .expect("runs")
            };
            // The tables are empty, so that reading one whole seems cheap: only where there is no other way it stays.
            run(
                connection,
                format!("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; PREPARE one AS {sql}"),
            )
            .await;
            let count = "SELECT cardinality(parameter_types) AS count FROM pg_prepared_statements WHERE name = 'one'";
            let count: i32 = run(connection, count.to_owned()).await[0].get("count");
            let nulls = vec!["NULL"; usize::try_from(count).expect("a count")].join(", ");
            let values = if count > 0 { format!("({nulls})") } else { nulls };
            let steps = run(connection, format!("EXPLAIN EXECUTE one{values}")).await;
            run(connection, "DEALLOCATE one".to_owned()).await;
            steps.into_iter().map(|step| step.get(0)).collect()
        }
    }
}

#[tokio::test]
async fn no_statement_reads_a_whole_growing_table() {
    let database = Database::new().await;
    let mut connection = database.raw().await;
    let mut scans = Vec::new();
    for (name, sql) in all_statements(on_postgres()) {
        for step in plan(&mut connection, sql).await {
            // Reading along an index in its order is no scan of the table: it stops at the limit.
            let reads_whole = |(table, alias): (&str, &str)| {
                [format!("SCAN {table}"), format!("SCAN {alias}")].contains(&step)
                    || step.contains(&format!("Seq Scan on {table} "))
            };
            if GROWING.into_iter().any(reads_whole) {
                scans.push(name);
            }
        }
    }
    // The chain is in the order of its own table: its end is one step away.
    scans.retain(|name| !name.ends_with("audit::LAST_SEAL"));
    // After a restored backup whole tables are gone over, once.
    scans.retain(|name| !name.contains("::recovery::"));
    assert!(scans.is_empty(), "{scans:#?}");
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The text without its `statements!` blocks.
fn outside_the_list(text: &str) -> String {
    let mut parts = text.split("\nstatements! {");
    let mut outside = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        outside.push_str(part.split_once("\n}\n").map_or("", |(_, rest)| rest));
    }
    outside
}

#[test]
fn all_sql_stands_in_the_lists_and_nowhere_else() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    // The history of migrations stands apart.
    let known = [
        "\"INSERT INTO audit_events (\"",
        // What lists and the texts for one database each are made of.
        "\"UPDATE sessions SET generation = generation + 1, child_confirmed = 0, reissues = 0\"",
        "\"SELECT \",\n            session_columns!()",
        "\"SELECT \", client_columns!()",
        "\"SELECT unhex(value ->> 0), ",
        "\"SELECT * FROM UNNEST(",
        "\"INSERT INTO audit_seals (seq,",
        "\"INSERT INTO revocations (cursor,",
        "\"UPDATE sessions SET ended_at = $1, ",
        "\"SELECT id, username FROM users WHERE id \", $in_ids",
        "\"UPDATE sessions SET look_at = ",
        "\"UPDATE sessions SET absolute_expires_at = CASE WHEN $2 < started_at ",
        // What two of a list are made of.
        "\"UPDATE sessions SET ended_at = $2, ",
    ];
    let mut found = Vec::new();
    for file in files {
        if file.ends_with("storage/schema.rs") {
            continue;
        }
        let mut text = outside_the_list(&std::fs::read_to_string(&file).expect("a source file"));
        for known in known {
            text = text.replace(known, "");
        }
        for verb in ["\"SELECT ", "\"INSERT INTO ", "\"UPDATE ", "\"DELETE FROM "] {
            if text.contains(verb) {
                found.push(format!("{}: {verb}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
