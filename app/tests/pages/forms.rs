//! What the forms are answered with.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};

use crate::answer::Answer;
use crate::fakes::Scene;
use crate::{PREVIEW, TOKEN, Who, get, send};

/// A form as a page sends it, from `page`.
async fn post(action: &str, page: &str, fields: &str, scene: Scene) -> Answer {
    let request = Request::post(format!("/actions/{action}"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "text/html")
        .header(header::REFERER, format!("http://localhost:3000{page}"))
        .body(Body::from(format!("form_token={TOKEN}&{fields}")))
        .unwrap();
    send(request, Who::Admin, scene, None).await
}

#[tokio::test]
async fn forms_are_answered_with_303_to_a_path_of_our_own() {
    let answer = post(
        "sign_in",
        "/sign-in",
        "identifier=ada&password=right&return_to=/security",
        Scene::Full,
    )
    .await;
    assert_eq!(
        (answer.status, answer.location.as_deref()),
        (StatusCode::SEE_OTHER, Some("/security"))
    );
    for hostile in [
        "https://evil.example",
        "//evil.example",
        "/%0d%0aset-cookie:x=y",
        "/\\evil.example",
    ] {
        let fields = format!("identifier=ada&password=right&return_to={hostile}");
        let answer = post("sign_in", "/sign-in", &fields, Scene::Full).await;
        assert_eq!(answer.location.as_deref(), Some("/"), "{hostile}");
    }
    let answer = post("end_other_sessions", "/devices/end-others", "", Scene::Full).await;
    assert_eq!(
        answer.location.as_deref(),
        Some("/step-up?return_to=/devices/end-others")
    );
}

#[tokio::test]
async fn a_refused_form_comes_back_with_its_error() {
    let answer = post(
        "sign_in",
        "/sign-in?return_to=%2F",
        "identifier=ada&password=wrong&return_to=/",
        Scene::Full,
    )
    .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let location = answer.location.unwrap();
    assert!(
        location.contains("__path=") && location.contains("__err=") && !location.contains("wrong"),
        "{location}"
    );
    let path = location.trim_start_matches("http://localhost:3000");
    get(path, Who::Anonymous, Scene::Empty)
        .await
        .says("The name or the password is not right.");
}

#[tokio::test]
async fn lists_and_policies_survive_their_form() {
    let answer = post(
        "invite_person",
        "/admin/people/new",
        "username=a&email=b&display_name=c&roles%5B%5D=staff&roles%5B%5D=finance",
        Scene::Full,
    )
    .await;
    assert_eq!(answer.location.as_deref(), Some("/admin/people/p-staff-finance"));
    let answer = post("set_roles", "/admin/people/p-2", "person_id=p-2", Scene::Full).await;
    assert_eq!(answer.location.as_deref(), Some("/admin/people/p-0"));
    let fields = format!(
        "role=finance&based_on=7&reason=test&justification=&{}",
        PREVIEW.split_once('?').unwrap().1
    );
    let answer = post("save_policy", PREVIEW, &fields, Scene::Full).await;
    assert_eq!(answer.location.as_deref(), Some("/admin/roles/finance"));
    let answer = post(
        "save_policy",
        PREVIEW,
        &fields.replace("idle_minutes=5", "idle_minutes="),
        Scene::Full,
    )
    .await;
    let path = answer
        .location
        .unwrap()
        .trim_start_matches("http://localhost:3000")
        .to_owned();
    get(&path, Who::Admin, Scene::Full)
        .await
        .says("Idle limit: please fill this in.");
}

#[tokio::test]
async fn staying_signed_in_answers_scripts_with_a_status() {
    for (scene, status) in [(Scene::Full, StatusCode::OK), (Scene::Empty, StatusCode::UNAUTHORIZED)] {
        let request = Request::post("/actions/stay_signed_in")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Body::from(format!("form_token={TOKEN}")))
            .unwrap();
        assert_eq!(send(request, Who::Member, scene, None).await.status, status);
    }
}

#[tokio::test]
async fn every_action_is_registered_under_one_prefix_and_posts() {
    let mut actions: Vec<_> = app::action_paths();
    actions.sort_by_key(|(path, _)| *path);
    assert!(
        actions
            .iter()
            .all(|(path, method)| path.starts_with("/actions/") && method == Method::POST),
        "{actions:?}"
    );
    let names: Vec<_> = actions
        .iter()
        .map(|(path, _)| path.trim_start_matches("/actions/"))
        .collect();
    let expected = [
        "accept_invitation",
        "acknowledge_recovery_codes",
        "change_password",
        "confirm_authenticator",
        "confirm_sign_in_enrolment",
        "disable_person",
        "enable_person",
        "end_other_sessions",
        "end_person_session",
        "end_person_sessions",
        "end_session",
        "invite_person",
        "invite_person_again",
        "remove_authenticator",
        "renew_recovery_codes",
        "save_policy",
        "set_roles",
        "sign_in",
        "sign_out",
        "stay_signed_in",
        "step_up",
        "verify_code",
    ];
    assert_eq!(names, expected);
}
