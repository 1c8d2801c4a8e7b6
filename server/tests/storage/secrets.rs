//! Codes, links, flows, devices and keys: each is good once, or not at all.

use server::domain::id::DeviceId;
use server::domain::keys::{KeyAlgorithm, KeyPurpose, KeyRecord, KeyState};
use server::storage::authenticators::{
    accept_step, consume_recovery_code, count_recovery_codes, delete_authenticator, find_authenticator,
    put_authenticator, replace_recovery_codes,
};
use server::storage::devices::{self, Device};
use server::storage::one_time_links::{Link, LinkPurpose, consume_link, find_link, insert_link, void_links};
use server::storage::{flows, keys};
use uuid::Uuid;

use crate::at_once;
use crate::people::{NOW, later, user_id, with_people};

#[tokio::test]
async fn f36_a_time_step_is_good_for_one_success_of_fifty_at_once_and_never_again() {
    let database = with_people("member", 1..=1).await;
    let mut tx = database.write().await;
    put_authenticator(&mut tx, user_id(1), b"sealed", 100, NOW)
        .await
        .expect("writes");
    tx.commit().await.expect("commits");
    let accepted = at_once(&database.store, 50, async |tx, _| {
        accept_step(tx, user_id(1), 101).await.expect("writes")
    });
    assert_eq!(accepted.await, 1);
    let mut tx = database.write().await;
    for (step, good) in [(100, false), (101, false), (99, false), (102, true)] {
        assert_eq!(
            accept_step(&mut tx, user_id(1), step).await.expect("writes"),
            good,
            "{step}"
        );
    }
    put_authenticator(&mut tx, user_id(1), b"another", 7, later(1))
        .await
        .expect("writes");
    let found = find_authenticator(&mut tx, user_id(1))
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (found.secret_sealed.as_slice(), found.last_step, found.created_at),
        (b"another".as_slice(), 7, later(1))
    );
    assert!(delete_authenticator(&mut tx, user_id(1)).await.expect("writes"));
    assert!(!delete_authenticator(&mut tx, user_id(1)).await.expect("writes"));
    assert!(find_authenticator(&mut tx, user_id(1)).await.expect("reads").is_none());
}

#[tokio::test]
async fn f40_a_recovery_code_is_good_once_and_dead_after_renewal() {
    let database = with_people("member", 1..=2).await;
    let codes: Vec<[u8; 32]> = (0..10).map(|n| [n; 32]).collect();
    let mut tx = database.write().await;
    replace_recovery_codes(&mut tx, user_id(1), &codes, NOW)
        .await
        .expect("writes");
    tx.commit().await.expect("commits");
    let used = at_once(&database.store, 50, async |tx, _| {
        consume_recovery_code(tx, user_id(1), &[3; 32], NOW)
            .await
            .expect("writes")
    });
    assert_eq!(used.await, 1);
    let mut tx = database.write().await;
    assert_eq!(count_recovery_codes(&mut tx, user_id(1)).await.expect("counts"), 9);
    assert!(
        !consume_recovery_code(&mut tx, user_id(2), &[4; 32], NOW)
            .await
            .expect("writes")
    );
    replace_recovery_codes(&mut tx, user_id(1), &[[99; 32]], NOW)
        .await
        .expect("writes");
    assert!(
        !consume_recovery_code(&mut tx, user_id(1), &[4; 32], NOW)
            .await
            .expect("writes")
    );
    assert!(
        consume_recovery_code(&mut tx, user_id(1), &[99; 32], NOW)
            .await
            .expect("writes")
    );
}

#[tokio::test]
async fn m25_a_link_is_good_once_until_it_expires_or_a_newer_one_exists() {
    let database = with_people("member", 1..=2).await;
    let link = |byte, user| Link {
        secret_hash: [byte; 32],
        purpose: if user == 0 {
            LinkPurpose::FirstAdmin
        } else {
            LinkPurpose::Invitation
        },
        user_id: (user > 0).then(|| user_id(user)),
        created_at: NOW,
        expires_at: later(60),
    };
    let mut tx = database.write().await;
    for (byte, user) in [(1, 0), (2, 1), (3, 2), (4, 0)] {
        insert_link(&mut tx, &link(byte, user)).await.expect("inserts");
    }
    assert_eq!(
        void_links(&mut tx, LinkPurpose::Invitation, Some(user_id(2)))
            .await
            .expect("voids"),
        1
    );
    tx.commit().await.expect("commits");
    let mut tx = database.read().await;
    assert!(
        find_link(&mut tx, &[3; 32], NOW).await.expect("reads").is_none(),
        "voided"
    );
    assert!(
        find_link(&mut tx, &[2; 32], later(60)).await.expect("reads").is_none(),
        "expired"
    );
    let found = find_link(&mut tx, &[2; 32], later(59))
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (found.purpose, found.user_id),
        (LinkPurpose::Invitation, Some(user_id(1)))
    );
    drop(tx);
    let used = at_once(&database.store, 50, async |tx, _| {
        consume_link(tx, &[1; 32], NOW).await.expect("writes")
    });
    assert_eq!(used.await, 1);
    let mut tx = database.write().await;
    assert!(!consume_link(&mut tx, &[2; 32], later(60)).await.expect("writes"));
    assert_eq!(
        void_links(&mut tx, LinkPurpose::FirstAdmin, None).await.expect("voids"),
        1,
        "the unused one"
    );
}

#[tokio::test]
async fn p19_a_deleted_flow_never_comes_back_and_an_expired_one_is_gone() {
    let database = with_people("member", 1..=1).await;
    let mut tx = database.write().await;
    assert!(
        flows::insert_flow(&mut tx, &[1; 32], b"a", later(60))
            .await
            .expect("writes")
    );
    assert!(
        !flows::insert_flow(&mut tx, &[1; 32], b"b", later(60))
            .await
            .expect("writes")
    );
    assert!(
        flows::update_flow(&mut tx, &[1; 32], b"c", later(90))
            .await
            .expect("writes")
    );
    assert_eq!(
        flows::find_flow(&mut tx, &[1; 32], later(89))
            .await
            .expect("reads")
            .as_deref(),
        Some(b"c".as_slice())
    );
    assert_eq!(
        flows::find_flow(&mut tx, &[1; 32], later(90)).await.expect("reads"),
        None
    );
    assert!(flows::delete_flow(&mut tx, &[1; 32]).await.expect("writes"));
    assert!(
        !flows::update_flow(&mut tx, &[1; 32], b"d", later(90))
            .await
            .expect("writes")
    );
    assert_eq!(flows::find_flow(&mut tx, &[1; 32], NOW).await.expect("reads"), None);
    for n in 0..5 {
        flows::insert_flow(&mut tx, &[n; 32], b"", later(n.into()))
            .await
            .expect("writes");
    }
    assert_eq!(
        flows::delete_expired_flows(&mut tx, later(3), 3)
            .await
            .expect("deletes"),
        3
    );
    assert_eq!(
        flows::delete_expired_flows(&mut tx, later(3), 3)
            .await
            .expect("deletes"),
        1
    );
}

#[tokio::test]
async fn f47_trust_in_a_device_can_be_dropped_and_its_secret_renewed() {
    let database = with_people("member", 1..=1).await;
    let mut tx = database.write().await;
    let id = DeviceId(Uuid::from_u128(7));
    let device = Device {
        id,
        user_id: user_id(1),
        secret_hash: [1; 32],
        created_at: NOW,
        last_seen_at: NOW,
        trusted_until: Some(later(9)),
    };
    devices::insert_device(&mut tx, &device).await.expect("inserts");
    assert!(devices::touch_device(&mut tx, id, later(5)).await.expect("writes"));
    assert!(
        !devices::touch_device(&mut tx, id, later(4)).await.expect("writes"),
        "never back"
    );
    assert!(
        devices::renew_device(&mut tx, id, &[2; 32], later(6))
            .await
            .expect("writes")
    );
    let found = devices::find_device(&mut tx, id)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (found.secret_hash, found.last_seen_at, found.trusted_until),
        ([2; 32], later(6), Some(later(9)))
    );
    assert!(devices::drop_trust(&mut tx, id).await.expect("writes"));
    assert!(!devices::drop_trust(&mut tx, id).await.expect("writes"));
    assert!(devices::trust_device(&mut tx, id, later(9)).await.expect("writes"));
    assert_eq!(
        devices::drop_trust_of_user(&mut tx, user_id(1)).await.expect("writes"),
        1
    );
    assert_eq!(
        devices::find_device(&mut tx, id)
            .await
            .expect("reads")
            .expect("is there")
            .trusted_until,
        None
    );
}

#[tokio::test]
async fn m24_a_key_changes_state_once_and_only_one_of_a_purpose_is_active() {
    let database = with_people("member", 1..=1).await;
    let key = |id: &str, state| KeyRecord {
        id: id.into(),
        purpose: KeyPurpose::Signing,
        algorithm: KeyAlgorithm::Es256,
        state,
        private_sealed: vec![1],
        public_jwk: Some("{}".into()),
        created_at: NOW,
        activated_at: None,
        retired_at: None,
        removed_at: None,
    };
    let mut tx = database.write().await;
    keys::insert_key(&mut tx, &key("a", KeyState::Active))
        .await
        .expect("inserts");
    keys::insert_key(&mut tx, &key("b", KeyState::Next))
        .await
        .expect("inserts");
    tx.commit().await.expect("commits");
    let second = keys::set_key_state(&mut database.write().await, &key("b", KeyState::Active), KeyState::Next).await;
    assert!(second.expect_err("a is active").is_unique_violation());
    let retired = KeyRecord {
        retired_at: Some(later(1)),
        ..key("a", KeyState::Retired)
    };
    let removed = KeyRecord {
        private_sealed: Vec::new(),
        removed_at: Some(later(2)),
        ..retired.clone()
    };
    let removed = KeyRecord {
        state: KeyState::Removed,
        ..removed
    };
    let mut tx = database.write().await;
    assert!(
        keys::set_key_state(&mut tx, &retired, KeyState::Active)
            .await
            .expect("writes")
    );
    assert!(
        !keys::set_key_state(&mut tx, &retired, KeyState::Active)
            .await
            .expect("writes")
    );
    assert!(
        keys::set_key_state(&mut tx, &key("b", KeyState::Active), KeyState::Next)
            .await
            .expect("writes")
    );
    assert!(
        keys::set_key_state(&mut tx, &removed, KeyState::Retired)
            .await
            .expect("writes")
    );
    let all = keys::list_keys(&mut tx).await.expect("lists");
    assert_eq!(all, [removed, key("b", KeyState::Active)]);
}
