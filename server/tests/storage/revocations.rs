//! What is revoked is written down with the act itself, in an order without gaps, and forgotten in time.

use std::collections::BTreeSet;

use server::domain::clock::Timestamp;
use server::domain::id::{SessionId, TokenId};
use server::domain::keys::{KeyAlgorithm, KeyPurpose, KeyRecord, KeyState};
use server::domain::revocation::{Entry, Target, all_expired_at};
use server::domain::session::{EndReason, Ending};
use server::domain::user::UserStatus;
use server::storage::revocations::{delete_past_revocations, find_last_cursor, list_revocations, revoke_token};
use server::storage::sessions::cohort::end_sessions;
use server::storage::sessions::{
    Rotation, end_overdue_session, end_session, end_sessions_of_user, end_unused_session, find_session, insert_session,
    rotate_session,
};
use server::storage::{Store, Tx, all_statements, keys, users};
use uuid::Uuid;

use crate::at_once;
use crate::database::Database;
use crate::people::{NOW, later, user_id};
use crate::sessions::{ABSOLUTE, ending, id, rotation, session, with_sessions};

/// Everything that is written down.
async fn all(store: &Store) -> Vec<Entry> {
    let mut tx = store.read().await.expect("a connection");
    let last = find_last_cursor(&mut tx).await.expect("reads");
    list_revocations(&mut tx, 0, last, Timestamp::from_millis(0), 100_000)
        .await
        .expect("reads")
}

async fn targets(store: &Store) -> Vec<Target> {
    all(store).await.into_iter().map(|entry| entry.target).collect()
}

/// Does it in a transaction of its own; what it wrote down.
async fn written_by(database: &Database, act: impl AsyncFnOnce(&mut Tx)) -> Vec<Target> {
    let before = all(&database.store).await.len();
    let mut tx = database.write().await;
    act(&mut tx).await;
    tx.commit().await.expect("commits");
    targets(&database.store).await.split_off(before)
}

#[test]
fn every_statement_that_could_revoke_is_known_here() {
    // Whoever writes another one comes by here, calls `Tx::revoke` beside it, and adds it to the test below.
    let known = BTreeSet::from([
        // Tested below: each writes an entry.
        "sessions::rotation::ROTATE",
        "sessions::REFUSE_GENERATIONS_SO_FAR",
        "sessions::ending::END",
        "sessions::ending::END_OVERDUE",
        "sessions::ending::END_UNUSED",
        "sessions::END_OF_USER",
        "sessions::cohort::END_MANY_ON_SQLITE",
        "sessions::cohort::END_MANY_ON_POSTGRES",
        "users::UPDATE_PASSWORD",
        "users::SET_STATUS",
        "users::roles::RAISE_GRANT_EPOCH",
        "keys::SET_KEY_STATE",
        "clients::DISABLE_CLIENT",
        // All of them at once after a restored backup, with every signing key in the same transaction: f10 of the API.
        "recovery::END_SOME",
        "recovery::RAISE_AUTH_EPOCHS",
        "recovery::RAISE_AUTH_EPOCH",
        // Changes no smallest generation: the session has the same grants.
        "sessions::rotation::ROTATE_WITH_SAME_GRANTS",
        // Only what has been over for thirty days.
        "sessions::DELETE_LONG_ENDED",
    ]);
    let writes = |sql: &str, table: &str, columns: &[&str]| {
        let set = sql.strip_prefix(&format!("UPDATE {table} SET "));
        let set = set.map(|rest| rest.split(" WHERE ").next().unwrap_or_default());
        sql.starts_with(&format!("DELETE FROM {table} "))
            || (sql.starts_with(&format!("INSERT INTO {table} ")) && sql.contains("DO UPDATE"))
            || set.is_some_and(|set| {
                let raised = |column: &str| set.contains(&format!("{column} = {column} +"));
                let written = |column: &str| {
                    !column.ends_with("epoch") && set.split(", ").any(|part| part.starts_with(&format!("{column} = ")))
                };
                columns.iter().any(|column| raised(column) || written(column))
            })
    };
    let found: BTreeSet<&str> = all_statements(false)
        .chain(all_statements(true))
        .filter(|(_, sql)| {
            writes(sql, "sessions", &["ended_at", "min_generation", "user_id"])
                || writes(sql, "users", &["auth_epoch", "grant_epoch", "status"])
                || writes(sql, "keys", &["state"])
                || writes(sql, "clients", &["status"])
        })
        .map(|(name, _)| name.trim_start_matches("server::storage::"))
        .collect();
    assert_eq!(found, known);
}

#[tokio::test]
async fn the_end_of_a_session_that_nobody_has_used_since_is_written_down_with_it() {
    let database = with_sessions(&[session(1)]).await;
    let written = written_by(&database, async |tx| {
        let session = find_session(tx, id(1)).await.expect("reads").expect("it is there");
        let idle = ending(EndReason::Idle);
        assert!(
            end_unused_session(tx, id(1), &idle, session.last_active_at)
                .await
                .expect("ends")
        );
    });
    let whole = Target::Session { id: id(1), below: None };
    assert_eq!(written.await, [whole]);
}

#[tokio::test]
async fn each_act_that_revokes_is_written_down_with_it() {
    let database = with_sessions(&[1, 2, 3, 4, 5].map(session)).await;
    let whole = |number: u128| Target::Session {
        id: id(number),
        below: None,
    };
    let below = |number: u128, below: u64| Target::Session {
        id: id(number),
        below: Some(below),
    };
    let subject = |before| Target::Subject {
        sub: user_id(1).to_string(),
        before,
    };

    let written = written_by(&database, async |tx| {
        end_session(tx, id(1), &ending(EndReason::SignedOut))
            .await
            .expect("ends");
    });
    assert_eq!(written.await, [whole(1)]);
    let again = written_by(&database, async |tx| {
        end_session(tx, id(1), &ending(EndReason::SignedOut))
            .await
            .expect("asks");
    });
    assert_eq!(again.await, [], "it was over before");
    let overdue = Ending {
        at: later(ABSOLUTE),
        ..ending(EndReason::Expired)
    };
    let expired = written_by(&database, async |tx| {
        assert!(
            end_overdue_session(tx, id(4), &overdue, overdue.at)
                .await
                .expect("ends")
        );
    });
    assert_eq!(expired.await, [whole(4)]);

    let fifth = written_by(&database, async |tx| {
        let ended = end_sessions(tx, &[id(1), id(5), id(6)], &ending(EndReason::EndedByAdmin)).await;
        let ended: Vec<SessionId> = ended.expect("ends").into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ended, [id(5)], "one was over before, one was never there");
    });
    assert_eq!(fifth.await, [whole(5)]);

    // The sessions are at generation 4.
    let mut written = written_by(&database, async |tx| {
        let roles = ["auditor".to_owned()];
        assert!(users::set_roles(tx, user_id(1), &roles, later(5)).await.expect("sets"));
    })
    .await;
    written.sort_by_key(|target| format!("{target:?}"));
    assert_eq!(written, [below(2, 5), below(3, 5)]);
    let written = written_by(&database, async |tx| {
        let with_new_roles = Rotation {
            id: id(2),
            grant_epoch: 2,
            ..rotation(later(20))
        };
        assert!(rotate_session(tx, &with_new_roles).await.expect("rotates"));
    });
    assert_eq!(written.await, [below(2, 5)]);
    let written = written_by(&database, async |tx| {
        let next = Rotation {
            id: id(2),
            grant_epoch: 2,
            from_generation: 5,
            last_issued_at: later(20),
            ..rotation(later(40))
        };
        assert!(rotate_session(tx, &next).await.expect("rotates"));
    });
    assert_eq!(written.await, [], "a rotation alone revokes nothing");

    let written = written_by(&database, async |tx| {
        users::update_password(tx, user_id(1), "new", later(50), Some(later(50)))
            .await
            .expect("sets");
    });
    assert_eq!(written.await, [subject(later(50))]);
    let written = written_by(&database, async |tx| {
        users::update_password(tx, user_id(1), "same", later(51), None)
            .await
            .expect("sets");
    });
    assert_eq!(written.await, []);
    let written = written_by(&database, async |tx| {
        let (active, disabled) = (UserStatus::Active, UserStatus::Disabled);
        assert!(
            users::set_status(tx, user_id(1), active, disabled, Some(later(60)))
                .await
                .expect("sets")
        );
    });
    assert_eq!(written.await, [subject(later(60))]);
    let mut written = written_by(&database, async |tx| {
        end_sessions_of_user(tx, user_id(1), None, &ending(EndReason::UserDisabled))
            .await
            .expect("ends");
    })
    .await;
    written.sort_by_key(|target| format!("{target:?}"));
    assert_eq!(written, [whole(2), whole(3)]);
}

#[tokio::test]
async fn a_removed_signing_key_and_a_single_token_are_written_down() {
    let database = Database::new().await;
    let key = |id: &str, purpose, state| KeyRecord {
        id: id.into(),
        purpose,
        algorithm: match purpose {
            KeyPurpose::Signing => KeyAlgorithm::Es256,
            KeyPurpose::Edge => KeyAlgorithm::Hs256,
        },
        state,
        private_sealed: vec![1],
        public_jwk: None,
        created_at: NOW,
        activated_at: Some(NOW),
        retired_at: Some(NOW),
        removed_at: (state == KeyState::Removed).then_some(NOW),
    };
    let written = written_by(&database, async |tx| {
        for (name, purpose) in [("sign", KeyPurpose::Signing), ("edge-1", KeyPurpose::Edge)] {
            for (state, from) in [
                (KeyState::Retired, KeyState::Active),
                (KeyState::Removed, KeyState::Retired),
            ] {
                if from == KeyState::Active {
                    keys::insert_key(tx, &key(name, purpose, from)).await.expect("inserts");
                }
                let changed = keys::set_key_state(tx, &key(name, purpose, state), from).await;
                assert!(changed.expect("changes"));
            }
        }
    });
    assert_eq!(written.await, [Target::Key { id: "sign".into() }]);

    let token = TokenId(Uuid::from_u128(7));
    let written = written_by(&database, async |tx| revoke_token(tx, token, NOW, later(60)));
    assert_eq!(written.await, [Target::Token { id: token }]);
}

#[tokio::test]
async fn what_is_rolled_back_was_not_revoked_and_what_no_token_can_feel_is_not_written() {
    let mut long_idle = session(2);
    long_idle.rotated_at = NOW;
    let database = with_sessions(&[session(1), long_idle]).await;
    let mut tx = database.write().await;
    assert!(
        end_session(&mut tx, id(1), &ending(EndReason::SignedOut))
            .await
            .expect("ends")
    );
    drop(tx);
    assert_eq!(all(&database.store).await, []);

    let mut late = ending(EndReason::Idle);
    late.at = all_expired_at(NOW);
    let written = written_by(&database, async |tx| {
        assert!(end_session(tx, id(2), &late).await.expect("ends"));
    });
    assert_eq!(written.await, [], "its last token ended long ago");
}

#[tokio::test]
async fn entries_are_forgotten_when_no_token_lives_any_more_and_not_before() {
    let database = with_sessions(&[session(1)]).await;
    written_by(&database, async |tx| {
        assert!(
            end_session(tx, id(1), &ending(EndReason::SignedOut))
                .await
                .expect("ends")
        );
    })
    .await;
    let until = all(&database.store).await[0].until;
    assert_eq!(
        until,
        all_expired_at(NOW),
        "an hour and the greatest tolerance after its last rotation"
    );
    for (now, gone) in [(Timestamp::from_millis(until.as_millis() - 1), 0), (until, 1)] {
        let mut tx = database.write().await;
        assert_eq!(delete_past_revocations(&mut tx, now, 10).await.expect("deletes"), gone);
        tx.commit().await.expect("commits");
    }
    let last = find_last_cursor(&mut database.read().await).await.expect("reads");
    assert_eq!(last, 1, "numbers are never given twice");
}

#[tokio::test]
async fn a_reader_never_misses_an_entry_that_commits_late() {
    const SESSIONS: usize = 96;
    let sessions: Vec<_> = (1..=SESSIONS)
        .map(|number| session(u128::try_from(number).expect("small")))
        .collect();
    let database = with_sessions(&sessions).await;
    let store = database.store.clone();
    let reader = tokio::spawn(async move {
        let (mut seen, mut looks) = (Vec::new(), 0);
        while seen.len() < SESSIONS {
            let mut tx = store.read().await.expect("a connection");
            let last = find_last_cursor(&mut tx).await.expect("reads");
            let after = u64::try_from(seen.len()).expect("small");
            let new = list_revocations(&mut tx, after, last, NOW, 1000).await.expect("reads");
            seen.extend(new.iter().map(|entry| entry.cursor));
            assert_eq!(
                u64::try_from(seen.len()).expect("small"),
                last,
                "nothing comes later with a smaller number"
            );
            looks += 1;
            drop(tx);
            tokio::task::yield_now().await;
        }
        (seen, looks)
    });
    let ended = at_once(&database.store, SESSIONS, async |tx, index| {
        let number = u128::try_from(index).expect("small") + 1;
        end_session(tx, id(number), &ending(EndReason::SignedOut))
            .await
            .expect("ends")
    });
    assert_eq!(ended.await, SESSIONS);
    let (seen, looks) = tokio::time::timeout(std::time::Duration::from_secs(30), reader)
        .await
        .expect("it sees all")
        .expect("it reads on");
    assert!(
        seen.iter().copied().eq(1..=u64::try_from(SESSIONS).expect("small")),
        "{seen:?}"
    );
    assert!(looks > 1);
}

#[tokio::test]
async fn f53_of_a_role_change_and_refreshes_at_once_no_token_with_old_roles_stays_good() {
    let rounds = if std::env::var_os("MAYFLY_TEST_FULL").is_some() {
        500
    } else {
        8
    };
    for round in 0..rounds {
        let database = with_sessions(&[session(1)]).await;
        at_once(&database.store, 12, async move |tx, index| {
            if index == round % 12 {
                let roles = ["auditor".to_owned()];
                return users::set_roles(tx, user_id(1), &roles, later(20)).await.expect("sets");
            }
            // Everybody has read the old roles, and rotates if the row lets them.
            let found = find_session(tx, id(1)).await.expect("reads").expect("is there");
            let with_old_roles = Rotation {
                from_generation: found.generation,
                last_issued_at: found.handed_out_at,
                ..rotation(later(20))
            };
            rotate_session(tx, &with_old_roles).await.expect("asks")
        })
        .await;
        let found = find_session(&mut database.read().await, id(1))
            .await
            .expect("reads")
            .expect("is there");
        assert_eq!(
            found.min_generation,
            found.generation + 1,
            "every token so far had the old roles"
        );
        let told = targets(&database.store).await;
        assert!(
            told.contains(&Target::Session {
                id: id(1),
                below: Some(found.generation + 1)
            }),
            "{told:?}"
        );
    }
}

#[tokio::test]
async fn f54_nobody_signs_in_with_what_was_true_before_the_account_changed() {
    let database = with_sessions(&[]).await;
    let mut tx = database.write().await;
    let before = users::find_user(&mut tx, user_id(1))
        .await
        .expect("reads")
        .expect("is there");
    assert!(users::lock_user(&mut tx, &before).await.expect("locks"));
    users::set_roles(&mut tx, user_id(1), &["auditor".to_owned()], NOW)
        .await
        .expect("sets");
    assert!(!users::lock_user(&mut tx, &before).await.expect("asks"), "other roles");
    let with_roles = users::find_user(&mut tx, user_id(1))
        .await
        .expect("reads")
        .expect("is there");
    assert!(users::lock_user(&mut tx, &with_roles).await.expect("locks"));
    users::update_password(&mut tx, user_id(1), "new", NOW, Some(NOW))
        .await
        .expect("sets");
    assert!(
        !users::lock_user(&mut tx, &with_roles).await.expect("asks"),
        "another password"
    );
    // The test has a session to begin with, so that it would be seen if it were made.
    insert_session(&mut tx, &session(1)).await.expect("inserts");
}
