//! Giving tokens back (RFC 7009).

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use server::domain::client::REVOCATIONS;
use server::domain::random::Random as _;
use server::domain::revocation::{Entry, Target};

use crate::app::{SeededRandom, TestApp};
use crate::browser::{Browser, REFRESH};
use crate::program::Program;
use crate::refresh_races::{quickly, report_orders, wait};
use crate::reply::Reply;
use crate::scale;
use crate::service::{Service, post_form};

async fn revoke(app: &TestApp, token: &str) -> Reply {
    post_form(app, "/oauth/revoke", &[], &[("token", token)]).await
}

/// Why the newest session ended.
async fn ending(app: &TestApp) -> Option<String> {
    let sql = "SELECT end_reason FROM sessions ORDER BY started_at DESC LIMIT 1";
    app.rows(sql).await[0][0].clone()
}

#[tokio::test]
async fn r10_a_refresh_token_of_any_generation_ends_its_session() {
    let app = TestApp::start("r10 generations").await;
    let person = app.add_person("max", &["member"], false).await;
    for back in 0..4 {
        let mut program = Program::signed_in(&app, &person).await;
        let mut generations = vec![program.refresh.clone()];
        for _ in 0..3 {
            app.pass(60);
            program.renew().await.expect(200);
            generations.push(program.refresh.clone());
        }
        program.sessions().await.expect(200);
        let token = &generations[generations.len() - 1 - back];
        let reply = revoke(&app, token).await.expect(200);
        assert_eq!((&*reply.body, reply.header("cache-control")), ("", Some("no-store")));
        assert_eq!(ending(&app).await.as_deref(), Some("signed_out"));
        // The access token dies with it, at once.
        program.sessions().await.expect(401);
        assert_eq!(program.renew().await.expect(401).json()["reason"], "signed_out");
    }
    assert_eq!(app.events("session_signed_out").await, 4);
    assert_eq!(
        app.events("authn_token_reuse").await,
        0,
        "an old one given back is no theft"
    );
}

#[tokio::test]
async fn r10_an_access_token_ends_its_session_and_no_other() {
    let app = TestApp::start("r10 access").await;
    let (person, program) = app.add_program("max").await;
    let other = Program::signed_in(&app, &person).await;
    let hint = [("token", &*program.access), ("token_type_hint", "refresh_token")];
    post_form(&app, "/oauth/revoke", &[], &hint).await.expect(200);
    program.sessions().await.expect(401);
    other.sessions().await.expect(200);
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    let service = Service::add(&app, "finder", "read").await;
    let found = browser.cookie(REFRESH);
    service.ask("/oauth/revoke", &[("token", &found)]).await.expect(200);
    assert!(browser.get("/").await.location().starts_with("/sign-in"));
    let by = "SELECT facts FROM audit_events WHERE kind = 'session_signed_out' AND facts LIKE '%by_client%'";
    let facts = app.rows(by).await[0][0].clone().expect("facts");
    assert!(
        facts.contains(&service.client_id) && facts.contains("refresh_token"),
        "{facts}"
    );
}

#[tokio::test]
async fn r10_what_is_unknown_or_over_is_no_error_and_changes_nothing() {
    let app = TestApp::start("r10 unknown").await;
    let (_, program) = app.add_program("max").await;
    let before = app.state().await;
    let flipped = |token: &str| {
        let last = if token.ends_with('A') { 'B' } else { 'A' };
        format!("{}{last}", &token[..token.len() - 1])
    };
    let mut inner = data_encoding::BASE64URL_NOPAD
        .decode(program.refresh.strip_prefix("mfr_").expect("its form").as_bytes())
        .expect("base64url");
    // The inner tag is wrong, the outer one right: as the edge key alone could make it.
    inner[30] ^= 1;
    let keys = app.backend().keys();
    let (_, edge) = keys.edge_at(app.now());
    let outer = edge.tag(&inner[..42]);
    inner[42..].copy_from_slice(&outer);
    let forged = format!("mfr_{}", data_encoding::BASE64URL_NOPAD.encode(&inner));
    for token in [
        "x",
        "mfr_",
        "a.b.c",
        &"x".repeat(20_000),
        &flipped(&program.access),
        &flipped(&program.refresh),
        &forged,
    ] {
        revoke(&app, token).await.expect(200);
    }
    assert_eq!(app.state().await, before);
    program.sessions().await.expect(200);
    revoke(&app, &program.refresh).await.expect(200);
    let after = app.state().await;
    revoke(&app, &program.refresh).await.expect(200);
    revoke(&app, &program.access).await.expect(200);
    assert_eq!(app.state().await, after, "twice is once");
    assert_eq!(app.events("session_signed_out").await, 1);

    let service = Service::add(&app, "one", "read").await;
    for fields in [&[][..], &[("token", "")], &[("token", "x"), ("token", "x")]] {
        let refused = post_form(&app, "/oauth/revoke", &[], fields).await.expect(400);
        assert_eq!(refused.code(), "invalid_request");
    }
    let basic = Service::basic(&service.client_id, "wrong");
    let headers = [("authorization", &*basic)];
    post_form(&app, "/oauth/revoke", &headers, &[("token", "x")])
        .await
        .expect(401);
}

#[tokio::test]
async fn r10_a_services_token_that_is_given_back_is_refused_everywhere_and_no_other_is() {
    let app = TestApp::start("r10 service").await;
    let reader = Service::add(&app, "reader", REVOCATIONS).await;
    let asker = Service::resource_server(&app).await;
    let (gone, kept) = (reader.token().await, reader.token().await);
    let feed = async |token: &str| {
        let request = Request::get("/oauth/revocations")
            .header("host", "localhost:3000")
            .header("authorization", format!("Bearer {token}"));
        let request = request.body(Body::empty()).expect("a request");
        app.send(SocketAddr::from(([192, 0, 2, 44], 45_000)), request).await
    };
    for token in [&gone, &kept] {
        feed(token).await.expect(200);
        assert_eq!(asker.introspect(token).await["active"], true);
    }
    // By whoever holds it; twice is once.
    revoke(&app, &gone).await.expect(200);
    revoke(&app, &gone).await.expect(200);
    assert_eq!(app.events("service_token_revoked").await, 1);
    // As the database knows it, and as this node remembers it.
    for _ in 0..2 {
        feed(&gone).await.expect(401);
        feed(&kept).await.expect(200);
        assert_eq!(asker.introspect(&gone).await["active"], false);
        assert_eq!(asker.introspect(&kept).await["active"], true);
        app.backend().catch_up_with_revocations().await.expect("answers");
    }
    // Followers are told.
    let news = app
        .backend()
        .read_revocations(0)
        .await
        .expect("answers")
        .expect("known");
    assert!(
        matches!(
            news.entries[..],
            [Entry {
                target: Target::Token { .. },
                ..
            }]
        ),
        "{news:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_revocation_and_a_refresh_at_once_leave_it_ended() {
    let app = TestApp::start("r10 race").await;
    let person = app.add_person("max", &["member"], true).await;
    let (rounds, random) = (scale(20, 2000), SeededRandom::new("r10 offsets"));
    let mut first = 0;
    for round in 0..rounds {
        let program = quickly(&app, &person).await;
        app.pass(60);
        let mut offsets = [0; 2];
        random.fill(&mut offsets);
        let (mut refreshing, giver) = (program.clone(), app.clone());
        let refreshed = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[0])).await;
            let reply = refreshing.renew().await;
            (refreshing, reply)
        });
        let given_back = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[1])).await;
            revoke(&giver, &program.refresh).await
        });
        let (mut after, reply) = refreshed.await.expect("no panic");
        given_back.await.expect("no panic").expect(200);
        assert!([200, 401].contains(&reply.status.as_u16()), "{round}: {}", reply.body);
        first += u32::from(reply.status == 200);
        assert_eq!(after.renew().await.status, 401, "{round}");
        assert_eq!(after.sessions().await.status, 401, "{round}");
    }
    report_orders(first, rounds, "tokens given back");
}

#[tokio::test]
async fn r10_without_the_database_nobody_hears_that_it_is_done() {
    let app = TestApp::start("r10 away").await;
    let (_, program) = app.add_program("max").await;
    let service = Service::resource_server(&app).await;
    app.backend().store().close().await;
    for reply in [
        revoke(&app, &program.refresh).await,
        revoke(&app, &program.access).await,
        service.ask("/oauth/introspect", &[("token", &program.access)]).await,
        service
            .ask("/oauth/token", &[("grant_type", "client_credentials")])
            .await,
    ] {
        let reply = reply.expect(503);
        assert_eq!(reply.header("retry-after"), Some("2"));
        assert_eq!(reply.json()["error"], json!("temporarily_unavailable"));
    }
}
