//! Sessions: each change happens exactly if its whole condition still holds, also when many try at once.

use std::time::Duration;

use server::domain::clock::Timestamp;
use server::domain::id::SessionId;
use server::domain::policy::{Policy, Rule, presets};
use server::domain::session::{Client, EndReason, Ending, LimitsNow, Session, Tightened};
use server::storage::policies::insert_policy;
use server::storage::sessions::*;
use server::storage::{Tx, users};
use uuid::Uuid;

use crate::at_once;
use crate::database::Database;
use crate::people::{NOW, later, user_id, with_people};
use crate::rotations::{event, is_recorded};

pub const IDLE: u64 = 600;
pub const ABSOLUTE: u64 = 3600;

pub fn id(number: u128) -> SessionId {
    SessionId(Uuid::from_u128(number))
}

pub fn rule(role: &str) -> Rule {
    Rule {
        role: role.into(),
        version: 3,
    }
}

pub fn session(number: u128) -> Session {
    Session {
        id: id(number),
        user_id: user_id(1),
        device_id: None,
        client: Client::Browser,
        secret_sealed: vec![1, 2, 3],
        generation: 4,
        rotated_at: NOW,
        handed_out_at: NOW,
        superseded_at: NOW,
        child_confirmed: true,
        reissues: 2,
        access_expires_at: later(300),
        min_generation: 1,
        auth_epoch: 1,
        grant_epoch: 1,
        started_at: NOW,
        authenticated_at: NOW,
        last_active_at: NOW,
        access: Duration::from_mins(5),
        idle: Duration::from_secs(IDLE),
        idle_rule: rule("member"),
        absolute_expires_at: later(ABSOLUTE),
        absolute_rule: rule("member"),
        amr: "pwd otp".into(),
        address: "198.51.100.7".into(),
        user_agent: "browser".into(),
        jkt: None,
        browser_key: None,
        ending: None,
    }
}

pub fn rotation(now: Timestamp) -> Rotation {
    Rotation {
        id: id(1),
        from_generation: 4,
        last_issued_at: NOW,
        now,
        idle_now: now,
        access_expires_at: now.plus(Duration::from_mins(5)),
        auth_epoch: 1,
        grant_epoch: 1,
        counts_as_activity: false,
    }
}

pub fn ending(reason: EndReason) -> Ending {
    Ending {
        at: later(5),
        reason,
        rule: Some(rule("finance")),
        limit: Some(Duration::from_secs(IDLE)),
    }
}

/// One person with these sessions.
pub async fn with_sessions(sessions: &[Session]) -> Database {
    let database = with_people("member", 1..=1).await;
    let mut tx = database.write().await;
    for session in sessions {
        insert_session(&mut tx, session).await.expect("inserts");
    }
    tx.commit().await.expect("commits");
    database
}

pub async fn find(tx: &mut Tx, number: u128) -> Session {
    find_session(tx, id(number)).await.expect("reads").expect("is there")
}

#[tokio::test]
async fn a_session_comes_back_as_it_was_written_with_its_owner() {
    let ended = Session {
        ending: Some(ending(EndReason::Idle)),
        client: Client::Native,
        ..session(2)
    };
    let database = with_sessions(&[session(1), ended.clone()]).await;
    let mut tx = database.read().await;
    assert_eq!(format!("{:?}", find(&mut tx, 1).await), format!("{:?}", session(1)));
    let (found, user, _) = find_known_with(&mut tx, id(2)).await.expect("reads").expect("is there");
    assert_eq!(format!("{found:?}"), format!("{ended:?}"));
    assert_eq!((user.id, user.roles.join(" ").as_str()), (user_id(1), "member"));
    assert!(find_known_with(&mut tx, id(3)).await.expect("reads").is_none());
}

#[tokio::test]
async fn a_session_comes_with_the_policies_in_force_of_its_owners_roles() {
    let database = with_sessions(&[session(1)]).await;
    let in_force = async || {
        let mut tx = database.read().await;
        let found = find_known_with(&mut tx, id(1)).await.expect("reads");
        let (_, user, policies) = found.expect("is there");
        let policies: Vec<_> = policies
            .into_iter()
            .map(|policy| (policy.role, policy.version))
            .collect();
        (user.roles, policies)
    };
    // A session whose owner has no policy, or not even a role, is there all the same.
    assert_eq!(in_force().await, (vec!["member".to_owned()], vec![]));
    let mut tx = database.write().await;
    for (role, version) in [("member", 1), ("member", 2), ("auditor", 7), ("admin", 9)] {
        let policy = Policy {
            role: role.to_owned(),
            version,
            lifetimes: presets()[0].lifetimes.clone(),
            review_at: None,
            reason: "r".to_owned(),
            justification: None,
            author_id: None,
            created_at: NOW,
        };
        insert_policy(&mut tx, &policy).await.expect("inserts");
    }
    users::set_roles(
        &mut tx,
        user_id(1),
        &["auditor".to_owned(), "member".to_owned()],
        later(1),
    )
    .await
    .expect("writes");
    tx.commit().await.expect("commits");
    let (roles, policies) = in_force().await;
    assert_eq!(roles, ["auditor", "member"]);
    assert_eq!(policies, [("auditor".to_owned(), 7), ("member".to_owned(), 2)]);
    let mut tx = database.write().await;
    users::set_roles(&mut tx, user_id(1), &[], later(2))
        .await
        .expect("writes");
    tx.commit().await.expect("commits");
    assert_eq!(in_force().await, (vec![], vec![]));
}

#[tokio::test]
async fn a_rotation_goes_one_generation_on_and_slides_only_if_told() {
    let database = with_sessions(&[session(1)]).await;
    let mut tx = database.write().await;
    assert!(rotate_session(&mut tx, &rotation(later(20))).await.expect("writes"));
    let found = find(&mut tx, 1).await;
    assert_eq!(
        (
            found.generation,
            found.rotated_at,
            found.superseded_at,
            found.child_confirmed,
            found.reissues
        ),
        (5, later(20), later(20), false, 0)
    );
    assert_eq!(
        (found.access_expires_at, found.last_active_at, found.min_generation),
        (later(320), NOW, 1)
    );
    assert_eq!(
        found.absolute_expires_at,
        later(ABSOLUTE),
        "S2: refreshing never extends it"
    );
    let next = Rotation {
        from_generation: 5,
        last_issued_at: later(20),
        counts_as_activity: true,
        ..rotation(later(40))
    };
    assert!(rotate_session(&mut tx, &next).await.expect("writes"));
    assert_eq!(find(&mut tx, 1).await.last_active_at, later(40));
}

#[tokio::test]
async fn a_rotation_happens_only_if_every_condition_still_holds() {
    let refused = async |what: &str, rotation: Rotation, change: Option<&str>| {
        let database = with_sessions(&[session(1)]).await;
        if let Some(change) = change {
            assert_eq!(database.tamper(change).await.expect(change), 1);
        }
        let mut tx = database.write().await;
        assert!(!rotate_session(&mut tx, &rotation).await.expect("writes"), "{what}");
        drop(tx);
        let usual = rotate_and_record(&database.store, rotation, event(1)).await;
        assert!(!usual.expect("asks"), "{what}");
        assert!(!is_recorded(&database, 1).await, "{what}");
        assert_eq!(find(&mut database.read().await, 1).await.generation, 4, "{what}");
    };
    let now = rotation(later(20));
    let reissued = Rotation {
        last_issued_at: NOW.minus(Duration::from_millis(1)),
        ..now.clone()
    };
    refused("tokens handed out meanwhile", reissued, None).await;
    refused(
        "another session",
        Rotation {
            id: id(2),
            ..now.clone()
        },
        None,
    )
    .await;
    refused(
        "an older generation",
        Rotation {
            from_generation: 3,
            ..now.clone()
        },
        None,
    )
    .await;
    refused(
        "a newer generation",
        Rotation {
            from_generation: 5,
            last_issued_at: later(20),
            ..now.clone()
        },
        None,
    )
    .await;
    refused("the idle limit, to the millisecond", rotation(later(IDLE)), None).await;
    let absolute_end = Rotation {
        idle_now: later(20),
        ..rotation(later(ABSOLUTE))
    };
    refused(
        "the absolute limit, whatever the idle limit goes by",
        absolute_end,
        None,
    )
    .await;
    refused(
        "another auth epoch",
        Rotation {
            auth_epoch: 2,
            ..now.clone()
        },
        None,
    )
    .await;
    refused(
        "roles changed",
        Rotation {
            grant_epoch: 2,
            ..now.clone()
        },
        None,
    )
    .await;
    for change in [
        "UPDATE sessions SET ended_at = 1, end_reason = 'signed_out'",
        "UPDATE users SET status = 'disabled'",
        "UPDATE users SET auth_epoch = 2",
        "UPDATE users SET grant_epoch = 2",
        "UPDATE sessions SET auth_epoch = 0",
    ] {
        refused(change, now.clone(), Some(change)).await;
    }
    let last_moment = Timestamp::from_millis(later(IDLE).as_millis() - 1);
    let by_the_slowest_clock = Rotation {
        idle_now: last_moment,
        ..rotation(later(IDLE + 30))
    };
    for in_time in [rotation(last_moment), by_the_slowest_clock] {
        let database = with_sessions(&[session(1)]).await;
        let mut tx = database.write().await;
        assert!(rotate_session(&mut tx, &in_time).await.expect("writes"));
        drop(tx);
        let usual = rotate_and_record(&database.store, in_time, event(1)).await;
        assert!(usual.expect("asks"));
    }
}

#[tokio::test]
async fn after_a_role_change_tokens_of_the_older_generations_stay_refused() {
    let database = with_sessions(&[session(1)]).await;
    let mut tx = database.write().await;
    users::set_roles(&mut tx, user_id(1), &["auditor".into()], NOW)
        .await
        .expect("writes");
    let with_new_roles = Rotation {
        grant_epoch: 2,
        ..rotation(later(20))
    };
    assert!(rotate_session(&mut tx, &with_new_roles).await.expect("writes"));
    let found = find(&mut tx, 1).await;
    assert_eq!((found.grant_epoch, found.generation, found.min_generation), (2, 5, 5));
}

#[tokio::test]
async fn f51_of_64_rotations_at_once_one_happens() {
    let database = with_sessions(&[session(1)]).await;
    let happened = at_once(&database.store, 64, async |tx, _| {
        rotate_session(tx, &rotation(later(20))).await.expect("writes")
    });
    assert_eq!(happened.await, 1);
    assert_eq!(find(&mut database.read().await, 1).await.generation, 5);
}

#[tokio::test]
async fn f52_an_ending_and_a_rotation_at_once_leave_it_ended() {
    for round in 0..20 {
        let database = with_sessions(&[session(1)]).await;
        let yes = at_once(&database.store, 2, async move |tx, index| {
            if (index + round) % 2 == 0 {
                end_session(tx, id(1), &ending(EndReason::EndedByUser))
                    .await
                    .expect("writes")
            } else {
                rotate_session(tx, &rotation(later(20))).await.expect("writes")
            }
        });
        assert!(yes.await >= 1);
        let mut tx = database.write().await;
        assert!(find(&mut tx, 1).await.ending.is_some());
        let next = Rotation {
            from_generation: 5,
            last_issued_at: later(20),
            ..rotation(later(21))
        };
        assert!(!rotate_session(&mut tx, &next).await.expect("writes"));
    }
}

#[tokio::test]
async fn r6_of_many_keys_at_once_a_session_is_bound_to_one() {
    let native = Session {
        client: Client::Native,
        ..session(2)
    };
    let database = with_sessions(&[session(1), native]).await;
    let point = |number: usize| [&[4][..], &[u8::try_from(number).expect("small"); 64]].concat();
    let bound = at_once(&database.store, 16, async move |tx, number| {
        bind_browser(tx, id(1), &point(number)).await.expect("writes")
    });
    assert_eq!(bound.await, 1);
    let mut tx = database.write().await;
    assert!(!bind_browser(&mut tx, id(1), &point(99)).await.expect("writes"));
    assert!(
        !bind_browser(&mut tx, id(2), &point(1)).await.expect("writes"),
        "no browser"
    );
    assert!(
        !bind_browser(&mut tx, id(3), &point(1)).await.expect("writes"),
        "nobody"
    );
}

#[tokio::test]
async fn the_child_is_handed_out_again_five_times_until_it_is_confirmed() {
    let fresh = Session {
        child_confirmed: false,
        reissues: 0,
        ..session(1)
    };
    let database = with_sessions(&[fresh.clone(), Session { id: id(2), ..fresh }]).await;
    let counted = at_once(&database.store, 20, async |tx, _| {
        count_reissue(tx, id(1), 4, 5, later(1)).await.expect("writes")
    });
    assert_eq!(counted.await, 5);
    let mut tx = database.write().await;
    let times = |session: Session| (session.handed_out_at, session.superseded_at);
    assert_eq!(times(find(&mut tx, 1).await), (later(1), later(1)));
    assert!(!confirm_generation(&mut tx, id(2), 3, later(2)).await.expect("writes"));
    assert!(confirm_generation(&mut tx, id(2), 4, later(2)).await.expect("writes"));
    assert!(!confirm_generation(&mut tx, id(2), 4, later(3)).await.expect("writes"));
    assert_eq!(times(find(&mut tx, 2).await), (NOW, later(2)));
    assert!(!count_reissue(&mut tx, id(2), 4, 5, later(4)).await.expect("writes"));
}

#[tokio::test]
async fn s1_activity_only_goes_forward_and_never_brings_a_session_back() {
    let database = with_sessions(&[session(1)]).await;
    let mut tx = database.write().await;
    assert!(!touch_session(&mut tx, id(1), NOW.into()).await.expect("writes"));
    assert!(touch_session(&mut tx, id(1), later(30).into()).await.expect("writes"));
    assert!(!touch_session(&mut tx, id(1), later(29).into()).await.expect("writes"));
    assert!(
        !touch_session(&mut tx, id(1), later(30 + IDLE).into())
            .await
            .expect("writes")
    );
    assert_eq!(find(&mut tx, 1).await.last_active_at, later(30));
    // The idle limit goes by the slowest clock, activity by this one.
    let at_the_limit = later(30 + IDLE);
    assert!(
        touch_session(
            &mut tx,
            id(1),
            LimitsNow {
                now: at_the_limit,
                idle_now: later(29 + IDLE)
            }
        )
        .await
        .expect("writes")
    );
    assert_eq!(find(&mut tx, 1).await.last_active_at, at_the_limit);
    let absolute_end = LimitsNow {
        now: later(ABSOLUTE),
        idle_now: at_the_limit,
    };
    assert!(!touch_session(&mut tx, id(1), absolute_end).await.expect("writes"));
    assert!(
        end_session(&mut tx, id(1), &ending(EndReason::SignedOut))
            .await
            .expect("writes")
    );
    let once_more = later(31 + IDLE);
    assert!(!touch_session(&mut tx, id(1), once_more.into()).await.expect("writes"));
}

#[tokio::test]
async fn f55_limits_only_shrink_and_name_the_rule_that_shrank_them() {
    let database = with_sessions(&[session(1)]).await;
    let mut tx = database.write().await;
    let tight = Tightened {
        access: Duration::from_mins(1),
        idle: Duration::from_secs(IDLE + 1),
        idle_rule: rule("finance"),
        absolute_expires_at: later(ABSOLUTE - 1),
        absolute_rule: rule("finance"),
        changed: true,
    };
    assert!(tighten_session(&mut tx, id(1), &tight).await.expect("writes"));
    let found = find(&mut tx, 1).await;
    assert_eq!((found.access, found.idle), (tight.access, Duration::from_secs(IDLE)));
    assert_eq!(
        (found.idle_rule, found.absolute_rule),
        (rule("member"), rule("finance"))
    );
    assert_eq!(found.absolute_expires_at, tight.absolute_expires_at);
    let idle = Tightened {
        idle: Duration::from_mins(1),
        ..tight
    };
    assert!(tighten_session(&mut tx, id(1), &idle).await.expect("writes"));
    let found = find(&mut tx, 1).await;
    assert_eq!((found.idle, found.idle_rule), (idle.idle, rule("finance")));
}

#[tokio::test]
async fn a_row_that_no_code_writes_is_an_error_that_names_table_and_column() {
    let database = with_sessions(&[session(1)]).await;
    for (change, column) in [
        ("UPDATE sessions SET generation = -1", "generation"),
        (
            "UPDATE sessions SET generation = 1, ended_at = 1, end_reason = 'because'",
            "end_reason",
        ),
    ] {
        database.tamper(change).await.expect("writes");
        let error = find_session(&mut database.read().await, id(1))
            .await
            .expect_err("impossible");
        assert!(
            error.to_string().contains("sessions") && error.to_string().contains(column),
            "{error}"
        );
        assert!(!error.is_unavailable());
    }
}

#[test]
fn f17_a_factor_that_was_shown_while_the_clock_was_ahead_is_not_recent() {
    use server::services::sessions::is_recent;
    let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
    let session = session(1);
    let shown = session.authenticated_at;
    assert!(is_recent(&session, hour, shown) && is_recent(&session, hour, shown.plus(minute * 59)));
    assert!(!is_recent(&session, hour, shown.plus(hour)));
    assert!(
        is_recent(&session, hour, shown.minus(minute)),
        "by another node's clock"
    );
    assert!(!is_recent(&session, hour, shown.minus(hour)));
}
