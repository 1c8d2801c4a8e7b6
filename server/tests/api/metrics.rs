//! What the operator's monitoring reads: counted right, closed words only, and on an address of its own.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request};
use serde_json::json;
use tower::ServiceExt as _;

use crate::app::{ORIGIN, TestApp};
use crate::browser::Browser;
use crate::holder::{Holder, TOKEN};
use crate::people::{Admin, Person};
use crate::process::Line;
use crate::program::Program;
use crate::reply::Reply;
use crate::service::Key;

/// The metrics at one moment.
pub struct Metrics(pub String);

impl Metrics {
    /// Reads those of an application in this process.
    pub async fn of(app: &TestApp) -> Self {
        Self(read_as(app, "127.0.0.1").await.expect(200).body)
    }

    /// The value of a series, both written as in the text.
    #[track_caller]
    pub fn value(&self, series: &str) -> &str {
        let found = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{series} is not in\n{}", self.0))
    }

    /// Each label's value that is not zero, of a family with this one label.
    fn counted(&self, family: &str) -> Vec<(&str, u32)> {
        let of_family = |line| {
            let (label, value) = str::strip_prefix(line, family)?.strip_prefix('{')?.split_once("} ")?;
            Some((label, value.parse().ok()?))
        };
        let mut counted: Vec<(&str, u32)> = self.0.lines().filter_map(of_family).filter(|(_, n)| *n > 0).collect();
        counted.sort_unstable();
        counted
    }
}

/// The answer to somebody at this address.
async fn read_as(app: &TestApp, address: &str) -> Reply {
    let peer = SocketAddr::new(address.parse().expect("an address"), 4711);
    let mut request = ask("/metrics");
    request.extensions_mut().insert(ConnectInfo(peer));
    let router = server::http::metrics::router(app.state_of_handlers());
    Reply::read(router.oneshot(request).await.expect("an answer")).await
}

fn ask(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// Where the program serves its metrics, as it said.
async fn read_from(app: &TestApp, path: &str) -> Reply {
    let said = app.process().said();
    let address = said.lines().find_map(|line| line.strip_prefix("Metrics at http://"));
    let address = address.expect("it says where").parse().expect("an address");
    Line::to(address).send(ask(path)).await.expect("an answer")
}

/// Those of the real program.
pub async fn metrics_of_program(app: &TestApp) -> Metrics {
    Metrics(read_from(app, "/metrics").await.expect(200).body)
}

#[tokio::test]
async fn r1_refreshes_are_counted_by_what_came_of_them() {
    let app = TestApp::start("r1 metrics").await;
    let (_, mut program) = app.add_program("max").await;
    let before = Metrics::of(&app).await;
    assert!(before.counted("mayfly_refreshes_total").is_empty());
    assert!(
        before.0.contains("mayfly_refreshes_total{outcome=\"reused\"} 0\n"),
        "the first time is a change"
    );
    assert!(before.0.contains("mayfly_events_total{kind=\"authn_token_reuse\"} 0\n"));

    let parent = program.refresh.clone();
    program.present(&parent).await.expect(409);
    app.pass(60);
    program.renew().await.expect(200);
    app.pass(10);
    program.present(&parent).await.expect(200);
    program.sessions().await.expect(200);
    program.present(&parent).await.expect(409);
    program.present("mfr_nothing").await.expect(400);
    // What comes with a proof is counted like the rest, but not that somebody has to learn the nonce first.
    let holder = Holder {
        program: program.clone(),
        key: Key::es256(),
    };
    holder
        .present("mfr_nothing", &[&holder.proof("POST", TOKEN, None)])
        .await
        .expect(400);
    holder.present("mfr_nothing", &["nothing"]).await.expect(400);
    let without =
        json!({ "htm": "POST", "htu": format!("{ORIGIN}{TOKEN}"), "jti": "1", "iat": app.now().as_seconds() });
    let without = holder.key.sign(&holder.header(), &without);
    holder.present("mfr_nothing", &[&without]).await.expect(400);
    app.pass(120);
    program.present(&parent).await.expect(401);
    program.present(&parent).await.expect(401);
    program.present(&parent).await.expect(401);

    let now = Metrics::of(&app).await;
    assert_eq!(
        now.counted("mayfly_refreshes_total"),
        [
            ("outcome=\"fresh\"", 1),
            ("outcome=\"malformed\"", 2),
            ("outcome=\"over\"", 2),
            ("outcome=\"reissued\"", 1),
            ("outcome=\"reused\"", 1),
            ("outcome=\"rotated\"", 1),
            ("outcome=\"superseded\"", 1),
            ("outcome=\"unproven\"", 1),
        ]
    );
    assert_eq!(
        now.value("mayfly_refresh_duration_seconds_count"),
        "7",
        "not of what is no token"
    );
    // What the log has is what was counted, refusals by their reason.
    for (kind, count) in [
        ("token_rotated", "1"),
        ("token_reissued", "1"),
        ("authn_token_reuse", "1"),
    ] {
        assert_eq!(
            now.value(&format!("mayfly_events_total{{kind=\"{kind}\"}}")),
            count,
            "{kind}"
        );
    }
    let used_after = "mayfly_refusals_total{kind=\"session_use_after_expire\",reason=\"token_reused\"}";
    assert_eq!(now.value(used_after), "1", "of two within a minute");
    assert_eq!(now.value("mayfly_access_token_checks_total{outcome=\"valid\"}"), "1");

    app.backend().store().close().await;
    program.present(&program.refresh.clone()).await.expect(503);
    program.sessions().await.expect(503);
    let away = Metrics::of(&app).await;
    assert_eq!(away.value("mayfly_refreshes_total{outcome=\"unavailable\"}"), "1");
    assert_eq!(
        away.value("mayfly_access_token_checks_total{outcome=\"unavailable\"}"),
        "1"
    );
    assert_eq!(away.value("mayfly_http_responses_total{class=\"5xx\"}"), "2");
    assert_eq!(away.value("mayfly_ready{part=\"database\"}"), "0");
    assert_eq!(away.value("mayfly_ready{part=\"serving\"}"), "1");
}

#[tokio::test]
async fn every_event_of_the_log_is_counted_once_by_its_kind() {
    let app = TestApp::start("metrics of the log").await;
    let mut admin = Admin::sign_in(&app).await;
    let person = app.add_person("max", &["member"], false).await;
    let mut program = Program::new(&app);
    let wrong = Person {
        password: "not the password of max".to_owned(),
        ..person.clone()
    };
    program.sign_in(&wrong).await.expect(401);
    program.sign_in(&person).await.expect(200);
    app.pass(60);
    program.renew().await.expect(200);
    admin.disable(&person).await;
    program.present(&program.refresh.clone()).await.expect(401);

    let log = app
        .rows("SELECT kind, count(*) AS n FROM audit_events GROUP BY kind")
        .await;
    let mut log: Vec<(String, u32)> = log
        .iter()
        .map(|row| {
            let [Some(kind), Some(n)] = row.as_slice() else {
                panic!("{row:?}");
            };
            (format!("kind=\"{kind}\""), n.parse().expect("a number"))
        })
        .collect();
    log.sort_unstable();
    assert!(log.len() > 8, "{log:?}");
    let now = Metrics::of(&app).await;
    let counted: Vec<(String, u32)> = now
        .counted("mayfly_events_total")
        .into_iter()
        .map(|(kind, n)| (kind.to_owned(), n))
        .collect();
    assert_eq!(counted, log);
    assert_eq!(
        now.value("mayfly_refusals_total{kind=\"authn_login_fail\",reason=\"wrong_password\"}"),
        "1"
    );
    assert_eq!(
        now.value("mayfly_sign_in_duration_seconds_count{step=\"password\"}"),
        "3"
    );
    assert_eq!(now.value("mayfly_sign_in_duration_seconds_count{step=\"code\"}"), "1");
}

#[tokio::test]
async fn an_act_that_was_rolled_back_is_not_counted() {
    let app = TestApp::start("metrics, rolled back").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut program = Program::new(&app);
    let accepted = "mayfly_events_total{kind=\"password_accepted\"}";
    assert_eq!(Metrics::of(&app).await.value(accepted), "0");
    // The password is accepted and noted in the same transaction; the session then has nowhere to go.
    app.execute("ALTER TABLE sessions RENAME TO sessions_elsewhere").await;
    program.sign_in(&person).await.expect(500);
    app.execute("ALTER TABLE sessions_elsewhere RENAME TO sessions").await;
    assert_eq!(app.events("password_accepted").await, 0);
    assert_eq!(Metrics::of(&app).await.value(accepted), "0");
    program.sign_in(&person).await.expect(200);
    assert_eq!(Metrics::of(&app).await.value(accepted), "1");
}

#[tokio::test]
async fn living_sessions_are_counted_every_half_minute_and_unknown_is_not_zero() {
    let app = TestApp::start("metrics, sessions").await;
    let person = app.add_person("max", &["member"], false).await;
    for _ in 0..3 {
        Program::signed_in(&app, &person).await;
    }
    let program = Program::signed_in(&app, &person).await;
    if Metrics::of(&app).await.value("mayfly_sessions_alive") == "NaN" {
        // A machine with other things to do did not count them within a second.
        app.pass(30);
    }
    assert_eq!(Metrics::of(&app).await.value("mayfly_sessions_alive"), "4.0");
    let logout = program.ask_with(&program.access, Method::POST, "/auth/logout");
    logout.await.expect(204);
    app.pass(29);
    assert_eq!(
        Metrics::of(&app).await.value("mayfly_sessions_alive"),
        "4.0",
        "nobody makes it count more often"
    );
    app.pass(1);
    assert_eq!(Metrics::of(&app).await.value("mayfly_sessions_alive"), "3.0");
    assert_eq!(Metrics::of(&app).await.value("mayfly_mails_waiting"), "0.0");
    app.backend().store().close().await;
    app.pass(30);
    assert_eq!(Metrics::of(&app).await.value("mayfly_sessions_alive"), "NaN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l12_metrics_are_on_an_address_of_their_own_and_nothing_else_is() {
    let app = TestApp::spawn("l12 metrics", &[("METRICS__ADDRESS", "127.0.0.1:0")]).await;
    let reply = read_from(&app, "/metrics").await.expect(200);
    assert_eq!(
        reply.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.body.ends_with("# EOF\n"), "{}", reply.body);
    for path in ["/", "/sign-in", "/readyz", "/auth/refresh", "/.well-known/jwks.json"] {
        read_from(&app, path).await.expect(404);
    }
    Browser::new(&app).get("/metrics").await.expect(404);

    // In the words of a real server: everything that is there has its type and its help, and lies in one place.
    let metrics = metrics_of_program(&app).await;
    let mut described = std::collections::BTreeSet::new();
    let mut current = "";
    for line in metrics.0.lines().take_while(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            current = rest.split(' ').next().expect("a name");
            assert!(described.insert(current), "{current} twice");
            assert!(rest.ends_with('.'), "{rest}");
        } else if !line.starts_with("# ") {
            assert!(
                line.starts_with(current) && !current.is_empty(),
                "{line} under {current}"
            );
        }
    }
    for name in [
        "mayfly_build",
        "mayfly_ready",
        "mayfly_refreshes",
        "mayfly_events",
        "mayfly_http_responses",
    ] {
        assert!(described.contains(name), "{name}: {described:?}");
    }
    assert_eq!(metrics.value("mayfly_ready{part=\"keys\"}"), "1");
}

#[tokio::test]
async fn an_address_for_metrics_that_is_taken_is_said_before_anything_is_served() {
    let app = TestApp::start_without_key("metrics, taken").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let ended = app.command(&["serve"], &[("METRICS__ADDRESS", &address)]).await;
    assert!(!ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l12_unless_an_address_is_given_no_metrics_are_served() {
    let app = TestApp::spawn("l12 no metrics", &[]).await;
    assert!(!app.process().said().contains("Metrics at"));
    let mut browser = Browser::new(&app);
    browser.get("/metrics").await.expect(404);
    let posted = browser.request(Method::POST, "/metrics").body(Body::empty());
    assert_eq!(browser.send(posted.expect("a request")).await.status, 404);
}

#[tokio::test]
async fn l12_only_machines_of_the_networks_that_are_named_read_the_metrics() {
    let app = TestApp::start("l12 readers").await;
    for (address, status) in [
        ("127.0.0.1", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.0.2.1", 403),
    ] {
        read_as(&app, address).await.expect(status);
    }
    let there = [("METRICS__READERS", "198.51.100.0/24, 192.0.2.0/24")];
    let app = TestApp::start_with("l12 other readers", &there).await;
    for (address, status) in [
        ("192.0.2.7", 200),
        ("::ffff:192.0.2.7", 200),
        ("127.0.0.1", 403),
        ("192.0.3.1", 403),
    ] {
        let reply = read_as(&app, address).await.expect(status);
        assert_eq!(reply.body.contains("mayfly_"), status == 200);
    }
}

#[tokio::test]
async fn probes_of_health_are_no_answers_of_the_application() {
    let app = TestApp::start("metrics, probes").await;
    let mut browser = Browser::new(&app);
    app.state_of_handlers().draining.begin();
    browser.get("/readyz").await.expect(503);
    browser.get("/healthz").await.expect(200);
    browser.get("/sign-in").await.expect(200);
    let metrics = Metrics::of(&app).await;
    assert_eq!(metrics.counted("mayfly_http_responses_total"), [("class=\"2xx\"", 1)]);
    assert_eq!(metrics.value("mayfly_ready{part=\"serving\"}"), "0");
}
