//! Proofs with one thing wrong, at the token endpoint and at a resource: each is refused for its own reason.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::holder::{Holder, ME, TOKEN};
use crate::service::Key;

/// One member changed; `null` takes it away.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().expect("an object");
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    object
}

/// What a door is asked with, and what it is asked for.
#[derive(Clone, Copy)]
struct Door {
    method: &'static str,
    path: &'static str,
    at_resource: bool,
}

const DOORS: [Door; 2] = [
    Door {
        method: "POST",
        path: TOKEN,
        at_resource: false,
    },
    Door {
        method: "GET",
        path: ME,
        at_resource: true,
    },
];

impl Door {
    async fn ask(self, holder: &Holder, proofs: &[&str]) -> crate::reply::Reply {
        if self.at_resource {
            holder.ask("DPoP", &holder.program.access, proofs).await
        } else {
            holder.present(&holder.program.refresh, proofs).await
        }
    }

    fn claims(self, holder: &Holder) -> Value {
        let token = self.at_resource.then_some(holder.program.access.as_str());
        holder.claims(self.method, self.path, token)
    }
}

/// Claims that are wrong, and in the words of the audit log, why.
fn wrong_claims(now: i64, door: Door) -> Vec<(&'static str, Value, &'static str)> {
    let origin = crate::app::ORIGIN;
    let path = door.path;
    let mut wrong = vec![
        ("htm", json!(door.method.to_lowercase()), "proof_method"),
        ("htm", json!("PUT"), "proof_method"),
        ("htm", json!(""), "proof_method"),
        ("htm", Value::Null, "proof_claims"),
        ("htm", json!([door.method]), "proof_claims"),
        ("htu", json!(format!("{origin}/auth/refresh")), "proof_address"),
        ("htu", json!(format!("{origin}{path}/")), "proof_address"),
        ("htu", json!(format!("https://localhost:3000{path}")), "proof_address"),
        ("htu", json!(format!("http://localhost{path}")), "proof_address"),
        ("htu", json!(format!("http://127.0.0.1:3000{path}")), "proof_address"),
        ("htu", json!(path), "proof_address"),
        ("htu", json!(""), "proof_address"),
        ("htu", Value::Null, "proof_claims"),
        ("iat", json!(now - 61), "proof_too_old"),
        ("iat", json!(now + 31), "proof_future"),
        ("iat", json!(now.to_string()), "proof_claims"),
        ("iat", json!(-1), "proof_claims"),
        ("iat", json!(1e300), "proof_claims"),
        ("iat", Value::Null, "proof_claims"),
        ("jti", Value::Null, "proof_claims"),
        ("jti", json!(""), "proof_claims"),
        ("jti", json!("j".repeat(129)), "proof_claims"),
        ("jti", json!(7), "proof_claims"),
    ];
    if door.at_resource {
        let of_another = BASE64URL_NOPAD.encode(&server::services::sha256(b"another token"));
        wrong.extend([
            ("ath", Value::Null, "proof_claims"),
            ("ath", json!(""), "proof_token"),
            ("ath", json!(of_another), "proof_token"),
        ]);
    }
    wrong
}

/// Header members that are wrong.
fn wrong_headers(holder: &Holder) -> Vec<(&'static str, Value, &'static str)> {
    let other_alg = if holder.key.alg() == "ES256" { "EdDSA" } else { "ES256" };
    let mut wrong = vec![
        ("typ", Value::Null, "proof_header"),
        ("typ", json!("JWT"), "proof_header"),
        ("typ", json!("at+jwt"), "proof_header"),
        ("typ", json!("DPOP+JWT"), "proof_header"),
        ("crit", json!(["jwk"]), "proof_header"),
        ("b64", json!(true), "proof_header"),
        ("jku", json!("https://evil.example/keys"), "proof_header"),
        ("x5c", json!([]), "proof_header"),
        ("alg", Value::Null, "proof_algorithm"),
        ("alg", json!("none"), "proof_algorithm"),
        ("alg", json!("HS256"), "proof_algorithm"),
        ("alg", json!("RS256"), "proof_algorithm"),
        ("alg", json!(other_alg), "proof_algorithm"),
        ("jwk", Value::Null, "proof_key"),
        ("jwk", json!("key"), "proof_key"),
        ("jwk", json!({}), "proof_key"),
        ("jwk", json!({ "kty": "oct", "k": "AAAA" }), "proof_key"),
        ("jwk", json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" }), "proof_key"),
        ("jwk", with(holder.jwk(), "d", json!("AAAA")), "proof_key"),
        ("jwk", with(holder.jwk(), "crv", json!("P-384")), "proof_key"),
        ("jwk", with(holder.jwk(), "use", json!("enc")), "proof_key"),
        ("jwk", with(holder.jwk(), "x", json!("AAAA")), "proof_key"),
    ];
    if let Some(y) = holder.jwk().get("y") {
        wrong.push(("jwk", with(holder.jwk(), "x", y.clone()), "proof_key"));
    }
    // A key of the same kind that did not sign.
    let stranger = match holder.key {
        Key::Es256(_) => Key::es256(),
        Key::EdDsa(_) => Key::ed_dsa(),
    };
    wrong.push(("jwk", stranger.jwk(), "proof_signature"));
    wrong
}

async fn reasons(app: &TestApp) -> BTreeMap<String, i64> {
    let sql = "SELECT reason, count(*) AS n FROM audit_events WHERE kind = 'proof_refused' GROUP BY reason";
    let text = |value: Option<String>| value.expect("not null");
    let rows = app.rows(sql).await.into_iter();
    rows.map(|mut row| {
        let count = text(row.remove(1)).parse().expect("a number");
        (text(row.remove(0)), count)
    })
    .collect()
}

#[tokio::test]
async fn r6_a_proof_with_anything_wrong_is_refused_for_its_own_reason() {
    let app = TestApp::start("r6 wrong").await;
    let mut expected = BTreeMap::<String, i64>::new();
    for (name, key) in [("max", Key::es256()), ("eva", Key::ed_dsa())] {
        let person = app.add_person(name, &["member"], false).await;
        let mut holder = Holder::signed_in(&app, &person, key).await;
        holder.me().await.expect(200);
        app.pass(10);
        let now = app.now().as_seconds();
        let before = app.state().await;
        for door in DOORS {
            let (header, fresh) = (holder.header(), || door.claims(&holder));
            let mut bad: Vec<(String, String, &str)> = Vec::new();
            for (claim, value, reason) in wrong_claims(now, door) {
                let what = format!("{claim} {value}");
                bad.push((what, holder.key.sign(&header, &with(fresh(), claim, value)), reason));
            }
            for (member, value, reason) in wrong_headers(&holder) {
                let what = format!("{member} {value}");
                bad.push((
                    what,
                    holder.key.sign(&with(header.clone(), member, value), &fresh()),
                    reason,
                ));
            }
            let good = holder.key.sign(&header, &fresh());
            let (message, signature) = good.rsplit_once('.').expect("three parts");
            let doubled = fresh().to_string().replacen('{', "{\"htm\":\"PUT\",", 1);
            let parts = [header.to_string(), doubled].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
            bad.extend([
                ("no signature".to_owned(), format!("{message}."), "proof_signature"),
                (
                    "half a signature".to_owned(),
                    format!("{message}.{}", &signature[..40]),
                    "proof_signature",
                ),
                ("two parts".to_owned(), message.to_owned(), "proof_form"),
                ("padding".to_owned(), format!("{good}="), "proof_form"),
                ("two in one header".to_owned(), format!("{good}, {good}"), "proof_form"),
                (
                    "a member twice".to_owned(),
                    format!("{}.{}.{signature}", parts[0], parts[1]),
                    "proof_form",
                ),
                ("empty".to_owned(), String::new(), "proof_form"),
            ]);
            let status = if door.at_resource { 401 } else { 400 };
            for (what, proof, reason) in &bad {
                let reply = door.ask(&holder, &[proof]).await.expect(status);
                assert_eq!(reply.code(), "invalid_dpop_proof", "{what}");
                *expected.entry((*reason).to_owned()).or_default() += 1;
                let now = reasons(&app).await;
                assert_eq!(now.get(*reason), expected.get(*reason), "{what}: {now:?}");
            }
            let another = holder.key.sign(&header, &fresh());
            for proofs in [[&*good, &*another], [&*good, &*good]] {
                let reply = door.ask(&holder, &proofs).await.expect(status);
                assert_eq!(reply.code(), "invalid_dpop_proof", "two headers");
                *expected.entry("proof_doubled".to_owned()).or_default() += 1;
            }
        }
        assert_eq!(app.state().await, before, "nothing of all this changed anything");
        assert_eq!(reasons(&app).await, expected);
        accepted(&app, &mut holder, now).await;
    }
}

/// What is right, up to the edges.
async fn accepted(app: &TestApp, holder: &mut Holder, now: i64) {
    let mut header = holder.header();
    if holder.key.alg() == "EdDSA" {
        // The other name of the same (RFC 9864).
        header["alg"] = json!("Ed25519");
    }
    header["kid"] = json!("mine");
    header["jwk"] = holder.key.jwk();
    for (claim, value) in [
        ("iat", json!(now - 60)),
        ("iat", json!(now + 30)),
        ("jti", json!("j".repeat(128))),
        ("htu", json!("HTTP://LOCALHOST:3000/%61pi/v1/me?x=1#y")),
        ("extra", json!({ "a": 1 })),
    ] {
        let claims = with(DOORS[1].claims(holder), claim, value);
        let proof = holder.key.sign(&header, &claims);
        let reply = DOORS[1].ask(holder, &[&proof]).await;
        assert_eq!(reply.status, 200, "{claims}: {}", reply.body);
    }
    holder.renew().await.expect(200);
    let all = "SELECT count(*) FROM audit_events WHERE kind = 'token_rotated'";
    assert!(app.number(all).await > 0);
}

#[tokio::test]
async fn r12_the_metadata_names_the_algorithms_of_proofs_and_the_document_the_header() {
    let app = TestApp::start("r12 dpop").await;
    let asking = crate::program::Program::new(&app);
    let get = async |path: &str| {
        let reply = asking.ask_with("", axum::http::Method::GET, path).await;
        reply.expect(200).json()
    };
    let said = get("/.well-known/oauth-authorization-server").await;
    assert_eq!(
        said["dpop_signing_alg_values_supported"],
        json!(["ES256", "EdDSA", "Ed25519"])
    );
    let api = get("/api/openapi.json").await;
    for (path, method) in [
        ("/oauth/token", "post"),
        ("/auth/login", "post"),
        ("/auth/refresh", "post"),
        (ME, "get"),
    ] {
        let parameters = &api["paths"][path][method]["parameters"];
        assert_eq!(
            (&parameters[0]["name"], &parameters[0]["in"]),
            (&json!("DPoP"), &json!("header")),
            "{path}"
        );
    }
}
