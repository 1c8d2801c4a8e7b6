//! Security events for other software: who hears them, what they say, and that none is lost.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{Value, json};
use server::domain::client::ClientId;

use crate::app::{ORIGIN, TestApp};
use crate::browser::Browser;
use crate::people::{Admin, Member};
use crate::program::Program;
use crate::reply::Reply;
use crate::service::{Service, post_text};

const PATH: &str = "/oauth/events";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const CREDENTIAL_CHANGE: &str = "https://schemas.openid.net/secevent/caep/event-type/credential-change";
const ACCOUNT_DISABLED: &str = "https://schemas.openid.net/secevent/risc/event-type/account-disabled";

/// A receiver that has a token.
struct Receiver {
    app: TestApp,
    token: String,
}

impl Receiver {
    /// A new one, whose stream begins now.
    async fn begin(app: &TestApp, name: &str) -> Self {
        let token = Service::add(app, name, "security_events").await.token().await;
        let receiver = Self {
            app: app.clone(),
            token,
        };
        assert_eq!(receiver.fetch(&json!({})).await, BTreeMap::new(), "it begins now");
        receiver
    }

    async fn ask(&self, body: &Value) -> Reply {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        post_text(&self.app, PATH, &headers, &body.to_string()).await
    }

    /// What it is told, by `jti`, without waiting. What has happened is sealed before.
    async fn fetch(&self, members: &Value) -> BTreeMap<String, String> {
        self.app.seal().await;
        let mut body = json!({ "returnImmediately": true });
        body.as_object_mut()
            .expect("an object")
            .extend(members.as_object().expect("an object").clone());
        let reply = self.ask(&body).await.expect(200);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        serde_json::from_value(reply.json()["sets"].clone()).expect("texts by id")
    }

    /// Takes note of these.
    async fn acknowledge<'a>(&self, ids: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, String> {
        let ids: Vec<_> = ids.into_iter().collect();
        self.fetch(&json!({ "ack": ids })).await
    }
}

async fn get_json(app: &TestApp, path: &str) -> Value {
    Browser::new(app).get(path).await.expect(200).json()
}

/// Header and claims of a token of ours whose signature a key of the published set made.
pub async fn opened(app: &TestApp, set: &str) -> (Value, Value) {
    let jwks = get_json(app, "/.well-known/jwks.json").await;
    let header = jsonwebtoken::decode_header(set).expect("a header");
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(jwks).expect("keys");
    let key = keys
        .find(header.kid.as_deref().expect("a kid"))
        .expect("a published key");
    let mut rules = jsonwebtoken::Validation::new(header.alg);
    rules.validate_aud = false;
    rules.validate_exp = false;
    rules.required_spec_claims.clear();
    let key = jsonwebtoken::DecodingKey::from_jwk(key).expect("a key");
    let claims = jsonwebtoken::decode::<Value>(set, &key, &rules)
        .expect("a good signature")
        .claims;
    (serde_json::to_value(header).expect("JSON"), claims)
}

#[tokio::test]
async fn r15_a_revoked_session_is_told_as_caep_says() {
    let app = TestApp::start("r15 caep").await;
    let receiver = Receiver::begin(&app, "receiver").await;
    let (person, owner) = app.add_program("ann").await;
    let other = Program::signed_in(&app, &person).await;
    assert!(owner.end(&other.session_id).await.status.is_success());

    let sets = receiver.fetch(&json!({})).await;
    assert_eq!(sets.len(), 1, "sign-ins concern no receiver: {sets:?}");
    let (id, set) = sets.first_key_value().expect("one");
    let (header, claims) = opened(&app, set).await;
    assert_eq!(header["typ"], "secevent+jwt");
    assert_eq!(claims["jti"], *id);
    assert_eq!(claims["aud"], receiver_id(&receiver));
    assert_eq!(claims["iss"], ORIGIN);
    // SSF 1.0, section 5.1.4 and 5.1.6.
    assert!(claims.get("exp").is_none() && claims.get("sub").is_none(), "{claims}");
    let subject = &claims["sub_id"];
    assert_eq!(subject["format"], "complex");
    let session: server::domain::id::SessionId = other.session_id.parse().expect("an id");
    assert_eq!(
        subject["session"],
        json!({ "format": "opaque", "id": session.to_short() })
    );
    assert_eq!(subject["user"]["format"], "iss_sub");
    assert_eq!(subject["user"]["sub"], person.id.to_string());
    let told = &claims["events"][SESSION_REVOKED];
    assert_eq!(told["event_timestamp"], app.now().as_seconds());
    assert_eq!(told["initiating_entity"], "user");
    assert_eq!(told["reason_admin"]["en"], "Ended by the person on another device");
    assert_eq!(claims["events"].as_object().map(serde_json::Map::len), Some(1));
}

fn receiver_id(receiver: &Receiver) -> String {
    use data_encoding::BASE64URL_NOPAD;
    let claims = receiver.token.split('.').nth(1).expect("three parts");
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    claims["client_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn r15_changed_credentials_and_disabled_accounts_are_told() {
    let app = TestApp::start("r15 credentials").await;
    let mut admin = Admin::sign_in(&app).await;
    let Member { person, mut browser } = Member::sign_in(&app, "ann").await;
    let receiver = Receiver::begin(&app, "receiver").await;
    browser.open("/security").await.expect(200);
    let fields = [
        ("current_password", person.password.as_str()),
        ("new_password", "another quiet evening in May"),
    ];
    browser.submit_and_follow("change_password", &fields).await.expect(200);
    admin.disable(&person).await;
    let mut told = Vec::new();
    for set in receiver.fetch(&json!({})).await.values() {
        let (_, claims) = opened(&app, set).await;
        let (uri, event) = claims["events"]
            .as_object()
            .and_then(|events| events.iter().next())
            .expect("one event");
        told.push((uri.clone(), event.clone(), claims["sub_id"].clone()));
    }
    let of = |uri: &str| told.iter().filter(|(found, ..)| found == uri).collect::<Vec<_>>();
    let changed = of(CREDENTIAL_CHANGE);
    assert!(
        changed
            .iter()
            .any(|(_, event, subject)| event["credential_type"] == "password"
                && event["change_type"] == "update"
                && subject["sub"] == person.id.to_string()),
        "{told:?}"
    );
    assert_eq!(of(ACCOUNT_DISABLED).len(), 1, "{told:?}");
    assert!(!of(SESSION_REVOKED).is_empty(), "{told:?}");
}

#[tokio::test]
async fn r15_an_event_is_told_until_it_is_acknowledged_and_never_again_after() {
    let app = TestApp::start("r15 at least once").await;
    let receiver = Receiver::begin(&app, "receiver").await;
    let latecomer = Service::add(&app, "latecomer", "security_events").await.token().await;
    let (person, owner) = app.add_program("ann").await;
    for _ in 0..3 {
        let other = Program::signed_in(&app, &person).await;
        assert!(owner.end(&other.session_id).await.status.is_success());
        app.pass(1);
    }
    let all = receiver.fetch(&json!({})).await;
    assert_eq!(all.len(), 3);
    let ids: Vec<&String> = all.keys().collect();
    let (first, second, third) = (ids[0], ids[1], ids[2]);
    // Not acknowledged: told again, under the same ids, also by another node and after a restart.
    let again = receiver.fetch(&json!({})).await;
    assert_eq!(again.keys().collect::<Vec<_>>(), ids);
    // After a gap the receiver hears it again.
    assert_eq!(receiver.acknowledge([second]).await.len(), 3);
    let rest = receiver.acknowledge([first, second]).await;
    assert_eq!(rest.keys().collect::<Vec<_>>(), [third]);
    // Few at a time, with the word that there are more.
    let one = receiver
        .ask(&json!({ "maxEvents": 0, "returnImmediately": true }))
        .await
        .expect(200);
    assert_eq!(one.json(), json!({ "sets": {}, "moreAvailable": true }));
    // What it cannot use is not told for ever.
    let complaint = json!({ "setErrs": { third: { "err": "invalid_key", "description": "unknown" } } });
    assert_eq!(receiver.fetch(&complaint).await, BTreeMap::new());
    assert_eq!(receiver.fetch(&json!({})).await, BTreeMap::new());
    // Acknowledging twice, and what was never told.
    assert_eq!(receiver.acknowledge([first, third]).await, BTreeMap::new());
    // Another receiver has a place of its own, from its first question on.
    let latecomer = Receiver {
        app: app.clone(),
        token: latecomer,
    };
    assert_eq!(latecomer.fetch(&json!({})).await, BTreeMap::new());
    let other = Program::signed_in(&app, &person).await;
    assert!(owner.end(&other.session_id).await.status.is_success());
    assert_eq!(receiver.fetch(&json!({})).await.len(), 1);
    assert_eq!(latecomer.fetch(&json!({})).await.len(), 1);
}

#[tokio::test]
async fn r15_only_receivers_with_the_scope_hear_security_events() {
    let app = TestApp::start("r15 scope").await;
    let (_, person) = app.add_program("ann").await;
    let other = Service::add(&app, "other", "revocations").await.token().await;
    let anonymous = post_text(&app, PATH, &[("content-type", "application/json")], "{}").await;
    assert_eq!(anonymous.status, 401);
    for (token, expected) in [(&person.access, 401), (&other, 403)] {
        let receiver = Receiver {
            app: app.clone(),
            token: token.clone(),
        };
        assert_eq!(
            receiver
                .ask(&json!({ "returnImmediately": true }))
                .await
                .status
                .as_u16(),
            expected
        );
    }
    let receiver = Receiver::begin(&app, "receiver").await;
    let many: Vec<String> = (0..401).map(|n| format!("00000000-0000-7000-8000-{n:012}")).collect();
    for bad in [
        json!({ "ack": ["not an id"] }),
        json!({ "ack": many }),
        json!({ "maxEvents": -1 }),
        json!({ "unknown": true }),
        json!([]),
    ] {
        assert_eq!(receiver.ask(&bad).await.status, 400, "{bad}");
    }
    let configuration = get_json(&app, "/.well-known/ssf-configuration").await;
    assert_eq!(configuration["issuer"], ORIGIN);
    assert_eq!(
        configuration["delivery_methods_supported"],
        json!(["urn:ietf:rfc:8936"])
    );
}

#[tokio::test]
async fn r15_a_receiver_that_is_shut_out_while_it_waits_hears_nothing_more() {
    let app = TestApp::start("r15 shut out").await;
    let (_, program) = app.add_program("ann").await;
    let service = Service::add(&app, "receiver", "security_events").await;
    let receiver = Receiver {
        app: app.clone(),
        token: service.token().await,
    };
    assert_eq!(receiver.fetch(&json!({})).await, BTreeMap::new(), "it begins now");
    let nothing_more = json!({});
    let waiting = receiver.ask(&nothing_more);
    let shut_out = async {
        // It has looked once by then, and looks again after a second.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let client = ClientId::parse(&service.client_id).expect("an id");
        assert!(app.backend().disable_client(&client).await.expect("answers"));
        app.backend().catch_up_with_revocations().await.expect("answers");
        program
            .ask_with(&program.access, Method::POST, "/auth/logout")
            .await
            .expect(204);
        app.seal().await;
    };
    let (answer, ()) = tokio::join!(waiting, shut_out);
    assert_eq!(answer.status, 401, "{}", answer.body);
}

#[tokio::test]
async fn r15_a_security_event_opens_no_door() {
    let app = TestApp::start("r15 typ").await;
    let receiver = Receiver::begin(&app, "receiver").await;
    let (person, owner) = app.add_program("ann").await;
    let other = Program::signed_in(&app, &person).await;
    assert!(owner.end(&other.session_id).await.status.is_success());
    let sets = receiver.fetch(&json!({})).await;
    let set = sets.values().next().expect("one").clone();
    let as_token = Receiver {
        app: app.clone(),
        token: set.clone(),
    };
    assert_eq!(as_token.ask(&json!({})).await.status, 401);
    let mut as_person = owner.clone();
    as_person.access = set;
    assert_eq!(as_person.sessions().await.status, 401);
}

#[tokio::test]
async fn f11_a_receiver_that_was_away_for_an_hour_hears_everything_once_and_nobody_waited_for_it() {
    let app = TestApp::start("f11 away").await;
    let service = Service::add(&app, "receiver", "security_events").await;
    let mut receiver = Receiver {
        app: app.clone(),
        token: service.token().await,
    };
    assert_eq!(receiver.fetch(&json!({})).await, BTreeMap::new(), "it begins now");
    let (person, mut device) = app.add_program("ann").await;
    let mut ended = Vec::new();
    for _ in 0..30 {
        // Everybody goes on as if it were there.
        let next = Program::signed_in(&app, &person).await;
        assert!(next.end(&device.session_id).await.status.is_success());
        device.sessions().await.expect(401);
        ended.push(device.session_id);
        device = next;
        app.pass(120);
        app.seal().await;
    }
    // What waits is the log itself: nothing was put aside for the receiver.
    let kept = app.rows("SELECT client_id, noted_seq FROM event_streams").await;
    assert_eq!(kept.len(), 1);
    receiver.token = service.token().await;
    let (mut told, mut last) = (BTreeMap::new(), Vec::new());
    let most = ended.len();
    for _ in 0..=most {
        let sets = receiver.fetch(&json!({ "maxEvents": 7, "ack": last })).await;
        assert!(sets.len() <= 7);
        last = sets.keys().cloned().collect();
        if last.is_empty() {
            break;
        }
        for (id, set) in sets {
            let (_, claims) = opened(&app, &set).await;
            let session = claims["sub_id"]["session"]["id"].clone();
            assert_eq!(told.insert(id, session), None, "once under its id");
        }
    }
    assert!(last.is_empty(), "it comes to an end");
    let mut told: Vec<String> = told.values().filter_map(|id| Some(id.as_str()?.to_owned())).collect();
    let mut ended: Vec<String> = ended
        .iter()
        .map(|id| id.parse::<server::domain::id::SessionId>().expect("an id").to_short())
        .collect();
    told.sort();
    ended.sort();
    assert_eq!(told, ended, "every end, and nothing twice under another id");
}
