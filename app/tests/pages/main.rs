//! Every page, rendered by the server's own route list with fixed data: words, structure, guards, forms.
//!
//! With `MAYFLY_RENDER_DIR` set, each page is also written there with its style, to be looked at.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod answer;
mod data;
mod fakes;
mod forms;

use answer::{Answer, is_well_made};
use app::error::{ActionError, Field, PageError, Problem};
use app::types::{Assets, Notice, PageContext, Viewer};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use data::NOW;
use fakes::{Scene, services};
use leptos::prelude::*;
use leptos::server_fn::error::ServerFnUrlError;
use leptos_axum::{LeptosRoutes, generate_route_list, handle_server_fns_with_context, render_app_async_with_context};
use tower::ServiceExt;

const TOKEN: &str = "form-token-of-this-test";

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anonymous,
    Member,
    Auditor,
    Admin,
}

fn viewer(who: Who) -> Option<Viewer> {
    (who != Who::Anonymous).then(|| Viewer {
        user_id: "p-1".to_owned(),
        username: "ada".to_owned(),
        display_name: "Ada Lovelace".to_owned(),
        roles: vec![],
        is_admin: who == Who::Admin,
        may_read_audit: matches!(who, Who::Admin | Who::Auditor),
        session_id: "s-1".to_owned(),
        idle_limit_s: 900,
        idle_warning_s: 120,
        absolute_end_at: NOW + 3_600_000,
    })
}

async fn send(request: Request<Body>, who: Who, scene: Scene, notice: Option<Notice>) -> Answer {
    let context = move || {
        provide_context(PageContext {
            now: NOW,
            request_id: "r-42".to_owned(),
            form_token: TOKEN.to_owned(),
            assets: Assets {
                style: "/pkg/main.css".to_owned(),
                islands: Some("islands".to_owned()),
            },
            theme: None,
            notice,
        });
        provide_context(viewer(who));
        provide_context(services(scene));
    };
    let options = LeptosOptions::builder().output_name("islands").build();
    let actions = axum::routing::post(move |request| handle_server_fns_with_context(context, request));
    let router: Router = Router::new()
        .route("/actions/{name}", actions)
        .leptos_routes_with_context(&options, generate_route_list(app::App), context, app::shell)
        .fallback(render_app_async_with_context(context, app::shell))
        .with_state(options);
    let response = router.oneshot(request).await.expect("the router cannot fail");
    let location = response
        .headers()
        .get(header::LOCATION)
        .map(|value| value.to_str().unwrap().to_owned());
    let status = response.status();
    let body = to_bytes(response.into_body(), 10_000_000).await.unwrap();
    Answer {
        status,
        location,
        html: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(path: &str, who: Who, scene: Scene) -> Answer {
    let answer = send(Request::get(path).body(Body::empty()).unwrap(), who, scene, None).await;
    keep(path, who, scene, &answer);
    answer
}

/// The address a form's error leads back to.
fn failed(page: &str, action: &str, error: ActionError) -> String {
    let url = ServerFnUrlError::new(format!("/actions/{action}"), error)
        .to_url(&format!("http://localhost{page}"))
        .unwrap();
    url.as_str().trim_start_matches("http://localhost").to_owned()
}

/// Writes the page with its style, so that people can look at it.
fn keep(path: &str, who: Who, scene: Scene, answer: &Answer) {
    let Ok(folder) = std::env::var("MAYFLY_RENDER_DIR") else {
        return;
    };
    if answer.location.is_some() {
        return;
    }
    let style: String = ["tokens.css", "main.css"]
        .map(|file| std::fs::read_to_string(format!("{}/../style/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap())
        .concat();
    let html = answer
        .html
        .replace("</head>", &format!("<style>{style}</style></head>"));
    let name: String = format!("{path}_{who:?}_{scene:?}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(110)
        .collect();
    std::fs::write(format!("{folder}/{}.html", name.trim_matches('-')), html).unwrap();
}

const ANYONE: [&str; 7] = [
    "/sign-in",
    "/sign-in/code",
    "/sign-in/code?with=recovery",
    "/sign-in/enrol",
    "/recovery-codes",
    "/welcome",
    "/nowhere",
];
const SIGNED_IN: [&str; 8] = [
    "/",
    "/devices/end?session=s-1",
    "/devices/end-others",
    "/security",
    "/security/authenticator",
    "/security/remove-authenticator",
    "/step-up?return_to=/security",
    "/step-up?return_to=/security&with=recovery",
];
const ADMIN: [&str; 11] = [
    "/admin/roles",
    "/admin/roles/finance",
    "/admin/roles/finance?preset=banking",
    PREVIEW,
    "/admin/people",
    "/admin/people?search=zz",
    "/admin/people/new",
    "/admin/people/p-2",
    "/admin/people/p-2/disable",
    "/admin/people/p-2/end-sessions",
    "/admin/people/p-2/end-sessions?session=s-2",
];
const AUDITOR: [&str; 3] = [
    "/admin/audit",
    "/admin/audit?person=ada&outcome=denied&cursor=c-1",
    "/admin/audit/a-1",
];
const PREVIEW: &str = "/admin/roles/finance?access_minutes=5&idle_minutes=5&absolute_hours=12&absolute_minutes=0&idle_warning_seconds=120&remember_device_days=0&mfa=required&step_up_minutes=10&max_sessions=5";

#[tokio::test]
async fn every_page_is_well_made_in_every_scene() {
    let groups: [(&[&str], Who); 4] = [
        (&ANYONE, Who::Anonymous),
        (&SIGNED_IN, Who::Member),
        (&ADMIN, Who::Admin),
        (&AUDITOR, Who::Auditor),
    ];
    for (paths, who) in groups {
        for path in paths {
            for scene in [Scene::Full, Scene::Empty] {
                let answer = get(path, who, scene).await;
                if answer.status != StatusCode::SEE_OTHER {
                    is_well_made(path, &answer);
                }
            }
            let answer = get(path, who, Scene::Refused(PageError::Unavailable)).await;
            if *path != "/nowhere" {
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
                answer.says("r-42");
            }
            is_well_made(path, &answer);
        }
    }
}

#[tokio::test]
async fn guards_stand_before_every_page() {
    for path in SIGNED_IN.iter().chain(&ADMIN).chain(&AUDITOR) {
        let answer = get(path, Who::Anonymous, Scene::Full).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert!(answer.location.as_deref().unwrap().starts_with("/sign-in"), "{path}");
        answer.lacks("<h1");
    }
    for path in ADMIN.iter().chain(&AUDITOR) {
        let answer = get(path, Who::Member, Scene::Full).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        is_well_made(path, &answer);
    }
    for path in ADMIN {
        assert_eq!(
            get(path, Who::Auditor, Scene::Full).await.status,
            StatusCode::FORBIDDEN,
            "{path}"
        );
    }
    for path in AUDITOR {
        assert_eq!(
            get(path, Who::Admin, Scene::Full).await.status,
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn page_errors_have_their_status() {
    for (error, status) in [
        (PageError::Forbidden, StatusCode::FORBIDDEN),
        (PageError::NotFound, StatusCode::NOT_FOUND),
        (PageError::BadQuery, StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(
            get("/admin/audit", Who::Auditor, Scene::Refused(error)).await.status,
            status
        );
    }
    let answer = get(
        "/security/authenticator",
        Who::Member,
        Scene::Refused(PageError::StepUpRequired),
    )
    .await;
    assert_eq!(
        answer.location.as_deref(),
        Some("/step-up?return_to=/security/authenticator")
    );
    let answer = get(
        "/admin/people/p-2?x=1",
        Who::Admin,
        Scene::Refused(PageError::NotSignedIn),
    )
    .await;
    assert_eq!(
        answer.location.as_deref(),
        Some("/sign-in?return_to=/admin/people/p-2%3Fx%3D1")
    );
    assert_eq!(
        get("/nowhere", Who::Member, Scene::Full).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get("/devices/end?session=other", Who::Member, Scene::Full).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn the_admin_console_opens_where_the_roles_allow() {
    assert_eq!(
        get("/admin", Who::Admin, Scene::Full).await.location.as_deref(),
        Some("/admin/roles")
    );
    assert_eq!(
        get("/admin", Who::Auditor, Scene::Full).await.location.as_deref(),
        Some("/admin/audit")
    );
    assert_eq!(
        get("/admin", Who::Member, Scene::Full).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn sign_in_says_why() {
    let answer = get("/sign-in?return_to=/security", Who::Anonymous, Scene::Full).await;
    answer
        .says("You were signed out because this sign-in was idle for 15 minutes (rule for role finance).")
        .has("name=\"return_to\" value=\"/security\"")
        .has("autocomplete=\"current-password\"");
    get("/sign-in", Who::Anonymous, Scene::Empty)
        .await
        .says("This server has no account yet");
    let answer = get("/sign-in?return_to=/security", Who::Member, Scene::Full).await;
    assert_eq!(answer.location.as_deref(), Some("/security"));
    let answer = get("/sign-in?return_to=//evil.example", Who::Member, Scene::Full).await;
    assert_eq!(answer.location.as_deref(), Some("/"));
}

#[tokio::test]
async fn steps_of_a_sign_in_follow_its_flow() {
    assert_eq!(
        get("/sign-in/code", Who::Anonymous, Scene::Empty)
            .await
            .location
            .as_deref(),
        Some("/sign-in")
    );
    let answer = get("/sign-in/code", Who::Anonymous, Scene::Full).await;
    answer
        .says("Signing in as ada")
        .has("autocomplete=\"one-time-code\"")
        .has("inputmode=\"numeric\"");
}

#[tokio::test]
async fn no_page_for_end_users_says_token() {
    for path in ANYONE.iter().chain(&SIGNED_IN) {
        for scene in [Scene::Full, Scene::Empty] {
            let answer = get(path, Who::Member, scene).await;
            let body = answer.html.split("<body>").nth(1).unwrap_or_default().to_owned();
            let text = Answer { html: body, ..answer }.text().to_lowercase();
            assert!(!text.contains("token"), "{path}: {text}");
        }
    }
}

#[tokio::test]
async fn devices_show_this_one_first_and_every_limit_with_its_rule() {
    let answer = get("/", Who::Member, Scene::Full).await;
    answer
        .says("Firefox on Windows")
        .says("This device")
        .says("End 3 other sessions")
        .says("Signs out after 15 minutes without activity (role finance, policy 7), at the latest 7 days after sign-in (role staff, policy 2).")
        .says("The session was ended.")
        .says("Idle for 15 minutes (rule for role finance)")
        .has("href=\"/devices/end?session=s-2\"")
        .has("title=\"12 March 2026, 10:39 UTC\"");
    let text = answer.text();
    assert!(text.find("Firefox on Windows") < text.find("Safari on iPhone"));
    get("/", Who::Member, Scene::Empty)
        .await
        .says("You are not signed in anywhere else.")
        .lacks("/devices/end-others");
}

#[tokio::test]
async fn endings_list_what_they_end() {
    get("/devices/end-others", Who::Member, Scene::Full)
        .await
        .says("3 devices will be signed out")
        .says("Safari on iPhone")
        .says("Backup program");
    let answer = get("/admin/people/p-2/end-sessions", Who::Admin, Scene::Full).await;
    answer
        .says("End 4 sessions of Grace Hopper?")
        .says("Chrome on Android")
        .has("action=\"/actions/end_person_sessions\"");
    let answer = get("/admin/people/p-2/end-sessions?session=s-2", Who::Admin, Scene::Full).await;
    answer
        .says("Safari on iPhone")
        .lacks("Chrome on Android")
        .has("action=\"/actions/end_person_session\"");
}

#[tokio::test]
async fn errors_of_a_form_stand_at_its_field_and_are_announced() {
    let error = ActionError::Invalid {
        field: Field::Password,
        problem: Problem::TooShort { min: 12 },
    };
    let answer = get(&failed("/security", "change_password", error), Who::Member, Scene::Full).await;
    answer
        .has("role=\"alert\"")
        .has("aria-describedby=\"new_password-hint new_password-problem\"")
        .says("Password: use at least 12 characters.")
        .has("<title>Error: Security");
    let answer = get(
        &failed("/sign-in", "sign_in", ActionError::WrongCredentials),
        Who::Anonymous,
        Scene::Full,
    )
    .await;
    answer.says("The name or the password is not right.");
    let answer = get(
        &failed("/sign-in/code", "verify_code", ActionError::WrongCode),
        Who::Anonymous,
        Scene::Full,
    )
    .await;
    answer
        .has("aria-invalid=\"true\"")
        .has("aria-describedby=\"code-hint code-problem\"");
    let wait = ActionError::TooManyTries { wait_s: 90 };
    get(&failed("/sign-in", "sign_in", wait), Who::Anonymous, Scene::Full)
        .await
        .says("Please wait 1 minute 30 seconds");
    for hostile in [
        "/sign-in?__path=/actions/sign_in&__err=%3Cscript%3E",
        "/sign-in?__path=x&__err=",
        "/sign-in?__err=bm90aGluZw==",
    ] {
        let answer = get(hostile, Who::Anonymous, Scene::Full).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.lacks("<script>");
    }
}

#[tokio::test]
async fn a_notice_of_the_request_is_shown_where_the_page_has_none() {
    let request = Request::get("/sign-in").body(Body::empty()).unwrap();
    send(request, Who::Anonymous, Scene::Empty, Some(Notice::FormExpired))
        .await
        .says("Please try again.")
        .has("role=\"status\"");
}

#[tokio::test]
async fn a_policy_is_previewed_before_it_is_saved() {
    let answer = get("/admin/roles/finance", Who::Admin, Scene::Full).await;
    answer
        .lacks("/actions/save_policy")
        .has("value=\"15\"")
        .has("?preset=banking");
    get("/admin/roles/finance?preset=banking", Who::Admin, Scene::Full)
        .await
        .has("aria-current=\"true\"");
    let answer = get(PREVIEW, Who::Admin, Scene::Full).await;
    answer
        .says("Ends 412 sessions of 37 people at the next use.")
        .says("12 people must set up a second factor")
        .says("15 minutes")
        .says("5 minutes")
        .has("action=\"/actions/save_policy\"")
        .has("name=\"based_on\" value=\"7\"")
        .lacks("Justification");
    let long = PREVIEW.replace("absolute_hours=12", "absolute_hours=48");
    get(&long, Who::Admin, Scene::Full)
        .await
        .says("NIST SP 800-63B-4")
        .has("<label for=\"justification\"");
    let crossed = PREVIEW.replace("idle_minutes=5", "idle_minutes=9999");
    let answer = get(&crossed, Who::Admin, Scene::Full).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    answer
        .says("Idle limit: must not be longer than the absolute limit.")
        .has("idle_minutes-problem")
        .lacks("/actions/save_policy");
    let nonsense = PREVIEW.replace("idle_minutes=5", "idle_minutes=soon");
    let answer = get(&nonsense, Who::Admin, Scene::Full).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    answer
        .has("value=\"soon\"")
        .has("idle_minutes-problem")
        .lacks("/actions/save_policy");
    let unknown = get("/admin/roles/finance?preset=zzz", Who::Admin, Scene::Full).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
    let same = PREVIEW.replace("idle_minutes=5", "idle_minutes=15");
    get(&same, Who::Admin, Scene::Full)
        .await
        .says("there is nothing to save");
}

#[tokio::test]
async fn the_log_keeps_its_filter_and_offers_jumps() {
    let answer = get("/admin/audit?person=ada&outcome=denied", Who::Auditor, Scene::Full).await;
    answer
        .has("/admin/audit?person=ada&amp;outcome=denied&amp;cursor=c-2")
        .says("2026-03-12 09:42:05")
        .says("Session revoked")
        .has("<option value=\"denied\" selected");
    let answer = get("/admin/audit/a-1", Who::Auditor, Scene::Full).await;
    answer
        .has("/admin/audit?session=0198b2f4")
        .has("/admin/audit?person=ada")
        .lacks("/admin/people/p-1")
        .says("Idle limit");
    get("/admin/audit/a-1", Who::Admin, Scene::Full)
        .await
        .has("/admin/people/p-1");
    get("/admin/audit", Who::Auditor, Scene::Empty)
        .await
        .says("No event matches this filter.");
}
