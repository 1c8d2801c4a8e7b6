//! Tests of the flow store and of the form gate on top of it.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::domain::audit::Kind;
use crate::domain::clock::ManualClock;
use crate::domain::random::SystemRandom;
use crate::http::protect::recorder::{self, Recorder};
use crate::http::protect::{self, header_form_token_matches};
use crate::storage::DatabaseSettings;

struct World {
    flows: FlowStore,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("mayfly.db").display());
    let store = Store::connect(&DatabaseSettings {
        url,
        max_connections: 4,
    })
    .await
    .unwrap();
    store.migrate().await.unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
    let kek = KeyEncryptionKey::from_bytes([7; 32]);
    let flows = FlowStore::new(store, &kek, clock.clone(), Arc::new(SystemRandom::default()));
    World {
        flows,
        clock,
        _folder: folder,
    }
}

fn record(text: &str) -> Record {
    let data = HashMap::from([("step".to_owned(), Value::from(text))]);
    Record {
        id: Id(1),
        data,
        expiry_date: OffsetDateTime::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn s17_ids_are_the_servers_and_only_their_hash_is_stored() {
    let world = world().await;
    let World { flows, clock, .. } = &world;
    let mut first = record("CANARY");
    flows.create(&mut first).await.unwrap();
    assert_ne!(first.id, Id(1), "the proposed id is not taken");
    assert_eq!(flows.load(&first.id).await.unwrap().unwrap().data, first.data);
    assert_eq!(flows.load(&Id(1)).await.unwrap(), None);

    let mut tx = flows.store.read().await.unwrap();
    let plain = &first.id.0.to_le_bytes();
    let mut padded = [0; 32];
    padded[..16].copy_from_slice(plain);
    assert!(flows::find_flow(&mut tx, &padded, clock.now()).await.unwrap().is_none());
    let sealed = flows::find_flow(&mut tx, &hash(&first.id), clock.now())
        .await
        .unwrap()
        .unwrap();
    assert!(
        !sealed.windows(6).any(|window| window == b"CANARY"),
        "the data is sealed"
    );
}

#[tokio::test]
async fn a_deleted_session_is_never_brought_back() {
    let world = world().await;
    let World { flows, .. } = &world;
    let mut kept = record("code");
    flows.create(&mut kept).await.unwrap();
    flows.delete(&kept.id).await.unwrap();
    flows.save(&kept).await.unwrap();
    assert_eq!(flows.load(&kept.id).await.unwrap(), None);
    flows.delete(&kept.id).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_after_thirty_idle_minutes_and_after_two_hours() {
    let world = world().await;
    let World { flows, clock, .. } = &world;
    let mut kept = record("code");
    flows.create(&mut kept).await.unwrap();
    clock.advance(IDLE.saturating_sub(Duration::from_millis(1)));
    assert!(flows.load(&kept.id).await.unwrap().is_some(), "and this prolongs it");
    clock.advance(IDLE.saturating_sub(Duration::from_millis(1)));
    assert!(flows.load(&kept.id).await.unwrap().is_some());
    clock.advance(IDLE);
    assert_eq!(flows.load(&kept.id).await.unwrap(), None);
    flows.save(&kept).await.unwrap();
    assert_eq!(
        flows.load(&kept.id).await.unwrap(),
        None,
        "saving prolongs only what lives"
    );

    let mut busy = record("code");
    flows.create(&mut busy).await.unwrap();
    for _ in 0..11 {
        clock.advance(Duration::from_mins(10));
        flows.save(&busy).await.unwrap();
        assert!(flows.load(&busy.id).await.unwrap().is_some());
    }
    clock.advance(Duration::from_mins(10));
    assert_eq!(flows.load(&busy.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_sealed_session_opens_only_in_its_own_row() {
    let world = world().await;
    let World { flows, clock, .. } = &world;
    let (mut one, mut two) = (record("one"), record("two"));
    flows.create(&mut one).await.unwrap();
    flows.create(&mut two).await.unwrap();
    let mut tx = flows.store.write().await.unwrap();
    let sealed = flows::find_flow(&mut tx, &hash(&one.id), clock.now())
        .await
        .unwrap()
        .unwrap();
    flows::update_flow(&mut tx, &hash(&two.id), &sealed, clock.now().plus(IDLE))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(flows.load(&two.id).await, Err(Error::Decode(_))));
}

/// The layers around `/actions/*`, with a page that hands out the token.
fn app(world: &World, sink: &Arc<Recorder>) -> Router {
    let protection = recorder::protection(sink.clone());
    let actions = Router::new()
        .route(
            "/actions/{name}",
            axum::routing::any(|body: String| async move { body }),
        )
        .layer(from_fn_with_state(protection, protect::check_form_token));
    Router::new()
        .route(
            "/page",
            get(|session: Session| async move {
                let token = new_form_token(&session, &SystemRandom::default()).await.unwrap();
                let notice: Option<Notice> = session.remove(slot::NOTICE).await.unwrap();
                format!("{token} {notice:?}")
            }),
        )
        .route(
            "/api",
            post(|session: Session, headers: HeaderMap| async move {
                header_form_token_matches(&headers, &session).await.unwrap().to_string()
            }),
        )
        .merge(actions)
        .layer(session_layer(world.flows.clone()))
}

async fn send(app: &Router, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (Response<()>, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app
        .clone()
        .oneshot(request.body(Body::from(body.to_owned())).unwrap())
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (
        Response::from_parts(parts, ()),
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

/// Opens the page like a new browser: its cookie and its token.
async fn open(app: &Router) -> (String, String) {
    let (response, body) = send(app, "GET", "/page", &[], "").await;
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(
        !cookie.contains("Domain") && !cookie.contains("Max-Age") && !cookie.contains("Expires"),
        "{cookie}"
    );
    assert!(cookie.starts_with("__Host-Http-mayfly-flow="), "{cookie}");
    let token = body.split(' ').next().unwrap().to_owned();
    (cookie.split(';').next().unwrap().to_owned(), token)
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

#[tokio::test]
async fn c8_a_form_needs_this_browsers_token_exactly_once() {
    let world = world().await;
    let sink = Arc::<Recorder>::default();
    let app = app(&world, &sink);
    let (cookie, token) = open(&app).await;
    let (other_cookie, other_token) = open(&app).await;
    assert_ne!(token, other_token);
    let mine = [FORM, ("cookie", cookie.as_str())];

    let good = format!("a=1&form_token={token}&b=2");
    let (response, body) = send(&app, "POST", "/actions/x", &mine, &good).await;
    assert_eq!(
        (response.status(), body),
        (StatusCode::OK, good.clone()),
        "the body is handed on unchanged"
    );
    assert_eq!(
        send(&app, "POST", "/actions/x", &mine, &good).await.0.status(),
        200,
        "and the token stays"
    );

    let longer = format!("form_token={token}x");
    let shorter = format!("form_token={}", &token[..42]);
    let twice = format!("form_token={token}&form_token={token}");
    let encoded_twice = format!("form_token={token}&form%5Ftoken=x");
    let foreign = format!("form_token={other_token}");
    let upper = format!("Form_Token={token}");
    let bad = [
        "",
        "a=1",
        "form_token=",
        "form_token",
        &longer,
        &shorter,
        &twice,
        &encoded_twice,
        &foreign,
        &upper,
    ];
    for body in bad {
        let (response, _) = send(&app, "POST", "/actions/x", &mine, body).await;
        assert_eq!(response.status(), 403, "{body}");
    }
    assert_eq!(sink.kinds(), [Kind::CsrfRefused; 10]);

    let no_cookie = send(&app, "POST", "/actions/x", &[FORM], &good).await.0;
    assert_eq!(no_cookie.status(), 403);
    let others = [FORM, ("cookie", other_cookie.as_str())];
    assert_eq!(send(&app, "POST", "/actions/x", &others, &good).await.0.status(), 403);
    let empty_session = [FORM, ("cookie", "__Host-Http-mayfly-flow=AAAAAAAAAAAAAAAAAAAAAA")];
    assert_eq!(
        send(&app, "POST", "/actions/x", &empty_session, "form_token=")
            .await
            .0
            .status(),
        403
    );
}

#[tokio::test]
async fn c8_only_urlencoded_posts_reach_an_action() {
    let world = world().await;
    let app = app(&world, &Arc::default());
    let (cookie, token) = open(&app).await;
    let good = format!("form_token={token}&_method=POST");
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let headers = [FORM, ("cookie", cookie.as_str()), ("x-http-method-override", "POST")];
        let (response, _) = send(&app, method, "/actions/x?_method=POST", &headers, &good).await;
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()["allow"], "POST");
    }
    for kind in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/json",
        "application/x-www-form-urlencodedx",
    ] {
        let headers = [("content-type", kind), ("cookie", cookie.as_str())];
        assert_eq!(
            send(&app, "POST", "/actions/x", &headers, &good).await.0.status(),
            415,
            "{kind}"
        );
    }
    assert_eq!(
        send(&app, "POST", "/actions/x", &[("cookie", &cookie)], &good)
            .await
            .0
            .status(),
        415
    );
    let charset = [
        ("content-type", "application/x-www-form-urlencoded; charset=UTF-8"),
        ("cookie", cookie.as_str()),
    ];
    assert_eq!(send(&app, "POST", "/actions/x", &charset, &good).await.0.status(), 200);
    let large = format!("{good}&a={}", "x".repeat(70_000));
    let mine = [FORM, ("cookie", cookie.as_str())];
    assert_eq!(send(&app, "POST", "/actions/x", &mine, &large).await.0.status(), 413);
}

#[tokio::test]
async fn an_old_page_says_so_and_can_be_sent_again() {
    let world = world().await;
    let app = app(&world, &Arc::default());
    let (cookie, token) = open(&app).await;
    let form = format!("form_token={token}");
    world.clock.advance(Duration::from_hours(3));
    let headers = [
        FORM,
        ("cookie", cookie.as_str()),
        ("accept", "text/html"),
        ("referer", "https://id.example/page?a=b"),
    ];
    let (response, _) = send(&app, "POST", "/actions/x", &headers, &form).await;
    assert_eq!(response.status(), 303);
    assert_eq!(response.headers()["location"], "/page?a=b");
    let fresh = response.headers()[header::SET_COOKIE]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let (_, body) = send(&app, "GET", "/page", &[("cookie", &fresh)], "").await;
    let (token, notice) = body.split_once(' ').unwrap();
    assert_eq!(notice, "Some(FormExpired)");
    let form = format!("form_token={token}");
    assert_eq!(
        send(&app, "POST", "/actions/x", &[FORM, ("cookie", &fresh)], &form)
            .await
            .0
            .status(),
        200
    );
    let (_, body) = send(&app, "GET", "/page", &[("cookie", &fresh)], "").await;
    assert!(body.ends_with("None"), "a notice is shown once");

    for referer in [
        "https://evil.example/page",
        "https://id.example//evil.example",
        "javascript:x",
        "",
    ] {
        let headers = [FORM, ("accept", "text/html"), ("referer", referer)];
        let (response, _) = send(&app, "POST", "/actions/x", &headers, "").await;
        assert_eq!(response.status(), 403, "{referer}");
        assert!(!response.headers().contains_key("location"));
    }
}

#[tokio::test]
async fn c8_json_calls_with_cookies_carry_the_token_in_a_header() {
    let world = world().await;
    let app = app(&world, &Arc::default());
    let (cookie, token) = open(&app).await;
    for (headers, expected) in [
        (
            &[("cookie", cookie.as_str()), ("x-form-token", token.as_str())][..],
            "true",
        ),
        (&[("cookie", cookie.as_str())], "false"),
        (&[("cookie", cookie.as_str()), ("x-form-token", "")], "false"),
        (&[("cookie", cookie.as_str()), ("x-form-token", &token[1..])], "false"),
        (
            &[
                ("cookie", cookie.as_str()),
                ("x-form-token", &token),
                ("x-form-token", &token),
            ],
            "false",
        ),
        (&[("x-form-token", token.as_str())], "false"),
        (&[("x-form-token", "")], "false"),
    ] {
        assert_eq!(send(&app, "POST", "/api", headers, "").await.1, expected, "{headers:?}");
    }
}
