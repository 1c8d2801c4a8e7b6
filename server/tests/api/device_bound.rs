//! Device bound session credentials: a browser that can binds its session to a key, and nobody notices.

use axum::body::Body;
use axum::http::{HeaderValue, Method};
use serde_json::json;

use crate::app::{ORIGIN, TestApp};
use crate::binding::{
    BOUND, BoundBrowser, CHALLENGE, REGISTER, REGISTRATION, RENEW, RESPONSE, SESSION_ID, SESSIONS, bound, is_bound,
    offered, offered_anew, refusals,
};
use crate::browser::{ACCESS, REFRESH};
use crate::holder::Holder;
use crate::people::Admin;
use crate::service::Key;

/// Says that a page was asked for again.
const RETRY: &str = "__Host-Http-mayfly-retry";
const NOTHING: [&str; 0] = [];

fn opens_again(path: &str) -> String {
    format!("<meta http-equiv=\"refresh\" content=\"0;url={path}\">")
}

#[tokio::test]
async fn r6_a_browser_that_can_binds_its_session_and_goes_on_for_hours() {
    let app = TestApp::start("r6 hours").await;
    let person = app.add_person("max", &["member"], true).await;
    let mut browser = BoundBrowser::new(&app);
    let offer = browser.sign_in(&person).await.expect(303);
    let first = browser.answer(&offer).await.expect(200);
    assert_eq!(
        first.json(),
        json!({
            "session_identifier": browser.session_id,
            "refresh_url": RENEW,
            "scope": { "origin": ORIGIN, "include_site": false, "scope_specification": [] },
            "credentials": [{
                "type": "cookie",
                "name": BOUND,
                "attributes": "Path=/; Secure; HttpOnly; SameSite=Lax",
            }],
        })
    );
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let page = browser.browser.open("/").await.expect(200);
    assert_eq!(page.header(REGISTRATION), None, "one offer is enough");
    assert!(!is_bound(&mut browser.browser).await, "not before it has signed again");
    app.pass(60);
    assert!(is_bound(browser.ready().await).await);
    let facts = app
        .rows("SELECT facts FROM audit_events WHERE kind = 'session_bound'")
        .await;
    let thumbprint = Holder::new(&app, browser.key.clone()).thumbprint();
    assert_eq!(facts.len(), 1, "{facts:?}");
    let said = facts[0][0].as_deref().unwrap_or_default();
    assert!(said.contains("bound_to_key") && said.contains(&thumbprint), "{said}");

    for round in 0..40 {
        // With a challenge that is still good, and with one that is over.
        app.pass(if round % 3 == 0 { 1000 } else { 301 });
        let page = browser.ready().await.open("/").await.expect(200).page();
        assert_eq!(page.matches("bound to a key of its browser").count(), 1, "{page}");
        assert!(is_bound(browser.ready().await).await, "round {round}");
    }
    assert!(app.events("token_rotated").await > 10);
    assert_eq!(app.number("SELECT count(*) FROM sessions").await, 1);
    assert_eq!(app.events("session_bound").await, 1);
    assert_eq!(refusals(&app).await, NOTHING);
}

#[tokio::test]
async fn r6_each_bound_cookie_is_locked_to_this_host_and_ends_in_time() {
    let (_app, _, mut browser, offer) = offered_anew("r6 cookies").await;
    let first = browser.answer(&offer).await.expect(200);
    let next = browser.renew().await.expect(200);
    for (reply, minutes) in [(first, 1), (next, 10)] {
        let lines = reply.cookies();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let cookie = cookie::Cookie::parse(lines[0]).expect("a cookie");
        assert_eq!(cookie.name(), BOUND);
        assert_eq!((cookie.secure(), cookie.http_only()), (Some(true), Some(true)));
        assert_eq!(cookie.same_site(), Some(cookie::SameSite::Lax));
        assert_eq!((cookie.path(), cookie.domain()), (Some("/"), None));
        assert_eq!(cookie.max_age(), Some(cookie::time::Duration::minutes(minutes)));
    }
}

#[tokio::test]
async fn r6_what_is_under_way_when_a_browser_first_signs_or_its_cookie_ends_passes() {
    let (app, _, browser) = bound("r6 under way").await;
    let mut since_before = browser.browser.clone();
    since_before.jar.remove(BOUND);
    app.pass(59);
    since_before.fetch_empty(Method::GET, SESSIONS).await.expect(200);
    app.pass(1);
    since_before.fetch_empty(Method::GET, SESSIONS).await.expect(401);
    let late = browser.browser.clone();
    app.pass(599);
    late.clone().get("/security").await.expect(200);
    late.clone().fetch_empty(Method::GET, SESSIONS).await.expect(200);
    app.pass(1);
    late.clone().fetch_empty(Method::GET, SESSIONS).await.expect(401);
    assert_eq!(
        refusals(&app).await,
        [
            "bound_cookie_copied bound_cookie_expired",
            "proof_refused bound_cookie_missing"
        ]
    );
}

#[tokio::test]
async fn r6_a_page_opened_from_another_site_is_opened_again_as_our_own() {
    let (app, _, mut browser) = bound("r6 elsewhere").await;
    // With a good access token, and with one that is over.
    for (seconds, status) in [(700, 401), (1000, 200)] {
        app.pass(seconds);
        browser.browser.jar.remove(BOUND);
        let request = browser.browser.navigation(Method::GET, "/security", "cross-site");
        let request = request.body(Body::empty()).expect("a request");
        let reply = browser.browser.send(request).await.expect(status);
        assert!(reply.body.contains(&opens_again("/security")), "{}", reply.body);
        let kind = reply.header("content-type").expect("a type");
        assert!(kind.starts_with("text/html"), "{kind}");
        assert!(browser.browser.is_signed_in() && browser.browser.jar.contains_key(ACCESS));
        assert_eq!(refusals(&app).await, NOTHING, "that happens to everybody");
        browser.ready().await.get("/security").await.expect(200);
        assert!(!browser.browser.jar.contains_key(RETRY), "that is forgotten");
    }
    assert_eq!(app.events("token_rotated").await, 1);
}

#[tokio::test]
async fn r6_a_browser_that_could_not_sign_in_time_is_put_off_and_keeps_its_cookies() {
    let (app, _, mut browser) = bound("r6 skipped").await;
    app.pass(700);
    browser.browser.jar.remove(BOUND);
    let jar = browser.browser.jar.clone();
    let page = browser.browser.navigation(Method::GET, "/security", "same-origin");
    let script = browser.browser.script(Method::GET, SESSIONS);
    let said = format!("quota_exceeded;session_identifier=\"{}\"", browser.session_id);
    let said = HeaderValue::from_str(&said).expect("a header");
    for mut request in [
        page.body(Body::empty()).expect("a request"),
        script.body(Body::empty()).expect("a request"),
        browser.browser.form("stay_signed_in", &[]),
    ] {
        request.headers_mut().insert("secure-session-skipped", said.clone());
        let path = request.uri().to_string();
        let reply = browser.browser.send(request).await;
        assert_eq!(reply.status, 503, "{path}: {}", reply.body);
        assert_eq!(reply.cookies(), NOTHING, "{path}");
    }
    assert_eq!(browser.browser.jar, jar);
    browser.ready().await.get("/security").await.expect(200);
}

#[tokio::test]
async fn r6_new_tokens_that_could_not_be_signed_for_in_time_are_put_off_too() {
    let (app, _, mut browser) = bound("r6 skipped refresh").await;
    app.pass(1000);
    browser.browser.jar.remove(BOUND);
    // Its access token is over.
    browser.browser.jar.remove(ACCESS);
    let request = browser
        .browser
        .script(Method::POST, "/auth/refresh")
        .header("content-type", "application/json")
        .header("secure-session-skipped", "unreachable");
    let request = request.body(Body::from("{}")).expect("a request");
    let reply = browser.browser.send(request).await.expect(503);
    assert_eq!(reply.cookies(), NOTHING);
    let again = browser.ready().await;
    again.fetch(Method::POST, "/auth/refresh", &json!({})).await.expect(200);
}

#[tokio::test]
async fn r6_a_browser_that_lost_its_key_is_asked_once_more_and_then_to_sign_in() {
    let (app, person, mut browser) = bound("r6 lost key").await;
    let old = browser.session_id.clone();
    app.pass(700);
    let keyless = &mut browser.browser;
    keyless.jar.remove(BOUND);
    let once = keyless.get("/security").await.expect(401);
    assert!(once.body.contains(&opens_again("/security")), "{}", once.body);
    assert!(keyless.is_signed_in() && keyless.jar.contains_key(RETRY));
    let twice = keyless.get("/security").await;
    assert_eq!(twice.location(), "/sign-in?return_to=/security");
    for name in [ACCESS, REFRESH, BOUND] {
        assert!(!keyless.jar.contains_key(name), "{name}");
    }
    let page = keyless.open(twice.location()).await.expect(200).page();
    assert!(page.contains("bound to one browser"), "{page}");
    assert_eq!(refusals(&app).await, ["proof_refused bound_cookie_missing"; 2]);

    browser.key = Key::es256();
    let offer = browser.sign_in(&person).await.expect(303);
    browser.answer(&offer).await.expect(200);
    let list = browser.ready().await.fetch_empty(Method::GET, SESSIONS).await;
    let list = list.expect(200).json();
    let ids: Vec<_> = list.as_array().expect("a list").iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [&json!(browser.session_id), &json!(old)], "the old one lives");
    assert!(!browser.browser.jar.contains_key(RETRY));
}

#[tokio::test]
async fn r6_only_the_first_key_of_a_session_counts() {
    let (app, _, mut browser, offer) = offered_anew("r6 first key").await;
    browser.answer(&offer).await.expect(200);
    let mut second = BoundBrowser {
        key: Key::es256(),
        ..browser.clone()
    };
    let refused = second.answer(&offer).await.expect(400);
    assert_eq!(refused.code(), "invalid_browser_proof");
    assert_eq!(refused.cookies(), NOTHING);
    assert_eq!(refusals(&app).await, ["proof_refused browser_proof_of_other_key"]);
    second.session_id = browser.session_id.clone();
    second.renew().await.expect(401);
    for _ in 0..3 {
        app.pass(700);
        browser.ready().await.open("/").await.expect(200);
    }
    second.renew().await.expect(401);
    assert_eq!(app.events("session_bound").await, 1);

    let eva = app.add_person("eva", &["member"], false).await;
    let mut browser = BoundBrowser::new(&app);
    let offer = browser.sign_in(&eva).await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (mut browser, offer) = (browser.clone(), offer.clone());
        browser.key = Key::es256();
        tries.spawn(async move { browser.answer(&offer).await.status.as_u16() });
    }
    let mut statuses = tries.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses[1..].iter().all(|status| *status == 400), "{statuses:?}");
    assert_eq!(app.events("session_bound").await, 2);
}

#[tokio::test]
async fn r6_a_session_is_bound_within_two_minutes_of_its_beginning_or_never() {
    let app = TestApp::start("r6 two minutes").await;
    for (name, seconds, status) in [("max", 119, 200), ("eva", 120, 400), ("ada", 3600, 400)] {
        let person = app.add_person(name, &["member"], false).await;
        let mut browser = BoundBrowser::new(&app);
        let offer = browser.sign_in(&person).await;
        app.pass(seconds);
        browser.answer(&offer).await.expect(status);
        app.pass(3600);
        browser.browser.open("/").await.expect(200);
        assert!(!is_bound(&mut browser.browser).await, "{name}");
    }
    assert_eq!(app.events("session_bound").await, 1);
}

#[tokio::test]
async fn r6_a_step_up_is_offered_a_binding_of_its_own() {
    let (app, person, mut browser) = bound("r6 step-up").await;
    let mut old = browser.clone();
    app.pass(700);
    let offer = browser.step_up(&person).await.expect(303);
    old.renew().await.expect(401);
    browser.key = Key::es256();
    browser.answer(&offer).await.expect(200);
    assert_ne!(browser.session_id, old.session_id);
    for _ in 0..6 {
        app.pass(700);
        browser.ready().await.open("/").await.expect(200);
    }
    assert!(is_bound(browser.ready().await).await);
    assert_eq!(app.events("session_bound").await, 2);
    let copied = &mut browser.browser.clone();
    copied.jar.remove(BOUND);
    copied.fetch_empty(Method::GET, SESSIONS).await.expect(401);
}

#[tokio::test]
async fn r6_an_ended_session_renews_nothing_and_says_why_it_ended() {
    let app = TestApp::start("r6 ended").await;
    let mut admin = Admin::sign_in(&app).await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = BoundBrowser::signed_in(&app, &person).await;
    let id = person.id.to_string();
    let confirm = format!("/admin/people/{id}/end-sessions");
    admin.browser.open(&confirm).await.expect(200);
    let end = admin.browser.submit("end_person_sessions", &[("person_id", &id)]).await;
    end.expect(303);
    let refused = browser.renew().await.expect(401);
    assert_eq!(refused.code(), "other_browser");
    app.pass(700);
    browser.browser.jar.remove(BOUND);
    let reply = browser.browser.clone().fetch_empty(Method::GET, SESSIONS).await;
    assert_eq!(reply.expect(401).json()["reason"], "ended_by_admin");
    let page = browser.browser.open("/").await.expect(200).page();
    assert!(page.contains("An administrator ended this sign-in."), "{page}");
    assert!(!page.contains("bound to one browser"), "{page}");
    assert_eq!(refusals(&app).await, NOTHING);
}

#[tokio::test]
async fn r6_of_20_uses_of_one_signature_at_once_exactly_one_gets_a_cookie() {
    let (app, _, browser) = bound("r6 at once").await;
    let proof = browser.renewal(&browser.challenge);
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (mut tab, proof) = (browser.clone(), proof.clone());
        tries.spawn(async move {
            let id = tab.session_id.clone();
            let reply = tab.post(RENEW, &[(SESSION_ID, &id), (RESPONSE, &proof)]).await;
            (reply.status.as_u16(), reply.cookies().len())
        });
    }
    let mut said = tries.join_all().await;
    said.sort_unstable();
    assert_eq!(said[0], (200, 1));
    assert!(said[1..].iter().all(|reply| *reply == (403, 0)), "{said:?}");
    // Not even after the program was started again; another one is.
    let mut again = browser.clone();
    again.browser.app = app.restart().await;
    app.pass(1);
    let id = again.session_id.clone();
    let reply = again.post(RENEW, &[(SESSION_ID, &id), (RESPONSE, &proof)]).await;
    assert_eq!(reply.expect(403).cookies(), NOTHING);
    again.renew().await.expect(200);
}

#[tokio::test]
async fn r6_no_challenge_is_told_again_in_the_moment_in_which_it_was_used() {
    let (app, _, mut browser) = bound("r6 moment").await;
    app.pass(1000);
    let id = browser.session_id.clone();
    browser.post(RENEW, &[(SESSION_ID, &id)]).await.expect(403);
    let used = browser.challenge.clone();
    browser.prove(&used).await.expect(200);
    assert_ne!(browser.challenge, used, "it would be refused as a copy");
    app.pass(600);
    let next = browser.challenge.clone();
    browser.prove(&next).await.expect(200);
    assert_eq!(refusals(&app).await, NOTHING);
}

/// Browsers take any other status of 4xx for the end of the bond and forget the key.
#[tokio::test]
async fn r6_renewals_beyond_the_limit_are_put_off_and_no_browser_forgets_its_key() {
    let limits = [
        ("LIMITS__REFRESH__ACCOUNT_AT_ADDRESS__BURST", "5"),
        ("LIMITS__REFRESH__ACCOUNT_AT_ADDRESS__EVERY_SECONDS", "60"),
    ];
    let app = TestApp::start_with("r6 limit", &limits).await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = BoundBrowser::signed_in(&app, &person).await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        app.pass(1);
        let challenge = browser.challenge.clone();
        statuses.push(browser.prove(&challenge).await.status.as_u16());
    }
    assert_eq!(statuses.first(), Some(&200));
    assert_eq!(statuses.last(), Some(&503), "{statuses:?}");
    // Others at the same address are not kept from anything, whatever comes from there.
    let eva = app.add_person("eva", &["member"], false).await;
    let mut other = BoundBrowser::signed_in(&app, &eva).await;
    for _ in 0..20 {
        other.post_bare(RENEW, &[]).await.expect(400);
        browser
            .post_bare(RENEW, &[(SESSION_ID, &browser.session_id.clone())])
            .await
            .expect(403);
    }
    other.renew().await.expect(200);
    app.pass(600);
    browser.ready().await.open("/").await.expect(200);
}

/// As another site makes a browser send them.
const FOREIGN: [&[(&str, &str)]; 5] = [
    &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
    &[("origin", "null")],
    &[("origin", "http://localhost:3001"), ("sec-fetch-site", "same-site")],
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
];

#[tokio::test]
async fn r6_another_site_binds_nothing_and_a_renewal_goes_by_its_signature_alone() {
    let (app, _, mut browser, offer) = offered_anew("r6 foreign").await;
    let proof = browser.registration(&offered(&offer).expect("an offer"));
    for headers in FOREIGN {
        let headers = [headers, &[(RESPONSE, &*proof)]].concat();
        let refused = browser.post_bare(REGISTER, &headers).await.expect(403);
        assert_eq!(refused.cookies(), NOTHING, "{headers:?}");
    }
    assert_eq!(app.events("malicious_csrf").await, 5);
    assert_eq!(app.events("session_bound").await, 0);
    browser.answer(&offer).await.expect(200);
    for headers in FOREIGN.into_iter().chain([&[][..]]) {
        app.pass(1);
        let (id, proof) = (browser.session_id.clone(), browser.renewal(&browser.challenge));
        let headers = [headers, &[(SESSION_ID, &*id), (RESPONSE, &*proof)]].concat();
        let reply = browser.post_bare(RENEW, &headers).await.expect(200);
        assert!(reply.header(CHALLENGE).is_some(), "{headers:?}");
    }
    assert_eq!(app.events("malicious_csrf").await, 5);
}

/// Chromium has said so only for some time. A page of another site cannot add the header with the proof.
#[tokio::test]
async fn r6_a_browser_that_does_not_say_for_whom_it_asks_binds_its_session_too() {
    let (app, _, mut browser, offer) = offered_anew("r6 bare").await;
    let proof = browser.registration(&offered(&offer).expect("an offer"));
    browser.post_bare(REGISTER, &[(RESPONSE, &proof)]).await.expect(200);
    assert_eq!(app.events("session_bound").await, 1);
    assert_eq!(app.events("malicious_csrf").await, 0);
}

#[tokio::test]
async fn r6_what_is_signed_may_stand_in_quotes_as_the_draft_has_it() {
    let (_app, _, mut browser, offer) = offered_anew("r6 quotes").await;
    let proof = browser.registration(&offered(&offer).expect("an offer"));
    let quoted = format!("\"{proof}\"");
    browser.post(REGISTER, &[(RESPONSE, &quoted)]).await.expect(200);
    let proof = browser.renewal(&browser.challenge);
    let (id, proof) = (format!("\"{}\"", browser.session_id), format!("\"{proof}\""));
    let headers = [(SESSION_ID, id.as_str()), (RESPONSE, &proof)];
    browser.post(RENEW, &headers).await.expect(200);
}

#[tokio::test]
async fn r6_switched_off_nothing_is_offered_and_bound_sessions_go_on_without_their_cookie() {
    let (app, person, mut browser) = bound("r6 off").await;
    let mut other = BoundBrowser::new(&app);
    let offer = other.sign_in(&person).await;
    let off = app.restart_with(&[("TOKENS__BIND_BROWSERS", "false")]).await;
    for app in [&mut browser.browser.app, &mut other.browser.app] {
        *app = off.clone();
    }
    other.answer(&offer).await.expect(400);
    browser.browser.jar.remove(BOUND);
    for _ in 0..4 {
        off.pass(1000);
        browser.browser.open("/").await.expect(200);
        browser.browser.fetch_empty(Method::GET, SESSIONS).await.expect(200);
    }
    let page = browser.browser.get("/").await.expect(200);
    assert!(
        !page.body.contains("bound to a key"),
        "nor does anybody say that they are bound"
    );
    let mut new = BoundBrowser::new(&off);
    let signed_in = new.sign_in(&person).await.expect(303);
    assert_eq!(offered(&signed_in), None);
    assert_eq!(refusals(&off).await, NOTHING);
    // Browsers keep their keys meanwhile, so that everybody goes on when it is switched on again.
    browser.renew().await.expect(200);
    browser.browser.app = off.restart().await;
    browser.browser.app.pass(700);
    browser.ready().await.open("/").await.expect(200);
    browser.browser.jar.remove(BOUND);
    browser.browser.get("/").await.expect(401);
}

#[tokio::test]
async fn r6_a_browser_whose_answer_was_lost_may_register_its_key_again() {
    let (app, _, mut browser, offer) = offered_anew("r6 again").await;
    let mut lost = browser.clone();
    lost.answer(&offer).await.expect(200);
    app.pass(3);
    browser.answer(&offer).await.expect(200);
    assert_eq!(app.events("session_bound").await, 1);
    browser.renew().await.expect(200);
    // It has kept the key now, and nobody else gets a cookie for what it signed at first.
    lost.answer(&offer).await.expect(400);
    assert!(is_bound(&mut browser.browser).await);
}

#[tokio::test]
async fn r6_other_sites_that_open_our_pages_at_once_sign_nobody_out() {
    let (app, _, mut browser) = bound("r6 many links").await;
    app.pass(700);
    let owner = &mut browser.browser;
    owner.jar.remove(BOUND);
    for _ in 0..5 {
        // A page of our own that was opened again a moment ago counts for itself.
        owner.jar.insert(RETRY.to_owned(), "3".to_owned());
        let request = owner.navigation(Method::GET, "/security", "cross-site");
        let request = request.body(Body::empty()).expect("a request");
        owner.send(request).await.expect(401);
        assert!(owner.is_signed_in());
    }
    assert_eq!(refusals(&app).await, NOTHING);
    browser.ready().await.open("/").await.expect(200);
}

/// Both bound cookies have one name, so the key of the session that the browser left has to go.
#[tokio::test]
async fn r6_who_signs_in_over_a_living_session_goes_on_with_the_new_key_alone() {
    let (app, person, mut left) = bound("r6 two keys").await;
    let mut browser = left.clone();
    browser.key = Key::es256();
    browser.browser.jar.retain(|name, _| name != ACCESS && name != REFRESH);
    let offer = browser.sign_in(&person).await.expect(303);
    browser.answer(&offer).await.expect(200);
    left.browser = browser.browser.clone();
    left.renew().await.expect(401);
    app.pass(30);
    browser.renew().await.expect(200);
    for _ in 0..3 {
        app.pass(700);
        browser.ready().await.open("/").await.expect(200);
    }
    assert_eq!(refusals(&app).await, NOTHING);
}

#[tokio::test]
async fn r6_who_cannot_sign_just_now_is_not_signed_out_halfway() {
    let (app, _, mut browser) = bound("r6 halfway").await;
    app.pass(700);
    let owner = &mut browser.browser;
    owner.jar.remove(BOUND);
    let request = owner.script(Method::POST, "/auth/logout");
    let skipped = request
        .header("secure-session-skipped", "unreachable")
        .body(Body::empty());
    owner.send(skipped.expect("a request")).await.expect(503);
    owner.fetch_empty(Method::POST, "/auth/logout").await.expect(401);
    let request = owner.navigation(Method::GET, "/sign-in", "same-origin");
    let skipped = request
        .header("secure-session-skipped", "quota_exceeded")
        .body(Body::empty());
    owner.send(skipped.expect("a request")).await.expect(503);
    assert!(owner.is_signed_in());
    browser
        .ready()
        .await
        .fetch_empty(Method::POST, "/auth/logout")
        .await
        .expect(204);
    assert_eq!(app.events("session_signed_out").await, 1);
}

#[tokio::test]
async fn r6_what_is_no_page_takes_nobodys_cookies_away() {
    let (app, _, mut browser) = bound("r6 no page").await;
    app.pass(700);
    let owner = &mut browser.browser;
    owner.jar.remove(BOUND);
    owner.fetch_empty(Method::GET, SESSIONS).await.expect(401);
    assert_eq!(owner.submit("end_other_sessions", &[]).await.location(), "/");
    for site in ["same-site", "cross-site"] {
        let request = owner.request(Method::GET, "/").header("sec-fetch-site", site);
        let request = request.header("sec-fetch-mode", "no-cors").body(Body::empty());
        owner.send(request.expect("a request")).await.expect(401);
    }
    assert!(owner.is_signed_in());
    browser.ready().await.open("/").await.expect(200);
}

#[tokio::test]
async fn r6_signing_out_takes_the_bound_cookie_along() {
    let (app, person, mut browser) = bound("r6 sign out").await;
    let reply = browser.browser.submit("sign_out", &[]).await.expect(303);
    let lines = reply.cookies();
    let cleared = lines.iter().find(|line| line.starts_with(BOUND)).expect("deleted");
    assert!(cleared.contains("Max-Age=0"), "{cleared}");
    assert!(!browser.browser.jar.contains_key(BOUND));
    browser.renew().await.expect(401);
    // By the JSON door, too.
    let mut browser = BoundBrowser::signed_in(&app, &person).await;
    let path = "/auth/logout";
    browser.browser.fetch_empty(Method::POST, path).await.expect(204);
    assert!(!browser.browser.jar.contains_key(BOUND));
    browser.renew().await.expect(401);
    assert_eq!(refusals(&app).await, NOTHING);
}
