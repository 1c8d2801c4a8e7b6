//! Services that are told when a session ends (R16): what they are told, and that none is forgotten, whatever they answer.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use serde_json::{Value, json};
use server::domain::client::ClientId;
use server::domain::id::SessionId;
use server::services::backchannel_logout::TellOutcome;

use crate::access_tokens::{claims, header};
use crate::app::{ORIGIN, TestApp};
use crate::browser::Browser;
use crate::node::{Node, Remote, Shop, http};
use crate::people::{Admin, Member, Person};
use crate::program::Program;
use crate::service::logout_token;
use crate::told::{Manner, Told, add, seal};

fn short(id: &str) -> String {
    id.parse::<SessionId>().expect("an id").to_short()
}

/// Somebody signs in once more and the new session is ended; its name in tokens.
async fn end_one(app: &TestApp, person: &Person, owner: &Program) -> String {
    let other = Program::signed_in(app, person).await;
    assert!(owner.end(&other.session_id).await.status.is_success());
    short(&other.session_id)
}

#[tokio::test]
async fn r16_the_end_of_a_session_is_told_as_the_standard_says() {
    let app = TestApp::start("r16 standard").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    assert!(
        matches!(shop.turn().await, TellOutcome::Nothing),
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
    let (header, claims) = (header(&token), claims(&token));
    assert_eq!(header["typ"], "logout+jwt");
    assert_eq!(header.as_object().map(serde_json::Map::len), Some(3), "{header}");
    let now = app.now().as_seconds();
    let expected = json!({
        "iss": ORIGIN, "aud": shop.id.as_str(), "iat": now, "exp": now + 120, "jti": claims["jti"],
        "sub": person.id.to_string(), "sid": ended,
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    assert_eq!(claims, expected);
    // The published key of that name made the signature.
    let keys = Browser::new(&app)
        .get("/.well-known/jwks.json")
        .await
        .expect(200)
        .json();
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).expect("keys");
    let key = keys.find(header["kid"].as_str().expect("a kid")).expect("published");
    let key = jsonwebtoken::DecodingKey::from_jwk(key).expect("a key");
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let verified = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, jsonwebtoken::Algorithm::ES256);
    assert_eq!(verified.ok(), Some(true));

    assert!(matches!(shop.turn().await, TellOutcome::Nothing), "once");
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
    let id = dora.id.to_string();
    admin
        .browser
        .open(&format!("/admin/people/{id}/disable"))
        .await
        .expect(200);
    let fields = [("person_id", id.as_str()), ("reason", "left the company")];
    admin
        .browser
        .submit_and_follow("disable_person", &fields)
        .await
        .expect(200);
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
async fn f11_a_service_that_was_away_for_an_hour_is_told_everything_once_and_nobody_waited_for_it() {
    let app = TestApp::start("r16 away").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let (mut ended, mut tries) = (Vec::new(), 0);
    let begun = app.now();
    shop.will_answer(vec![Manner::Status(503); 1000]);
    while app.now().since(begun) < Duration::from_hours(1) {
        if ended.len() < 30 {
            ended.push(end_one(&app, &person, &owner).await);
        }
        assert!(!matches!(shop.turn().await, TellOutcome::Told(_)));
        tries += shop.heard().len();
        app.pass(10);
    }
    // 1, 2, 4 … up to every five minutes: a service that is down is left in peace.
    assert!((15..=30).contains(&tries), "{tries} tries");
    let receiver = shop.receiver().await;
    let outage = receiver.outage.expect("it is away");
    assert_eq!((outage.failure.as_str(), outage.since), ("status 503", begun));
    let kept = app.rows("SELECT client_id FROM logout_receivers").await;
    assert_eq!(kept.len(), 1, "what waits is the log itself");
    assert_eq!(app.events("backchannel_logouts_delayed").await, 1, "noted once");

    shop.is_well_again();
    app.pass(300);
    while matches!(shop.turn().await, TellOutcome::Told(_)) {}
    let heard = shop.heard();
    let sessions: Vec<String> = heard
        .iter()
        .map(|arrived| arrived.claims()["sid"].as_str().expect("one").to_owned())
        .collect();
    assert_eq!(sessions, ended, "every one, once, in their order");
    let exp = heard[0].claims()["exp"].as_i64();
    assert!(exp > Some(app.now().as_seconds()), "signed anew: {exp:?}");
    assert_eq!(app.events("backchannel_logouts_resumed").await, 1);
    assert_eq!(shop.receiver().await.outage, None);
}

#[tokio::test]
async fn f11_a_service_whose_port_is_closed_is_away_and_others_are_told() {
    let app = TestApp::start("r16 closed").await;
    let (shop, other) = (Told::begin(&app, "shop").await, Told::begin(&app, "other").await);
    let (person, owner) = app.add_program("ann").await;
    let ended = end_one(&app, &person, &owner).await;
    shop.close().await;
    assert!(matches!(shop.turn().await, TellOutcome::Away));
    let failure = shop.receiver().await.outage.expect("away").failure;
    assert!(failure.to_lowercase().contains("refused"), "{failure}");
    assert_eq!(Told::told(other.turn().await), 1);
    assert_eq!(other.sessions(), [ended]);
}

#[tokio::test]
async fn r16_an_end_that_a_service_cannot_act_on_is_noted_and_holds_up_no_other() {
    let app = TestApp::start("r16 refused").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let mut ended = Vec::new();
    for _ in 0..3 {
        ended.push(end_one(&app, &person, &owner).await);
    }
    shop.will_answer([Manner::Status(204), Manner::Status(400)]);
    assert_eq!(Told::told(shop.turn().await), 3);
    let heard = shop.heard();
    assert_eq!(heard.len(), 3);
    assert!(matches!(shop.turn().await, TellOutcome::Nothing));
    let noted = app
        .rows("SELECT outcome, facts FROM audit_events WHERE kind = 'backchannel_logout_refused'")
        .await;
    assert_eq!(noted.len(), 1, "{noted:?}");
    let shown = format!("{noted:?}");
    assert!(shown.contains("failure") && shown.contains(shop.id.as_str()), "{shown}");
    let named = heard.iter().filter(|arrived| {
        let jti = arrived.claims()["jti"].as_str().expect("an id").to_owned();
        shown.contains(&jti)
    });
    assert_eq!(named.count(), 1, "which one: {shown}");
}

#[tokio::test]
async fn r16_of_several_that_would_tell_at_the_same_moment_one_does() {
    let app = TestApp::start("r16 nodes").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let mut ended = Vec::new();
    for _ in 0..5 {
        ended.push(end_one(&app, &person, &owner).await);
    }
    seal(&app).await;
    let receiver = shop.receiver().await;
    let turns = (0..8).map(|_| app.backend().tell_logouts_to(receiver.clone()));
    let outcomes = join_all(turns).await;
    let told = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(TellOutcome::Told(_))))
        .count();
    assert_eq!(told, 1, "{outcomes:?}");
    let mut heard = shop.sessions();
    heard.sort();
    ended.sort();
    assert_eq!(heard, ended);
}

#[tokio::test]
async fn f11_what_was_told_by_a_node_that_died_is_told_again_under_the_same_id() {
    let app = TestApp::start("r16 died").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let ended = end_one(&app, &person, &owner).await;
    seal(&app).await;
    shop.will_answer([Manner::Never]);
    let receiver = shop.receiver().await;
    let dying = app.backend().tell_logouts_to(receiver);
    let first = tokio::select! {
        outcome = dying => panic!("{outcome:?}"),
        first = async {
            loop {
                if let Some(first) = shop.heard().pop() {
                    break first;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => first,
    };
    // Others leave it to that node for a while, which has a while to come to an end.
    assert!(matches!(shop.turn().await, TellOutcome::Nothing));
    assert!(shop.heard().is_empty());
    app.pass(21);
    assert_eq!(Told::told(shop.turn().await), 1);
    let heard = shop.heard();
    let again = heard.first().expect("told again").claims();
    assert_eq!(again["sid"], json!(ended));
    assert_eq!(again["jti"], first.claims()["jti"], "the service knows it");
    assert_ne!(again["exp"], first.claims()["exp"]);
}

#[tokio::test]
async fn r16_a_service_that_does_not_answer_or_points_elsewhere_is_away() {
    let app = TestApp::start("r16 elsewhere").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    end_one(&app, &person, &owner).await;
    shop.will_answer([Manner::Redirect("/elsewhere"), Manner::Never, Manner::Status(404)]);
    for failure in ["status 307", "no answer in time", "status 404"] {
        assert!(matches!(shop.turn().await, TellOutcome::Away), "{failure}");
        assert_eq!(shop.receiver().await.outage.expect("away").failure, failure);
        assert_eq!(shop.heard().len(), 1, "{failure}: asked once, and nowhere else");
        app.pass(300);
    }
    assert_eq!(Told::told(shop.turn().await), 1);
}

#[tokio::test]
async fn r16_a_disabled_client_is_told_nothing_and_a_new_one_nothing_of_what_was() {
    let app = TestApp::start("r16 disabled").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    end_one(&app, &person, &owner).await;
    seal(&app).await;
    let receiver = shop.receiver().await;
    let newer = Told::begin(&app, "newer").await;
    assert!(
        app.backend()
            .disable_client(&shop.id)
            .await
            .expect("the database answers")
    );
    assert!(matches!(newer.turn().await, TellOutcome::Nothing));
    let all = app
        .backend()
        .list_logout_receivers()
        .await
        .expect("the database answers");
    assert_eq!(
        all.iter().map(|receiver| &receiver.client).collect::<Vec<_>>(),
        [&newer.id]
    );
    // A node that read it just before.
    let outcome = app
        .backend()
        .tell_logouts_to(receiver)
        .await
        .expect("the database answers");
    assert!(matches!(outcome, TellOutcome::Nothing), "{outcome:?}");
    assert!(shop.heard().is_empty() && newer.heard().is_empty());
}

#[tokio::test]
async fn r16_an_outage_of_the_database_loses_no_logout() {
    let app = TestApp::start("r16 database").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let ended = end_one(&app, &person, &owner).await;
    seal(&app).await;
    let receiver = shop.receiver().await;
    app.backend().store().close().await;
    assert!(app.backend().tell_logouts_to(receiver).await.is_err());
    let app = app.restart().await;
    let receivers = app
        .backend()
        .list_logout_receivers()
        .await
        .expect("the database answers");
    let receiver = receivers.into_iter().next().expect("one");
    let outcome = app
        .backend()
        .tell_logouts_to(receiver)
        .await
        .expect("the database answers");
    assert_eq!(Told::told(outcome), 1);
    assert_eq!(shop.sessions(), [ended]);
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
    assert_eq!(http().get(&shop.logout).send().await.expect("an answer").status(), 405);
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
    let uri = shop.receiver().await.uri.to_string();
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
    audiences.dedup();
    assert_eq!(audiences.len(), 2, "each service once: {audiences:?}");
    let list = app.command(&["clients", "list"], &[]).await;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains(&format!("logouts to {uri}\n")), "{list}");
    assert!(list.contains(&format!("logouts to {gone}: away since ")), "{list}");
    drop(program);
}

/// Nothing here is a secret, but a word of the network in an error must never be the address with what is in its query.
#[tokio::test]
async fn l5_why_a_service_is_away_does_not_repeat_its_address() {
    let app = TestApp::start("r16 words").await;
    let id = add(&app, "gone", "http://127.0.0.1:9/logout?key=abracadabra").await;
    let (person, owner) = app.add_program("ann").await;
    end_one(&app, &person, &owner).await;
    seal(&app).await;
    let receivers = app
        .backend()
        .list_logout_receivers()
        .await
        .expect("the database answers");
    let receiver = receivers
        .into_iter()
        .find(|receiver| receiver.client == id)
        .expect("one");
    app.backend()
        .tell_logouts_to(receiver)
        .await
        .expect("the database answers");
    let rows = app.rows("SELECT failure FROM logout_receivers").await;
    assert!(!format!("{rows:?}").contains("abracadabra"), "{rows:?}");
    let facts = app
        .rows("SELECT facts FROM audit_events WHERE kind = 'backchannel_logouts_delayed'")
        .await;
    assert!(
        facts.len() == 1 && !format!("{facts:?}").contains("abracadabra"),
        "{facts:?}"
    );
}
