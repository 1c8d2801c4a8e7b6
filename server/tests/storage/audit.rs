//! The audit log: appended, searched, sealed, and every tampering with the database itself found.

use server::domain::audit::{Circumstances, Event, Kind, Outcome};
use server::domain::audit_seal::{AuditRow, Checkpoint, SealKey, Tampering, Walk};
use server::domain::clock::Timestamp;
use server::domain::id::{EventId, SessionId};
use server::storage::Tx;
use server::storage::audit::*;
use uuid::Uuid;

use crate::at_once;
use crate::database::{Database, on_postgres};
use crate::people::{NOW, later, user_id};

fn event_id(number: u128) -> EventId {
    EventId(Uuid::from_u128(number))
}

fn event(number: u32) -> Event {
    let from = Circumstances {
        address: Some("198.51.100.7".into()),
        ..Circumstances::default()
    };
    // Three events share each moment, so that the cursor has to tell them apart.
    let mut event = Event::new(
        event_id(number.into()),
        later(u64::from(number / 3)),
        Kind::SignedIn,
        &from,
    )
    .fact("number", number)
    .change("limit", 1, 2);
    match number % 4 {
        0 => event.actor_id = Some(user_id(1)),
        1 => event.subject_id = Some(user_id(1)),
        2 => (event.actor_id, event.subject_id) = (Some(user_id(1)), Some(user_id(1))),
        _ => event.kind = Kind::SignInFailed,
    }
    event
}

async fn append(database: &Database, events: &[Event]) {
    let mut tx = database.write().await;
    append_events(&mut tx, events).await.expect("appends");
    tx.commit().await.expect("commits");
}

fn key() -> SealKey {
    SealKey::new(&[7; 32])
}

/// The first unsealed events of the whole log, found in as many statements as it takes.
async fn unsealed(tx: &mut Tx, limit: u32) -> Vec<AuditRow> {
    let mut from = BEGINNING;
    loop {
        let found = list_unsealed(tx, from, limit).await.expect("lists");
        match found.next {
            Some(next) if found.rows.is_empty() => from = next,
            _ => return found.rows,
        }
    }
}

/// Seals what is unsealed, in parts of two as a service would, and says where the chain ends.
async fn seal(database: &Database) -> Checkpoint {
    loop {
        let mut tx = database.write().await;
        let rows = unsealed(&mut tx, 2).await;
        let last = last_seal(&mut tx).await.expect("reads");
        if rows.is_empty() {
            return key().checkpoint(&last.expect("something is sealed"), NOW);
        }
        append_seals(&mut tx, &key().seal(last.as_ref(), &rows, NOW))
            .await
            .expect("appends");
        tx.commit().await.expect("commits");
    }
}

pub async fn append_and_seal(database: &Database, count: u32) -> Checkpoint {
    let events: Vec<Event> = (1..=count).map(event).collect();
    append(database, &events).await;
    seal(database).await
}

async fn verify(database: &Database, checkpoint: &Checkpoint) -> Result<(), Tampering> {
    let key = key();
    let mut walk = Walk::begin(&key, Some(checkpoint.clone()))?;
    let mut tx = database.read().await;
    loop {
        let links = list_seals(&mut tx, walk.position() + 1, 4).await.expect("lists");
        if links.is_empty() {
            break;
        }
        walk.check(&links)?;
    }
    let unsealed = unsealed(&mut tx, 1).await;
    walk.finish(unsealed.first().map(|row| row.id))
}

async fn search(database: &Database, filter: &EventFilter) -> Vec<u128> {
    let mut tx = database.read().await;
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = list_events(&mut tx, filter, before, 7).await.expect("lists");
        let Some(last) = page.last() else { return seen };
        before = Some((last.at, last.id));
        seen.extend(page.into_iter().map(|event| event.id.0.as_u128()));
    }
}

#[tokio::test]
async fn an_event_comes_back_as_it_was_written_whatever_a_stranger_sent() {
    let database = Database::new().await;
    let mut written = event(2)
        .session(SessionId(Uuid::from_u128(8)))
        .outcome(Outcome::Denied)
        .reason("no");
    written.user_agent = Some("'; DROP TABLE users; --\u{2028}\u{202e}".into());
    written = written
        .fact("sent", "nul \0 quote \" end")
        .fact("huge", "x".repeat(100_000));
    append(&database, std::slice::from_ref(&written)).await;
    let mut tx = database.read().await;
    let found = find_event(&mut tx, written.id).await.expect("reads").expect("is there");
    assert_eq!(format!("{found:?}"), format!("{written:?}"));
    assert!(find_event(&mut tx, event_id(99)).await.expect("reads").is_none());
    drop(tx);
    let nul = Event {
        id: event_id(3),
        user_agent: Some("a\0b".into()),
        ..event(3)
    };
    append(&database, &[nul]).await;
    let found = find_event(&mut database.read().await, event_id(3))
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(found.user_agent.as_deref(), Some("a\u{FFFD}b"));
}

/// After going back to an older version the log still has to be read, with whatever the newer one wrote into it.
#[tokio::test]
async fn f77_an_event_of_a_kind_that_only_a_newer_version_knows_can_be_read() {
    let database = Database::new().await;
    append(&database, &[event(2)]).await;
    let columns = "at, outcome, actor_id, subject_id, session_id, device_id, address, user_agent, request_id, reason, \
                   facts, changes";
    let id = if on_postgres() {
        "gen_random_uuid()"
    } else {
        "randomblob(16)"
    };
    let newer = format!(
        "INSERT INTO audit_events (id, kind, {columns}) SELECT {id}, 'moon_landed', {columns} FROM audit_events"
    );
    database.tamper(&newer).await.expect("written");
    let page = list_events(&mut database.read().await, &EventFilter::default(), None, 10)
        .await
        .expect("reads");
    let newer: Vec<_> = page.iter().filter(|event| event.kind == Kind::Newer).collect();
    assert_eq!((page.len(), newer.len()), (2, 1), "{page:?}");
    assert_eq!(newer[0].facts["newer_kind"], "moon_landed");
}

#[tokio::test]
async fn pages_of_the_log_have_no_gaps_and_no_doubles_under_every_filter() {
    let database = Database::new().await;
    let mut all: Vec<Event> = (1..=100).map(event).collect();
    all[49].session_id = Some(SessionId(Uuid::from_u128(5)));
    all[50].outcome = Outcome::Denied;
    append(&database, &all).await;
    let newest_first = |keep: &dyn Fn(&Event) -> bool| {
        let mut ids: Vec<_> = all
            .iter()
            .filter(|event| keep(event))
            .map(|event| (event.at, event.id))
            .collect();
        ids.sort_unstable();
        ids.into_iter().rev().map(|(_, id)| id.0.as_u128()).collect::<Vec<_>>()
    };
    let any = EventFilter::default;
    let person = Some(user_id(1));
    let concerns = |event: &Event| event.actor_id == person || event.subject_id == person;
    assert_eq!(search(&database, &any()).await, newest_first(&|_| true));
    assert_eq!(
        search(&database, &EventFilter { person, ..any() }).await,
        newest_first(&concerns)
    );
    let kind = Some(Kind::SignInFailed);
    let found = search(&database, &EventFilter { kind, ..any() }).await;
    assert_eq!(found, newest_first(&|event| event.kind == Kind::SignInFailed));
    assert_eq!(
        search(&database, &EventFilter { kind, person, ..any() }).await,
        [] as [u128; 0]
    );
    assert_eq!(
        search(
            &database,
            &EventFilter {
                outcome: Some(Outcome::Denied),
                ..any()
            }
        )
        .await,
        [51]
    );
    let session = Some(SessionId(Uuid::from_u128(5)));
    assert_eq!(search(&database, &EventFilter { session, ..any() }).await, [50]);
    let (from, to) = (later(5), later(20));
    let found = search(
        &database,
        &EventFilter {
            from: Some(from),
            to: Some(to),
            person,
            ..any()
        },
    )
    .await;
    assert_eq!(
        found,
        newest_first(&|event| event.at >= from && event.at < to && concerns(event))
    );
}

#[tokio::test]
async fn f71_an_event_of_a_transaction_that_fails_is_not_there() {
    let database = Database::new().await;
    let mut tx = database.write().await;
    append_events(&mut tx, &(1..=70).map(event).collect::<Vec<_>>())
        .await
        .expect("appends");
    drop(tx);
    assert_eq!(search(&database, &EventFilter::default()).await, [] as [u128; 0]);
    append(&database, &[]).await;
}

#[tokio::test]
async fn the_chain_is_whole_and_each_event_knows_its_seal() {
    let database = Database::new().await;
    let checkpoint = append_and_seal(&database, 9).await;
    assert_eq!(checkpoint.seq, 9);
    assert_eq!(verify(&database, &checkpoint).await, Ok(()));
    let mut tx = database.read().await;
    let found = seal_of(&mut tx, event_id(4)).await.expect("reads").expect("is sealed");
    assert_eq!((found.seq, found.event_id), (4, event_id(4)));
    assert!(seal_of(&mut tx, event_id(99)).await.expect("reads").is_none());
    drop(tx);
    // An event that is older than the last sealed one and came later is sealed all the same.
    append(
        &database,
        &[Event {
            id: event_id(50),
            ..event(1)
        }],
    )
    .await;
    assert_eq!(
        verify(&database, &checkpoint).await,
        Err(Tampering::Unsealed { event: event_id(50) })
    );
    assert_eq!(seal(&database).await.seq, 10);
    assert_eq!(verify(&database, &checkpoint).await, Ok(()));
}

#[tokio::test]
async fn l7_a_long_log_is_looked_through_in_steps_and_to_both_ends() {
    let database = Database::new().await;
    append_and_seal(&database, 200).await;
    let mut first = event(201);
    (first.id, first.at) = (EventId(Uuid::nil()), Timestamp::from_millis(i64::MIN));
    append(&database, &[first, event(202)]).await;
    let mut tx = database.read().await;
    let (mut from, mut steps, mut found) = (BEGINNING, 0, Vec::new());
    loop {
        let Unsealed { rows, next } = list_unsealed(&mut tx, from, 3).await.expect("lists");
        found.extend(rows.iter().map(|row| row.id));
        steps += 1;
        let Some(next) = next else { break };
        assert!(next > from);
        from = next;
    }
    assert_eq!(found, [event_id(0), event_id(202)]);
    assert_eq!(steps, 4, "60 events each");
}

#[tokio::test]
async fn two_who_seal_at_once_cannot_both() {
    let database = Database::new().await;
    append(&database, &[event(1)]).await;
    let mut tx = database.write().await;
    let rows = unsealed(&mut tx, 9).await;
    let seals = key().seal(None, &rows, NOW);
    append_seals(&mut tx, &seals).await.expect("appends");
    tx.commit().await.expect("commits");
    let error = append_seals(&mut database.write().await, &seals)
        .await
        .expect_err("sealed already");
    assert!(error.is_unique_violation());
}

#[tokio::test]
async fn f70_whoever_gets_round_the_triggers_is_found_by_the_first_bad_row() {
    let id = |number: u128| {
        let hex = Uuid::from_u128(number).simple().to_string();
        if on_postgres() {
            format!("'{hex}'::uuid")
        } else {
            format!("x'{hex}'")
        }
    };
    let tampered = async |changes: &[String]| {
        let database = Database::new().await;
        let checkpoint = append_and_seal(&database, 9).await;
        for trigger in [
            "audit_events_no_update",
            "audit_events_no_delete",
            "audit_seals_no_update",
            "audit_seals_no_delete",
        ] {
            let table = trigger.rsplit_once("_no_").map_or("", |(table, _)| table);
            let on = if on_postgres() {
                format!(" ON {table}")
            } else {
                String::new()
            };
            database
                .tamper(&format!("DROP TRIGGER {trigger}{on}"))
                .await
                .expect("drops");
        }
        if on_postgres() {
            database
                .tamper("ALTER TABLE audit_seals DROP CONSTRAINT audit_seals_event_id_fkey")
                .await
                .expect("drops");
        }
        for change in changes {
            let change = if on_postgres() {
                change.clone()
            } else {
                format!("PRAGMA foreign_keys = OFF; {change}")
            };
            database.tamper(&change).await.expect("tampers");
        }
        verify(&database, &checkpoint).await.expect_err("found")
    };
    let altered = tampered(&[format!(
        "UPDATE audit_events SET address = '203.0.113.9' WHERE id = {}",
        id(6)
    )])
    .await;
    assert_eq!(
        altered,
        Tampering::Modified {
            seq: 6,
            event: event_id(6)
        }
    );
    let deleted = tampered(&[format!("DELETE FROM audit_events WHERE id = {}", id(5))]).await;
    assert_eq!(
        deleted,
        Tampering::EventMissing {
            seq: 5,
            event: event_id(5)
        }
    );
    let both = [
        "DELETE FROM audit_seals WHERE seq = 5".to_owned(),
        format!("DELETE FROM audit_events WHERE id = {}", id(5)),
    ];
    assert_eq!(tampered(&both).await, Tampering::SealMissing { seq: 5 });
    let swapped = [
        format!("UPDATE audit_seals SET event_id = {} WHERE seq = 2", id(100)),
        format!("UPDATE audit_seals SET event_id = {} WHERE seq = 3", id(2)),
        format!("UPDATE audit_seals SET event_id = {} WHERE seq = 2", id(3)),
    ];
    assert_eq!(
        tampered(&swapped).await,
        Tampering::Reordered {
            seq: 2,
            event: event_id(3)
        }
    );
    let cut = [
        "DELETE FROM audit_seals WHERE seq > 6".to_owned(),
        format!("DELETE FROM audit_events WHERE id > {}", id(6)),
    ];
    assert_eq!(tampered(&cut).await, Tampering::Truncated { found: 6, expected: 9 });
}

#[tokio::test]
async fn many_writers_at_once_lose_no_event() {
    let database = Database::new().await;
    let written = at_once(&database.store, 40, async |tx, index| {
        let first = u32::try_from(index).expect("small") * 3 + 1;
        append_events(tx, &[event(first), event(first + 1), event(first + 2)])
            .await
            .is_ok()
    });
    assert_eq!(written.await, 40);
    assert_eq!(search(&database, &EventFilter::default()).await.len(), 120);
}
