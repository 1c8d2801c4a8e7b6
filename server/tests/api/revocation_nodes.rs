//! Revoked at one node, refused everywhere: at another node and at a service that checks tokens by itself. Measured.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use server::domain::audit::Circumstances;
use server::domain::id::TokenId;
use server::domain::revocation::{Presented, Verdict};
use server::services::Backend;
use server::storage::users;

use crate::app::TestApp;
use crate::node::{Node, Remote, Shop};
use crate::people::Person;
use crate::scale;

/// A bound that a busy machine does not pass by chance, where the bound is not what the test is about.
pub const PATIENT: Duration = Duration::from_secs(5);

/// Now.
#[expect(clippy::disallowed_methods, reason = "measures")]
pub fn now() -> Instant {
    Instant::now()
}

/// Where the database is one's own, nodes call each other and services are told at once; a median beyond this says that
/// somebody waits for the next look.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How long until the answer is this one.
pub async fn until(expected: StatusCode, program: &Remote, url: &str) -> Duration {
    let begun = now();
    loop {
        let status = program.ask(Method::GET, url).await;
        if status == expected {
            return now() - begun;
        }
        assert!(now() - begun < Duration::from_secs(5), "still {status}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Median and 99th percentile.
pub fn report(what: &str, mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms of {}",
        at(50).as_secs_f64() * 1e3,
        at(99).as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3,
        times.len()
    );
    [at(50), at(99)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j8_revoked_at_one_node_is_refused_at_another_and_at_a_service_within_a_second() {
    // What a call takes on one machine is only told from a stumble among many.
    let (rounds, most) = (scale(25, 1000), Duration::from_millis(u64::from(scale(5000, 100))));
    let app = TestApp::start("j8 nodes").await;
    let (a, b) = (Node::beside(&app, "a").await, Node::beside(&app, "b").await);
    let shop = Shop::beside(&b, PATIENT).await;
    let person = app.add_person("max", &["member"], false).await;
    let sessions = format!("{}/api/v1/me/sessions", b.url);
    let (mut at_b, mut at_shop) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let program = Remote::sign_in(&a, &person).await;
        assert_eq!(program.sessions(&b).await, StatusCode::OK);
        assert_eq!(program.ask(Method::GET, &shop.orders).await, StatusCode::OK);
        assert_eq!(program.end(&a).await, StatusCode::OK);
        let (node, service) = tokio::join!(
            until(StatusCode::UNAUTHORIZED, &program, &sessions),
            until(StatusCode::UNAUTHORIZED, &program, &shop.orders)
        );
        at_b.push(node);
        at_shop.push(service);
    }
    for (place, times) in [("node B", at_b), ("the service", at_shop)] {
        let [p50, p99] = report(&format!("from a revocation at node A to the refusal at {place}"), times);
        assert!(p50 < AT_ONCE && p99 < most, "{place}");
    }
}

/// Changes the roles, as an administrator at this node would.
async fn set_roles(node: &Node, person: &Person, roles: &[&str]) {
    let backend = &node.application.state().backend;
    let mut tx = backend.store().write().await.expect("the database answers");
    let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    assert!(
        users::set_roles(&mut tx, person.id, &roles, backend.now())
            .await
            .expect("sets")
    );
    tx.commit().await.expect("commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f53_a_role_that_was_taken_away_is_no_use_at_a_service_and_the_session_goes_on() {
    let app = TestApp::start("f53 nodes").await;
    let (a, b) = (Node::beside(&app, "a").await, Node::beside(&app, "b").await);
    let shop = Shop::beside(&b, PATIENT).await;
    app.add_role("extra", server::domain::policy::presets()[0].lifetimes.clone())
        .await;
    let person = app.add_person("max", &["extra", "member"], false).await;
    let mut program = Remote::sign_in(&a, &person).await;
    assert_eq!(program.ask(Method::GET, &shop.orders).await, StatusCode::OK);
    set_roles(&a, &person, &["member"]).await;
    until(StatusCode::UNAUTHORIZED, &program, &shop.orders).await;
    let old = program.clone();
    program.renew(&b).await;
    // Both have been heard of by now; only what came before is refused.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(program.ask(Method::GET, &shop.orders).await, StatusCode::OK);
    assert_eq!(old.ask(Method::GET, &shop.orders).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f54_after_a_password_change_only_tokens_of_before_are_refused() {
    let app = TestApp::start("f54 nodes").await;
    let (a, b) = (Node::beside(&app, "a").await, Node::beside(&app, "b").await);
    let shop = Shop::beside(&b, PATIENT).await;
    let person = app.add_person("max", &["member"], false).await;
    let (mine, other) = (Remote::sign_in(&a, &person).await, Remote::sign_in(&a, &person).await);
    let backend = &a.application.state().backend;
    let from = Circumstances::default();
    let live = match backend.authenticate(&mine.access, true, &from).await.expect("answers") {
        server::services::tokens::AccessOutcome::Valid(live) => live,
        refused => panic!("{refused:?}"),
    };
    let new = "nine louder mayflies at dawn";
    let changed = backend
        .change_password(&live, &person.password, new, &from)
        .await
        .expect("answers");
    let server::services::account::PasswordChange::Done { issued, .. } = changed else {
        panic!("{changed:?}");
    };
    let mut renewed = mine.clone();
    issued.access.expose_secret().clone_into(&mut renewed.access);
    until(StatusCode::UNAUTHORIZED, &other, &shop.orders).await;
    until(StatusCode::UNAUTHORIZED, &mine, &shop.orders).await;
    assert_eq!(
        renewed.ask(Method::GET, &shop.orders).await,
        StatusCode::OK,
        "issued in the same moment, but after the change"
    );
    assert_eq!(renewed.sessions(&b).await, StatusCode::OK);
}

/// A token of now that nobody has revoked.
pub fn anybodys(backend: &Backend) -> Presented<'static> {
    Presented {
        kid: "k",
        sub: "s",
        session: None,
        generation: 0,
        token: TokenId(uuid::Uuid::nil()),
        issued_at: backend.now(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j15_a_node_cut_off_from_the_database_says_so_and_so_do_the_services_behind_it() {
    let app = TestApp::start("j15 cut off").await;
    let node = Node::beside(&app, "a").await;
    let shop = Shop::beside(&node, Duration::from_secs(1)).await;
    let (_, token) = node.service_token("reader", "revocations").await;
    let person = app.add_person("max", &["member"], false).await;
    let program = Remote::sign_in(&node, &person).await;
    until(StatusCode::OK, &program, &shop.orders).await;
    let backend = node.application.state().backend.clone();
    let presented = anybodys(&backend);
    assert_eq!(backend.revocation_verdict(&presented), Verdict::NotRevoked);
    node.cut_off().await;
    let cut_at = now();
    until(StatusCode::SERVICE_UNAVAILABLE, &program, &shop.orders).await;
    let took = now() - cut_at;
    println!(
        "a service behind a node without its database refuses after {:.0} ms",
        took.as_secs_f64() * 1e3
    );
    assert!(
        took < Duration::from_secs(scale(6, 2).into()),
        "its bound is one second: {took:?}"
    );
    assert_eq!(program.sessions(&node).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        node.get("/oauth/revocations", &token).await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!backend.knows_revocations());
    assert_eq!(backend.revocation_verdict(&presented), Verdict::Unknown);
}
