//! Becoming more than one is: by a field, a claim, a header, another kind of token, or somebody else's name (F57).
//!
//! 403 is for those who are known and may not. Where nobody is known, because what they present proves nothing, the API
//! answers 401 and a page leads to the sign-in page (303): an answer of 403 would say that signing in does not help.

use axum::body::Body;
use axum::http::Method;
use data_encoding::BASE64URL_NOPAD;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use server::domain::jwt::{AccessClaims, Verifier, sign_access};

use crate::access_tokens::{claims, header};
use crate::app::TestApp;
use crate::people::Member;
use crate::program::Program;
use crate::service::{Key, Service, post_form};

const PEOPLE: &str = "/admin/people";
const ME: &str = "/api/v1/me";
const ROLES: &str = "SELECT u.username, r.role FROM user_roles r JOIN users u ON u.id = r.user_id ORDER BY 1, 2";

#[tokio::test]
async fn f57_nobody_gives_himself_a_role_by_a_field() {
    let app = TestApp::start("f57 fields").await;
    let Member { person, mut browser } = Member::sign_in(&app, "max").await;
    let before = app.rows(ROLES).await;
    let id = person.id.to_string();
    browser.open("/security").await.expect(200);
    // The form that does it is not his.
    let fields = [("person_id", id.as_str()), ("roles[]", "admin")];
    assert_eq!(browser.submit_by_script("set_roles", &fields).await.status, 403);
    assert_eq!(app.events("authz_fail").await, 1);
    // His own forms do what they are for and know no such field: there is nothing to be refused, and nothing happens.
    let extra = [
        ("current_password", person.password.as_str()),
        ("new_password", "nine other mayflies at noon"),
        ("role", "admin"),
        ("roles[]", "admin"),
        ("roles", "admin"),
        ("user[roles][]", "admin"),
        ("is_admin", "true"),
    ];
    let reply = browser.submit_by_script("change_password", &extra).await;
    assert!(!reply.status.is_server_error(), "{}", reply.body);
    let reply = browser.submit_by_script("stay_signed_in", &extra[2..]).await;
    assert!(!reply.status.is_server_error(), "{}", reply.body);
    let mut program = Program::new(&app);
    let body = json!({ "identifier": "max", "password": person.password, "roles": ["admin"] });
    program.post("/auth/login", &body).await.expect(400);
    assert_eq!(app.rows(ROLES).await, before);
    browser.open("/").await.expect(200);
    browser.get(PEOPLE).await.expect(403);
    assert_eq!(app.events("authz_fail").await, 2);
}

/// The same token with other claims and its old signature.
fn changed(token: &str, change: impl Fn(&mut Value)) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let mut body = claims(token);
    change(&mut body);
    format!(
        "{}.{}.{}",
        parts[0],
        BASE64URL_NOPAD.encode(body.to_string().as_bytes()),
        parts[2]
    )
}

#[tokio::test]
async fn f57_a_forged_role_claim_gives_no_role_and_is_written_down() {
    let app = TestApp::start("f57 claims").await;
    let (_, program) = app.add_program("max").await;
    let admin = |body: &mut Value| body["roles"] = json!(["admin"]);
    let mut forged_body = claims(&program.access);
    admin(&mut forged_body);
    let mut none = header(&program.access);
    none["alg"] = json!("none");
    let unsigned = [&none, &forged_body].map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes()));
    let forged = [
        ("signature", changed(&program.access, admin)),
        ("signature", Key::es256().sign(&header(&program.access), &forged_body)),
        ("algorithm", format!("{}.{}.AAAA", unsigned[0], unsigned[1])),
    ];
    // Nobody is known by such a token: 401.
    for (reason, token) in &forged {
        let count =
            format!("SELECT count(*) FROM audit_events WHERE kind = 'access_token_refused' AND reason = '{reason}'");
        let before = app.number(&count).await;
        program.ask_with(token, Method::GET, ME).await.expect(401);
        assert_eq!(app.number(&count).await, before + 1, "{reason}");
        let page = program.ask_with(token, Method::GET, PEOPLE).await;
        assert!(page.location().starts_with("/sign-in"), "{}", page.body);
    }
    // Our own key says so, and still roles are those of the account.
    let mut own = signed_by_us(&app, &program);
    own.roles = vec!["admin".to_owned()];
    let token = resigned(&app, &own);
    let said = program.ask_with(&token, Method::GET, ME).await.expect(200);
    assert!(!said.body.contains("admin"), "{}", said.body);
    let denied = app.events("authz_fail").await;
    program.ask_with(&token, Method::GET, PEOPLE).await.expect(403);
    assert_eq!(app.events("authz_fail").await, denied + 1);
}

fn signed_by_us(app: &TestApp, program: &Program) -> AccessClaims {
    let verifier = Verifier {
        issuer: app.backend().issuer().to_owned(),
        audience: claims(&program.access)["aud"].as_str().expect("one").to_owned(),
        tolerance: std::time::Duration::from_secs(30),
        max_lifetime: std::time::Duration::from_hours(1),
    };
    verifier
        .verify_access(&*app.backend().keys(), &program.access, app.now())
        .expect("our own token")
}

fn resigned(app: &TestApp, claims: &AccessClaims) -> String {
    let token = sign_access(&app.backend().keys(), claims).expect("signed");
    token.expose_secret().to_owned()
}

#[tokio::test]
async fn f57_no_header_gives_a_role_or_a_name() {
    let app = TestApp::start("f57 headers").await;
    app.add_person("root", &["admin"], true).await;
    let Member { mut browser, .. } = Member::sign_in(&app, "max").await;
    let (_, program) = app.add_program("eva").await;
    let headers = [
        ("x-role", "admin"),
        ("x-roles", "admin"),
        ("x-user-role", "admin"),
        ("x-forwarded-user", "root"),
        ("x-forwarded-groups", "admin"),
        ("x-auth-request-groups", "admin"),
        ("remote-user", "root"),
        ("x-remote-user", "root"),
        ("x-original-url", "/"),
        ("x-rewrite-url", "/"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-admin", "1"),
    ];
    for (name, value) in headers {
        let denied = app.events("authz_fail").await;
        let page = browser
            .navigation(Method::GET, PEOPLE, "same-origin")
            .header(name, value)
            .body(Body::empty())
            .expect("a request");
        browser.send(page).await.expect(403);
        assert_eq!(app.events("authz_fail").await, denied + 1, "{name}");
        let me = program
            .request(Method::GET, ME)
            .header("authorization", format!("Bearer {}", program.access))
            .header(name, value)
            .body(Body::empty())
            .expect("a request");
        let said = program.app.send(program.peer, me).await.expect(200);
        assert!(
            said.body.contains("eva") && !said.body.contains("admin"),
            "{name}: {}",
            said.body
        );
        let nobody = Program::new(&app)
            .request(Method::GET, ME)
            .header(name, value)
            .body(Body::empty())
            .expect("a request");
        app.send(program.peer, nobody).await.expect(401);
    }
}

#[tokio::test]
async fn f57_a_services_token_opens_no_door_of_administrators() {
    let app = TestApp::start("f57 service").await;
    let service = Service::add(&app, "robot", "revocations").await;
    let token = service.token().await;
    let (person, program) = app.add_program("max").await;
    let state = app.state().await;
    let told = "SELECT count(*) FROM audit_events WHERE kind = 'authz_fail' AND reason = 'service_token'";
    let mut asked = 0;
    // No person is known by it, so the page leads to the sign-in page and the API says 401.
    for page in ["/admin", PEOPLE, "/admin/roles", "/admin/audit"] {
        let reply = program.ask_with(&token, Method::GET, page).await;
        assert!(reply.location().starts_with("/sign-in"), "{page}: {}", reply.body);
        asked += 1;
    }
    program.ask_with(&token, Method::GET, ME).await.expect(401);
    asked += 1;
    assert_eq!(app.number(told).await, asked, "each time it is written down");
    let id = person.id.to_string();
    for action in ["set_roles", "end_person_sessions", "disable_person"] {
        let bearer = format!("Bearer {token}");
        let fields = [("person_id", id.as_str()), ("roles[]", "admin"), ("reason", "mine")];
        let reply = post_form(
            &app,
            &format!("/actions/{action}"),
            &[("authorization", &bearer)],
            &fields,
        )
        .await;
        assert!(
            [401, 403].contains(&reply.status.as_u16()),
            "{action}: {} {}",
            reply.status,
            reply.body
        );
    }
    assert_eq!(app.state().await, state);
}

#[tokio::test]
async fn f57_nobody_passes_for_another_by_mixing_client_id_and_sub() {
    let app = TestApp::start("f57 names").await;
    let (alpha, beta) = (
        Service::add(&app, "alpha", "read").await,
        Service::add(&app, "beta", "read write").await,
    );
    let (_, max) = app.add_program("max").await;
    let (eva, _) = app.add_program("eva").await;
    // Signed by our own key, as no stranger can: each says something that we never say.
    let good = signed_by_us(&app, &max);
    let wrong = [
        (
            "other_person",
            AccessClaims {
                sub: eva.id,
                ..good.clone()
            },
        ),
        (
            "other_client",
            AccessClaims {
                client_id: alpha.client_id.clone(),
                ..good.clone()
            },
        ),
        (
            "other_client",
            AccessClaims {
                client_id: "mayfly-browser".to_owned(),
                ..good.clone()
            },
        ),
        (
            "other_client",
            AccessClaims {
                client_id: good.sub.to_string(),
                ..good.clone()
            },
        ),
    ];
    for (at, (reason, claims)) in wrong.iter().enumerate() {
        let reply = max.ask_with(&resigned(&app, claims), Method::GET, ME).await;
        assert_eq!(reply.status, 401, "{reason} {at}: {}", reply.body);
        let count = app.events("access_token_refused").await;
        assert_eq!(count, i64::try_from(at).expect("few") + 1, "{reason} is written down");
        let last =
            format!("SELECT count(*) FROM audit_events WHERE kind = 'access_token_refused' AND reason = '{reason}'");
        assert!(app.number(&last).await > 0);
    }
    max.ask_with(&resigned(&app, &good), Method::GET, ME).await.expect(200);

    // A client that claims to be another one, or a person.
    let own = Service::basic(&alpha.client_id, &alpha.secret);
    let person = max.session_id.clone();
    for claimed in [beta.client_id.as_str(), person.as_str(), "mayfly-native"] {
        let failed = app.events("client_authentication_failed").await;
        let fields = [("grant_type", "client_credentials"), ("client_id", claimed)];
        let reply = post_form(&app, "/oauth/token", &[("authorization", &own)], &fields).await;
        assert!([400, 401].contains(&reply.status.as_u16()), "{claimed}: {}", reply.body);
        let stolen = Service::basic(claimed, &alpha.secret);
        let reply = post_form(&app, "/oauth/token", &[("authorization", &stolen)], &fields[..1]).await;
        assert_eq!(reply.status, 401, "{claimed}: {}", reply.body);
        assert!(
            app.events("client_authentication_failed").await > failed,
            "{claimed} is written down"
        );
    }
    let fields = [("grant_type", "client_credentials"), ("scope", "write")];
    let reply = alpha.ask("/oauth/token", &fields).await;
    assert_eq!(
        reply.json()["error"],
        "invalid_scope",
        "nobody has what another one was granted: {}",
        reply.body
    );
}
