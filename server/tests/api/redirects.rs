//! Where redirects go: only to paths of our own, whatever anybody asks for.

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE, ORIGIN as ORIGIN_HEADER, REFERER};
use axum::http::{HeaderValue, Method};

use crate::app::{ORIGIN, TestApp};
use crate::browser::{Browser, encode};
use crate::people::Member;

/// What people have tried in places that name a path to return to.
const HOSTILE: [&str; 64] = [
    "//evil.example",
    "///evil.example",
    "////evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "\\/evil.example",
    "/%5cevil.example",
    "/%5Cevil.example",
    "/%2fevil.example",
    "/%2F%2Fevil.example",
    "%2f%2fevil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\n/evil.example",
    "/%09/evil.example",
    "/%0a/evil.example",
    "/%0d%0aLocation:%20https://evil.example",
    "/\r\nSet-Cookie: a=b",
    " //evil.example",
    "\t//evil.example",
    "https://evil.example",
    "https:evil.example",
    "https:/evil.example",
    "http://evil.example",
    "HTTPS://EVIL.EXAMPLE",
    "hTtP://localhost:3000@evil.example",
    "http://localhost:3000@evil.example/",
    "http://localhost:3000.evil.example/",
    "http://localhost:30001/",
    "http://localhost:3001/",
    "https://localhost:3000/",
    "//localhost:3000@evil.example",
    "/@evil.example",
    "@evil.example",
    ".evil.example",
    "evil.example",
    "evil.example/",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "file:///etc/passwd",
    "ftp://evil.example",
    "mailto:a@evil.example",
    "/..//evil.example",
    "/../..//evil.example",
    "/.//evil.example",
    "/%2e%2e//evil.example",
    "/a/..//evil.example",
    "/;//evil.example",
    "/x//evil.example",
    "//evil%E3%80%82example",
    "//evil\u{3002}example",
    "/\u{2044}evil.example",
    "\u{2215}\u{2215}evil.example",
    "/\u{ff0f}evil.example",
    "//[::1]/",
    "//0x7f000001/",
    "?//evil.example",
    "#//evil.example",
    "//evil.example/%2f..",
    "/actions/sign_out",
    "/<script>alert(1)</script>",
];

/// A path that every browser reads as one of ours.
fn is_ours(location: &str) -> bool {
    let path = location.split(['?', '#']).next().unwrap_or(location);
    let second = path.as_bytes().get(1);
    path.starts_with('/')
        && !matches!(second, Some(b'/' | b'\\'))
        && !path.contains("//")
        && !path.contains('\\')
        && !path.starts_with("/actions/")
        && !path.to_lowercase().contains("evil")
        && location.bytes().all(|byte| byte.is_ascii_graphic())
}

#[tokio::test]
async fn f62_after_signing_in_nobody_lands_elsewhere() {
    let app = TestApp::start("f62").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    // Step-up takes a return address, too, and needs a password check for each: a wrong answer keeps the address out.
    for hostile in HOSTILE {
        let query = encode(&[("return_to", hostile)]);
        let page = browser.get(&format!("/step-up?{query}")).await;
        assert_eq!(page.status, 200);
        let wrong = [("answer", ""), ("return_to", hostile)];
        let reply = browser.submit("step_up", &wrong).await;
        assert!(is_ours(reply.location()), "{hostile:?}: {}", reply.location());
        let again = browser.get(&format!("/sign-in?{query}")).await;
        assert!(is_ours(again.location()), "{hostile:?}: {}", again.location());
        let sign_in = Browser::new(&app).get(&format!("/sign-in?{query}")).await.expect(200);
        assert!(
            !sign_in.body.contains("href=\"//evil") && !sign_in.body.contains("<script>alert"),
            "{hostile:?}"
        );
    }
}

#[tokio::test]
async fn c10_return_addresses_are_kept_only_if_they_are_paths_of_ours() {
    let app = TestApp::start("c10").await;
    let person = app.add_person("max", &["member"], true).await;
    // The second step needs no password hashing for each: only the first one carries the address, so a few suffice.
    for hostile in [
        HOSTILE[0],
        HOSTILE[3],
        HOSTILE[6],
        HOSTILE[11],
        HOSTILE[20],
        HOSTILE[26],
        HOSTILE[37],
        HOSTILE[45],
    ] {
        let mut browser = Browser::new(&app);
        browser.open("/sign-in").await.expect(200);
        let fields = [
            ("identifier", "max"),
            ("password", person.password.as_str()),
            ("return_to", hostile),
        ];
        assert_eq!(browser.submit("sign_in", &fields).await.location(), "/sign-in/code");
        browser.open("/sign-in/code").await.expect(200);
        let code = person.code(&app);
        let reply = browser.submit("verify_code", &[("code", &code)]).await;
        assert_eq!(reply.location(), "/", "{hostile:?}");
    }
    let mut browser = Browser::new(&app);
    let bounced = browser
        .get("/devices/end?session=01890a5d-ac96-774b-bcce-b302099a8057")
        .await;
    let at_sign_in = browser.open(bounced.location()).await.expect(200);
    let wanted = at_sign_in.between("name=\"return_to\" value=\"", "\"");
    let fields = [
        ("identifier", "max"),
        ("password", person.password.as_str()),
        ("return_to", wanted.as_str()),
    ];
    browser.submit_and_follow("sign_in", &fields).await.expect(200);
    let code = person.code(&app);
    let reply = browser.submit("verify_code", &[("code", &code)]).await;
    assert_eq!(
        reply.location(),
        "/devices/end?session=01890a5d-ac96-774b-bcce-b302099a8057",
        "an honest one is kept"
    );
}

#[tokio::test]
async fn c10_the_referer_leads_nobody_away() {
    let app = TestApp::start("c10 referer").await;
    let mut browser = Browser::new(&app);
    browser.open("/sign-in").await.expect(200);
    let referers = HOSTILE
        .iter()
        .map(|hostile| (*hostile).to_owned())
        .chain(HOSTILE.iter().map(|hostile| format!("{ORIGIN}{hostile}")));
    for referer in referers {
        let Ok(referer) = HeaderValue::from_bytes(referer.as_bytes()) else {
            continue;
        };
        for token in [browser.form_token.clone(), "wrong".to_owned()] {
            let fields = [
                ("form_token", token.as_str()),
                ("identifier", ""),
                ("password", ""),
                ("return_to", "/"),
            ];
            let request = browser
                .request(Method::POST, "/actions/sign_in")
                .header(ACCEPT, "text/html")
                .header("sec-fetch-site", "same-origin")
                .header(ORIGIN_HEADER, ORIGIN)
                .header(REFERER, referer.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from(encode(&fields)))
                .expect("a request");
            let reply = app.send(browser.peer, request).await;
            assert!(
                reply.status == 303 || reply.status.is_client_error(),
                "{referer:?}: {}",
                reply.status
            );
            if let Some(location) = reply.header("location") {
                assert!(is_ours(location), "{referer:?}: {location}");
            }
        }
    }
}

#[tokio::test]
async fn c10_forms_are_answered_with_303_so_that_no_password_is_sent_twice() {
    let app = TestApp::start("c10 303").await;
    let mut member = Member::sign_in(&app, "max").await;
    for (action, fields) in [
        (
            "change_password",
            vec![("current_password", "x"), ("new_password", "y")],
        ),
        ("step_up", vec![("answer", "x"), ("return_to", "/")]),
        ("end_session", vec![("session_id", "nothing")]),
        ("sign_out", vec![]),
    ] {
        member.browser.open("/").await;
        let reply = member.browser.submit(action, &fields).await;
        assert_eq!(reply.status, 303, "{action}");
        assert!(is_ours(reply.location()), "{action}: {}", reply.location());
    }
}
