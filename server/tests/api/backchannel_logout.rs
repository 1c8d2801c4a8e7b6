//! Services that are told when a session ends (R16): what they are told of, by whom, and where.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use server::domain::client::ClientId;
use server::domain::id::SessionId;
use server::services::backchannel_logout::TellOutcome;

use crate::app::{ORIGIN, TestApp};
use crate::browser::Browser;
use crate::node::{Node, Remote, Shop, http};
use crate::people::{Admin, Member};
use crate::program::Program;
use crate::security_events::opened;
use crate::service::logout_token;
use crate::told::{Manner, Told, end_one, receivers, short, tell};

#[tokio::test]
async fn r16_the_end_of_a_session_is_told_as_the_standard_says() {
    let app = TestApp::start("r16 standard").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    assert!(
        matches!(shop.turn().await, TellOutcome::Nothing(_)),
        "sign-ins are not told"
    );
    let ended = end_one(&app, &person, &owner).await;
    assert_eq!(Told::told(shop.turn().await), 1);

    let heard = shop.heard();
    let [arrived] = &heard[..] else { panic!("{heard:?}") };
    for name in ["authorization", "cookie", "referer", "origin"] {
        assert!(!arrived.headers.contains_key(name), "{name}");
    }
    let token = arrived.token();
    // The published key of that name made the signature.
    let (header, claims) = opened(&app, &token).await;
    assert_eq!(header["typ"], "logout+jwt");
    assert_eq!(header.as_object().map(serde_json::Map::len), Some(3), "{header}");
    let now = app.now().as_seconds();
    let expected = json!({
        "iss": ORIGIN, "aud": shop.id.as_str(), "iat": now, "exp": now + 120, "jti": claims["jti"],
        "sub": person.id.to_string(), "sid": ended,
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    assert_eq!(claims, expected);
    assert!(matches!(shop.turn().await, TellOutcome::Nothing(_)), "once");
    assert!(shop.heard().is_empty());
    let metadata = Browser::new(&app)
        .get("/.well-known/oauth-authorization-server")
        .await
        .expect(200)
        .json();
    assert_eq!(metadata["backchannel_logout_supported"], true);
    assert_eq!(metadata["backchannel_logout_session_supported"], true);
}

#[tokio::test]
async fn r16_every_way_in_which_a_session_ends_is_told() {
    let app = TestApp::start("r16 ways").await;
    let shop = Told::begin(&app, "shop").await;
    let mut expected = Vec::new();
    // Out by oneself, and by a new password.
    let Member { person, mut browser } = Member::sign_in(&app, "ann").await;
    let other = Program::signed_in(&app, &person).await;
    browser.open("/security").await.expect(200);
    let fields = [
        ("current_password", person.password.as_str()),
        ("new_password", "another quiet evening in May"),
    ];
    browser.submit_and_follow("change_password", &fields).await.expect(200);
    expected.push(short(&other.session_id));
    browser.open("/").await.expect(200);
    browser.submit_and_follow("sign_out", &[]).await.expect(200);
    // A thief.
    let (_, mut robbed) = app.add_program("bob").await;
    let stolen = robbed.refresh.clone();
    for _ in 0..2 {
        app.pass(60);
        robbed.renew().await.expect(200);
        robbed.sessions().await.expect(200);
    }
    app.pass(61);
    assert_ne!(robbed.present(&stolen).await.status, 200);
    expected.push(short(&robbed.session_id));
    // An administrator, by disabling the account.
    let (dora, disabled) = app.add_program("dora").await;
    let mut admin = Admin::sign_in(&app).await;
    admin.disable(&dora).await;
    expected.push(short(&disabled.session_id));
    // Time, without anybody looking.
    let (_, idle) = app.add_program("eve").await;
    app.pass(400 * 24 * 3600);
    app.backend().sweep_expired().await.expect("swept");
    expected.push(short(&idle.session_id));

    while matches!(shop.turn().await, TellOutcome::Told(_)) {}
    let heard = shop.sessions();
    for session in &expected {
        assert_eq!(
            heard.iter().filter(|told| *told == session).count(),
            1,
            "{session} in {heard:?}"
        );
    }
    // Whatever the log calls the end of a session, and nothing else.
    let ends = app
        .number("SELECT COUNT(*) FROM sessions WHERE ended_at IS NOT NULL")
        .await;
    assert_eq!(i64::try_from(heard.len()).expect("few"), ends, "{heard:?}");
}

#[tokio::test]
async fn r16_a_service_that_moves_is_told_at_its_new_address_what_it_missed() {
    let app = TestApp::start("r16 moves").await;
    let (old, new) = (Told::begin(&app, "old").await, Told::begin(&app, "new").await);
    let (person, owner) = app.add_program("ann").await;
    let ended = end_one(&app, &person, &owner).await;
    old.will_answer([Manner::Status(404)]);
    assert!(matches!(old.turn().await, TellOutcome::Away));
    old.heard();
    let id = old.id.as_str();
    let uri = new.receiver().await.uri.as_str().to_owned();
    for (arguments, error) in [
        ([id, "http://shop.example.com/"], "https://host/path"),
        (["svc-unknown", &uri], "no client id"),
        (["svc-AAAAAAAAAAAAAAAAAAAAAA", &uri], "no active client"),
    ] {
        let said = app
            .command(&[&["clients", "logout-uri"], &arguments[..]].concat(), &[])
            .await;
        assert!(
            !said.status.success() && String::from_utf8_lossy(&said.stderr).contains(error),
            "{said:?}"
        );
    }
    let said = app.command(&["clients", "logout-uri", id, &uri], &[]).await;
    assert!(said.status.success(), "{said:?}");
    assert_eq!(Told::told(old.turn().await), 1, "at once");
    assert_eq!((old.sessions().len(), new.sessions()), (0, vec![ended]));
    assert_eq!(app.events("client_changed").await, 1);
    let said = app.command(&["clients", "logout-uri", id, "none"], &[]).await;
    assert!(said.status.success(), "{said:?}");
    let all = receivers(&app).await;
    assert_eq!(
        all.iter().map(|receiver| &receiver.client).collect::<Vec<_>>(),
        [&new.id]
    );
}

#[tokio::test]
async fn r16_a_disabled_client_is_told_nothing_and_a_new_one_nothing_of_what_was() {
    let app = TestApp::start("r16 disabled").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    end_one(&app, &person, &owner).await;
    app.seal().await;
    let receiver = shop.receiver().await;
    let newer = Told::begin(&app, "newer").await;
    assert!(
        app.backend()
            .disable_client(&shop.id)
            .await
            .expect("the database answers")
    );
    assert!(matches!(newer.turn().await, TellOutcome::Nothing(_)));
    let all = receivers(&app).await;
    assert_eq!(
        all.iter().map(|receiver| &receiver.client).collect::<Vec<_>>(),
        [&newer.id]
    );
    // A node that read it just before.
    let outcome = tell(&app, receiver).await;
    assert!(matches!(outcome, TellOutcome::NotNow), "{outcome:?}");
    assert!(shop.heard().is_empty() && newer.heard().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r16_the_example_service_forgets_a_session_it_is_told_of_and_takes_nothing_else() {
    let app = TestApp::start("r16 example").await;
    let node = Node::beside(&app, "a").await;
    let shop = Shop::beside(&node, Duration::from_secs(1)).await;
    let person = app.add_person("max", &["member"], false).await;
    let member = Remote::sign_in(&node, &person).await;
    let visits = async || {
        let said = http()
            .get(&shop.orders)
            .bearer_auth(&member.access)
            .send()
            .await
            .expect("an answer");
        assert_eq!(said.status(), StatusCode::OK);
        said.json::<Value>().await.expect("JSON")["visits"]
            .as_u64()
            .expect("a number")
    };
    assert_eq!((visits().await, visits().await), (1, 2));
    let post = async |body: String, kind: &str| {
        let said = http()
            .post(&shop.logout)
            .header("content-type", kind)
            .body(body)
            .send()
            .await
            .expect("an answer");
        assert_eq!(said.headers()["cache-control"], "no-store");
        let status = said.status().as_u16();
        if status == 400 {
            assert_eq!(said.json::<Value>().await.expect("JSON")["error"], "invalid_request");
        }
        status
    };
    let form = "application/x-www-form-urlencoded";
    // What the issuer would send for this session: to this service, and to another.
    let backend = &node.application.state().backend;
    let session: SessionId = member.session_id.parse().expect("an id");
    let token = |audience: &ClientId| logout_token(backend, audience, &person, session);
    let good = format!("logout_token={}", token(&shop.client));
    let foreign = token(&node.add_client("other", "revocations").await.0);
    for bad in [
        String::new(),
        "logout_token=".to_owned(),
        "token=x".to_owned(),
        format!("{good}&{good}"),
        format!("logout_token={foreign}"),
        format!("logout_token={}", member.access),
        format!("{good}x"),
        format!("{good}{}", "x".repeat(20_000)),
    ] {
        assert_eq!(post(bad.clone(), form).await, 400, "{bad}");
    }
    assert_eq!(post(good.clone(), "application/json").await, 400);
    let got = http().get(&shop.logout).send().await.expect("an answer");
    assert_eq!(
        (got.status().as_u16(), &got.headers()["cache-control"]),
        (405, &"no-store".parse().expect("a value"))
    );
    assert_eq!(visits().await, 3, "nothing was forgotten");
    assert_eq!(post(format!("{good}&more=1"), form).await, 200);
    assert_eq!(visits().await, 1);
    // Twice does no harm.
    assert_eq!(post(good, &format!("{form}; charset=utf-8")).await, 200);
    assert_eq!(visits().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r16_an_operator_adds_a_service_and_the_program_tells_it_within_seconds() {
    let app = TestApp::start("r16 program").await;
    let shop = Told::begin(&app, "shop").await;
    let uri = shop.receiver().await.uri.as_str().to_owned();
    for bad in [
        "http://shop.example.com/logout",
        "https://ann@shop.example.com/",
        "shop",
    ] {
        let said = app
            .command(
                &["clients", "add", "--name", "bad", "--backchannel-logout-uri", bad],
                &[],
            )
            .await;
        assert!(!said.status.success(), "{bad}");
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(error.contains("https://host/path"), "{error}");
    }
    let second = uri.replace("?from=mayfly", "?second");
    let said = app
        .command(
            &[
                "clients",
                "add",
                "--name",
                "second",
                "--backchannel-logout-uri",
                &second,
            ],
            &[],
        )
        .await;
    assert!(said.status.success(), "{said:?}");
    let gone = "http://127.0.0.1:9/logout";
    let said = app
        .command(
            &["clients", "add", "--name", "gone", "--backchannel-logout-uri", gone],
            &[],
        )
        .await;
    assert!(said.status.success(), "{said:?}");

    let hanging = Told::begin(&app, "hanging").await;
    hanging.will_answer(vec![Manner::Never; 100]);
    let (person, owner) = app.add_program("ann").await;
    let ended = end_one(&app, &person, &owner).await;
    let program = app.spawn_beside().await;
    let (mut heard, mut pauses) = (Vec::new(), 0);
    while heard.len() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        heard.extend(shop.heard());
        pauses += 1;
        assert!(pauses < 200, "within twenty seconds: {heard:?}");
    }
    let mut audiences: Vec<String> = Vec::new();
    for arrived in &heard {
        assert_eq!(arrived.claims()["sid"], json!(ended));
        audiences.push(arrived.claims()["aud"].as_str().expect("one").to_owned());
    }
    audiences.sort();
    assert_eq!(audiences.len(), 2, "each service once: {audiences:?}");
    let list = app.command(&["clients", "list"], &[]).await;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains(&format!("logouts to {uri}\n")), "{list}");
    assert!(list.contains(&format!("logouts to {gone}: away since ")), "{list}");
    // And those that are told go on being told while others hang.
    let owner = Program::signed_in(&program, &person).await;
    let next = end_one(&program, &person, &owner).await;
    let mut pauses = 0;
    while !shop.sessions().contains(&next) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        pauses += 1;
        assert!(pauses < 200, "within twenty seconds");
    }
    assert!(!hanging.heard().is_empty(), "it was asked");
    drop(program);
}
