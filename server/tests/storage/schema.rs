//! The tables: the same in both folders, of the right version, and with a log that cannot be changed.

use std::path::Path;

use server::storage::{DatabaseSettings, StorageError, Store, users};

use crate::database::{Database, on_postgres};
use crate::people;

fn migration(folder: &str, file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../migrations")
        .join(folder)
        .join(file);
    std::fs::read_to_string(path).expect("a migration")
}

fn files(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(folder);
    let mut names: Vec<String> = std::fs::read_dir(path)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

/// The statements of a migration without comments, in the words of SQLite; functions and triggers apart.
fn statements(sql: &str) -> Vec<String> {
    let without_comments: String = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let tables = without_comments.split("CREATE FUNCTION").next().unwrap_or_default();
    let tables = tables.split("CREATE TRIGGER").next().unwrap_or_default();
    tables
        .replace("STRICT, WITHOUT ROWID", "")
        .replace("COLLATE \"C\"", "")
        .replace("UUID", "BLOB")
        .replace("BYTEA", "BLOB")
        .replace("BIGINT", "INTEGER")
        .split(';')
        .map(|statement| {
            statement
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .replace(" )", ")")
        })
        .filter(|statement| !statement.is_empty())
        .collect()
}

fn triggers(sql: &str) -> Vec<&str> {
    sql.split("CREATE TRIGGER ")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next())
        .collect()
}

#[test]
fn both_migration_folders_make_the_same_tables_columns_and_indexes() {
    assert_eq!(files("sqlite"), files("postgres"));
    for file in files("sqlite") {
        let (sqlite, postgres) = (migration("sqlite", &file), migration("postgres", &file));
        let mut on_postgres = statements(&postgres);
        // How full its pages are is a matter of PostgreSQL's alone.
        on_postgres.retain(|statement| !statement.contains("fillfactor"));
        assert_eq!(statements(&sqlite), on_postgres, "{file}");
        assert_eq!(triggers(&sqlite), triggers(&postgres), "{file}");
        let least = if file.starts_with("0001") { 21 } else { 1 };
        assert!(
            statements(&sqlite).len() >= least,
            "the comparison sees the statements of {file}"
        );
    }
}

#[tokio::test]
async fn f9_a_database_without_tables_is_refused_and_migrating_twice_is_harmless() {
    let database = Database::unmigrated().await;
    assert!(matches!(
        database.store.check_schema().await,
        Err(StorageError::SchemaMissing)
    ));
    database.store.migrate().await.expect("migrates");
    database.store.check_schema().await.expect("is right");
    database.store.migrate().await.expect("migrates again");
    database.store.ping().await.expect("answers");
    assert_eq!(database.store.is_postgres(), on_postgres());
}

#[tokio::test]
async fn f9_an_older_newer_altered_or_interrupted_schema_is_refused_and_left_alone() {
    let refusal = async |change: &str| {
        let database = Database::new().await;
        database.tamper(change).await.expect("changes the history");
        let error = database.store.check_schema().await.expect_err("refused");
        let migrating = database.store.migrate().await.map_err(|error| error.to_string());
        (error, migrating)
    };
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";
    let (error, migrating) = refusal(newer).await;
    assert!(
        matches!(error, StorageError::SchemaNewer { found: 9999, .. }),
        "{error}"
    );
    assert_eq!(migrating, Err(error.to_string()));

    let other = if on_postgres() { "'\\x00'::bytea" } else { "x'00'" };
    let (error, migrating) = refusal(&format!(
        "UPDATE _sqlx_migrations SET checksum = {other} WHERE version = 1"
    ))
    .await;
    assert!(matches!(error, StorageError::SchemaDiffers { version: 1 }), "{error}");
    assert_eq!(migrating, Err(error.to_string()));

    let (error, migrating) = refusal("UPDATE _sqlx_migrations SET success = FALSE WHERE version = 1").await;
    assert!(
        matches!(error, StorageError::SchemaInterrupted { version: 1 }),
        "{error}"
    );
    assert_eq!(migrating, Err(error.to_string()));
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_refused_without_repeating_a_password() {
    for url in [
        "",
        "mysql://a",
        "sqlite:",
        "sqlite::memory:",
        "sqlite:a?mode=ro",
        "postgres://u:hunter2@h:x/d",
    ] {
        let settings = DatabaseSettings {
            url: url.into(),
            max_connections: 2,
        };
        let error = Store::connect(&settings).await.expect_err(url);
        assert!(matches!(error, StorageError::Address(_)), "{url}: {error}");
        assert!(!format!("{error} {error:?} {settings:?}").contains("hunter2"));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_database_file_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let database = Database::new().await;
    let Some(path) = database.url.strip_prefix("sqlite:") else {
        return;
    };
    for file in [path.to_owned(), format!("{path}-wal")] {
        let mode = std::fs::metadata(&file).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn f77_a_closed_sqlite_database_is_one_complete_file() {
    for _ in 0..50 {
        let database = Database::new().await;
        let Some(path) = database.url.strip_prefix("sqlite:") else {
            return;
        };
        // All its readers.
        tokio::join!(database.read(), database.read(), database.read(), database.read());
        database.store.close().await;
        // Whoever copies the file of a stopped server, or puts another in its place, has to find no log beside it.
        for rest in ["-wal", "-shm"] {
            assert!(!Path::new(&format!("{path}{rest}")).exists(), "{rest} is left");
        }
    }
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing_and_a_committed_one_everything() {
    let database = Database::new().await;
    let mut tx = database.write().await;
    users::insert_role(&mut tx, "member", "", people::NOW)
        .await
        .expect("inserts");
    drop(tx);
    assert!(
        users::list_roles(&mut database.read().await)
            .await
            .expect("lists")
            .is_empty()
    );
    let mut tx = database.write().await;
    users::insert_role(&mut tx, "member", "", people::NOW)
        .await
        .expect("inserts");
    tx.commit().await.expect("commits");
    assert_eq!(
        users::list_roles(&mut database.read().await)
            .await
            .expect("lists")
            .len(),
        1
    );
}

/// Roles by name.
async fn roles(database: &Database) -> Vec<String> {
    let mut roles: Vec<String> = users::list_roles(&mut database.read().await)
        .await
        .expect("lists")
        .into_iter()
        .map(|role| role.name)
        .collect();
    roles.sort();
    roles
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_at_once_exactly_those_who_committed_are_there() {
    let database = Database::new().await;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..120_u32 {
        let store = database.store.clone();
        writers.spawn(async move {
            let name = format!("role-{number:03}");
            let mut tx = store.write().await?;
            users::insert_role(&mut tx, &name, "", people::NOW).await?;
            match number % 4 {
                // Changes its mind, or is dropped in the middle of a statement.
                0 => drop(tx),
                1 => {
                    let again = users::insert_role(&mut tx, "half", "", people::NOW);
                    let _ = tokio::time::timeout(std::time::Duration::from_micros(u64::from(number)), again).await;
                    drop(tx);
                }
                // A refused statement takes nothing of the rest with it.
                2 if store.is_postgres() => tx.commit().await?,
                2 => {
                    let twice = users::insert_role(&mut tx, &name, "", people::NOW).await;
                    assert!(twice.is_err_and(|error| error.is_unique_violation()));
                    tx.commit().await?;
                }
                _ => tx.commit().await?,
            }
            Ok::<_, server::storage::StorageError>((number % 4 >= 2).then_some(name))
        });
    }
    let mut committed = Vec::new();
    while let Some(done) = writers.join_next().await {
        let done = done.expect("no panic").expect("no failure");
        if let Some(name) = done {
            // Told "done", it is there for everybody.
            assert!(roles(&database).await.contains(&name), "{name}");
            committed.push(name);
        }
    }
    committed.sort();
    assert_eq!(committed.len(), 60);
    assert_eq!(roles(&database).await, committed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_dropped_at_any_moment_leave_the_others_alone() {
    let database = Database::new().await;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let store = database.store.clone();
        writers.spawn(async move {
            let work = async {
                let mut tx = store.write().await?;
                users::insert_role(&mut tx, &format!("role-{number:03}"), "", people::NOW).await?;
                tx.commit().await
            };
            let patience = std::time::Duration::from_micros(u64::from(number % 40) * 100);
            match number % 2 {
                0 => Some(work.await.is_ok()),
                _ => tokio::time::timeout(patience, work).await.ok().map(|done| done.is_ok()),
            }
        });
    }
    let outcomes = writers.join_all().await;
    let waited: Vec<bool> = outcomes.into_iter().flatten().collect();
    assert!(waited.len() >= 100 && waited.iter().all(|done| *done), "{waited:?}");
    let there = roles(&database).await;
    assert!(there.len() >= waited.len(), "{} of {}", there.len(), waited.len());
    for number in (0..200).step_by(2) {
        assert!(there.contains(&format!("role-{number:03}")), "{number}");
    }
    database.write().await.commit().await.expect("works on");
    database.store.close().await;
}

#[tokio::test]
async fn a_transaction_with_a_failed_statement_cannot_be_called_done() {
    let database = Database::new().await;
    let mut tx = database.write().await;
    let bad = if on_postgres() {
        // Any error ends the transaction there, a refused statement too.
        "good"
    } else {
        drop(tx);
        let trigger = "CREATE TRIGGER breaks BEFORE INSERT ON roles WHEN NEW.name = 'bad' \
                       BEGIN SELECT RAISE(ABORT, 'broken'); END";
        database.tamper(trigger).await.expect("there is a trigger");
        tx = database.write().await;
        "bad"
    };
    users::insert_role(&mut tx, "good", "", people::NOW)
        .await
        .expect("inserts");
    users::insert_role(&mut tx, bad, "", people::NOW)
        .await
        .expect_err("fails");
    let error = tx.commit().await.expect_err("half of it is not what was asked for");
    assert!(error.is_unavailable(), "{error}");
    assert!(roles(&database).await.is_empty());
    database.write().await.commit().await.expect("the next one works");
}

#[tokio::test]
async fn readers_of_sqlite_cannot_write() {
    let database = Database::new().await;
    if on_postgres() {
        return;
    }
    let mut tx = database.read().await;
    let error = users::insert_role(&mut tx, "member", "", people::NOW)
        .await
        .expect_err("read-only");
    assert!(!error.is_unavailable());
}

#[tokio::test]
async fn f6_whose_turn_does_not_come_hears_unavailable_within_six_seconds() {
    let database = Database::new().await;
    let mut held = Vec::new();
    // SQLite has one writer; PostgreSQL here has four connections.
    for _ in 0..if on_postgres() { 4 } else { 1 } {
        held.push(database.write().await);
    }
    let waited = tokio::time::timeout(std::time::Duration::from_secs(6), database.store.write()).await;
    let error = waited.expect("an answer in time").expect_err("nothing is free");
    assert!(error.is_unavailable(), "{error}");
    held.clear();
    database.write().await.commit().await.expect("works again at once");
}

#[tokio::test]
async fn f7_a_connection_cut_in_the_middle_is_unavailable_and_the_next_one_works() {
    let database = Database::new().await;
    if !on_postgres() {
        return;
    }
    let mut tx = database.write().await;
    users::insert_role(&mut tx, "member", "", people::NOW)
        .await
        .expect("inserts");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.tamper(cut).await.expect("cuts");
    let error = users::list_roles(&mut tx).await.expect_err("the connection is gone");
    assert!(error.is_unavailable(), "{error:?}");
    let error = tx.commit().await.expect_err("nothing was committed");
    assert!(error.is_unavailable(), "{error:?}");
    assert!(
        users::list_roles(&mut database.read().await)
            .await
            .expect("a new connection")
            .is_empty()
    );
}

#[tokio::test]
async fn l7_the_audit_log_refuses_to_be_changed() {
    let database = Database::new().await;
    crate::audit::append_and_seal(&database, 3).await;
    for change in [
        "UPDATE audit_events SET kind = 'x'",
        "DELETE FROM audit_events",
        "UPDATE audit_seals SET sealed_at = 0",
        "DELETE FROM audit_seals",
    ] {
        let error = database.tamper(change).await.expect_err(change);
        assert!(error.to_string().contains("append-only"), "{change}: {error}");
    }
    if on_postgres() {
        let error = database
            // With what refers to them.
            .tamper("TRUNCATE audit_events, audit_seals CASCADE")
            .await
            .expect_err("refused");
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}
