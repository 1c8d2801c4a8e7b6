//! A database that an earlier version made: after its migration everybody is still signed in and goes on refreshing.

use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use data_encoding::BASE64URL_NOPAD;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, Executor, PgConnection, SqliteConnection};

use crate::app::TestApp;
use crate::architecture::root;
use crate::browser::Browser;
use crate::program::Program;

/// Tables that are not empty when they are made.
const BORN_WITH_ROWS: [&str; 3] = ["locks", "revocation_cursor", "mail_server"];

/// The migrations up to this one, as an earlier version of the program had them.
async fn migrations(folder: &str, stage: i64) -> Migrator {
    let mut migrator = Migrator::new(root().join("migrations").join(folder).as_path())
        .await
        .expect("migrations");
    let known = migrator.iter().filter(|one| !one.migration_type.is_down_migration());
    let known: Vec<_> = known.filter(|one| one.version <= stage).cloned().collect();
    assert_eq!(known.last().map(|one| one.version), Some(stage), "it exists");
    migrator.migrations = known.into();
    migrator
}

/// Puts a database of an earlier stage in the place of this one, with the same rows in the columns of that time. Nobody
/// may be connected.
async fn take_back(url: &str, stage: i64) {
    if let Some(file) = url.strip_prefix("sqlite:") {
        let (file, newer) = (Path::new(file), Path::new(file).with_extension("newer"));
        std::fs::rename(file, &newer).expect("moved");
        std::fs::write(file, "").expect("an empty one");
        let mut connection = SqliteConnection::connect(url).await.expect("opens");
        migrations("sqlite", stage)
            .await
            .run(&mut connection)
            .await
            .expect("migrated");
        run(&mut connection, "PRAGMA foreign_keys = off".to_owned()).await;
        run(&mut connection, format!("ATTACH '{}' AS newer", newer.display())).await;
        let tables = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name <> '_sqlx_migrations'";
        let tables: Vec<String> = sqlx::query_scalar(tables)
            .fetch_all(&mut connection)
            .await
            .expect("tables");
        for table in tables {
            let columns = AssertSqlSafe(format!("SELECT name FROM pragma_table_info('{table}', 'main')"));
            let columns: Vec<String> = sqlx::query_scalar(columns)
                .fetch_all(&mut connection)
                .await
                .expect("columns");
            copy(&mut connection, "main", &table, &columns).await;
        }
        connection.close().await.expect("closed");
    } else {
        let mut connection = PgConnection::connect(url).await.expect("opens");
        for statement in ["ALTER SCHEMA public RENAME TO newer", "CREATE SCHEMA public"] {
            run(&mut connection, statement.to_owned()).await;
        }
        migrations("postgres", stage)
            .await
            .run(&mut connection)
            .await
            .expect("migrated");
        // Rows of one table may come before those that they refer to.
        run(&mut connection, "SET session_replication_role = replica".to_owned()).await;
        let tables =
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations'";
        let tables: Vec<String> = sqlx::query_scalar(tables)
            .fetch_all(&mut connection)
            .await
            .expect("tables");
        for table in tables {
            let columns = AssertSqlSafe(format!(
                "SELECT column_name::text FROM information_schema.columns \
                 WHERE table_schema = 'public' AND table_name = '{table}'"
            ));
            let columns: Vec<String> = sqlx::query_scalar(columns)
                .fetch_all(&mut connection)
                .await
                .expect("columns");
            copy(&mut connection, "public", &table, &columns).await;
        }
        connection.close().await.expect("closed");
    }
}

async fn run<'c, E: Executor<'c>>(connection: E, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .expect("it runs");
}

async fn copy<C>(connection: &mut C, schema: &str, table: &str, columns: &[String])
where
    for<'c> &'c mut C: Executor<'c>,
{
    if BORN_WITH_ROWS.contains(&table) {
        run(&mut *connection, format!("DELETE FROM {schema}.{table}")).await;
    }
    let columns = columns.join(", ");
    let sql = format!("INSERT INTO {schema}.{table} ({columns}) SELECT {columns} FROM newer.{table}");
    run(connection, sql).await;
}

/// Every version of the tables before today's.
fn earlier_versions() -> Vec<i64> {
    let mut versions: Vec<i64> = std::fs::read_dir(root().join("migrations/sqlite"))
        .expect("a folder")
        .map(|entry| {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            let (version, _) = name.split_once('_').expect("a number first");
            version.parse().expect("a number")
        })
        .collect();
    versions.sort_unstable();
    versions.dedup();
    assert!(versions.pop().is_some_and(|today| today >= 8), "none is ever removed");
    versions
}

/// An older binary refuses newer tables (`f9_…` of the storage tests), because it would write rows that the newer one takes
/// for complete. The way back is `mayfly migrate --back-to`, below.
#[tokio::test]
async fn f77_everybody_of_every_earlier_version_goes_on_after_the_upgrade() {
    for stage in earlier_versions() {
        let back = async |app: &TestApp| take_back(&app.database_url(), stage).await;
        everybody_goes_on(&format!("from {stage}"), back).await;
    }
}

/// With the same rows in the tables of before, as the older program finds and leaves them.
#[tokio::test]
async fn f77_everybody_goes_on_after_the_way_back_and_another_upgrade() {
    let stage = earlier_versions().pop().expect("one");
    let back = async |app: &TestApp| {
        let done = app.command(&["migrate", "--back-to", &stage.to_string()], &[]).await;
        assert!(done.status.success(), "{done:?}");
        let version = app.number("SELECT MAX(version) FROM _sqlx_migrations").await;
        assert_eq!(version, stage);
    };
    everybody_goes_on("by the command", back).await;
}

#[tokio::test]
async fn f77_tables_are_not_taken_back_while_anybody_uses_them() {
    let stage = earlier_versions().pop().expect("one");
    let app = TestApp::start("f77 in use").await;
    let serving = app.spawn_beside().await;
    app.backend().store().close().await;
    let back = async || app.command(&["migrate", "--back-to", &stage.to_string()], &[]).await;
    let refused = back().await;
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("stop every node first"), "{said}");
    let today = app.number("SELECT MAX(version) FROM _sqlx_migrations").await;
    assert!(today > stage, "left alone");
    serving.process().terminate();
    let ended = async {
        while serving.process().ended().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .expect("it stops");
    let done = back().await;
    assert!(done.status.success(), "{done:?}");
    let forward = app.command(&["migrate"], &[]).await;
    assert!(forward.status.success(), "{forward:?}");
    for nowhere in [1, today] {
        let refused = app.command(&["migrate", "--back-to", &nowhere.to_string()], &[]).await;
        assert!(!refused.status.success(), "{refused:?}");
    }
}

#[tokio::test]
async fn f9_older_tables_are_brought_forward_by_no_command_and_not_while_older_nodes_serve() {
    let stage = earlier_versions().pop().expect("one");
    let app = TestApp::start("f9 forward").await;
    let on_postgres = app.backend().store().is_postgres();
    app.backend().store().close().await;
    let back = app.command(&["migrate", "--back-to", &stage.to_string()], &[]).await;
    assert!(back.status.success(), "{back:?}");
    let version = async || app.number("SELECT MAX(version) FROM _sqlx_migrations").await;
    let is_refused = async |command: &[&str], why: &str| {
        let refused = app.command(command, &[]).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{said}");
        assert_eq!(version().await, stage, "left alone");
    };
    for command in [&["keys", "list"][..], &["audit", "verify"], &["recover"]] {
        is_refused(command, "run `mayfly migrate` first").await;
    }
    if on_postgres {
        // As a node of that version reports.
        let seen = "INSERT INTO nodes (id, ahead_ms, seen_at) VALUES \
            ('018f2f2e-0000-7000-8000-000000000007', 0, (EXTRACT(EPOCH FROM now()) * 1000)::bigint)";
        app.execute(seen).await;
        for command in [&["migrate"][..], &["serve"]] {
            is_refused(command, "stop every one of them first").await;
        }
        // It has been gone for long enough.
        app.execute("UPDATE nodes SET seen_at = seen_at - 36000").await;
    }
    let forward = app.command(&["migrate"], &[]).await;
    assert!(forward.status.success(), "{forward:?}");
    assert!(version().await > stage);
}

/// Everybody who was signed in before tables were taken back is so after they were brought forward again.
async fn everybody_goes_on(from: &str, back: impl AsyncFnOnce(&TestApp)) {
    let app = TestApp::start(&format!("f77 {from}")).await;
    let (person, mut honest) = app.add_program("honest").await;
    let (_, mut unlucky) = app.add_program("unlucky").await;
    let (_, leaving) = app.add_program("leaving").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    assert!(leaving.end(&leaving.session_id).await.status.is_success());
    app.pass(60);
    let late_tab = honest.refresh.clone();
    honest.renew().await.expect(200);
    honest.sessions().await.expect(200);
    // The answer of this one is lost: it holds the parent.
    unlucky.present(&unlucky.refresh.clone()).await.expect(200);
    app.pass(5);
    app.backend().store().close().await;
    back(&app).await;

    let app = app.restart().await;
    let anew = |program: &Program| Program {
        app: app.clone(),
        ..program.clone()
    };
    let [mut honest, mut unlucky, mut leaving] = [&honest, &unlucky, &leaving].map(anew);
    browser.app = app.clone();
    // The access tokens of before are good for the rest of their life, and a tab that is late is no thief.
    honest.sessions().await.expect(200);
    honest.present(&late_tab).await.expect(409);
    let lost = unlucky.renew().await.expect(200);
    assert_eq!(lost.header("mayfly-refresh"), Some("reissued"), "{from}");
    leaving.renew().await.expect(401);
    for _ in 0..5 {
        app.pass(60);
        for program in [&mut honest, &mut unlucky] {
            program.renew().await.expect(200);
            program.sessions().await.expect(200);
        }
        let page = browser.open("/").await.expect(200).page();
        assert!(page.contains("Your devices"), "{from}: {page}");
    }
    for wrong in [
        "authn_token_reuse",
        "database_rolled_back",
        "refresh_refused",
        "session_expired",
    ] {
        assert_eq!(app.events(wrong).await, 0, "{from}: {wrong}");
    }
    // And whoever uses an old token now is found out as ever.
    app.pass(60);
    honest.present(&late_tab).await.expect(401);
    assert_eq!(app.events("authn_token_reuse").await, 1, "{from}");
}

#[tokio::test]
async fn f77_a_refresh_token_of_an_unknown_version_is_malformed_and_harms_nobody() {
    let app = TestApp::start("f77 version").await;
    let (_, mut program) = app.add_program("max").await;
    app.pass(60);
    let encoded = program.refresh.strip_prefix("mfr_").expect("ours");
    let mut bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).expect("base64url");
    assert_eq!(bytes[0], 1, "the version of today");
    for version in [0, 2, 255] {
        bytes[0] = version;
        // As a later version would tag it.
        let signed = bytes.len() - 16;
        let tag = app
            .backend()
            .keys()
            .edge(bytes[1])
            .expect("its key")
            .tag(&bytes[..signed]);
        bytes[signed..].copy_from_slice(&tag);
        let reply = program
            .present(&format!("mfr_{}", BASE64URL_NOPAD.encode(&bytes)))
            .await
            .expect(400);
        assert!(reply.body.contains("invalid_grant"), "{}", reply.body);
    }
    assert_eq!(app.events("refresh_refused").await, 0, "it was not even looked up");
    program
        .ask_with(&program.access, Method::GET, "/api/v1/me")
        .await
        .expect(200);
    program.renew().await.expect(200);
}
