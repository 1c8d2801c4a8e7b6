//! A database server that falls silent: it calls nobody, or says nothing at all, and no connection is closed.
//!
//! Only on PostgreSQL. Processes on one SQLite file have nobody to call them and look by themselves in every test, and
//! a file does not fall silent: there these tests end at once.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use server::domain::audit::Circumstances;
use server::domain::revocation::Verdict;
use server::services::Backend;
use server::services::revocations::BOUND;
use server::services::tokens::AccessOutcome;
use tokio::task::JoinSet;

use crate::app::TestApp;
use crate::node::{Node, Remote, Shop, http};
use crate::revocation_nodes::{PATIENT, anybodys, now, report, until};
use crate::scale;
use crate::wire::Wire;

/// What a busy machine may take on top of a bound.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The longest time for one request.
const LONGEST: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j8_a_node_that_no_call_reaches_looks_by_itself_within_a_second() {
    let app = TestApp::start("j8 no calls").await;
    let Some(wire) = Wire::to(&app).await else { return };
    let a = Node::beside(&app, "a").await;
    let b = Node::beside_with(&app, "b", &[("DATABASE__URL", &wire.url)]).await;
    let shop = Shop::beside(&b, PATIENT).await;
    let person = app.add_person("max", &["member"], false).await;
    let sessions = format!("{}/api/v1/me/sessions", b.url);
    wire.swallow_calls().await;
    let (mut at_b, mut at_shop) = (Vec::new(), Vec::new());
    for _ in 0..scale(6, 200) {
        let program = Remote::sign_in(&a, &person).await;
        until(StatusCode::OK, &program, &sessions).await;
        until(StatusCode::OK, &program, &shop.orders).await;
        let calls = wire.swallowed();
        assert_eq!(program.end(&a).await, StatusCode::OK);
        let (node, service) = tokio::join!(
            until(StatusCode::UNAUTHORIZED, &program, &sessions),
            until(StatusCode::UNAUTHORIZED, &program, &shop.orders)
        );
        at_b.push(node);
        at_shop.push(service);
        assert!(wire.swallowed() > calls, "it was called, and did not hear it");
    }
    for (place, times) in [("node B", at_b), ("the service behind it", at_shop)] {
        let longest = times.iter().max().copied().expect("some");
        report(&format!("without a call, to the refusal at {place}"), times);
        assert!(
            longest < Duration::from_secs(scale(5, 1).into()),
            "{place}: {longest:?}"
        );
    }
}

/// The token is good here and now; one that nobody can say so of in time is not.
async fn is_accepted(backend: &Backend, token: &str) -> bool {
    let from = Circumstances::default();
    let checked = tokio::time::timeout(LONGEST, backend.authenticate(token, false, &from)).await;
    matches!(checked, Ok(Ok(AccessOutcome::Valid(_))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j15_a_node_whose_database_falls_silent_accepts_nothing_beyond_its_bound() {
    let app = TestApp::start("j15 silent").await;
    let Some(wire) = Wire::to(&app).await else { return };
    // Nobody here waits for half a minute to hear that something is not to be had.
    let longest = LONGEST.as_secs().to_string();
    let settings = [
        ("DATABASE__URL", wire.url.as_str()),
        ("SERVER__REQUEST_TIMEOUT_SECONDS", &longest),
    ];
    let node = Node::beside_with(&app, "a", &settings).await;
    let shop = Shop::beside(&node, BOUND).await;
    let person = app.add_person("max", &["member"], false).await;
    let program = Remote::sign_in(&node, &person).await;
    let (sessions, readyz) = (
        format!("{}/api/v1/me/sessions", node.url),
        format!("{}/readyz", node.url),
    );
    until(StatusCode::OK, &program, &sessions).await;
    until(StatusCode::OK, &program, &shop.orders).await;
    until(StatusCode::OK, &program, &readyz).await;
    let backend = node.application.state().backend.clone();
    let presented = anybodys(&backend);
    assert_eq!(backend.revocation_verdict(&presented), Verdict::NotRevoked);

    // Twice: then it is remembered.
    for _ in 0..2 {
        assert!(is_accepted(&backend, &program.access).await);
    }

    wire.fall_silent();
    let silent_at = now();
    // Somebody comes every few milliseconds; whoever is let in is let in within the bound.
    let (mut asked, mut checked) = (JoinSet::new(), JoinSet::new());
    while now() - silent_at < BOUND + TOLERANCE {
        let (program, url) = (program.clone(), sessions.clone());
        let (backend, token) = (backend.clone(), program.access.clone());
        asked.spawn(async move { program.ask(Method::GET, &url).await });
        checked.spawn(async move { (is_accepted(&backend, &token).await, now() - silent_at) });
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!backend.knows_revocations());
    assert_eq!(backend.revocation_verdict(&presented), Verdict::Unknown);
    assert_eq!(
        program.ask(Method::GET, &shop.orders).await,
        StatusCode::SERVICE_UNAVAILABLE,
        "nor do the services behind it accept any"
    );
    let ready = http().get(&readyz).send().await.expect("an answer");
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let checked = checked.join_all().await;
    let accepted = checked.iter().filter(|(accepted, _)| *accepted);
    let last = accepted.map(|(_, after)| *after).max().expect("some came at once");
    println!(
        "after the database fell silent the last token was accepted at {} ms",
        last.as_millis()
    );
    assert!(last < BOUND + TOLERANCE / 2, "{last:?}");
    let answers = asked.join_all().await;
    assert!(
        answers.iter().all(|status| *status == StatusCode::SERVICE_UNAVAILABLE),
        "what needs the database is not to be had: {answers:?}"
    );

    // However many come at once, they are told together.
    let (begun, mut many) = (now(), JoinSet::new());
    for _ in 0..40 {
        let (backend, token) = (backend.clone(), program.access.clone());
        many.spawn(async move {
            backend
                .authenticate(&token, false, &Circumstances::default())
                .await
                .is_err()
        });
    }
    assert!(many.join_all().await.into_iter().all(|refused| refused));
    let took = now() - begun;
    println!("40 checks at once were refused after {} ms", took.as_millis());
    assert!(took < Duration::from_secs(15), "{took:?}");

    wire.carry_new();
    let back = now();
    let well = async {
        while !backend.knows_revocations() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), well)
        .await
        .expect("it makes a new connection and looks again");
    println!(
        "well again {:.1} s after new connections carry",
        (now() - back).as_secs_f64()
    );
    until(StatusCode::OK, &program, &readyz).await;
    until(StatusCode::OK, &program, &sessions).await;
}
