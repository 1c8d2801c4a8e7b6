//! Tokens that were checked a moment ago: the answer from memory is the one the database would give.

use std::time::Duration;

use reqwest::StatusCode;
use server::domain::audit::Circumstances;
use server::domain::policy::{Mfa, Policy, presets};
use server::domain::session::EndReason;
use server::services::Backend;
use server::services::tokens::AccessOutcome;
use server::storage::policies;

use crate::app::TestApp;
use crate::node::{Node, Remote};
use crate::people::Admin;
use crate::service::Service;

async fn check(backend: &Backend, token: &str, is_activity: bool) -> Result<AccessOutcome, String> {
    backend
        .authenticate(token, is_activity, &Circumstances::default())
        .await
        .map_err(|error| error.to_string())
}

async fn is_valid(backend: &Backend, token: &str) -> bool {
    matches!(check(backend, token, false).await, Ok(AccessOutcome::Valid(_)))
}

/// Waits until this node knows what is revoked.
async fn ready(backend: &Backend) {
    while !backend.knows_revocations() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j15_memory_answers_for_a_second_and_not_a_moment_longer() {
    let app = TestApp::start("j15 memory").await;
    let node = Node::beside(&app, "a").await;
    let backend = &node.application.state().backend;
    ready(backend).await;
    let person = app.add_person("max", &["member"], false).await;
    let (known, unknown) = (
        Remote::sign_in(&node, &person).await,
        Remote::sign_in(&node, &person).await,
    );
    assert!(is_valid(backend, &known.access).await);
    node.cut_off().await;
    assert!(is_valid(backend, &known.access).await, "from memory");
    assert!(
        check(backend, &unknown.access, false).await.is_err(),
        "never checked before"
    );
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(check(backend, &known.access, false).await.is_err(), "too old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j8_what_was_revoked_here_is_refused_here_at_once() {
    let rounds = if std::env::var_os("MAYFLY_TEST_FULL").is_some() {
        1000
    } else {
        40
    };
    let app = TestApp::start("j8 at once").await;
    let node = Node::beside(&app, "a").await;
    let backend = &node.application.state().backend;
    ready(backend).await;
    let person = app.add_person("max", &["member"], false).await;
    for round in 0..rounds {
        let program = Remote::sign_in(&node, &person).await;
        let Ok(AccessOutcome::Valid(live)) = check(backend, &program.access, false).await else {
            panic!("good");
        };
        assert!(is_valid(backend, &program.access).await);
        backend
            .sign_out(&live.session, &Circumstances::default())
            .await
            .expect("signed out");
        let refused = check(backend, &program.access, false).await;
        assert!(
            matches!(&refused, Ok(AccessOutcome::Over(ending)) if ending.reason == EndReason::SignedOut),
            "round {round}: {refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f55_a_tighter_policy_is_felt_by_a_token_that_was_just_checked() {
    let app = TestApp::start("f55 memory").await;
    let node = Node::beside(&app, "a").await;
    let backend = &node.application.state().backend;
    ready(backend).await;
    let person = app.add_person("max", &["member"], false).await;
    let program = Remote::sign_in(&node, &person).await;
    assert!(is_valid(backend, &program.access).await);
    let mut lifetimes = presets()[0].lifetimes.clone();
    lifetimes.mfa = Mfa::Required;
    let mut tx = backend.store().write().await.expect("the database answers");
    let old = policies::find_policy(&mut tx, "member")
        .await
        .expect("reads")
        .expect("is there");
    let new = Policy {
        version: old.version + 1,
        lifetimes,
        ..old
    };
    policies::insert_policy(&mut tx, &new).await.expect("saves");
    tx.commit().await.expect("commits");
    let refused = check(backend, &program.access, false).await;
    assert!(
        matches!(&refused, Ok(AccessOutcome::Over(ending)) if ending.reason == EndReason::FactorRequired),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_activity_is_written_down_however_often_a_token_is_checked() {
    let app = TestApp::start("s1 memory").await;
    let node = Node::beside(&app, "a").await;
    let backend = &node.application.state().backend;
    ready(backend).await;
    let person = app.add_person("max", &["member"], false).await;
    let program = Remote::sign_in(&node, &person).await;
    let active = async || app.number("SELECT last_active_at FROM sessions").await;
    let before = active().await;
    for _ in 0..30 {
        assert!(is_valid(backend, &program.access).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(active().await, before, "background traffic");
    assert!(check(backend, &program.access, true).await.is_ok());
    assert!(active().await >= before + 1000);
    assert_eq!(program.sessions(&node).await, StatusCode::OK);
    assert_eq!(app.number("SELECT child_confirmed FROM sessions").await, 1);
}

#[tokio::test]
async fn f55_access_tokens_of_before_obey_a_shorter_lifetime() {
    let app = TestApp::start("f55 access").await;
    let mut admin = Admin::sign_in(&app).await;
    let (_, mut program) = app.add_program("max").await;
    admin
        .save_policy("member", &[("access_minutes", "5")])
        .await
        .expect(303);
    app.pass(5 * 60 + 29);
    program.sessions().await.expect(200);
    app.pass(1);
    program.sessions().await.expect(401);
    let service = Service::resource_server(&app).await;
    assert_eq!(service.introspect(&program.access).await["active"], false);
    program.renew().await.expect(200);
    program.sessions().await.expect(200);
    assert_eq!(service.introspect(&program.access).await["active"], true);
}

#[tokio::test]
async fn j8_the_epoch_and_the_state_of_an_account_count_though_its_sessions_were_left() {
    for change in ["auth_epoch = auth_epoch + 1", "status = 'disabled'"] {
        let app = TestApp::start(&format!("j8 {}", &change[..6])).await;
        let (person, mut program) = app.add_program("max").await;
        program.sessions().await.expect(200);
        app.execute(&format!(
            "UPDATE users SET {change} WHERE username = '{}'",
            person.username
        ))
        .await;
        assert_eq!(
            app.number("SELECT count(*) FROM sessions WHERE ended_at IS NULL").await,
            1
        );
        program.sessions().await.expect(401);
        app.pass(20);
        program.renew().await.expect(401);
    }
}
