//! Tokens that are bound to a key, at the layer of another service.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::domain::dpop::{self, Thumbprint};
use crate::verify::layer::require_token;
use crate::verify::tests::World;

const URL: &str = "https://orders.example/orders";

struct Client(Ed25519KeyPair);

impl Client {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes"))
    }

    fn claims(token: &str, now: Timestamp) -> Value {
        let ath = BASE64URL_NOPAD.encode(digest(&SHA256, token.as_bytes()).as_ref());
        json!({ "jti": "one", "htm": "GET", "htu": URL, "iat": now.as_seconds(), "ath": ath })
    }

    fn sign(&self, claims: &Value) -> String {
        let x = BASE64URL_NOPAD.encode(self.0.public_key().as_ref());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk });
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = BASE64URL_NOPAD.encode(self.0.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }

    fn key(&self, now: Timestamp) -> Thumbprint {
        let expected = dpop::Expected {
            method: "GET",
            address: URL,
            token: None,
            nonces: None,
            tolerance: std::time::Duration::ZERO,
        };
        dpop::verify(&self.sign(&Self::claims("", now)), &expected, now)
            .expect("our own proof")
            .key
    }
}

#[tokio::test]
async fn r6_another_service_asks_for_a_proof_beside_a_bound_token_and_takes_it_once() {
    let world = World::new();
    world.hear(&[]);
    let now = world.now();
    let (holder, thief) = (Client::new(1), Client::new(2));
    let (bound, unbound) = (world.bound_token(holder.key(now)), world.token(0));
    let checker = world.checker.clone();
    let routes = Router::new()
        .route("/orders", get(|| async { "yours" }))
        .layer(from_fn_with_state(checker, require_token));
    let ask = async |scheme: &str, token: &str, proofs: &[&str]| {
        let mut request = Request::get("/orders?page=2").header("authorization", format!("{scheme} {token}"));
        for proof in proofs {
            request = request.header("dpop", *proof);
        }
        let request = request.body(Body::empty()).expect("a request");
        let reply = routes.clone().oneshot(request).await.expect("answers");
        let challenge = reply.headers().get("www-authenticate");
        let challenge = challenge.map(|value| value.to_str().expect("text").to_owned());
        (reply.status().as_u16(), challenge.unwrap_or_default())
    };
    let good = |jti: &str| {
        let mut claims = Client::claims(&bound, now);
        claims["jti"] = json!(jti);
        claims
    };
    assert_eq!(ask("Bearer", &unbound, &[]).await.0, 200);
    let first = holder.sign(&good("first"));
    assert_eq!(ask("DPoP", &bound, &[&first]).await.0, 200);
    for (what, scheme, token, proofs, error) in [
        ("again", "DPoP", &bound, vec![first.clone()], "invalid_dpop_proof"),
        ("as a bearer token", "Bearer", &bound, vec![], "invalid_token"),
        (
            "with a proof",
            "Bearer",
            &bound,
            vec![holder.sign(&good("b"))],
            "invalid_token",
        ),
        ("without a proof", "DPoP", &bound, vec![], "invalid_token"),
        (
            "another's proof",
            "DPoP",
            &bound,
            vec![thief.sign(&good("c"))],
            "invalid_token",
        ),
        (
            "two proofs",
            "DPoP",
            &bound,
            vec![holder.sign(&good("d")), holder.sign(&good("e"))],
            "invalid_dpop_proof",
        ),
        (
            "an unbound token",
            "DPoP",
            &unbound,
            vec![holder.sign(&Client::claims(&unbound, now))],
            "invalid_token",
        ),
    ] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let (status, challenge) = ask(scheme, token, &proofs).await;
        assert_eq!(status, 401, "{what}");
        assert!(
            challenge.starts_with(&format!("DPoP error=\"{error}\", algs=\"")),
            "{what}: {challenge}"
        );
    }
    for (claim, value) in [
        ("htm", json!("POST")),
        ("htu", json!("https://orders.example/")),
        ("ath", json!("")),
        ("iat", json!(now.as_seconds() - 61)),
        ("iat", json!(now.as_seconds() + 31)),
    ] {
        let mut claims = good("f");
        claims[claim] = value;
        let (status, challenge) = ask("DPoP", &bound, &[&holder.sign(&claims)]).await;
        assert_eq!(status, 401, "{claims}");
        assert!(
            challenge.starts_with("DPoP error=\"invalid_dpop_proof\""),
            "{challenge}"
        );
    }
    let altered = good("g");
    assert_eq!(
        ask("DPoP", &bound, &[&format!("{}A", holder.sign(&altered))]).await.0,
        401
    );
    assert_eq!(ask("DPoP", &bound, &[&holder.sign(&altered)]).await.0, 200);
}

#[test]
fn r6_what_cannot_be_remembered_is_not_accepted() {
    let mut used = UsedProofs::default();
    let begin = Timestamp::from_seconds(1_800_000_000);
    let key = Client::new(1).key(begin);
    let proof = |number: usize, until: u64| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let until = begin.plus(std::time::Duration::from_secs(until));
        Proof { key, id, until }
    };
    for number in 0..CAPACITY {
        used.consume(&proof(number, 90), begin).expect("new");
    }
    let one_more = proof(CAPACITY, 90);
    assert!(matches!(used.consume(&one_more, begin), Err(Denied::Unknown(_))));
    assert_eq!(
        used.consume(&proof(0, 90), begin),
        Err(Denied::Unproven(Refusal::Replayed))
    );
    let later = begin.plus(std::time::Duration::from_secs(90));
    used.consume(&one_more, later).expect("the others are too old");
    assert_eq!(used.0.len(), 1);
}
