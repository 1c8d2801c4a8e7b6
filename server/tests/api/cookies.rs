//! Cookies as the browser gets them, and what never stands in an address or on a page.

use axum::body::Body;
use axum::http::Method;
use axum::http::header::COOKIE;
use serde_json::json;

use crate::app::TestApp;
use crate::binding::BOUND;
use crate::browser::{ACCESS, Browser, DEVICE, FLOW, REFRESH};
use crate::people::{Admin, accept, first_admin_path, make_first_admin};
use crate::reply::Reply;

/// Every `Set-Cookie` of a day's work: first run, sign-in, renewal, step-up, password change, signing out.
async fn a_day(app: &TestApp) -> Vec<String> {
    let mut lines = Vec::new();
    let mut note = |reply: &Reply| lines.extend(reply.cookies().into_iter().map(str::to_owned));
    let person = app.add_person("ada", &["member"], true).await;
    let mut browser = Browser::new(app);
    note(&browser.get("/sign-in").await);
    let fields = [
        ("identifier", "ada"),
        ("password", person.password.as_str()),
        ("return_to", "/security"),
    ];
    note(&browser.submit("sign_in", &fields).await);
    browser.open("/sign-in/code").await;
    let code = person.code(app);
    note(&browser.submit("verify_code", &[("code", &code)]).await);
    app.pass(16 * 60);
    note(&browser.get("/").await);
    app.pass(60);
    note(&browser.fetch(Method::POST, "/auth/refresh", &json!({})).await);
    browser.open("/step-up").await;
    let code = person.code(app);
    note(
        &browser
            .submit("step_up", &[("answer", &code), ("return_to", "/")])
            .await,
    );
    browser.open("/security").await;
    let fields = [
        ("current_password", person.password.as_str()),
        ("new_password", "another quiet evening in May"),
    ];
    note(&browser.submit("change_password", &fields).await);
    browser.open("/").await;
    note(&browser.submit("sign_out", &[]).await);
    let mut api = Browser::new(app);
    api.open("/sign-in").await;
    let login = json!({"identifier": "ada", "password": "another quiet evening in May"});
    note(&api.fetch(Method::POST, "/auth/login", &login).await);
    lines
}

#[tokio::test]
async fn c1_every_cookie_is_locked_to_this_host_and_out_of_reach_of_scripts() {
    let app = TestApp::start("c1").await;
    let lines = a_day(&app).await;
    for name in [ACCESS, REFRESH, BOUND, DEVICE, FLOW] {
        assert!(
            lines.iter().any(|line| line.starts_with(&format!("{name}="))),
            "{name} was set that day"
        );
    }
    for line in &lines {
        let cookie = cookie::Cookie::parse(line.as_str()).expect("a cookie");
        // Chromium binds none with the longer prefix.
        let prefix = if cookie.name() == BOUND {
            "__Host-"
        } else {
            "__Host-Http-"
        };
        assert!(cookie.name().starts_with(prefix), "{line}");
        assert_eq!(cookie.secure(), Some(true), "{line}");
        assert_eq!(cookie.http_only(), Some(true), "{line}");
        assert!(
            matches!(
                cookie.same_site(),
                Some(cookie::SameSite::Lax | cookie::SameSite::Strict)
            ),
            "{line}"
        );
        assert_eq!(cookie.path(), Some("/"), "{line}");
        assert_eq!(cookie.domain(), None, "{line}");
    }
}

#[tokio::test]
async fn c2_no_cookie_is_longer_than_browsers_keep() {
    let app = TestApp::start("c2").await;
    let mut roles = vec!["member".to_owned()];
    for i in 0..8 {
        let name = format!("a-role-with-a-rather-long-name-{i}");
        app.add_role(&name, server::domain::policy::presets()[0].lifetimes.clone())
            .await;
        roles.push(name);
    }
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    let person = app.add_person("ada", &roles, false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    for (name, value) in &browser.jar {
        assert!(name.len() + value.len() <= 4096, "{name}: {}", value.len());
    }
    assert!(
        browser.cookie(ACCESS).len() > 500,
        "the token with nine roles was measured"
    );
}

#[tokio::test]
async fn c4_two_cookies_of_one_name_are_refused_and_recorded() {
    let app = TestApp::start("c4").await;
    let person = app.add_person("ada", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    for name in [ACCESS, REFRESH, BOUND, DEVICE, FLOW] {
        let own = browser.jar.get(name).cloned().unwrap_or_default();
        let before = app.events("duplicate_cookie").await;
        for line in [
            format!("{name}=evil; {name}={own}"),
            format!("{name}={own}; x=1; {name}={own}"),
        ] {
            let mut plain = browser.clone();
            plain.jar.clear();
            let request = plain.navigation(Method::GET, "/", "same-origin").header(COOKIE, line);
            let reply = plain
                .send(request.body(Body::empty()).expect("a request"))
                .await
                .expect(400);
            assert!(reply.cookies().is_empty(), "{:?}", reply.cookies());
        }
        assert_eq!(app.events("duplicate_cookie").await, before + 2, "{name}");
    }
    browser.get("/").await.expect(200);
}

#[tokio::test]
async fn c11_a_mail_scanner_that_opens_a_link_consumes_nothing() {
    let app = TestApp::start("c11").await;
    let path = first_admin_path(&app).await;
    for method in [Method::GET, Method::HEAD, Method::GET, Method::HEAD, Method::GET] {
        let mut scanner = Browser::elsewhere(&app);
        let request = scanner.request(method, &path).body(Body::empty()).expect("a request");
        let reply = scanner.send(request).await;
        if reply.status == 303 {
            assert_eq!(reply.location(), "/welcome", "the secret leaves the address at once");
        }
        scanner.get("/welcome").await;
    }
    assert_eq!(
        app.number("SELECT count(*) FROM one_time_links WHERE used_at IS NOT NULL")
            .await,
        0
    );
    let admin = make_first_admin_with(&app, &format!("{}{path}", crate::app::ORIGIN)).await;
    assert!(admin.is_signed_in() || admin.here == "/sign-in/enrol");
    let mut late = Browser::new(&app);
    late.open(&path).await.expect(404);
}

async fn make_first_admin_with(app: &TestApp, link: &str) -> Browser {
    let mut browser = Browser::new(app);
    accept(&mut browser, link, "ada").await;
    browser
}

#[tokio::test]
async fn c11_no_address_ever_carries_a_token() {
    let app = TestApp::start("c11 addresses").await;
    let mut admin = make_first_admin(&app).await;
    let link = admin.invite("max", &["member"]).await;
    let secret = link.rsplit('/').next().expect("a secret").to_owned();
    let mut browser = Browser::elsewhere(&app);
    let mut places = vec![browser.get(link.strip_prefix(crate::app::ORIGIN).expect("ours")).await];
    places.push(browser.get("/welcome").await);
    let fields = [
        ("username", "max"),
        ("email", ""),
        ("display_name", "Max"),
        ("password", "short"),
    ];
    places.push(browser.submit("accept_invitation", &fields).await);
    let fields = [
        ("username", "max"),
        ("email", ""),
        ("display_name", "Max"),
        ("password", crate::people::PASSWORD),
    ];
    browser.open("/welcome").await;
    places.push(browser.submit("accept_invitation", &fields).await);
    assert!(browser.is_signed_in());
    app.pass(16 * 60);
    places.push(browser.get("/security").await);
    places.push(browser.submit("sign_out", &[]).await);
    let secrets: Vec<String> = browser
        .jar
        .values()
        .cloned()
        .chain([secret, "short".to_owned()])
        .collect();
    for place in places {
        let location = place.header("location").unwrap_or_default();
        assert!(
            !location.contains("mfr_") && !location.contains("eyJhbGciOi"),
            "{location}"
        );
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            assert!(!location.contains(secret.as_str()), "{location}");
        }
    }
}

#[tokio::test]
async fn c12_no_page_shows_a_script_anything_secret() {
    let app = TestApp::start("c12").await;
    let mut admin = Admin::sign_in(&app).await;
    let id = admin.person.id.to_string();
    let seed = admin.person.totp.as_ref().expect("has one").to_base32();
    let phc = app.rows("SELECT password_hash FROM users").await[0][0]
        .clone()
        .expect("a hash");
    let person_page = format!("/admin/people/{id}");
    for path in [
        "/",
        "/security",
        "/step-up",
        "/admin/roles/admin",
        "/admin/people",
        &person_page,
        "/admin/audit",
        "/nowhere",
    ] {
        let page = admin.browser.get(path).await;
        let secrets = admin
            .browser
            .jar
            .values()
            .chain([&seed, &phc])
            .chain(&admin.person.recovery_codes);
        for secret in secrets {
            assert!(!page.body.contains(secret.as_str()), "{path} shows {secret}");
        }
        assert!(
            // The second part of a JWT: no random text has its full stop.
            !page.body.contains("mfr_") && !page.body.contains(".eyJ") && !page.body.contains("$argon2"),
            "{path}"
        );
    }
    let event = app.rows("SELECT kind FROM audit_events").await.len();
    assert!(event > 0);
}
