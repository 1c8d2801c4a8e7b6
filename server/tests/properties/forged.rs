//! Everything a stranger can send to a parser of ours, thousands of times: nothing panics, and nothing is believed but
//! what is byte for byte genuine (J7, F49).
//!
//! The everyday run makes always the same forgeries; with `MAYFLY_TEST_FULL=1` there are many times as many, other ones
//! each time, for a minute or two. Every test prints what became of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::http::header::{ACCEPT, COOKIE, FORWARDED};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use server::config::ForwardedHeader;
use server::domain::client::{ClientId, PublicKey, Scopes, parse_public_keys};
use server::domain::clock::Timestamp;
use server::domain::id::{EventId, SessionId, TokenId, UserId};
use server::domain::jwt::{
    AccessClaims, Assertion, AssertionRefusal, ExpectedAssertion, LogoutClaims, LogoutEvent, Proven, Refusal,
    ServiceClaims, TokenKind, Verifier, install_crypto, key_id,
};
use server::domain::keys::{Algorithm, KeyEncryptionKey, KeyRecord, KeyRing, PublicKeys};
use server::domain::random::SystemRandom;
use server::domain::refresh::{self, SessionSecret};
use server::http::client::{ClientAddress, Identification};
use server::http::cookies;
use server::http::error::accepts_html;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::mutation::{edits, forgeries};

const ISSUER: &str = "https://mayfly.example";
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
/// How many times as many forgeries the full run makes.
const FULL: u32 = 10;

/// A test that runs on each of so many values; how often it said what.
fn fuzz<S: Strategy>(
    what: &str,
    cases: u32,
    strategy: &S,
    test: impl Fn(S::Value) -> String,
) -> BTreeMap<String, usize> {
    let full = std::env::var("MAYFLY_TEST_FULL").is_ok_and(|value| value == "1");
    let config = Config {
        cases: if full { cases * FULL } else { cases },
        failure_persistence: None,
        rng_seed: if full { RngSeed::Random } else { RngSeed::Fixed(49) },
        ..Config::default()
    };
    let said = RefCell::new(BTreeMap::new());
    let outcome = TestRunner::new(config.clone()).run(strategy, |value| {
        *said.borrow_mut().entry(test(value)).or_default() += 1;
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{what}: {error}");
    }
    let said = said.into_inner();
    println!("{what}: {} cases, {said:?}", config.cases);
    said
}

/// A key pair that is the same in every run.
struct Signer(Ed25519KeyPair);

impl Signer {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed has 32 bytes"))
    }

    fn jwk(&self, kid: &str) -> Value {
        let x = BASE64URL_NOPAD.encode(self.0.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid })
    }

    fn sign(&self, header: &[u8], claims: &[u8]) -> String {
        let message = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(claims));
        let signature = BASE64URL_NOPAD.encode(self.0.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }
}

/// Who signs, who verifies, and what is genuine.
struct World {
    signer: Signer,
    /// Ours, and a stranger's that nobody believes, for parts of another origin.
    genuine: Vec<String>,
    /// The same, with more logouts among them.
    logouts: Vec<String>,
    person: String,
    service: String,
    logout: String,
    assertion: String,
    keys: PublicKeys,
    verifier: Verifier,
    client: ClientId,
    client_keys: Vec<PublicKey>,
}

const fn token_id(number: u128) -> TokenId {
    TokenId(Uuid::from_u128(number))
}

fn header() -> String {
    json!({ "alg": "EdDSA", "kid": "k1", "typ": "at+jwt" }).to_string()
}

fn logout_header() -> String {
    json!({ "alg": "EdDSA", "kid": "k1", "typ": "logout+jwt" }).to_string()
}

fn person_claims(number: u128) -> String {
    let claims = AccessClaims {
        iss: ISSUER.to_owned(),
        aud: ISSUER.to_owned(),
        sub: UserId(Uuid::from_u128(number)),
        client_id: "mayfly-browser".to_owned(),
        sid: SessionId(Uuid::from_u128(number + 1)),
        rg: 17,
        jti: token_id(number + 2),
        iat: NOW.as_seconds(),
        nbf: NOW.as_seconds(),
        exp: NOW.as_seconds() + 900,
        auth_time: NOW.as_seconds() - 60,
        acr: "aal2".to_owned(),
        amr: vec!["pwd".to_owned(), "otp".to_owned()],
        roles: vec!["member".to_owned()],
        cnf: None,
    };
    serde_json::to_string(&claims).expect("JSON")
}

fn service_claims(client: &ClientId) -> String {
    let claims = ServiceClaims {
        iss: ISSUER.to_owned(),
        aud: ISSUER.to_owned(),
        client_id: client.clone(),
        scope: Scopes::parse("read write").expect("scopes"),
        jti: token_id(7),
        iat: NOW.as_seconds(),
        nbf: NOW.as_seconds(),
        exp: NOW.as_seconds() + 300,
    };
    serde_json::to_string(&claims).expect("JSON")
}

fn logout_claims() -> String {
    let claims = LogoutClaims {
        iss: ISSUER.to_owned(),
        aud: ISSUER.to_owned(),
        iat: NOW.as_seconds(),
        exp: NOW.as_seconds() + 120,
        jti: EventId(Uuid::from_u128(8)),
        sub: UserId(Uuid::from_u128(1)),
        sid: SessionId(Uuid::from_u128(2)),
        events: LogoutEvent,
    };
    serde_json::to_string(&claims).expect("JSON")
}

fn assertion_claims(client: &ClientId) -> String {
    let (id, now) = (client.as_str(), NOW.as_seconds());
    json!({ "iss": id, "sub": id, "aud": ISSUER, "jti": "once", "iat": now, "exp": now + 60 }).to_string()
}

impl World {
    fn new() -> Self {
        install_crypto();
        let (signer, stranger, own) = (Signer::new(1), Signer::new(2), Signer::new(3));
        let client = ClientId::parse(&format!("svc-{}", BASE64URL_NOPAD.encode(&[5; 16]))).expect("an id");
        let person = signer.sign(header().as_bytes(), person_claims(1).as_bytes());
        let service = signer.sign(header().as_bytes(), service_claims(&client).as_bytes());
        let logout = signer.sign(logout_header().as_bytes(), logout_claims().as_bytes());
        let assertion = own.sign(br#"{"alg":"EdDSA","kid":"k1"}"#, assertion_claims(&client).as_bytes());
        Self {
            logouts: vec![
                logout.clone(),
                person.clone(),
                stranger.sign(logout_header().as_bytes(), logout_claims().as_bytes()),
            ],
            genuine: vec![
                person.clone(),
                service.clone(),
                logout.clone(),
                assertion.clone(),
                stranger.sign(header().as_bytes(), person_claims(100).as_bytes()),
            ],
            person,
            service,
            logout,
            assertion,
            keys: PublicKeys::read(json!({ "keys": [signer.jwk("k1")] }).to_string().as_bytes()).expect("a set"),
            verifier: Verifier {
                issuer: ISSUER.to_owned(),
                audience: ISSUER.to_owned(),
                tolerance: Duration::from_secs(30),
                max_lifetime: Duration::from_hours(1),
            },
            client,
            client_keys: parse_public_keys(&own.jwk("k1").to_string()).expect("a key"),
            signer,
        }
    }

    fn prove(&self, token: &str, keys: &[PublicKey]) -> Result<Proven, AssertionRefusal> {
        let expected = ExpectedAssertion {
            audiences: [ISSUER, "https://mayfly.example/oauth/token"],
            tolerance: Duration::from_secs(30),
        };
        Assertion::parse(token)?.verify(&self.client, keys, expected, NOW)
    }
}

/// What was said, for counting; the assertion is what makes the test.
fn verdict<T, E: std::fmt::Display>(token: &str, genuine: &str, answer: &Result<T, E>) -> String {
    assert_eq!(
        answer.is_ok(),
        token == genuine,
        "only the genuine token is accepted: {token}"
    );
    answer
        .as_ref()
        .map_or_else(ToString::to_string, |_| "accepted".to_owned())
}

/// Shows that the forgeries went deep: each of these was said.
#[track_caller]
fn reached(said: &BTreeMap<String, usize>, expected: &str) {
    let missing: Vec<&str> = expected
        .split_whitespace()
        .filter(|word| !said.contains_key(*word))
        .collect();
    assert!(missing.is_empty(), "never said: {missing:?}");
}

#[test]
fn f49_no_forged_access_token_is_believed() {
    let world = World::new();
    let deep = "accepted too_long parts base64 utf8 json duplicate_member header_forbidden header_unknown typ key_id \
                key_unknown algorithm signature";
    let said = fuzz("a person's token", 5_000, &forgeries(&world.genuine), |token| {
        let answer = world.verifier.verify_access(&world.keys, &token, NOW);
        assert!(answer.is_err() || key_id(&token, TokenKind::Access).as_deref() == Ok("k1"));
        // The service's own token is genuine, but no person's: its claims say so.
        verdict(&token, &world.person, &answer.map_err(Refusal::as_str))
    });
    reached(&said, deep);
    let said = fuzz("a service's token", 5_000, &forgeries(&world.genuine), |token| {
        let answer = world.verifier.verify_service(&world.keys, &token, NOW);
        verdict(&token, &world.service, &answer.map_err(Refusal::as_str))
    });
    reached(&said, deep);
    let said = fuzz("a logout token", 5_000, &forgeries(&world.logouts), |token| {
        let answer = world.verifier.verify_logout(&world.keys, &token, NOW);
        verdict(&token, &world.logout, &answer.map_err(Refusal::as_str))
    });
    reached(&said, deep);
    let said = fuzz("an assertion", 5_000, &forgeries(&world.genuine), |token| {
        let answer = world.prove(&token, &world.client_keys);
        verdict(&token, &world.assertion, &answer.map_err(AssertionRefusal::as_str))
    });
    reached(
        &said,
        "accepted assertion_form assertion_header assertion_key_unknown assertion_signature",
    );
}

/// Scopes are a set: their order says nothing (RFC 6749, section 3.3).
fn in_order(mut claims: Value) -> Value {
    if let Some(scope) = claims["scope"].as_str() {
        let mut words: Vec<&str> = scope.split(' ').collect();
        words.sort_unstable();
        claims["scope"] = json!(words.join(" "));
    }
    claims
}

#[test]
fn f49_what_our_own_key_signed_is_read_without_loss_or_refused() {
    let world = World::new();
    let changes = || prop::collection::vec(edits(), 0..=3);
    let change = |text: String, edits: &[crate::mutation::Edit]| {
        edits.iter().fold(text.into_bytes(), |bytes, edit| {
            std::str::from_utf8(&bytes).map_or_else(|_| bytes.clone(), |text| edit.apply(text))
        })
    };
    // What is accepted, written again, is the JSON that was signed: nothing was left out, added or read as another type.
    let same = |written: Value, signed: &[u8]| {
        let signed: Value = serde_json::from_slice(signed).expect("it was accepted");
        assert_eq!(in_order(written), in_order(signed));
        "accepted".to_owned()
    };
    let said = fuzz("a person's claims", 3_000, &changes(), |edits| {
        let claims = change(person_claims(1), &edits);
        let token = world.signer.sign(header().as_bytes(), &claims);
        match world.verifier.verify_access(&world.keys, &token, NOW) {
            Ok(read) => same(serde_json::to_value(read).expect("JSON"), &claims),
            Err(refusal) => refusal.as_str().to_owned(),
        }
    });
    let deep = "accepted utf8 json duplicate_member claim_missing claim_mistyped claim_unknown issuer audience expired \
                not_yet_valid issued_in_future lifetime";
    reached(&said, deep);
    let said = fuzz("a service's claims", 3_000, &changes(), |edits| {
        let claims = change(service_claims(&world.client), &edits);
        let token = world.signer.sign(header().as_bytes(), &claims);
        match world.verifier.verify_service(&world.keys, &token, NOW) {
            Ok(read) => same(serde_json::to_value(read).expect("JSON"), &claims),
            Err(refusal) => refusal.as_str().to_owned(),
        }
    });
    reached(&said, deep);
    let said = fuzz("a logout token's claims", 3_000, &changes(), |edits| {
        let claims = change(logout_claims(), &edits);
        let token = world.signer.sign(logout_header().as_bytes(), &claims);
        match world.verifier.verify_logout(&world.keys, &token, NOW) {
            Ok(read) => same(serde_json::to_value(read).expect("JSON"), &claims),
            Err(refusal) => refusal.as_str().to_owned(),
        }
    });
    reached(
        &said,
        "accepted utf8 json duplicate_member claim_missing claim_mistyped claim_unknown issuer audience expired \
         issued_in_future lifetime",
    );
    let keys = parse_public_keys(&world.signer.jwk("k1").to_string()).expect("a key");
    let said = fuzz("a client's claims", 3_000, &changes(), |edits| {
        let claims = change(assertion_claims(&world.client), &edits);
        let token = world.signer.sign(br#"{"alg":"EdDSA","kid":"k1"}"#, &claims);
        match world.prove(&token, &keys) {
            Ok(proven) => {
                let signed: Value = serde_json::from_slice(&claims).expect("it was accepted");
                assert_eq!(signed["jti"], proven.jti);
                assert_eq!(
                    (&signed["iss"], &signed["sub"]),
                    (&json!(world.client.as_str()), &signed["iss"])
                );
                assert!(proven.until > NOW && proven.until <= NOW.plus(Duration::from_mins(8)));
                "accepted".to_owned()
            }
            Err(refusal) => refusal.as_str().to_owned(),
        }
    });
    reached(
        &said,
        "accepted assertion_form assertion_claims assertion_subject assertion_audience assertion_expired \
                    assertion_not_yet_valid assertion_too_long",
    );
}

#[test]
fn f49_no_forged_refresh_token_is_believed() {
    let (random, kek) = (SystemRandom::default(), KeyEncryptionKey::from_bytes([7; 32]));
    let mut signing = KeyRecord::generate_signing(Algorithm::EdDsa, &kek, NOW, &random).expect("a key");
    signing.activate(NOW).expect("activates");
    let mut edge = KeyRecord::generate_edge(1, &kek, NOW, &random).expect("a key");
    edge.activate(NOW).expect("activates");
    let next = KeyRecord::generate_edge(2, &kek, NOW, &random).expect("a key");
    let ring = KeyRing::open(vec![signing, edge, next], &kek).expect("opens");
    let mut genuine = Vec::new();
    for session in 1..=3_u8 {
        let secret = SessionSecret::new(Zeroizing::new([session; 32]));
        for generation in [0, 1, u64::MAX] {
            let id = SessionId(Uuid::from_u128(session.into()));
            let token = refresh::derive(&ring, &secret, id, generation, NOW);
            genuine.push(token.expose_secret().to_owned());
        }
    }
    let said = fuzz("a refresh token", 10_000, &forgeries(&genuine), |token| {
        let believed = refresh::parse(&ring, &token).is_some();
        assert_eq!(believed, genuine.contains(&token), "{token}");
        if believed { "accepted" } else { "refused" }.to_owned()
    });
    reached(&said, "accepted refused");
}

/// A line of a header with any bytes that HTTP allows there.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let words = "; ;; = , \" \\ [ ] : for= For= by= proto=https host= unknown _hidden 203.0.113.9 10.0.0.1 [2001:db8::1] \
                 [::ffff:10.0.0.1]:80 text/html text/event-stream */* ;q=0 theme=dark __Host-Http-mayfly-at= \
                 __Host-Http-mayfly-rt=";
    let words: Vec<Vec<u8>> = words.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
    let any = prop::collection::vec(any::<u8>(), 0..12);
    prop::collection::vec(prop_oneof![4 => select(words), 1 => any], 0..12).prop_map(|words| {
        let bytes = words.concat().into_iter();
        bytes
            .filter(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f))
            .collect()
    })
}

fn headers<'a>(name: &HeaderName, lines: impl IntoIterator<Item = &'a Vec<u8>>) -> HeaderMap {
    let value = |line| HeaderValue::from_bytes(line).expect("HTTP allows these bytes");
    lines.into_iter().map(|line| (name.clone(), value(line))).collect()
}

#[test]
fn f49_no_forged_cookie_is_believed() {
    let world = World::new();
    let other = &world.genuine[3];
    // Names that look like ours, and ours.
    let names = "__Host-Http-mayfly-at __Host-Http-mayfly-rt __Host-Http-mayfly-At __host-http-mayfly-at mayfly-at \
                 __Host-Http-mayfly-at2 x";
    let names: Vec<&str> = names.split_whitespace().collect();
    let value = prop_oneof![4 => forgeries(&world.genuine), 2 => select(vec![world.person.clone(), other.clone()])];
    let pair = (select(names), select(vec!["", " ", "\t"]), value).prop_map(|(name, space, value)| {
        let text = format!("{space}{name}{space}={space}{value}{space}").into_bytes();
        // Separators are the business of the lines below, and HTTP forbids the other bytes.
        let pair: Vec<u8> = text
            .into_iter()
            .filter(|byte| matches!(byte, b'\t' | 0x20..=0x3a | 0x3c..=0x7e))
            .collect();
        pair
    });
    let line = prop_oneof![4 => prop::collection::vec(pair, 1..4).prop_map(|pairs| pairs.join(&b';')), 1 => garbage()];
    let said = fuzz("cookies", 3_000, &prop::collection::vec(line, 0..3), |lines| {
        let headers = headers(&COOKIE, &lines);
        // A model that is slow and plain: all pairs of all lines as text.
        let all = lines.join(&b';');
        let text = String::from_utf8_lossy(&all);
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        let trim = |text: &str| text.trim_matches(|c: char| c.is_ascii_whitespace()).to_owned();
        let pairs: Vec<(String, String)> = pairs.map(|(name, value)| (trim(name), trim(value))).collect();
        let count = |name: &str| pairs.iter().filter(|(found, _)| found == name).count();
        let doubled = cookies::duplicate(&headers);
        assert_eq!(doubled, cookies::OURS.into_iter().find(|name| count(name) > 1));
        assert_eq!(
            cookies::has_tokens(&headers),
            count(cookies::ACCESS) + count(cookies::REFRESH) > 0
        );
        assert!(matches!(cookies::theme(&headers), None | Some("light" | "dark")));
        let Some(token) = cookies::read(&headers, cookies::ACCESS) else {
            return "none".to_owned();
        };
        let first = pairs
            .iter()
            .find(|(name, _)| name == cookies::ACCESS)
            .expect("it was found");
        assert_eq!(token, first.1);
        let answer = world.verifier.verify_access(&world.keys, token, NOW);
        let said = verdict(token, &world.person, &answer.map_err(Refusal::as_str));
        if doubled.is_some() { "doubled".to_owned() } else { said }
    });
    reached(&said, "none doubled accepted signature");
}

#[test]
fn f49_no_stranger_chooses_the_address_he_is_seen_with() {
    let x_forwarded_for = HeaderName::from_static("x-forwarded-for");
    let proxy: IpAddr = "10.0.0.1".parse().expect("an address");
    let client: IpAddr = "203.0.113.77".parse().expect("an address");
    let case = (
        prop::collection::vec(garbage(), 0..4),
        any::<bool>(),
        any::<bool>(),
        any::<Index>(),
    );
    let seen = RefCell::new(BTreeSet::new());
    fuzz("addresses", 4_000, &case, |(mut lines, standard, own_line, hops)| {
        let (name, forwarded_header, prefix) = if standard {
            (&FORWARDED, ForwardedHeader::Forwarded, "for=")
        } else {
            (&x_forwarded_for, ForwardedHeader::XForwardedFor, "")
        };
        let identification = Identification {
            trusted_proxies: Arc::from(["10.0.0.0/8".parse().expect("a network")]),
            forwarded_header,
            random: Arc::new(SystemRandom::default()),
        };
        let untouched = headers(name, &lines);
        // Without a proxy of ours before him, nothing he writes counts.
        assert_eq!(identification.client_address(client, &untouched), ClientAddress(client));
        // Garbage alone behind a proxy: some address, and no panic.
        seen.borrow_mut()
            .insert(identification.client_address(proxy, &untouched).0);
        // Our proxies append the address they saw to what the stranger sent, in the same line or in one of their own.
        let ours = (0..hops.index(4)).map(|hop| format!("10.0.0.{}", hop + 2));
        let hops: Vec<String> = std::iter::once(client.to_string()).chain(ours).collect();
        let appended = format!("{prefix}{}", hops.join(&format!(", {prefix}")));
        match lines.last_mut() {
            Some(last) if !own_line => {
                last.extend_from_slice(b", ");
                last.extend_from_slice(appended.as_bytes());
            }
            _ => lines.push(appended.into_bytes()),
        }
        let touched = headers(name, &lines);
        let readable = touched
            .get_all(name)
            .iter()
            .next_back()
            .is_some_and(|line| line.to_str().is_ok());
        let address = identification.client_address(proxy, &touched).0;
        // A line that is no text is one unreadable hop: then the proxy is the last one whose address is known.
        assert_eq!(address, if readable { client } else { proxy }, "{touched:?}");
        if readable { "known" } else { "unreadable" }.to_owned()
    });
    assert!(seen.borrow().len() > 2, "the garbage held addresses: {seen:?}");
}

#[test]
fn f49_any_accept_header_is_answered() {
    let said = fuzz("accept", 2_000, &prop::collection::vec(garbage(), 0..4), |lines| {
        let headers = headers(&ACCEPT, &lines);
        let html = |line: &&Vec<u8>| line.windows(9).any(|word| word == b"text/html") && line.is_ascii();
        assert_eq!(accepts_html(&headers), lines.iter().any(|line| html(&line)));
        if accepts_html(&headers) { "page" } else { "program" }.to_owned()
    });
    reached(&said, "page program");
}
