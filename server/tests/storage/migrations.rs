//! Bringing tables up to date: what an older version left, and a migration that fails at any of its statements (F9); and
//! back again (F77).

use std::path::Path;

use server::storage::StorageError;
use sqlx::AssertSqlSafe;
use sqlx::migrate::{MigrateError, Migration, Migrator};

use crate::database::{Database, Raw, on_postgres};

/// Every step as it stands in the folder, oldest first.
async fn steps() -> Vec<Migration> {
    let folder = if on_postgres() { "postgres" } else { "sqlite" };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(folder);
    let migrator = Migrator::new(path.as_path()).await.expect("migrations");
    migrator.iter().cloned().collect()
}

/// Every migration, oldest first.
async fn migrations() -> Vec<Migration> {
    let mut migrations = steps().await;
    migrations.retain(|step| !step.migration_type.is_down_migration());
    assert!(migrations.len() >= 9, "none is ever removed");
    migrations
}

/// Runs these as the product runs its own; on a connection that is then gone.
async fn run(database: &Database, migrations: &[Migration]) -> Result<(), MigrateError> {
    let mut migrator = Migrator::DEFAULT;
    migrator.migrations = migrations.to_vec().into();
    let mut connection = database.raw().await;
    let done = match &mut connection {
        Raw::Sqlite(connection) => migrator.run_direct(None, connection, false).await,
        Raw::Postgres(connection) => migrator.run_direct(None, connection, false).await,
    };
    connection.close().await;
    done
}

/// The statements of a migration, as they are.
fn statements(sql: &str) -> Vec<String> {
    let (mut all, mut one) = (Vec::new(), String::new());
    for line in sql.lines() {
        let line = line.split("--").next().unwrap_or_default().trim_end();
        one += line;
        one += "\n";
        // The bodies of triggers and functions have semicolons of their own.
        let in_function = one.matches("$$").count() % 2 == 1;
        let in_trigger = one.contains("CREATE TRIGGER") && one.contains("BEGIN") && !line.ends_with("END;");
        if line.ends_with(';') && !in_function && !in_trigger {
            all.push(std::mem::take(&mut one));
        }
    }
    assert!(one.trim().is_empty(), "understood to the end: {one}");
    all
}

/// Everything that migrations make, as one text.
async fn tables(database: &Database) -> String {
    let sqlite = "SELECT COALESCE(group_concat(type || name || COALESCE(sql, ''), char(10)), '') \
                  FROM (SELECT * FROM sqlite_schema WHERE name NOT LIKE '%sqlx_migrations%' ORDER BY type, name)";
    let postgres = "SELECT COALESCE(string_agg(line, chr(10) ORDER BY line), '') FROM ( \
         SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default) AS line \
         FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations' \
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations' \
         UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal \
         UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace \
             AND conrelid <> COALESCE(to_regclass('_sqlx_migrations')::oid, 0) \
         UNION ALL SELECT concat_ws(' ', relname, reloptions) FROM pg_class WHERE relnamespace = 'public'::regnamespace \
             AND relname NOT LIKE '%sqlx_migrations%' \
         UNION ALL SELECT prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace) AS lines";
    let mut connection = database.raw().await;
    let text = match &mut connection {
        Raw::Sqlite(connection) => sqlx::query_scalar(AssertSqlSafe(sqlite)).fetch_one(connection).await,
        Raw::Postgres(connection) => sqlx::query_scalar(AssertSqlSafe(postgres)).fetch_one(connection).await,
    };
    connection.close().await;
    text.expect("it can be asked")
}

#[tokio::test]
async fn f9_the_tables_of_every_older_version_are_refused_in_one_sentence_until_they_are_migrated() {
    let all = migrations().await;
    let needed = all.last().expect("some").version;
    for stage in 1..all.len() {
        let found = all[stage - 1].version;
        let database = Database::unmigrated().await;
        run(&database, &all[..stage]).await.expect("as the older version did");
        let before = tables(&database).await;
        let error = database.store.check_schema().await.expect_err("refused");
        assert!(matches!(error, StorageError::SchemaOlder { .. }), "{error}");
        let said = format!(
            "the database schema is at version {found}, this program needs {needed}: run `mayfly migrate` first"
        );
        assert_eq!(error.to_string(), said);
        assert_eq!(tables(&database).await, before, "left alone");
        database.store.migrate().await.expect("migrates");
        database.store.check_schema().await.expect("is right");
        // Stopped after the commit, before the note of how long it took: that note is nobody's concern.
        let noted = "UPDATE _sqlx_migrations SET execution_time = -1";
        database.tamper(noted).await.expect("changes the history");
        database.store.check_schema().await.expect("is right all the same");
    }
}

/// A migration and the note that it was applied are one transaction on both databases. So it cannot stop half way: what
/// is there after it failed at any statement is the version before, whole, and the next start carries it out.
#[tokio::test]
async fn f9_a_migration_that_fails_at_any_statement_leaves_the_version_before_and_the_next_start_succeeds() {
    let all = migrations().await;
    let mut failures = 0;
    for (index, migration) in all.iter().enumerate() {
        let database = Database::unmigrated().await;
        run(&database, &all[..index]).await.expect("the versions before");
        let before = tables(&database).await;
        let statements = statements(migration.sql.as_str());
        for done in 0..=statements.len() {
            let text = format!("{}\nINSERT INTO no_such_table VALUES (1);", statements[..done].concat());
            let mut upto = all[..=index].to_vec();
            upto[index].sql = sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(text));
            let error = run(&database, &upto).await.expect_err("it fails");
            assert!(
                error.to_string().contains("no_such_table"),
                "after {done} statements: {error}"
            );
            assert_eq!(
                tables(&database).await,
                before,
                "{} after {done}",
                migration.description
            );
            let refused = database.store.check_schema().await.expect_err("not today's");
            let last_whole = index.checked_sub(1).map(|last| all[last].version);
            match refused {
                StorageError::SchemaMissing => assert_eq!(last_whole, None),
                StorageError::SchemaOlder { found, .. } => assert_eq!(last_whole, Some(found)),
                other => panic!("{other}"),
            }
            failures += 1;
        }
        database.store.migrate().await.expect("the next start succeeds");
        database.store.check_schema().await.expect("is right");
        assert_ne!(tables(&database).await, before, "the comparison sees a migration");
    }
    println!("{failures} failures in {} migrations", all.len());
    assert!(failures > 60, "each statement is seen: {failures}");
}

#[tokio::test]
async fn f77_tables_taken_back_are_those_of_the_older_version_and_come_forward_again() {
    let all = migrations().await;
    let today = all.last().expect("some").version;
    let mut ways_back = steps().await;
    ways_back.retain(|step| step.migration_type.is_down_migration());
    let oldest = today - i64::try_from(ways_back.len()).expect("few");
    assert!(oldest < today, "the last version has a way back");
    for version in oldest..today {
        let (database, older) = (Database::new().await, Database::unmigrated().await);
        let todays = tables(&database).await;
        let upto: Vec<Migration> = all.iter().filter(|step| step.version <= version).cloned().collect();
        run(&older, &upto).await.expect("as the older version did");
        database.store.migrate_back(version).await.expect("goes back");
        assert_eq!(tables(&database).await, tables(&older).await, "version {version}");
        // What the older program compares with its own before it starts.
        run(&database, &upto).await.expect("nothing to do and nothing amiss");
        assert_eq!(tables(&database).await, tables(&older).await);
        database.store.migrate().await.expect("comes forward");
        assert_eq!(tables(&database).await, todays);
    }
    let database = Database::new().await;
    for version in [i64::MIN, 0, oldest - 1, today, today + 1, i64::MAX] {
        let error = database.store.migrate_back(version).await.expect_err("refused");
        assert!(matches!(error, StorageError::NoWayBack { .. }), "{version}: {error}");
        database.store.check_schema().await.expect("left alone");
    }
    database.store.migrate_back(oldest).await.expect("goes back");
    let again = database
        .store
        .migrate_back(oldest)
        .await
        .expect_err("it is not today's any more");
    assert!(matches!(again, StorageError::SchemaOlder { .. }), "{again}");
}

#[tokio::test]
async fn f77_a_way_back_that_fails_at_any_statement_leaves_the_version_it_began_with() {
    let mut failures = 0;
    let all = migrations().await;
    let today = all.last().expect("some").version;
    for way_back in steps().await {
        if !way_back.migration_type.is_down_migration() {
            continue;
        }
        let from = way_back.version;
        let statements = statements(way_back.sql.as_str());
        for done in 0..=statements.len() {
            let database = Database::new().await;
            if from < today {
                database.store.migrate_back(from).await.expect("goes back");
            }
            let before = tables(&database).await;
            let text = format!("{}\nINSERT INTO no_such_table VALUES (1);", statements[..done].concat());
            let mut migrator = Migrator::DEFAULT;
            let mut failing = way_back.clone();
            failing.sql = sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(text));
            migrator.migrations = [all.clone(), vec![failing]].concat().into();
            let mut connection = database.raw().await;
            let undone = match &mut connection {
                Raw::Sqlite(connection) => migrator.undo(connection, from - 1).await,
                Raw::Postgres(connection) => migrator.undo(connection, from - 1).await,
            };
            connection.close().await;
            let error = undone.expect_err("it fails");
            assert!(error.to_string().contains("no_such_table"), "after {done}: {error}");
            assert_eq!(tables(&database).await, before);
            let upto: Vec<Migration> = all.iter().filter(|step| step.version <= from).cloned().collect();
            run(&database, &upto).await.expect("nothing to do and nothing amiss");
            failures += 1;
        }
    }
    assert!(failures > 9, "each statement is seen: {failures}");
}
