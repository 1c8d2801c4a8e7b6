//! Ending sessions, and the lists that tell living from ended ones.

use std::time::Duration;

use server::domain::clock::Timestamp;
use server::domain::id::{DeviceId, SessionId};
use server::domain::session::{EndReason, Ending, Session, Tightened};
use server::domain::user::UserStatus;
use server::storage::devices::{self, Device};
use server::storage::sessions::*;
use server::storage::{Tx, users};
use uuid::Uuid;

use crate::at_once;
use crate::people::{NOW, later, user_id, with_people};
use crate::sessions::{ABSOLUTE, IDLE, ending, find, id, rotation, rule, session, with_sessions};

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

/// Those that have passed a limit; looking at the others that are due is put off, as the sweep does it.
async fn overdue(tx: &mut Tx, now: Timestamp) -> Vec<SessionId> {
    let due = list_due_sessions(tx, now, 10).await.expect("lists");
    let is_overdue = |session: &Session| now >= session.absolute_expires_at.min(session.idle_expires_at());
    let (overdue, used): (Vec<_>, Vec<_>) = due.into_iter().partition(is_overdue);
    let used: Vec<SessionId> = used.iter().map(|session| session.id).collect();
    put_off_looking(tx, &used).await.expect("writes");
    for id in used {
        let again = list_due_sessions(tx, now, 10).await.expect("lists");
        assert!(again.iter().all(|session| session.id != id), "put off");
    }
    let mut overdue: Vec<SessionId> = overdue.iter().map(|session| session.id).collect();
    overdue.sort_unstable();
    overdue
}

#[tokio::test]
async fn a_session_used_just_in_time_is_not_ended_as_idle() {
    let database = with_sessions(&[session(1)]).await;
    let mut tx = database.write().await;
    let idle = Ending {
        at: later(IDLE),
        ..ending(EndReason::Idle)
    };
    let read = find(&mut tx, 1).await.last_active_at;
    assert!(
        touch_session(&mut tx, id(1), later(IDLE - 1).into())
            .await
            .expect("writes")
    );
    // Who read it before decides once more, whatever limit it goes by.
    assert!(!end_unused_session(&mut tx, id(1), &idle, read).await.expect("writes"));
    assert!(
        !end_overdue_session(&mut tx, id(1), &idle, idle.at)
            .await
            .expect("writes")
    );
    assert_eq!(find(&mut tx, 1).await.ending, None);
    let idle = Ending {
        at: later(2 * IDLE - 1),
        ..idle
    };
    // It is the moment that counts, and not when it is written down.
    let before = later(2 * IDLE - 2);
    assert!(
        !end_overdue_session(&mut tx, id(1), &idle, before)
            .await
            .expect("writes")
    );
    assert!(
        end_overdue_session(&mut tx, id(1), &idle, idle.at)
            .await
            .expect("writes")
    );
    assert_eq!(find(&mut tx, 1).await.ending, Some(idle));
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
    assert_eq!(overdue(&mut tx, later(99)).await, []);
    assert_eq!(overdue(&mut tx, later(100)).await, [id(2)]);
    assert_eq!(overdue(&mut tx, later(IDLE)).await, [id(1), id(2)]);
    assert_eq!(
        list_due_sessions(&mut tx, later(IDLE), 1).await.expect("lists").len(),
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
async fn s1_a_session_is_overdue_at_the_limits_of_now_however_they_moved() {
    let database = with_sessions(&[session(1), session(2), session(3)]).await;
    let mut tx = database.write().await;
    // Activity moves the first one's end away, a policy that of the second and third nearer.
    assert!(touch_session(&mut tx, id(1), later(50).into()).await.expect("writes"));
    let tight = Tightened {
        access: Duration::from_mins(1),
        idle: Duration::from_mins(1),
        idle_rule: rule("finance"),
        absolute_expires_at: later(ABSOLUTE),
        absolute_rule: rule("finance"),
        changed: true,
    };
    assert!(tighten_session(&mut tx, id(2), &tight).await.expect("writes"));
    let tight = Tightened {
        idle: Duration::from_secs(80),
        absolute_expires_at: later(70),
        ..tight
    };
    assert!(tighten_session(&mut tx, id(3), &tight).await.expect("writes"));
    assert_eq!(overdue(&mut tx, later(59)).await, []);
    assert_eq!(overdue(&mut tx, later(60)).await, [id(2)]);
    assert_eq!(overdue(&mut tx, later(70)).await, [id(2), id(3)]);
    assert_eq!(overdue(&mut tx, later(IDLE)).await, [id(2), id(3)]);
    // It was put off, and is found when its time has come; again after further activity.
    assert!(
        touch_session(&mut tx, id(1), later(IDLE + 40).into())
            .await
            .expect("writes")
    );
    assert_eq!(overdue(&mut tx, later(IDLE + 50)).await, [id(2), id(3)]);
    assert_eq!(overdue(&mut tx, later(IDLE + 89)).await, [id(2), id(3)]);
    let last = later(2 * IDLE + 40);
    assert_eq!(
        overdue(&mut tx, last.minus(Duration::from_millis(1))).await,
        [id(2), id(3)]
    );
    assert_eq!(overdue(&mut tx, last).await, [id(1), id(2), id(3)]);
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
