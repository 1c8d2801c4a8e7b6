//! Refreshes that meet each other, and refreshes that meet the end of their session or a change of its owner's account.
//!
//! `MAYFLY_TEST_FULL=1` lets them meet as often as FAULTS.md says. Figures are printed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use axum::http::Method;
use data_encoding::BASE64URL_NOPAD;
use secrecy::ExposeSecret as _;
use server::domain::audit::Circumstances;
use server::domain::policy::presets;
use server::domain::random::Random as _;
use server::domain::session::Client;
use server::domain::sign_in::{Flow, Step};
use server::services::account::{PasswordChange, RemoveOutcome};
use server::services::sessions::Live;
use server::services::sign_in::{Caller, CodeOutcome};
use server::services::tokens::AccessOutcome;
use server::storage::{Tx, users};

use crate::app::{SeededRandom, TestApp};
use crate::people::Person;
use crate::program::Program;
use crate::scale;

/// Up to five milliseconds.
pub fn wait(byte: u8) -> Duration {
    Duration::from_micros(u64::from(byte) * 20)
}

/// Says how often the refresh came first and how often the other did. Among many, both did.
pub fn report_orders(refreshes_first: u32, rounds: u32, other: &str) {
    println!("{rounds} {other} met a refresh; {refreshes_first} refreshes came first");
    if rounds >= 1000 {
        assert!(
            refreshes_first > 0 && refreshes_first < rounds,
            "only one order was tried"
        );
    }
}

/// A program that signed in with a code, the password step passed over: the races need many sessions, not many
/// password hashes.
pub async fn quickly(app: &TestApp, person: &Person) -> Program {
    let code = person.code(app);
    let caller = Caller {
        from: Circumstances::default(),
        address: IpAddr::from([192, 0, 2, 33]),
        client: Client::Native,
        device: None,
        key: None,
    };
    let mut tx = app.backend().store().read().await.expect("the database answers");
    let user = users::find_user(&mut tx, person.id)
        .await
        .expect("the database answers");
    drop(tx);
    let flow = Flow {
        user_id: person.id,
        auth_epoch: user.expect("an account").auth_epoch,
        password_at: app.now(),
        return_to: "/".to_owned(),
        step: Step::Code { wrong: 0 },
        key: None,
    };
    let outcome = app
        .backend()
        .check_code(flow, &code, &caller)
        .await
        .expect("the database answers");
    let CodeOutcome::SignedIn(signed_in) = outcome else {
        panic!("{outcome:?}")
    };
    let mut program = Program::new(app);
    signed_in.issued.access.expose_secret().clone_into(&mut program.access);
    signed_in
        .issued
        .refresh
        .expose_secret()
        .clone_into(&mut program.refresh);
    program.session_id = signed_in.issued.live.session.id.to_string();
    program
}

/// Rotations of one session.
const EACH: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_of_64_refreshes_at_once_exactly_one_rotates() {
    let app = TestApp::start("f51").await;
    let person = app.add_person("max", &["member"], true).await;
    let mut program = quickly(&app, &person).await;
    let (rounds, mut all) = (scale(6, 1000), BTreeMap::<String, u32>::new());
    for round in 1..=rounds {
        // A session lives for some hours only.
        if round % EACH == 1 {
            program = quickly(&app, &person).await;
        }
        app.pass(60);
        let mut tries = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let mut program = program.clone();
            tries.spawn(async move { program.present(&program.refresh.clone()).await });
        }
        let (mut by_name, mut children) = (BTreeMap::<String, u32>::new(), Vec::new());
        for reply in tries.join_all().await {
            let name = reply
                .header("mayfly-refresh")
                .unwrap_or_else(|| panic!("{} {}", reply.status, reply.body));
            *by_name.entry(name.to_owned()).or_default() += 1;
            if reply.status == 200 {
                children.push(reply.json());
            }
        }
        assert_eq!(by_name.get("rotated"), Some(&1), "round {round}: {by_name:?}");
        let allowed = ["rotated", "reissued", "superseded"];
        assert!(
            by_name.keys().all(|name| allowed.contains(&name.as_str())),
            "round {round}: {by_name:?}"
        );
        assert!(
            by_name.get("reissued").copied().unwrap_or(0) <= 5,
            "round {round}: {by_name:?}"
        );
        assert!(
            children
                .iter()
                .all(|child| child["refresh_token"] == children[0]["refresh_token"]),
            "one child"
        );
        assert_eq!(app.events("token_rotated").await, i64::from(round));
        for (name, count) in by_name {
            *all.entry(name).or_default() += count;
        }
        program.refresh = children[0]["refresh_token"].as_str().expect("a token").to_owned();
        program.access = children[0]["access_token"].as_str().expect("a token").to_owned();
        program.sessions().await.expect(200);
    }
    println!("{rounds} times 64 refreshes at once: {all:?}");
    assert_eq!(app.events("authn_token_reuse").await, 0, "nobody was taken for a thief");
    let generations = app
        .rows("SELECT facts FROM audit_events WHERE kind = 'token_rotated' ORDER BY at")
        .await
        .into_iter()
        .map(|row| row[0].clone().expect("facts"))
        .collect::<Vec<_>>();
    for (index, facts) in generations.iter().enumerate() {
        let facts: serde_json::Value = serde_json::from_str(facts).expect("JSON");
        assert_eq!(facts["generation"], index % EACH as usize + 1, "without gaps");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f52_no_refresh_outlives_a_revocation_it_meets() {
    let app = TestApp::start("f52").await;
    let person = app.add_person("max", &["member"], true).await;
    let mut keeper = quickly(&app, &person).await;
    let random = SeededRandom::new("f52 offsets");
    let (rounds, mut first) = (scale(100, 10_000), 0);
    for round in 0..rounds {
        // Ending another session needs a factor that is not too old.
        if round % 20 == 19 {
            keeper = quickly(&app, &person).await;
        }
        let program = quickly(&app, &person).await;
        app.pass(20);
        let mut offsets = [0; 2];
        random.fill(&mut offsets);
        let (mut refreshing, ending) = (program.clone(), keeper.clone());
        let session = program.session_id.clone();
        let refreshed = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[0])).await;
            let reply = refreshing.renew().await;
            (refreshing, reply.status)
        });
        let ended = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[1])).await;
            ending.end(&session).await
        });
        let ((after, answer), ended) = (refreshed.await.expect("no panic"), ended.await.expect("no panic"));
        assert!([200, 401].contains(&answer.as_u16()), "round {round}: {answer}");
        first += u32::from(answer == 200);
        assert_eq!(ended.status, 200, "round {round}: {}", ended.body);
        for token in [&program.access, &after.access] {
            let reply = after.ask_with(token, Method::GET, "/api/v1/me/sessions").await;
            assert_eq!(reply.status, 401, "round {round}");
        }
        for token in [&program.refresh, &after.refresh] {
            assert_eq!(after.clone().present(token).await.status, 401, "round {round}");
        }
    }
    assert_eq!(app.events("authn_token_reuse").await, 0);
    report_orders(first, rounds, "revocations");
}

/// The roles that an access token names.
fn roles_in(access: &str) -> BTreeSet<String> {
    let claims = access.split('.').nth(1).expect("three parts");
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).expect("base64url");
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
    let roles = claims["roles"].as_array().expect("roles").iter();
    roles.map(|role| role.as_str().expect("a name").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f53_no_token_with_old_roles_is_good_after_the_change_that_its_refresh_met() {
    let app = TestApp::start("f53").await;
    app.add_role("extra", presets()[0].lifetimes.clone()).await;
    let person = app.add_person("max", &["member"], true).await;
    let mut program = quickly(&app, &person).await;
    let random = SeededRandom::new("f53 offsets");
    let (rounds, mut old_ones) = (scale(100, 10_000), 0);
    for round in 0..rounds {
        if round % EACH == EACH - 1 {
            program = quickly(&app, &person).await;
        }
        app.pass(20);
        let mut offsets = [0; 2];
        random.fill(&mut offsets);
        let mut refreshing = program.clone();
        let refreshed = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[0])).await;
            let reply = refreshing.renew().await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            refreshing
        });
        let roles: &[&str] = if round % 2 == 0 {
            &["extra", "member"]
        } else {
            &["member"]
        };
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        let (changing, to, id) = (app.clone(), roles.clone(), person.id);
        let changed = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[1])).await;
            let backend = changing.backend();
            let mut tx = backend.store().write().await.expect("the database answers");
            let done = users::set_roles(&mut tx, id, &to, backend.now()).await.expect("sets");
            tx.commit().await.expect("commits");
            done
        });
        let (after, done) = (refreshed.await.expect("no panic"), changed.await.expect("no panic"));
        assert!(done, "round {round}");
        let roles: BTreeSet<String> = roles.into_iter().collect();
        for token in [&program.access, &after.access] {
            let reply = after.ask_with(token, Method::GET, "/api/v1/me/sessions").await;
            if roles_in(token) != roles {
                old_ones += 1;
                assert_eq!(reply.status, 401, "round {round}: {}", reply.body);
            }
        }
        // The session goes on: the next refresh brings the new roles, if this one did not.
        program = after;
        if roles_in(&program.access) != roles {
            program.renew().await.expect(200);
        }
        assert_eq!(roles_in(&program.access), roles, "round {round}");
        program.sessions().await.expect(200);
    }
    assert_eq!(app.events("authn_token_reuse").await, 0);
    println!("{rounds} role changes met a refresh; {old_ones} tokens with the roles of before were refused");
    assert!(
        old_ones > rounds,
        "some refreshes came first, and their tokens too are refused"
    );
}

/// PostgreSQL looks at the session's row again after waiting for it, and not at the account's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f53_a_refresh_that_waits_for_the_second_of_two_changes_hands_out_no_roles_of_before() {
    let app = TestApp::start("f53 twice").await;
    app.add_role("extra", presets()[0].lifetimes.clone()).await;
    let person = app.add_person("max", &["member"], true).await;
    let program = quickly(&app, &person).await;
    app.pass(20);
    let backend = app.backend();
    let set = async |tx: &mut Tx, roles: &[&str]| {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        let done = users::set_roles(tx, person.id, &roles, backend.now()).await;
        assert!(done.expect("the database answers"));
    };
    let mut tx = backend.store().write().await.expect("the database answers");
    set(&mut tx, &["extra", "member"]).await;
    tx.commit().await.expect("commits");
    // The session has not refreshed since.
    let mut tx = backend.store().write().await.expect("the database answers");
    set(&mut tx, &["member"]).await;
    let mut refreshing = program.clone();
    let refreshed = tokio::spawn(async move {
        refreshing.renew().await.expect(200);
        refreshing
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    tx.commit().await.expect("commits");
    let after = refreshed.await.expect("no panic");
    let roles = BTreeSet::from(["member".to_owned()]);
    assert_eq!(roles_in(&after.access), roles);
    after.sessions().await.expect(200);
}

/// What an access token stands for.
async fn live(app: &TestApp, program: &Program) -> Live {
    let from = Circumstances::default();
    let checked = app.backend().authenticate(&program.access, true, &from).await;
    let AccessOutcome::Valid(live) = checked.expect("the database answers") else {
        panic!("it was just signed in")
    };
    (*live).clone()
}

/// A way to end all sessions of somebody but the one it is done from.
#[derive(Clone, Copy, Debug)]
enum Change {
    Disabled,
    Password,
    Authenticator,
}

/// Makes this change of somebody's account, as an administrator or as they themselves would.
async fn change(app: &TestApp, what: Change, admin: &Live, own: &Live, passwords: [&str; 2]) {
    let (backend, from) = (app.backend(), Circumstances::default());
    match what {
        Change::Disabled => {
            let done = backend
                .disable(admin, own.user.id, "a test", &from)
                .await
                .expect("answers");
            assert!(done.is_ok(), "disabled");
        }
        Change::Password => {
            let done = backend.change_password(own, passwords[0], passwords[1], &from).await;
            let done = done.expect("answers");
            assert!(matches!(done, PasswordChange::Done { .. }), "{done:?}");
        }
        Change::Authenticator => {
            let done = backend.remove_authenticator(own, &from).await.expect("answers");
            assert!(matches!(done, RemoveOutcome::Done), "{done:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f54_no_refresh_outlives_a_change_of_the_account_that_it_meets() {
    let app = TestApp::start("f54").await;
    let root = app.add_person("root", &["admin"], true).await;
    let mut passwords = [crate::people::PASSWORD, "nine louder mayflies at dawn"];
    // In the full run ten thousand of each kind.
    let (rounds, mut first) = (scale(60, 30_000), [0; 3]);
    let random = SeededRandom::new("f54 offsets");
    let mut admin = live(&app, &quickly(&app, &root).await).await;
    let mut person = app.add_person("max0", &["member"], true).await;
    for round in 0..rounds {
        // Administrators must have shown a factor not long ago.
        if round % 8 == 7 {
            admin = live(&app, &quickly(&app, &root).await).await;
        }
        let kind = round as usize % 3;
        let what = [Change::Disabled, Change::Password, Change::Authenticator][kind];
        let (program, own) = (quickly(&app, &person).await, quickly(&app, &person).await);
        let own = live(&app, &own).await;
        app.pass(20);
        let mut offsets = [0; 2];
        random.fill(&mut offsets);
        let mut refreshing = program.clone();
        let refreshed = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[0])).await;
            let reply = refreshing.renew().await;
            (refreshing, reply.status)
        });
        let (changing, by) = (app.clone(), admin.clone());
        let changed = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[1])).await;
            change(&changing, what, &by, &own, passwords).await;
        });
        let ((after, answer), ()) = (refreshed.await.expect("no panic"), changed.await.expect("no panic"));
        assert!([200, 401].contains(&answer.as_u16()), "round {round}: {answer}");
        first[kind] += u32::from(answer == 200);
        for token in [&program.access, &after.access] {
            let reply = after.ask_with(token, Method::GET, "/api/v1/me/sessions").await;
            assert_eq!(reply.status, 401, "round {round}, {what:?}: {}", reply.body);
        }
        for token in [&program.refresh, &after.refresh] {
            let reply = after.clone().present(token).await;
            assert_eq!(reply.status, 401, "round {round}, {what:?}: {}", reply.body);
        }
        match what {
            Change::Disabled => {
                let enabled = app.backend().enable(&admin, person.id, &Circumstances::default()).await;
                assert!(enabled.expect("answers").is_ok());
            }
            Change::Password => passwords.swap(0, 1),
            // Somebody new, who has one.
            Change::Authenticator => {
                person = app.add_person(&format!("max{}", round + 1), &["member"], true).await;
                passwords = [crate::people::PASSWORD, "nine louder mayflies at dawn"];
            }
        }
    }
    assert_eq!(app.events("authn_token_reuse").await, 0);
    println!("of each kind, refreshes came first: {first:?}");
    report_orders(first.iter().sum(), rounds, "changes of an account");
}
