//! Ending sessions, and the lists that tell living from ended ones.

use server::domain::id::DeviceId;
use server::domain::session::{EndReason, Ending, Session};
use server::domain::user::UserStatus;
use server::storage::devices::{self, Device};
use server::storage::sessions::*;
use server::storage::{Tx, users};
use uuid::Uuid;

use crate::at_once;
use crate::people::{NOW, later, user_id, with_people};
use crate::sessions::{IDLE, ending, find, id, rotation, session, with_sessions};

#[tokio::test]
async fn a_session_ends_once_and_keeps_its_first_reason() {
    let database = with_sessions(&[session(1)]).await;
    let ended = at_once(&database.store, 20, async |tx, index| {
        let reason = EndReason::ALL[index % EndReason::ALL.len()];
        end_session(tx, id(1), &ending(reason)).await.expect("writes")
    });
    assert_eq!(ended.await, 1);
    let mut tx = database.write().await;
    let first = find(&mut tx, 1).await.ending;
    assert!(
        !end_session(&mut tx, id(1), &ending(EndReason::TokenReused))
            .await
            .expect("writes")
    );
    assert_eq!(find(&mut tx, 1).await.ending, first);
}

#[tokio::test]
async fn s8_all_others_end_and_are_named_with_their_devices() {
    let database = with_sessions(&[session(1), session(2)]).await;
    let mut tx = database.write().await;
    let device = DeviceId(Uuid::from_u128(5));
    let known = Device {
        id: device,
        user_id: user_id(1),
        secret_hash: [0; 32],
        created_at: NOW,
        last_seen_at: NOW,
        trusted_until: None,
    };
    devices::insert_device(&mut tx, &known).await.expect("inserts");
    insert_session(
        &mut tx,
        &Session {
            device_id: Some(device),
            ..session(3)
        },
    )
    .await
    .expect("inserts");
    let reason = ending(EndReason::PasswordChanged);
    let mut ended = end_sessions_of_user(&mut tx, user_id(1), Some(id(2)), &reason)
        .await
        .expect("writes");
    ended.sort_unstable();
    assert_eq!(ended, [(id(1), None), (id(3), Some(device))]);
    assert_eq!(list_living_sessions(&mut tx, user_id(1)).await.expect("lists").len(), 1);
    let rest = end_sessions_of_user(&mut tx, user_id(1), None, &reason)
        .await
        .expect("writes");
    assert_eq!(rest, [(id(2), None)]);
    assert_eq!(find(&mut tx, 2).await.ending, Some(reason));
}

#[tokio::test]
async fn lists_are_in_order_and_within_their_limits() {
    let at = |number: u32| Session {
        last_active_at: later(number.into()),
        ..session(number.into())
    };
    let mut all: Vec<Session> = (1..=5).map(at).collect();
    all.extend((11..=14).map(|number| {
        let mut ended = at(number);
        ended.ending = Some(Ending {
            at: later(number.into()),
            ..ending(EndReason::SignedOut)
        });
        ended
    }));
    let database = with_sessions(&all).await;
    let mut tx = database.read().await;
    let ids = |sessions: Vec<Session>| {
        sessions
            .into_iter()
            .map(|session| session.id.0.as_u128())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(list_living_sessions(&mut tx, user_id(1)).await.expect("lists")),
        [5, 4, 3, 2, 1]
    );
    assert_eq!(
        ids(list_oldest_living_sessions(&mut tx, user_id(1), 3)
            .await
            .expect("lists")),
        [2, 1]
    );
    assert_eq!(count_living_sessions(&mut tx, user_id(1)).await.expect("counts"), 5);
    assert_eq!(
        ids(list_ended_sessions(&mut tx, user_id(1), later(12), 2)
            .await
            .expect("lists")),
        [14, 13]
    );
    assert_eq!(
        ids(list_ended_sessions(&mut tx, user_id(1), later(13), 9)
            .await
            .expect("lists")),
        [14, 13]
    );
}

#[tokio::test]
async fn overdue_sessions_are_found_to_the_millisecond_and_old_ones_deleted_late() {
    let short = Session {
        absolute_expires_at: later(100),
        ..session(2)
    };
    let ended = Session {
        ending: Some(ending(EndReason::Idle)),
        ..short.clone()
    };
    let database = with_sessions(&[session(1), short, Session { id: id(3), ..ended }]).await;
    let mut tx = database.write().await;
    let overdue = async |tx: &mut Tx, now| {
        let mut found = list_overdue_sessions(tx, now, 10).await.expect("lists");
        found.sort_unstable_by_key(|session| session.id);
        found.into_iter().map(|session| session.id).collect::<Vec<_>>()
    };
    assert_eq!(overdue(&mut tx, later(99)).await, []);
    assert_eq!(overdue(&mut tx, later(100)).await, [id(2)]);
    assert_eq!(overdue(&mut tx, later(IDLE)).await, [id(1), id(2)]);
    assert_eq!(
        list_overdue_sessions(&mut tx, later(IDLE), 1)
            .await
            .expect("lists")
            .len(),
        1
    );
    assert_eq!(
        delete_sessions_ended_before(&mut tx, later(100), 10)
            .await
            .expect("deletes"),
        0
    );
    assert_eq!(
        delete_sessions_ended_before(&mut tx, later(101), 10)
            .await
            .expect("deletes"),
        1
    );
    assert!(find_session(&mut tx, id(3)).await.expect("reads").is_none());
    assert!(
        find_session(&mut tx, id(2)).await.expect("reads").is_some(),
        "living ones never"
    );
}

#[tokio::test]
async fn s13_of_fifty_sign_ins_at_once_ten_sessions_stay() {
    let database = with_people("member", 1..=1).await;
    let made = at_once(&database.store, 50, async |tx, index| {
        assert!(users::lock_user(tx, &crate::people::user(1, &[])).await.expect("locks"));
        for old in list_oldest_living_sessions(tx, user_id(1), 9).await.expect("lists") {
            end_session(tx, old.id, &ending(EndReason::TooManySessions))
                .await
                .expect("writes");
        }
        let number = u128::try_from(index).expect("small") + 1;
        insert_session(tx, &session(number)).await.is_ok()
    });
    assert_eq!(made.await, 50);
    let mut tx = database.read().await;
    assert_eq!(count_living_sessions(&mut tx, user_id(1)).await.expect("counts"), 10);
    assert_eq!(
        list_ended_sessions(&mut tx, user_id(1), NOW, 99)
            .await
            .expect("lists")
            .len(),
        40
    );
}

#[tokio::test]
async fn s7_disabling_during_refreshes_never_leaves_a_living_session() {
    let database = with_sessions(&[session(1)]).await;
    at_once(&database.store, 16, async |tx, index| {
        if index == 7 {
            let (active, disabled) = (UserStatus::Active, UserStatus::Disabled);
            assert!(
                users::set_status(tx, user_id(1), active, disabled, Some(NOW))
                    .await
                    .expect("writes")
            );
            end_sessions_of_user(tx, user_id(1), None, &ending(EndReason::UserDisabled))
                .await
                .expect("writes");
            return true;
        }
        let generation = 4 + u64::try_from(index).expect("small");
        rotate_session(
            tx,
            &Rotation {
                from_generation: generation,
                ..rotation(later(20))
            },
        )
        .await
        .expect("writes")
    })
    .await;
    let found = find(&mut database.read().await, 1).await;
    assert_eq!(found.ending.map(|ending| ending.reason), Some(EndReason::UserDisabled));
}
