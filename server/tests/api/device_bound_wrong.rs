//! Copied cookies, foreign keys and lost answers (device bound session credentials): a thief gets nothing, and the owner
//! does not notice him.

use axum::body::Body;
use axum::http::Method;
use serde_json::json;

use crate::app::TestApp;
use crate::binding::{
    BOUND, BoundBrowser, CHALLENGE, REGISTER, REGISTRATION, RENEW, RESPONSE, SESSION_ID, SESSIONS, bound, is_bound,
    offered, offered_anew, refusals,
};
use crate::browser::{ACCESS, Browser, REFRESH};
use crate::holder::ME;
use crate::program::Program;
use crate::service::{Key, Service};

const NOTHING: [&str; 0] = [];
const COPIED: &str = "bound_cookie_copied bound_cookie_expired";
const MISSING: &str = "proof_refused bound_cookie_missing";

/// Everything that a session is good for, tried with copied cookies by somebody elsewhere, in another browser and with a
/// program. Thirteen refusals are written down: the second by a page, for which the browser has deleted its bound cookie.
async fn is_worth_nothing(stolen: &Browser) {
    let thief = Browser {
        jar: stolen.jar.clone(),
        here: stolen.here.clone(),
        form_token: stolen.form_token.clone(),
        ..Browser::elsewhere(&stolen.app)
    };
    let mut page = thief.clone();
    let once = page.get("/security").await.expect(401);
    assert!(!once.body.contains("max Example"), "{}", once.body);
    assert!(page.get("/security").await.location().starts_with("/sign-in"));
    assert!(!page.is_signed_in());

    for (method, path) in [(Method::GET, SESSIONS), (Method::GET, ME), (Method::DELETE, SESSIONS)] {
        let refused = thief.clone().fetch_empty(method.clone(), path).await.expect(401);
        assert_eq!(refused.code(), "other_browser", "{method} {path}");
    }
    let mut refreshes = thief.clone();
    refreshes.jar.remove(ACCESS);
    for mut thief in [thief.clone(), refreshes] {
        let refused = thief.fetch(Method::POST, "/auth/refresh", &json!({})).await;
        assert_eq!(refused.expect(401).code(), "other_browser");
    }
    for action in ["end_other_sessions", "sign_out"] {
        let refused = thief.clone().submit(action, &[]).await;
        assert_eq!(refused.location(), "/", "{action}");
        let refused = thief.clone().submit_by_script(action, &[]).await.expect(401);
        assert_eq!(refused.code(), "other_browser", "{action}");
    }
    for path in ["/security", SESSIONS] {
        let request = thief.request(Method::GET, path).body(Body::empty());
        let reply = thief.clone().send(request.expect("a request")).await.expect(401);
        assert!(!reply.body.contains("max Example"), "{path}: {}", reply.body);
    }
}

#[tokio::test]
async fn f67_a_copied_cookie_jar_is_worth_nothing_once_its_bound_cookie_is_over() {
    let (app, _, mut owner) = bound("f67 jar").await;
    let stolen = owner.browser.clone();
    app.pass(660);
    owner.ready().await.open("/").await.expect(200);
    let before = app.state().await;
    is_worth_nothing(&stolen).await;
    assert_eq!(app.state().await, before, "nothing happened to the session");
    let mut expected = vec![COPIED; 12];
    expected.push(MISSING);
    assert_eq!(refusals(&app).await, expected, "each is an alarm");
    // Nor can he sign the owner out, or take a program's way.
    let path = "/auth/logout";
    stolen.clone().fetch_empty(Method::POST, path).await.expect(401);
    // Nor hide: what asks for no page raises the alarm, too.
    let quiet = stolen.request(Method::GET, "/").header("sec-purpose", "prefetch");
    let quiet = quiet.body(Body::empty()).expect("a request");
    stolen.clone().send(quiet).await.expect(503);
    assert_eq!(app.events("bound_cookie_copied").await, 14);
    let head = stolen.request(Method::HEAD, "/").body(Body::empty());
    stolen.clone().send(head.expect("a request")).await.expect(401);
    let mut program = Program::new(&app);
    program.present(&stolen.cookie(REFRESH)).await.expect(400);
    assert_eq!(app.state().await, before);
    assert_eq!(app.events("authn_token_reuse").await, 0);

    for _ in 0..6 {
        app.pass(700);
        owner.ready().await.open("/").await.expect(200);
    }
    assert!(is_bound(owner.ready().await).await);
    assert_eq!(app.number("SELECT count(*) FROM sessions").await, 1);
}

#[tokio::test]
async fn f67_tokens_without_their_bound_cookie_are_refused_a_minute_after_the_first_signature() {
    let (app, _, mut owner) = bound("f67 tokens").await;
    let mut stolen = owner.browser.clone();
    stolen.jar.remove(BOUND);
    app.pass(59);
    stolen.clone().fetch_empty(Method::GET, SESSIONS).await.expect(200);
    app.pass(1);
    let before = app.state().await;
    is_worth_nothing(&stolen).await;
    assert_eq!(app.state().await, before, "nothing happened to the session");
    assert_eq!(refusals(&app).await, [MISSING; 13]);

    // A token that was used up is no reason to end the session: its owner did not send it.
    app.pass(1000);
    owner.ready().await.open("/").await.expect(200);
    owner.ready().await.open("/").await.expect(200);
    assert_eq!(app.events("token_rotated").await, 1);
    app.pass(120);
    stolen.jar.remove(ACCESS);
    let refused = stolen
        .fetch(Method::POST, "/auth/refresh", &json!({}))
        .await
        .expect(401);
    assert_eq!(refused.code(), "other_browser");
    assert_eq!(refused.header("mayfly-refresh"), Some("unproven"));
    assert_eq!(app.events("authn_token_reuse").await, 0);
    owner.ready().await.open("/").await.expect(200);
}

#[tokio::test]
async fn f67_a_bound_browsers_access_token_is_nobodys_bearer_token() {
    let (app, _, mut owner) = bound("f67 bearer").await;
    let asking = Service::resource_server(&app).await;
    let program = Program::new(&app);
    app.pass(60);
    let token = owner.browser.cookie(ACCESS);
    for (method, path) in [(Method::GET, ME), (Method::GET, SESSIONS), (Method::DELETE, SESSIONS)] {
        let refused = program.ask_with(&token, method, path).await.expect(401);
        assert_eq!(refused.code(), "other_browser", "{path}");
        let challenge = refused.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains("invalid_token"), "{challenge}");
    }
    assert_eq!(refusals(&app).await, [MISSING; 3]);
    // A service that was given it and asks about it does not use the session.
    assert_eq!(asking.introspect(&token).await["active"], true);
    owner.ready().await.open("/").await.expect(200);
}

#[tokio::test]
async fn f67_a_token_that_was_checked_a_moment_ago_needs_its_cookie_all_the_same() {
    let (app, _, owner) = bound("f67 memory").await;
    let mut stolen = owner.browser.clone();
    stolen.jar.remove(BOUND);
    let mut owner = owner.browser;
    app.pass(60);
    app.backend()
        .catch_up_with_revocations()
        .await
        .expect("the database answers");
    for _ in 0..3 {
        owner.fetch_empty(Method::GET, SESSIONS).await.expect(200);
        stolen.clone().fetch_empty(Method::GET, SESSIONS).await.expect(401);
    }
    assert_eq!(refusals(&app).await, [MISSING; 3]);
}

#[tokio::test]
async fn f67_another_sessions_bound_cookie_or_none_of_ours_is_refused() {
    let (app, max, mut owner) = bound("f67 foreign cookie").await;
    let eva = app.add_person("eva", &["member"], false).await;
    // Of another person, and of another session of the same one.
    let others = [
        BoundBrowser::signed_in(&app, &eva).await,
        BoundBrowser::signed_in(&app, &max).await,
    ];
    let before = app.state().await;
    let mut cookies: Vec<String> = others.iter().map(|other| other.browser.cookie(BOUND)).collect();
    cookies.extend([
        owner.challenge.clone(),
        owner.browser.cookie(BOUND)[1..].to_owned(),
        "A".repeat(32),
        "x".to_owned(),
        String::new(),
    ]);
    for cookie in &cookies {
        let mut thief = owner.browser.clone();
        thief.jar.insert(BOUND.to_owned(), cookie.clone());
        let refused = thief.fetch_empty(Method::GET, SESSIONS).await.expect(401);
        assert_eq!(refused.code(), "other_browser", "{cookie}");
    }
    assert_eq!(app.state().await, before);
    assert_eq!(refusals(&app).await, ["proof_refused bound_cookie_forged"; 7]);
    owner.ready().await.open("/").await.expect(200);
}

#[tokio::test]
async fn f67_a_renewal_with_anything_wrong_gives_no_cookie_and_changes_nothing() {
    let app = TestApp::start("f67 renewals").await;
    let max = app.add_person("max", &["member"], false).await;
    let eva = app.add_person("eva", &["member"], false).await;
    let mut other = BoundBrowser::signed_in(&app, &eva).await;
    let mut owner = BoundBrowser::new(&app);
    let offer = owner.sign_in(&max).await;
    owner.answer(&offer).await.expect(200);
    app.pass(30);
    owner.renew().await.expect(200);
    app.pass(1);
    let of_registration = offered(&offer).expect("an offer");
    let (id, challenge) = (owner.session_id.clone(), owner.challenge.clone());
    let thief = BoundBrowser {
        key: Key::es256(),
        ..owner.clone()
    };
    let before = app.state().await;
    for (what, proof, status) in [
        ("another key", thief.renewal(&challenge), 401),
        ("a proof that brings a key", owner.registration(&challenge), 401),
        ("a registration", owner.registration(&of_registration), 401),
        ("nothing", String::new(), 401),
        ("a challenge of the registration", owner.renewal(&of_registration), 403),
        ("another session's challenge", owner.renewal(&other.challenge), 403),
        ("another session's proof", other.renewal(&other.challenge), 403),
        ("a bound cookie", owner.renewal(&owner.browser.cookie(BOUND)), 403),
        ("no challenge", owner.renewal(""), 403),
    ] {
        let headers = [(SESSION_ID, id.as_str()), (RESPONSE, &proof)];
        let reply = owner.clone().post(RENEW, &headers).await;
        assert_eq!(reply.status, status, "{what}: {}", reply.body);
        let code = if status == 401 {
            "other_browser"
        } else {
            "browser_challenge"
        };
        assert_eq!(reply.code(), code, "{what}");
        assert_eq!(reply.header(CHALLENGE).is_some(), status == 403, "{what}");
        assert_eq!(reply.cookies(), NOTHING, "{what}");
    }
    let good = owner.renewal(&challenge);
    let (session, proof) = ((SESSION_ID, id.as_str()), (RESPONSE, good.as_str()));
    let unknown = (SESSION_ID, "01890a5d-ac96-774b-bcce-b302099a8057");
    let foreign = (SESSION_ID, other.session_id.as_str());
    for (what, headers, status) in [
        ("no proof", &[session][..], 403),
        ("two proofs", &[session, proof, proof], 403),
        ("no session", &[proof], 400),
        ("two sessions", &[session, session, proof], 400),
        ("nonsense for a session", &[(SESSION_ID, "x"), proof], 400),
        ("an unknown session", &[unknown, proof], 401),
        ("another session", &[foreign, proof], 401),
    ] {
        let reply = owner.clone().post(RENEW, headers).await;
        assert_eq!(reply.status, status, "{what}: {}", reply.body);
        assert_eq!(reply.cookies(), NOTHING, "{what}");
    }
    owner.prove(&challenge).await.expect(200);
    let again = owner.clone().post(RENEW, &[session, proof]).await.expect(403);
    assert_eq!(again.cookies(), NOTHING, "once is enough");
    assert_eq!(app.state().await, before);
    // A challenge that is over or used is usual, and what nobody told to sign can send is not worth a row.
    assert_eq!(refusals(&app).await, ["proof_refused browser_proof_signature"]);
    for browser in [&mut owner, &mut other] {
        app.pass(1);
        browser.renew().await.expect(200);
        browser.ready().await.open("/").await.expect(200);
    }
}

#[tokio::test]
async fn f67_a_registration_with_anything_wrong_binds_nothing_and_changes_nothing() {
    let app = TestApp::start("f67 registrations").await;
    let max = app.add_person("max", &["member"], false).await;
    let eva = app.add_person("eva", &["member"], false).await;
    let (mut owner, mut other) = (BoundBrowser::new(&app), BoundBrowser::new(&app));
    let (offer, others) = (owner.sign_in(&max).await, other.sign_in(&eva).await);
    let (challenge, foreign) = (offered(&offer).expect("an offer"), offered(&others).expect("an offer"));
    let list = owner.browser.clone().fetch_empty(Method::GET, SESSIONS).await;
    let id = list.expect(200).json()[0]["id"].as_str().expect("an id").to_owned();
    let mut asking = owner.clone();
    asking.post(RENEW, &[(SESSION_ID, &id)]).await.expect(403);
    let ed25519 = BoundBrowser {
        key: Key::ed_dsa(),
        ..owner.clone()
    };
    let before = app.state().await;
    for (what, proof) in [
        ("a challenge of a renewal", owner.registration(&asking.challenge)),
        ("another session's challenge", owner.registration(&foreign)),
        ("no challenge", owner.registration("")),
        ("no key", owner.renewal(&challenge)),
        ("another kind of key", ed25519.registration(&challenge)),
        ("nothing", String::new()),
    ] {
        let refused = owner.clone().post(REGISTER, &[(RESPONSE, &proof)]).await.expect(400);
        assert_eq!(refused.code(), "invalid_browser_proof", "{what}");
        assert_eq!(
            (refused.cookies().len(), refused.header(CHALLENGE)),
            (0, None),
            "{what}"
        );
    }
    let good = owner.registration(&challenge);
    let good = (RESPONSE, good.as_str());
    for (what, headers) in [("no proof", &[][..]), ("two proofs", &[good, good])] {
        let refused = owner.clone().post(REGISTER, headers).await.expect(400);
        assert_eq!(refused.code(), "invalid_browser_proof", "{what}");
    }
    let mut without = owner.clone();
    without.browser.jar.remove(REFRESH);
    let mut forged = owner.clone();
    forged.browser.jar.insert(REFRESH.to_owned(), "mfr_x".to_owned());
    for mut browser in [other.clone(), BoundBrowser::new(&app), without, forged] {
        let refused = browser.post(REGISTER, &[good]).await.expect(400);
        assert_eq!(refused.cookies(), NOTHING, "{:?}", browser.browser.jar.keys());
    }
    assert_eq!(app.state().await, before);
    assert_eq!(app.events("session_bound").await, 0);
    for (browser, offer) in [(&mut owner, offer), (&mut other, others)] {
        browser.answer(&offer).await.expect(200);
        browser.browser.open("/").await.expect(200);
    }
    assert_eq!(app.events("session_bound").await, 2);
}

#[tokio::test]
async fn f67_a_browser_that_cannot_hold_a_key_is_unaffected() {
    let app = TestApp::start("f67 cannot").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = BoundBrowser::new(&app);
    assert!(offered(&browser.sign_in(&person).await).is_some());
    let mut browser = browser.browser;
    for _ in 0..20 {
        app.pass(700);
        let page = browser.open("/").await.expect(200);
        assert_eq!((page.header(REGISTRATION), page.header(CHALLENGE)), (None, None));
        let script = browser.fetch_empty(Method::GET, SESSIONS).await.expect(200);
        assert_eq!(script.json()[0]["bound_to_key"], false);
        assert!(!browser.jar.contains_key(BOUND));
    }
    let program = Program::new(&app);
    let token = browser.cookie(ACCESS);
    program.ask_with(&token, Method::GET, ME).await.expect(200);
    assert!(app.events("token_rotated").await > 5);
    assert_eq!(app.events("session_bound").await, 0);
    assert_eq!(app.number("SELECT count(*) FROM sessions").await, 1);
    assert_eq!(refusals(&app).await, NOTHING);
}

/// Either all of the answer is lost, or the browser keeps the cookie and not the key.
#[tokio::test]
async fn f67_a_session_whose_browser_never_signs_again_goes_on_unbound() {
    for keeps_the_cookie in [false, true] {
        let (app, _, browser, offer) = offered_anew("f67 lost answer").await;
        let mut lost = browser.clone();
        lost.answer(&offer).await.expect(200);
        let mut browser = if keeps_the_cookie {
            lost.browser
        } else {
            browser.browser
        };
        browser.open("/").await.expect(200);
        for _ in 0..8 {
            app.pass(700);
            browser.jar.remove(BOUND);
            browser.open("/").await.expect(200);
            assert!(!is_bound(&mut browser).await);
        }
        assert_eq!(app.events("session_bound").await, 1);
        assert_eq!(app.number("SELECT count(*) FROM sessions").await, 1);
        assert_eq!(refusals(&app).await, NOTHING);
    }
}
