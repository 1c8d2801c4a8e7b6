//! People and roles, and the people that other tests need.

use std::time::Duration;

use server::domain::clock::Timestamp;
use server::domain::id::UserId;
use server::domain::policy::{Mfa, Policy, presets};
use server::domain::user::{User, UserStatus};
use server::storage::{Tx, policies, users};
use uuid::Uuid;

use crate::at_once;
use crate::database::Database;

pub const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

pub fn user_id(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

pub fn user(number: u128, roles: &[&str]) -> User {
    User {
        id: user_id(number),
        username: format!("Person-{number}"),
        email: Some(format!("Person{number}@Example.org")),
        display_name: format!("Person Number {number}"),
        status: UserStatus::Active,
        password_changed_at: Some(NOW),
        auth_epoch: 1,
        grant_epoch: 1,
        created_at: NOW,
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
    }
}

/// The three built-in roles and these people in the role given.
pub async fn with_people(role: &str, numbers: std::ops::RangeInclusive<u128>) -> Database {
    let database = Database::new().await;
    let mut tx = database.write().await;
    for role in ["admin", "auditor", "member"] {
        users::insert_role(&mut tx, role, "", NOW).await.expect("inserts");
    }
    for number in numbers {
        users::insert_user(&mut tx, &user(number, &[role]), Some("phc"))
            .await
            .expect("inserts");
    }
    tx.commit().await.expect("commits");
    database
}

async fn find(tx: &mut Tx, number: u128) -> User {
    users::find_user(tx, user_id(number))
        .await
        .expect("reads")
        .expect("is there")
}

#[tokio::test]
async fn a_person_is_found_by_id_name_and_address_with_roles_sorted() {
    let database = with_people("member", 1..=1).await;
    let mut tx = database.write().await;
    users::insert_user(&mut tx, &user(2, &["member", "admin", "auditor"]), None)
        .await
        .expect("inserts");
    let found = find(&mut tx, 2).await;
    assert_eq!(found.roles, ["admin", "auditor", "member"]);
    assert_eq!(
        format!("{found:?}"),
        format!(
            "{:?}",
            User {
                roles: found.roles.clone(),
                ..user(2, &[])
            }
        )
    );
    for name in ["person-2", "person2@example.org"] {
        let found = users::find_user_by_identifier(&mut tx, name)
            .await
            .expect("reads")
            .expect("is there");
        assert_eq!(found.id, user_id(2));
    }
    for nobody in ["", "person-3", "person-%", "' OR 1=1 --", "person-2\0"] {
        assert!(
            users::find_user_by_identifier(&mut tx, nobody)
                .await
                .expect("reads")
                .is_none(),
            "{nobody:?}"
        );
    }
    assert_eq!(
        users::find_password_hash(&mut tx, user_id(1))
            .await
            .expect("reads")
            .as_deref(),
        Some("phc")
    );
    assert_eq!(
        users::find_password_hash(&mut tx, user_id(2)).await.expect("reads"),
        None
    );
    assert_eq!(
        users::find_password_hash(&mut tx, user_id(3)).await.expect("reads"),
        None
    );
    assert_eq!(users::count_users(&mut tx).await.expect("counts"), 2);
    let names = users::find_names(&mut tx, &[user_id(1), user_id(2), user_id(9)])
        .await
        .expect("reads");
    assert_eq!(names.len(), 2);
    assert_eq!(names[&user_id(1)], "Person-1");
    assert!(users::find_names(&mut tx, &[]).await.expect("reads").is_empty());
}

#[tokio::test]
async fn f31_the_same_name_or_address_in_other_letters_is_taken() {
    let database = with_people("member", 1..=1).await;
    let mut same_name = user(2, &[]);
    same_name.username = "PERSON-1".into();
    let mut same_address = user(2, &[]);
    same_address.email = Some("PERSON1@EXAMPLE.ORG".into());
    for taken in [same_name, same_address] {
        let error = users::insert_user(&mut database.write().await, &taken, None)
            .await
            .expect_err("taken");
        assert!(error.is_unique_violation() && !error.is_unavailable(), "{error}");
    }
    let error = users::insert_user(&mut database.write().await, &user(2, &["nobody"]), None).await;
    assert!(error.expect_err("no such role").is_unknown_reference());
}

#[tokio::test]
async fn changes_of_an_account_are_conditional_and_raise_the_right_epoch() {
    let database = with_people("member", 1..=1).await;
    let mut tx = database.write().await;
    let id = user_id(1);
    assert!(
        users::update_password(&mut tx, id, "new", later(1), Some(later(1)))
            .await
            .expect("writes")
    );
    assert!(
        !users::update_password(&mut tx, user_id(9), "new", NOW, Some(NOW))
            .await
            .expect("writes")
    );
    assert!(
        users::update_password_hash_only(&mut tx, id, "new", "newer")
            .await
            .expect("writes")
    );
    assert!(
        !users::update_password_hash_only(&mut tx, id, "new", "newest")
            .await
            .expect("writes")
    );
    let found = find(&mut tx, 1).await;
    assert_eq!(
        (found.auth_epoch, found.grant_epoch, found.password_changed_at),
        (2, 1, Some(later(1)))
    );

    let (active, disabled) = (UserStatus::Active, UserStatus::Disabled);
    assert!(
        users::set_status(&mut tx, id, active, disabled, Some(NOW))
            .await
            .expect("writes")
    );
    assert!(
        !users::set_status(&mut tx, id, active, disabled, Some(NOW))
            .await
            .expect("writes")
    );
    assert_eq!(find(&mut tx, 1).await.auth_epoch, 3);

    assert!(
        users::set_roles(&mut tx, id, &["auditor".into(), "admin".into()], NOW)
            .await
            .expect("writes")
    );
    assert!(!users::set_roles(&mut tx, user_id(9), &[], NOW).await.expect("writes"));
    let found = find(&mut tx, 1).await;
    assert_eq!(
        (found.roles.join(" ").as_str(), found.grant_epoch, found.auth_epoch),
        ("admin auditor", 2, 3)
    );

    assert!(
        users::set_profile(&mut tx, id, "New-Name", None, "Új Név")
            .await
            .expect("writes")
    );
    assert_eq!(
        users::list_people(&mut tx, "új", None, 5).await.expect("lists").len(),
        1
    );
    assert!(
        users::find_user_by_identifier(&mut tx, "person1@example.org")
            .await
            .expect("reads")
            .is_none()
    );
    let holders = users::list_holders(&mut tx, "admin", None, 5).await.expect("lists");
    assert!(matches!(&holders[..], [(user, false)] if user.id == id));
    assert!(
        users::list_holders(&mut tx, "admin", Some(id), 5)
            .await
            .expect("lists")
            .is_empty()
    );
}

#[tokio::test]
async fn the_list_of_people_searches_without_wildcards_and_pages_without_gaps() {
    let database = with_people("member", 1..=25).await;
    let mut tx = database.read().await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = users::list_people(&mut tx, "", after, 10).await.expect("lists");
        let Some(last) = page.last() else { break };
        after = Some(last.user.username.to_lowercase());
        seen.extend(page.into_iter().map(|row| row.user.username));
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
    let found = async |search: &str| {
        let mut tx = database.read().await;
        users::list_people(&mut tx, search, None, 100)
            .await
            .expect("lists")
            .len()
    };
    assert_eq!(found("PERSON NUMBER 7").await, 1);
    assert_eq!(found("person-2").await, 7);
    assert_eq!(found("@example.org").await, 25);
    for nothing in ["%", "_", "person_", "!", "\0", "'"] {
        assert_eq!(found(nothing).await, 0, "{nothing:?}");
    }
}

#[tokio::test]
async fn the_highest_version_of_a_policy_is_in_force_and_no_version_is_saved_twice() {
    let database = with_people("member", 1..=1).await;
    let [consumer, banking, ..] = presets();
    let policy = |version, lifetimes: &_| Policy {
        role: "member".into(),
        version,
        lifetimes: Clone::clone(lifetimes),
        review_at: Some(later(9)),
        reason: "r".into(),
        justification: None,
        author_id: Some(user_id(1)),
        created_at: NOW,
    };
    let mut tx = database.write().await;
    policies::insert_policy(&mut tx, &policy(1, &consumer.lifetimes))
        .await
        .expect("inserts");
    policies::insert_policy(&mut tx, &policy(2, &banking.lifetimes))
        .await
        .expect("inserts");
    tx.commit().await.expect("commits");
    let twice = policies::insert_policy(&mut database.write().await, &policy(2, &consumer.lifetimes)).await;
    assert!(twice.expect_err("exists").is_unique_violation());
    let mut tx = database.read().await;
    let of_user = policies::find_policies_in_force_of_user(&mut tx, user_id(1))
        .await
        .expect("reads");
    assert_eq!(format!("{of_user:?}"), format!("{:?}", [policy(2, &banking.lifetimes)]));
    assert_eq!(of_user[0].lifetimes.mfa, Mfa::Required);
    let of_role = policies::find_policy(&mut tx, "member")
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(of_role.version, 2);
    assert!(policies::find_policy(&mut tx, "admin").await.expect("reads").is_none());
    assert_eq!(policies::list_policies_in_force(&mut tx).await.expect("lists").len(), 1);
    let versions = policies::list_policy_versions(&mut tx, "member", 10)
        .await
        .expect("lists");
    assert_eq!(versions.iter().map(|policy| policy.version).collect::<Vec<_>>(), [2, 1]);
    let roles = users::list_roles(&mut tx).await.expect("lists");
    assert_eq!(roles.iter().map(|role| role.people).collect::<Vec<_>>(), [0, 0, 1]);
}

#[tokio::test]
async fn f56_two_administrators_who_demote_each_other_leave_one() {
    let database = with_people("admin", 1..=2).await;
    for _ in 0..20 {
        let demoted = at_once(&database.store, 2, async |tx, index| {
            let (mine, other) = if index == 0 { (1, 2) } else { (2, 1) };
            assert_ne!(mine, other);
            let may = users::any_other_active_admin(tx, user_id(other)).await.expect("reads");
            may && users::set_roles(tx, user_id(other), &["member".into()], NOW)
                .await
                .expect("writes")
        })
        .await;
        assert_eq!(demoted, 1);
        assert_eq!(
            users::count_active_admins(&mut database.read().await)
                .await
                .expect("counts"),
            1
        );
        let mut tx = database.write().await;
        for number in 1..=2 {
            users::set_roles(&mut tx, user_id(number), &["admin".into()], NOW)
                .await
                .expect("writes");
        }
        tx.commit().await.expect("commits");
    }
}
