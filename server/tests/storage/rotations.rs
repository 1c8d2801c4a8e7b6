//! The usual rotation, written in one round trip: like the one inside a transaction, together with its audit row or
//! not at all, whatever happens to others in the same commit and to those who wait for it.

use std::time::Duration;

use server::domain::audit::{Circumstances, Event, Kind};
use server::domain::id::EventId;
use server::storage::audit::{append_events, find_event};
use server::storage::sessions::*;
use server::storage::{StorageError, Store, Tx, users};
use sqlx::Connection as _;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::{Database, Raw, on_postgres};
use crate::people::{later, user_id};
use crate::sessions::{find, id, rotation, session, with_sessions};

/// Of the rotation of that session.
pub fn event(number: u128) -> Event {
    let from = Circumstances {
        address: Some("198.51.100.7".into()),
        user_agent: Some("nul\0 is not kept".into()),
        ..Circumstances::default()
    };
    Event::new(EventId(Uuid::from_u128(number)), later(20), Kind::TokenRotated, &from)
        .by_subject(user_id(1))
        .session(id(number))
        .fact("generation", 5)
}

fn usual(number: u128) -> Rotation {
    Rotation {
        id: id(number),
        ..rotation(later(20))
    }
}

pub async fn is_recorded(database: &Database, number: u128) -> bool {
    let mut tx = database.read().await;
    let found = find_event(&mut tx, EventId(Uuid::from_u128(number))).await;
    found.expect("reads").is_some()
}

async fn generation(database: &Database, number: u128) -> u64 {
    find(&mut database.read().await, number).await.generation
}

async fn with_many(count: u128) -> Database {
    with_sessions(&(1..=count).map(session).collect::<Vec<_>>()).await
}

#[tokio::test]
async fn f71_the_usual_rotation_leaves_the_same_rows_as_one_in_a_transaction() {
    let database = with_many(2).await;
    let sliding = |number| Rotation {
        counts_as_activity: true,
        ..usual(number)
    };
    let rotated = rotate_and_record(&database.store, sliding(1), event(1)).await;
    assert!(rotated.expect("writes"));
    let mut tx = database.write().await;
    assert!(rotate_session(&mut tx, &sliding(2)).await.expect("writes"));
    append_events(&mut tx, &[event(2)]).await.expect("writes");
    tx.commit().await.expect("commits");

    let mut tx = database.read().await;
    let (mut one, two) = (find(&mut tx, 1).await, find(&mut tx, 2).await);
    assert_eq!((one.generation, one.last_active_at), (5, later(20)));
    one.id = two.id;
    assert_eq!(format!("{one:?}"), format!("{two:?}"));
    let mut events = Vec::new();
    for number in [1, 2] {
        let found = find_event(&mut tx, EventId(Uuid::from_u128(number))).await;
        events.push(found.expect("reads").expect("is there"));
    }
    assert_eq!(events[0].user_agent.as_deref(), Some("nul\u{FFFD} is not kept"));
    (events[0].id, events[0].session_id) = (events[1].id, events[1].session_id);
    assert_eq!(format!("{:?}", events[0]), format!("{:?}", events[1]));
}

#[tokio::test]
async fn f71_an_audit_row_that_cannot_be_written_keeps_the_session_from_rotating() {
    let database = with_many(1).await;
    let mut tx = database.write().await;
    append_events(&mut tx, &[event(1)]).await.expect("writes");
    tx.commit().await.expect("commits");
    let refused = rotate_and_record(&database.store, usual(1), event(1)).await;
    assert!(refused.expect_err("the id is taken").is_unique_violation());
    assert_eq!(generation(&database, 1).await, 4);
    let rotated = rotate_and_record(&database.store, usual(1), event(2)).await;
    assert!(rotated.expect("writes"), "nothing was left behind");
}

#[tokio::test]
async fn f53_the_usual_rotation_is_none_for_a_session_whose_roles_have_changed() {
    let database = with_many(1).await;
    let mut tx = database.write().await;
    users::set_roles(&mut tx, user_id(1), &["auditor".into()], later(1))
        .await
        .expect("writes");
    tx.commit().await.expect("commits");
    let with_new_roles = Rotation {
        grant_epoch: 2,
        ..usual(1)
    };
    let rotated = rotate_and_record(&database.store, with_new_roles, event(1)).await;
    assert!(!rotated.expect("asks"), "it would have to revoke what came before");
    assert!(!is_recorded(&database, 1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_of_64_usual_rotations_at_once_one_happens_and_is_recorded() {
    let database = with_many(1).await;
    let mut running = JoinSet::new();
    for number in 1..=64 {
        let store = database.store.clone();
        running.spawn(async move { rotate_and_record(&store, usual(1), event(number)).await });
    }
    let happened = running.join_all().await;
    let happened = happened.into_iter().filter(|done| *done.as_ref().expect("asks"));
    assert_eq!(happened.count(), 1);
    assert_eq!(generation(&database, 1).await, 5);
    let mut recorded = 0;
    for number in 1..=64 {
        recorded += u32::from(is_recorded(&database, number).await);
    }
    assert_eq!(recorded, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f71_rotations_that_share_a_commit_with_failures_and_other_writers_stand_or_fall_alone() {
    let database = with_many(80).await;
    let mut tx = database.write().await;
    append_events(&mut tx, &[event(1000)]).await.expect("writes");
    tx.commit().await.expect("commits");
    let mut running = JoinSet::new();
    for number in 1..=80_u128 {
        let store = database.store.clone();
        running.spawn(async move {
            let done = match number % 5 {
                // Its audit row cannot be written.
                0 => rotate_and_record(&store, usual(number), event(1000)).await.ok(),
                // In a transaction, committed or not.
                1 => in_a_transaction(&store, number, true).await,
                2 => in_a_transaction(&store, number, false).await,
                _ => rotate_and_record(&store, usual(number), event(number)).await.ok(),
            };
            (number, done)
        });
    }
    for (number, done) in running.join_all().await {
        let expected = match number % 5 {
            0 | 2 => None,
            _ => Some(true),
        };
        assert_eq!(done, expected, "{number}");
        let generation = generation(&database, number).await;
        assert_eq!(generation, 4 + u64::from(expected.is_some()), "{number}");
        assert_eq!(is_recorded(&database, number).await, expected.is_some(), "{number}");
    }
}

async fn in_a_transaction(store: &Store, number: u128, commits: bool) -> Option<bool> {
    let mut tx = store.write().await.expect("a transaction");
    let rotated = rotate_session(&mut tx, &usual(number)).await.expect("writes");
    append_events(&mut tx, &[event(number)]).await.expect("writes");
    if !commits {
        return None;
    }
    tx.commit().await.expect("commits");
    Some(rotated)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f71_a_rotation_that_nobody_waits_for_any_more_is_whole_or_has_not_happened() {
    let database = with_many(400).await;
    let (mut running, store) = (JoinSet::new(), database.store.clone());
    for number in 1..=400_u64 {
        let store = store.clone();
        running.spawn(async move {
            let of = u128::from(number);
            let patience = Duration::from_micros(if number % 3 == 0 { 5_000_000 } else { number * 97 % 3000 });
            let given_up = tokio::time::timeout(patience, rotate_and_record(&store, usual(of), event(of))).await;
            // Whoever comes next on the same connection gets the answer to their own question.
            let mut tx = store.read().await.expect("a connection");
            assert_eq!(find(&mut tx, of).await.id, id(of));
            given_up.is_err()
        });
        if number % 4 == 0 {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    }
    let given_up = running
        .join_all()
        .await
        .into_iter()
        .filter(|given_up| *given_up)
        .count();
    // What was still under way is over soon.
    database.write().await.commit().await.expect("commits");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut happened = 0;
    for number in 1..=400 {
        let rotated = generation(&database, number).await == 5;
        assert_eq!(is_recorded(&database, number).await, rotated, "{number}");
        happened += usize::from(rotated);
    }
    assert!(given_up > 20, "{given_up} were given up");
    assert!(happened > 20, "{happened} happened");
}

#[tokio::test]
async fn f7_a_transaction_that_is_given_up_lets_go_of_its_rows() {
    let database = with_many(1).await;
    for _ in 0..20 {
        let mut tx = database.write().await;
        assert!(rotate_session(&mut tx, &usual(1)).await.expect("writes"));
    }
    let rotated = rotate_and_record(&database.store, usual(1), event(1));
    let rotated = tokio::time::timeout(Duration::from_secs(2), rotated).await;
    assert!(rotated.expect("waits for nobody").expect("writes"));
}

#[tokio::test]
async fn f7_connections_that_the_server_has_cut_are_thrown_away() {
    if !on_postgres() {
        return;
    }
    let database = with_many(1).await;
    let cut = async || {
        // All of the pool's, which are as many as are in use at once.
        let all = [(); 4].map(|()| database.store.read());
        let mut lent = Vec::new();
        for one in all {
            lent.push(one.await.expect("a connection"));
        }
        drop(lent);
        let cut = database.tamper(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        // The first time also the one for what is asked together, which nobody needs here.
        assert!(cut.await.expect("cuts") >= 4);
    };
    cut().await;
    let mut failures = 0;
    for _ in 0..10 {
        if let Err(error) = database.store.ping().await {
            assert!(error.is_unavailable(), "{error:?}");
            failures += 1;
        }
        // The broken one is looked at by a task of its own.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(failures <= 4, "{failures} failures with four connections");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    cut().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    database
        .store
        .ping()
        .await
        .expect("one that has lain about is looked at first");
}

/// Whoever asks for one more than there are waits, but not for ever, and is told to come again.
async fn is_unavailable_in_time(asked: impl Future<Output = Result<Tx, StorageError>>) {
    let told = tokio::time::timeout(Duration::from_millis(5500), asked).await;
    let error = told.expect("no longer than five seconds").expect_err("all are lent");
    assert!(error.is_unavailable(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_with_every_reading_connection_lent_one_more_is_unavailable_until_one_comes_back() {
    let database = with_many(1).await;
    let mut lent = Vec::new();
    for number in 0..4 {
        let mut tx = database.read().await;
        assert_eq!(find(&mut tx, 1).await.id, id(1), "{number}");
        lent.push(tx);
    }
    let (reads, writes) = (database.store.read(), database.store.write());
    if on_postgres() {
        // Who reads and who writes take from the same pool there.
        tokio::join!(is_unavailable_in_time(reads), is_unavailable_in_time(writes));
    } else {
        is_unavailable_in_time(reads).await;
        writes.await.expect("a transaction").commit().await.expect("commits");
    }
    // The first that comes back is for the one who waits.
    let (waited, ()) = tokio::join!(database.store.read(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(lent.pop());
    });
    let mut one = waited.expect("a connection");
    assert_eq!(find(&mut one, 1).await.id, id(1));
    drop((one, lent));
    database.store.ping().await.expect("answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_with_every_writing_connection_lent_one_more_is_unavailable_until_one_comes_back() {
    let database = with_many(4).await;
    // SQLite has one writer at a time.
    let count = if on_postgres() { 4 } else { 1 };
    let mut lent = Vec::new();
    for number in 1..=count {
        let mut tx = database.write().await;
        assert!(rotate_session(&mut tx, &usual(number)).await.expect("writes"));
        lent.push(tx);
    }
    let (reads, writes) = (database.store.read(), database.store.write());
    if on_postgres() {
        tokio::join!(is_unavailable_in_time(reads), is_unavailable_in_time(writes));
    } else {
        is_unavailable_in_time(writes).await;
        let mut tx = reads.await.expect("who reads does not wait for who writes");
        assert_eq!(find(&mut tx, 1).await.generation, 4);
    }
    let (waited, ()) = tokio::join!(database.store.write(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(lent.pop());
    });
    let mut one = waited.expect("a transaction");
    assert!(
        rotate_session(&mut one, &usual(count)).await.expect("writes"),
        "it was given up"
    );
    one.commit().await.expect("commits");
    drop(lent);
    for number in 1..=count {
        let rotated = rotate_and_record(&database.store, usual(number), event(number)).await;
        assert_eq!(rotated.expect("asks"), number != count, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_a_row_that_somebody_holds_keeps_nobody_else_waiting() {
    if !on_postgres() {
        // SQLite has one writer at a time: its own tests say how long others wait.
        return;
    }
    let database = with_many(100).await;
    let mut holder = database.write().await;
    assert!(rotate_session(&mut holder, &usual(50)).await.expect("writes"));
    let mut running = JoinSet::new();
    for number in 1..=100 {
        let store = database.store.clone();
        running.spawn(async move {
            let rotated = rotate_and_record(&store, usual(number), event(number)).await;
            (number, rotated.expect("asks"))
        });
    }
    for _ in 0..99 {
        let (number, rotated) = running.join_next().await.expect("runs").expect("ends");
        assert!(rotated && number != 50, "{number}");
    }
    // Committed or not decides what becomes of the one that waits.
    drop(holder);
    assert_eq!(running.join_next().await.expect("runs").expect("ends"), (50, true));
    assert_eq!(generation(&database, 50).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_a_row_that_is_held_for_too_long_is_unavailable() {
    if !on_postgres() {
        return;
    }
    let database = with_many(1).await;
    let mut holder = database.write().await;
    assert!(rotate_session(&mut holder, &usual(1)).await.expect("writes"));
    let waits = rotate_and_record(&database.store, usual(1), event(1));
    let waited = tokio::time::timeout(Duration::from_millis(5500), waits).await;
    let error = waited.expect("no longer than five seconds").expect_err("held");
    assert!(error.is_unavailable(), "{error:?}");
    holder.commit().await.expect("commits");
    assert!(!is_recorded(&database, 1).await);
}

/// Lets processes of the database server stop or go on.
fn signal(pids: &[i32], signal: &str) {
    let pids = pids.iter().map(i32::to_string);
    let sent = std::process::Command::new("kill").arg(signal).args(pids).status();
    assert!(sent.expect("kill runs").success(), "{signal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_a_connection_that_falls_silent_holds_up_only_those_who_were_on_it() {
    if !on_postgres() {
        return;
    }
    let database = with_many(50).await;
    let Raw::Postgres(mut connection) = database.raw().await else {
        unreachable!("on PostgreSQL")
    };
    let all = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let pids: Vec<i32> = sqlx::query_scalar(all).fetch_all(&mut connection).await.expect("pids");
    connection.close().await.expect("closes");
    signal(&pids, "-STOP");
    let mut running = JoinSet::new();
    for number in 1..=50 {
        let store = database.store.clone();
        running.spawn(async move { find_known(&store, id(number)).await });
        if number == 1 {
            // So that it goes alone.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let mut answered = 0;
    let all_others = async {
        while answered < 49 {
            let known = running.join_next().await.expect("runs").expect("ends");
            assert!(known.expect("is answered on another connection").is_some());
            answered += 1;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(3), all_others).await;
    let last = running.join_next().await;
    signal(&pids, "-CONT");
    in_time.expect("the others do not wait for it");
    let error = last.expect("one is left").expect("ends").expect_err("silent");
    assert!(error.is_unavailable(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_at_once_with_others_gets_their_own_answer() {
    let database = with_many(150).await;
    let mut running = JoinSet::new();
    for number in 1..=600_u128 {
        let store = database.store.clone();
        // Many ask for the same, and some for one that there is not.
        let of = number % 200;
        running.spawn(async move {
            let known = find_known(&store, id(of)).await.expect("reads");
            (of, known.map(|(session, user, _)| (session.id, user.id)))
        });
    }
    while let Some(known) = running.join_next().await {
        let (of, known) = known.expect("ends");
        let expected = (1..=150).contains(&of).then(|| (id(of), user_id(1)));
        assert_eq!(known, expected, "{of}");
    }
}
