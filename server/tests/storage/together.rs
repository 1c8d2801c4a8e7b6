//! What many ask at once and the database is asked together: everybody gets what they would have got alone.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use server::domain::audit::{Circumstances, Event, Kind, Outcome};
use server::domain::client::{Authentication, ClientId, ClientName, ClientStatus, Scopes, ServiceClient};
use server::domain::id::{DeviceId, EventId};
use server::storage::audit::{EventFilter, append_alone, append_events, find_event, list_events};
use server::storage::clients::{find_client, insert_client};
use server::storage::sessions::{find_known, find_known_with};
use uuid::Uuid;

use crate::database::{Database, Raw, on_postgres};
use crate::people::{NOW, later, user_id};
use crate::sessions::{id, session, with_sessions};

const MANY: u128 = 60;

/// Begins all before it waits for any.
async fn at_once<T: Send + 'static>(acts: impl Iterator<Item = impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let begun: Vec<_> = acts.map(tokio::spawn).collect();
    let mut done = Vec::new();
    for act in begun {
        done.push(act.await.expect("no panic"));
    }
    done
}

/// With everything that an event can hold, or with next to nothing.
fn event(number: u128) -> Event {
    let event = |from| Event::new(EventId(Uuid::from_u128(number)), later(20), Kind::SignInFailed, from);
    if number.is_multiple_of(3) {
        return event(&Circumstances::default());
    }
    let from = Circumstances {
        address: Some("2001:db8::7".into()),
        user_agent: Some("\"quoted\" \\ 'single' \u{1F98B} \u{2028} -- ; $1".into()),
        request_id: Some("abcdefgh01234567".into()),
        actor_id: Some(user_id(1)),
        ..Circumstances::default()
    };
    event(&from)
        .outcome(Outcome::Denied)
        .subject(user_id(2))
        .session(id(number))
        .device(Some(DeviceId(Uuid::from_u128(number + 1))))
        .reason("wrong_password")
        .fact("text", "a\0b \"c\" \u{1F98B}")
        .fact("number", u64::try_from(number).expect("small"))
        .change("idle_s", 900, 600)
}

#[tokio::test]
async fn f71_events_written_together_are_what_each_would_have_written_alone() {
    let database = Database::new().await;
    let mut tx = database.write().await;
    let alike: Vec<Event> = (1001..=1000 + MANY).map(event).collect();
    append_events(&mut tx, &alike).await.expect("writes");
    tx.commit().await.expect("commits");
    let appending = (1..=MANY).map(|number| {
        let store = database.store.clone();
        async move { append_alone(&store, event(number)).await }
    });
    for written in at_once(appending).await {
        written.expect("writes");
    }
    let mut tx = database.read().await;
    for number in (1..=MANY).chain(1001..=1000 + MANY) {
        let found = find_event(&mut tx, EventId(Uuid::from_u128(number))).await;
        let found = found.expect("reads").expect("is there");
        assert_eq!(format!("{found:?}"), format!("{:?}", event(number)));
    }
    drop(tx);
    append_alone(&database.store, event(MANY + 1)).await.expect("writes");
    // An id that is taken is the trouble of that event only.
    let appending = (MANY + 1..=2 * MANY).map(|number| {
        let store = database.store.clone();
        async move { (number, append_alone(&store, event(number)).await) }
    });
    for (number, written) in at_once(appending).await {
        // On PostgreSQL nobody can know whether it is the same one, asked for once more.
        let is_taken = number == MANY + 1 && !on_postgres();
        assert_eq!(
            written.is_err_and(|error| error.is_unique_violation()),
            is_taken,
            "{number}"
        );
    }
    let filter = EventFilter::default();
    let all = list_events(&mut database.read().await, &filter, None, 500).await;
    assert_eq!(all.expect("reads").len(), 3 * usize::try_from(MANY).expect("small"));
}

#[tokio::test]
async fn sessions_looked_for_together_are_each_found_with_what_belongs_to_them() {
    let database = with_sessions(&(1..=MANY).map(session).collect::<Vec<_>>()).await;
    // Some twice, and some that never were.
    let sought: Vec<u128> = (1..=MANY + 10).chain(1..=10).collect();
    let looking = sought.clone().into_iter().map(|number| {
        let store = database.store.clone();
        async move { find_known(&store, id(number)).await }
    });
    let found = at_once(looking).await;
    let mut tx = database.read().await;
    for (number, found) in sought.into_iter().zip(found) {
        let alone = find_known_with(&mut tx, id(number)).await.expect("reads");
        assert_eq!(alone.is_some(), number <= MANY);
        assert_eq!(format!("{:?}", found.expect("reads")), format!("{alone:?}"));
    }
}

#[tokio::test]
async fn a_row_that_nobody_can_read_is_the_trouble_of_that_session_only() {
    let database = with_sessions(&(1..=MANY).map(session).collect::<Vec<_>>()).await;
    let Raw::Sqlite(mut raw) = database.raw().await else {
        // PostgreSQL keeps nothing in a column that is not of its type.
        return;
    };
    let damage = "PRAGMA foreign_keys = off; UPDATE sessions SET device_id = x'0102' WHERE id = $1";
    let broken = sqlx::query(damage).bind(id(7).0).execute(&mut raw).await;
    assert_eq!(broken.expect("writes").rows_affected(), 1);
    let looking = (1..=MANY).map(|number| {
        let store = database.store.clone();
        async move { (number, find_known(&store, id(number)).await) }
    });
    for (number, found) in at_once(looking).await {
        assert_eq!(found.is_err(), number == 7, "{number}: {found:?}");
    }
}

#[tokio::test]
async fn clients_looked_for_together_are_each_found() {
    let database = Database::new().await;
    let client = |number: u128| ServiceClient {
        id: ClientId::parse(&format!("svc-{}", BASE64URL_NOPAD.encode(&number.to_be_bytes()))).expect("an id"),
        name: ClientName::parse(&format!("client {number}")).expect("a name"),
        authentication: Authentication::Secret([7; 32]),
        scopes: Scopes::parse("read write").expect("scopes"),
        access: Duration::from_mins(5),
        may_introspect: number.is_multiple_of(2),
        status: ClientStatus::Active,
        created_at: NOW,
    };
    let mut tx = database.write().await;
    for number in 1..=MANY {
        insert_client(&mut tx, &client(number)).await.expect("inserts");
    }
    tx.commit().await.expect("commits");
    let sought: Vec<u128> = (1..=MANY + 10).chain(1..=10).collect();
    let looking = sought.clone().into_iter().map(|number| {
        let (store, id) = (database.store.clone(), client(number).id);
        async move { find_client(&store, id).await }
    });
    let found = at_once(looking).await;
    for (number, found) in sought.into_iter().zip(found) {
        let expected = (number <= MANY).then(|| client(number));
        assert_eq!(format!("{:?}", found.expect("reads")), format!("{expected:?}"));
    }
    let alone = find_client(&database.store, client(1).id).await.expect("reads");
    assert_eq!(format!("{alone:?}"), format!("{:?}", Some(client(1))));
}
