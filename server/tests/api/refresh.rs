//! The table of refresh outcomes, row by row, at the door.

use axum::http::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use server::domain::id::SessionId;
use server::domain::refresh::{SessionSecret, derive};
use server::storage::sessions;
use zeroize::Zeroizing;

use crate::access_tokens::claims;
use crate::app::{SeededRandom, TestApp, key_encryption_key};
use crate::browser::{ACCESS, Browser, REFRESH};
use crate::people::Person;
use crate::program::Program;
use crate::reply::Reply;
use crate::service::post_form;

async fn signed_in(name: &str) -> (TestApp, Person, Program) {
    let app = TestApp::start(name).await;
    let (person, program) = app.add_program("max").await;
    (app, person, program)
}

fn outcome(reply: &Reply) -> &str {
    reply
        .header("mayfly-refresh")
        .unwrap_or_else(|| panic!("the outcome is named: {} {}", reply.status, reply.body))
}

/// The refresh token of any generation of a session, as only somebody with all keys can make it.
async fn token_of(app: &TestApp, session: &str, generation: u64) -> String {
    let id: SessionId = session.parse().expect("an id");
    let mut tx = app.backend().store().read().await.expect("the database answers");
    let row = sessions::find_session(&mut tx, id)
        .await
        .expect("the database answers")
        .expect("it exists");
    let opened = key_encryption_key()
        .open("session", id.0.as_bytes(), &row.secret_sealed)
        .expect("our own seal");
    let secret = SessionSecret::from_slice(&opened).expect("32 bytes");
    derive(&app.backend().keys(), &secret, id, generation, row.rotated_at)
        .expose_secret()
        .to_owned()
}

#[tokio::test]
async fn r1_a_due_refresh_rotates() {
    let (app, _, mut program) = signed_in("r1 rotated").await;
    let first = program.clone();
    app.pass(10);
    let reply = program.renew().await.expect(200);
    assert_eq!(outcome(&reply), "rotated");
    let body = reply.json();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 900);
    assert_ne!(program.refresh, first.refresh);
    assert_eq!(program.refresh, token_of(&app, &program.session_id, 1).await);
    let (old, new) = (claims(&first.access), claims(&program.access));
    assert_eq!((&old["rg"], &new["rg"]), (&json!(0), &json!(1)));
    assert_eq!(old["sid"], new["sid"]);
    assert_ne!(old["jti"], new["jti"]);
    program.sessions().await.expect(200);
    assert_eq!(app.events("token_rotated").await, 1);
}

#[tokio::test]
async fn r1_a_refresh_right_after_the_last_gives_nothing_new() {
    let (app, _, mut program) = signed_in("r1 fresh").await;
    let before = app.state().await;
    app.pass(9);
    let reply = program.present(&program.refresh.clone()).await.expect(409);
    assert_eq!((outcome(&reply), reply.code().as_str()), ("fresh", "fresh"));
    assert!(!reply.body.contains("mfr_") && reply.cookies().is_empty());
    assert_eq!(app.state().await, before);
    app.pass(1);
    assert_eq!(outcome(&program.renew().await.expect(200)), "rotated", "to the second");
}

#[tokio::test]
async fn r1_a_lost_answer_is_given_again_byte_for_byte_however_late() {
    let (app, _, mut program) = signed_in("r1 reissued").await;
    let parent = program.refresh.clone();
    app.pass(60);
    program.renew().await.expect(200);
    let (child, exp) = (program.refresh.clone(), claims(&program.access)["exp"].clone());
    let last_active = app.number("SELECT max(last_active_at) AS at FROM sessions").await;
    for round in 0..5 {
        app.pass(if round == 4 { 600 } else { 10 });
        let reply = program.present(&parent).await.expect(200);
        assert_eq!(outcome(&reply), "reissued", "round {round}");
        let body = reply.json();
        assert_eq!(body["refresh_token"], child.as_str(), "the very same child");
        assert_eq!(
            claims(body["access_token"].as_str().expect("a token"))["exp"],
            exp,
            "no limit is extended"
        );
    }
    assert_eq!(
        app.number("SELECT max(last_active_at) AS at FROM sessions").await,
        last_active,
        "nothing slides"
    );
    assert_eq!(app.events("token_rotated").await, 1);
    assert_eq!(app.events("token_reissued").await, 5);
    // The sixth time nobody believes in lost answers any more, but it may be a tab that sent it at the same time.
    app.pass(59);
    assert_eq!(outcome(&program.present(&parent).await.expect(409)), "superseded");
    app.pass(1);
    let reply = program.present(&parent).await.expect(401);
    assert_eq!(
        (outcome(&reply), reply.json()["reason"].as_str()),
        ("reused", Some("token_reused"))
    );
}

#[tokio::test]
async fn r1_a_tab_that_lost_the_race_is_told_to_look_again() {
    let (app, _, mut program) = signed_in("r1 superseded").await;
    let parent = program.refresh.clone();
    app.pass(60);
    program.renew().await.expect(200);
    program.sessions().await.expect(200);
    let before = app.state().await;
    app.pass(59);
    let reply = program.present(&parent).await.expect(409);
    assert_eq!((outcome(&reply), reply.code().as_str()), ("superseded", "superseded"));
    assert!(reply.cookies().is_empty() && !reply.body.contains("mfr_"));
    assert_eq!(app.state().await, before, "nothing happened");
    program.sessions().await.expect(200);
}

#[tokio::test]
async fn r1_in_a_browser_the_race_ends_without_set_cookie_and_without_a_sign_in_page() {
    let app = TestApp::start("r1 tabs").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut first = Browser::new(&app);
    first.sign_in(&person).await;
    app.pass(60);
    let mut second = first.clone();
    assert_eq!(
        outcome(
            &first
                .fetch(axum::http::Method::POST, "/auth/refresh", &json!({}))
                .await
                .expect(200)
        ),
        "rotated"
    );
    first.get("/").await.expect(200);
    let reply = second
        .fetch(Method::POST, "/auth/refresh", &json!({}))
        .await
        .expect(409);
    assert_eq!(outcome(&reply), "superseded");
    assert!(reply.cookies().is_empty(), "{:?}", reply.cookies());
    // The old access token is still good for its time; when it is gone, the page asks again a few times, then shows
    // what may be shown, and never the sign-in page.
    second.jar.remove(ACCESS);
    let mut reply = second.get("/").await;
    for _ in 0..4 {
        assert!(
            reply
                .cookies()
                .iter()
                .all(|line| !line.starts_with(REFRESH) && !line.starts_with(ACCESS))
        );
        if reply.status == 200 {
            break;
        }
        assert_eq!(reply.location(), "/", "to the same path");
        reply = second.get("/").await;
    }
    assert!(reply.expect(200).page().contains("Your devices"));
    // With the cookies that the first tab got, everything is as before.
    second.jar = first.jar.clone();
    second.get("/").await.expect(200);
}

#[tokio::test]
async fn r1_a_token_that_was_used_before_ends_the_session() {
    let (app, person, mut program) = signed_in("r1 reused").await;
    let mut other = Program::signed_in(&app, &person).await;
    // As if remembering a device could be asked for already.
    app.execute("UPDATE devices SET trusted_until = 9999999999999").await;
    // Trusted devices of the sessions that live, and of those that have ended.
    let trusted = async || {
        let devices = "SELECT count(*) FROM devices d JOIN sessions s ON s.device_id = d.id \
                       WHERE d.trusted_until IS NOT NULL AND s.ended_at IS";
        let living = app.number(&format!("{devices} NULL")).await;
        (living, app.number(&format!("{devices} NOT NULL")).await)
    };
    assert_eq!(trusted().await, (2, 0));
    let stolen = program.refresh.clone();
    app.pass(60);
    program.renew().await.expect(200);
    program.sessions().await.expect(200);
    app.pass(60);
    let reply = program.present(&stolen).await.expect(401);
    assert_eq!(
        (outcome(&reply), reply.json()["reason"].as_str()),
        ("reused", Some("token_reused"))
    );
    let over = program.present(&program.refresh.clone()).await.expect(401);
    assert_eq!(
        (outcome(&over), over.json()["reason"].as_str()),
        ("over", Some("token_reused"))
    );
    program.sessions().await.expect(401);
    assert_eq!(
        trusted().await,
        (1, 0),
        "its device is trusted no longer, and no other one"
    );
    assert_eq!(app.events("authn_token_reuse").await, 1);
    let facts = app
        .rows("SELECT facts FROM audit_events WHERE kind = 'authn_token_reuse'")
        .await;
    let facts = facts[0][0].clone().expect("facts");
    assert!(
        facts.contains("presented_generation") && facts.contains("signed_in_user_agent"),
        "both sides: {facts}"
    );
    other.renew().await.expect(200);
    // A grandparent's token is a thief's, too, whatever was confirmed.
    app.pass(60);
    let grandparent = other.refresh.clone();
    other.renew().await.expect(200);
    app.pass(60);
    other.renew().await.expect(200);
    app.pass(60);
    assert_eq!(outcome(&other.present(&grandparent).await.expect(401)), "reused");
    assert_eq!(trusted().await, (0, 0));
}

#[tokio::test]
async fn r1_a_token_from_the_future_ends_the_session() {
    let (app, _, mut program) = signed_in("r1 ahead").await;
    app.pass(60);
    let reply = program
        .present(&token_of(&app, &program.session_id.clone(), 1).await)
        .await
        .expect(401);
    assert_eq!(
        (outcome(&reply), reply.json()["reason"].as_str()),
        ("ahead", Some("database_rolled_back"))
    );
    program.renew().await.expect(401);
    program.sessions().await.expect(401);
    assert_eq!(app.events("database_rolled_back").await, 1);
}

#[tokio::test]
async fn r1_what_is_no_token_is_refused_without_a_look_at_the_database() {
    let (app, _, mut program) = signed_in("r1 malformed").await;
    let good = program.refresh.clone();
    let bytes = data_encoding::BASE64URL_NOPAD
        .decode(&good.as_bytes()[4..])
        .expect("base64url");
    let with = |position: usize, value: u8| {
        let mut other = bytes.clone();
        other[position] = value;
        format!("mfr_{}", data_encoding::BASE64URL_NOPAD.encode(&other))
    };
    // Right in form, version and key id, but with another outer tag, or not what it was made for.
    let mistagged =
        (2..bytes.len()).flat_map(|position| [0x01_u8, 0x80].map(|bit| with(position, bytes[position] ^ bit)));
    let malformed = [
        String::new(),
        "mfr_".to_owned(),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        good.replacen("mfr_", "MFR_", 1),
        good.replacen("mfr_", "", 1),
        with(0, 0),
        with(0, 2),
        with(1, 0),
        with(1, 255),
        program.access.clone(),
        "x".repeat(10_000),
        "🦋".repeat(20),
    ];
    // A closed database answers nobody: whoever is refused all the same was refused without it.
    app.backend().store().close().await;
    // Of a key that may have been made a moment ago: `j12_a_key_set_that_may_be_out_of_date…`.
    let unknown_key = |token: &String| *token == with(1, 0) || *token == with(1, 255);
    for token in malformed
        .into_iter()
        .filter(|token| !unknown_key(token))
        .chain(mistagged)
    {
        app.pass(60);
        let reply = program.present(&token).await;
        assert_eq!(reply.status, 400, "{token:?}: {}", reply.body);
        assert_eq!(reply.code(), "invalid_grant", "{token:?}");
    }
    program.present(&good).await.expect(503);
}

#[tokio::test]
async fn r1_a_forged_inner_tag_is_refused_and_recorded() {
    let (app, _, mut program) = signed_in("r1 forged").await;
    let before = app.state().await;
    let id: SessionId = program.session_id.parse().expect("an id");
    let keys = app.backend().keys();
    // Somebody with the edge key alone, and with the edge key of a session that never was.
    let forged = derive(&keys, &SessionSecret::new(Zeroizing::new([7; 32])), id, 0, app.now());
    let unknown = SessionId::new(app.now(), &SeededRandom::new("nobody's session"));
    let of_nobody = derive(
        &keys,
        &SessionSecret::new(Zeroizing::new([7; 32])),
        unknown,
        0,
        app.now(),
    );
    app.pass(60);
    for token in [forged, of_nobody] {
        let reply = program.present(token.expose_secret()).await.expect(400);
        assert_eq!((outcome(&reply), reply.code().as_str()), ("forged", "invalid_grant"));
    }
    assert_eq!(app.state().await, before);
    let refused = "SELECT outcome, reason FROM audit_events WHERE kind = 'refresh_refused' ORDER BY reason";
    let event = |reason: &str| vec![Some("denied".to_owned()), Some(reason.to_owned())];
    assert_eq!(app.rows(refused).await, [event("forged"), event("unknown_session")]);
    program.renew().await.expect(200);
}

#[tokio::test]
async fn r1_a_session_that_is_over_says_why() {
    let (app, person, mut program) = signed_in("r1 over").await;
    let other = Program::signed_in(&app, &person).await;
    other.end(&program.session_id).await.expect(200);
    app.pass(60);
    for _ in 0..2 {
        let reply = program.renew().await.expect(401);
        assert_eq!(
            (outcome(&reply), reply.json()["reason"].as_str()),
            ("over", Some("ended_by_user"))
        );
        let title = format!("{} {}", reply.json()["title"], reply.json()["detail"]);
        assert!(
            title.len() > 20 && !title.contains("ended_by_user"),
            "in plain words: {title}"
        );
    }
}

#[tokio::test]
async fn r1_a_dead_token_is_written_down_once_a_minute_however_often_it_is_shown() {
    let (app, person, mut program) = signed_in("r1 dead").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    let others = Program::signed_in(&app, &person).await;
    others.end(&program.session_id).await.expect(200);
    let dead = browser.clone();
    browser.submit("sign_out", &[]).await.expect(303);
    let uses = async || app.events("session_use_after_expire").await;
    for minute in 1..=3 {
        for _ in 0..20 {
            program.renew().await.expect(401);
            program.sessions().await.expect(401);
            let reply = dead.clone().fetch_empty(Method::GET, "/api/v1/me/sessions").await;
            reply.expect(401);
        }
        assert_eq!(uses().await, 2 * minute, "of each session once");
        app.pass(59);
        program.renew().await.expect(401);
        assert_eq!(uses().await, 2 * minute);
        app.pass(1);
    }
    // What is refused for another reason is another thing.
    let mut jar = Browser::new(&app);
    jar.jar.insert(REFRESH.to_owned(), others.refresh.clone());
    for _ in 0..20 {
        jar.clone()
            .fetch_empty(Method::GET, "/api/v1/me/sessions")
            .await
            .expect(401);
    }
    assert_eq!(app.events("refresh_refused").await, 1);
}

#[tokio::test]
async fn r3_a_browsers_token_is_no_programs_token_and_the_other_way_round() {
    let (app, person, mut program) = signed_in("r1 client").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    app.pass(60);
    let before = app.state().await;
    let reply = program.present(&browser.cookie(REFRESH)).await.expect(400);
    assert_eq!(reply.code(), "invalid_grant");
    let mut jar = Browser::new(&app);
    jar.jar.insert(REFRESH.to_owned(), program.refresh.clone());
    let reply = jar.fetch(Method::POST, "/auth/refresh", &json!({})).await.expect(400);
    assert_eq!(reply.code(), "invalid_grant");
    assert_eq!(app.state().await, before, "nothing was used up");
    let reply = browser
        .fetch(Method::POST, "/auth/refresh", &json!({}))
        .await
        .expect(200);
    assert_eq!(reply.json(), json!({}), "a browser gets its tokens as cookies only");
    assert_eq!(reply.cookies().len(), 2);
    let reply = program.renew().await.expect(200);
    assert!(reply.cookies().is_empty(), "a program gets its tokens in the body only");
}

#[tokio::test]
async fn r2_every_flipped_bit_makes_a_token_worthless() {
    let (app, _, mut program) = signed_in("r2").await;
    app.pass(60);
    let good = program.refresh.clone();
    let bytes = data_encoding::BASE64URL_NOPAD
        .decode(&good.as_bytes()[4..])
        .expect("base64url");
    assert_eq!(bytes.len(), 58);
    let before = app.state().await;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let token = format!("mfr_{}", data_encoding::BASE64URL_NOPAD.encode(&flipped));
        let reply = program.present(&token).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (400, "invalid_grant"),
            "bit {bit}"
        );
    }
    assert_eq!(app.state().await, before);
    assert_eq!(app.events("refresh_refused").await, 0, "strangers write nothing");
    program.renew().await.expect(200);
}

#[tokio::test]
async fn r5_signing_out_and_a_new_password_end_refresh_tokens() {
    let (app, person, mut program) = signed_in("r5").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    browser.open("/security").await.expect(200);
    let fields = [
        ("current_password", person.password.as_str()),
        ("new_password", "another quiet evening in May"),
    ];
    browser.submit_and_follow("change_password", &fields).await.expect(200);
    app.pass(60);
    assert_eq!(program.renew().await.expect(401).json()["reason"], "password_changed");
    let jar = browser.clone();
    browser.open("/").await.expect(200);
    browser.submit("sign_out", &[]).await.expect(303);
    let mut late = jar;
    let reply = late.fetch(Method::POST, "/auth/refresh", &json!({})).await.expect(401);
    assert_eq!(reply.json()["reason"], "signed_out");
}

#[tokio::test]
async fn r8_there_is_no_password_grant() {
    let (app, person, mut program) = signed_in("r8").await;
    for body in [
        json!({"grant_type": "password", "username": person.username, "password": person.password}),
        json!({"grant_type": "refresh_token", "refresh_token": program.refresh}),
    ] {
        program.post("/auth/refresh", &body).await.expect(400);
    }
    let form = [
        ("grant_type", "password"),
        ("username", &person.username),
        ("password", &person.password),
    ];
    let refused = post_form(&app, "/oauth/token", &[], &form).await.expect(400);
    assert_eq!(refused.code(), "unsupported_grant_type");
    for path in ["/token", "/auth/token"] {
        assert_eq!(
            program.post(path, &json!({"grant_type": "password"})).await.status,
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn r4_a_refresh_token_that_lay_idle_is_over() {
    let (app, _, mut program) = signed_in("r4").await;
    // A member's idle limit is a week.
    app.pass(7 * 24 * 3600 - 1);
    program.renew().await.expect(200);
    app.pass(7 * 24 * 3600);
    assert_eq!(program.renew().await.expect(401).json()["reason"], "idle");
}

#[tokio::test]
async fn r14_answers_with_tokens_are_never_stored_and_errors_are_general() {
    let (app, person, mut program) = signed_in("r14").await;
    app.pass(60);
    let good = program.renew().await.expect(200);
    let login = json!({"identifier": person.username, "password": person.password});
    let signed_in = Program::new(&app).post("/auth/login", &login).await.expect(200);
    let forged = program.present("mfr_x").await.expect(400);
    for reply in [&good, &signed_in, &forged] {
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    assert_eq!(forged.json()["title"], "Not a refresh token of this server.");
}
