//! The attack corpus J1 to J7: each token must be refused, and for its own reason.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm as Library, EncodingKey};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::domain::clock::Timestamp;
use crate::domain::id::{SessionId, TokenId, UserId};
use crate::domain::keys::{KeyEncryptionKey, KeyRecord};
use crate::domain::random::SystemRandom;

mod corpus;
mod logout;
mod published;
mod wycheproof;

const NOW: i64 = 1_800_000_000;

/// A ring, what its active key signs with, and what it is called.
struct World {
    ring: KeyRing,
    verifier: Verifier,
    /// Key id of a key that is published but not active.
    next_kid: String,
    removed_kid: String,
}

fn world(algorithm: Algorithm) -> World {
    install_crypto();
    let (now, random) = (Timestamp::from_seconds(NOW - 1000), SystemRandom::default());
    let kek = KeyEncryptionKey::from_bytes([7; 32]);
    let key = || KeyRecord::generate_signing(algorithm, &kek, now, &random).unwrap();
    let (mut active, next, mut removed) = (key(), key(), key());
    active.activate(now).unwrap();
    removed.remove(now).unwrap();
    let mut edge = KeyRecord::generate_edge(1, &kek, now, &random).unwrap();
    edge.activate(now).unwrap();
    let (next_kid, removed_kid) = (next.id.clone(), removed.id.clone());
    World {
        ring: KeyRing::open(vec![active, next, removed, edge], &kek).unwrap(),
        verifier: Verifier {
            issuer: "https://mayfly.example".to_owned(),
            audience: "https://mayfly.example".to_owned(),
            tolerance: Duration::from_secs(30),
            max_lifetime: Duration::from_hours(1),
        },
        next_kid,
        removed_kid,
    }
}

fn claims() -> AccessClaims {
    let (now, random) = (Timestamp::from_seconds(NOW), SystemRandom::default());
    AccessClaims {
        iss: "https://mayfly.example".to_owned(),
        aud: "https://mayfly.example".to_owned(),
        sub: UserId::new(now, &random),
        client_id: "mayfly-browser".to_owned(),
        sid: SessionId::new(now, &random),
        rg: 17,
        jti: TokenId::new(now, &random),
        iat: NOW,
        nbf: NOW,
        exp: NOW + 900,
        auth_time: NOW - 60,
        acr: "aal2".to_owned(),
        amr: vec!["pwd".to_owned(), "otp".to_owned()],
        roles: ["admin", "auditor", "finance", "support", "engineer"]
            .map(str::to_owned)
            .to_vec(),
        cnf: None,
    }
}

impl World {
    fn header(&self) -> Value {
        let key = self.ring.active_signing();
        json!({ "typ": "at+jwt", "alg": key.algorithm().as_str(), "kid": key.kid() })
    }

    /// Any header and claims, as bytes, honestly signed by the active key.
    fn sign_bytes(&self, header: &[u8], claims: &[u8]) -> String {
        self.sign_message(&format!(
            "{}.{}",
            BASE64URL_NOPAD.encode(header),
            BASE64URL_NOPAD.encode(claims)
        ))
    }

    fn sign_message(&self, message: &str) -> String {
        let key = self.ring.active_signing();
        let algorithm = library_algorithm(key.algorithm());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key.encoding(), algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_bytes(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    fn good(&self) -> String {
        sign_access(&self.ring, &claims()).unwrap().expose_secret().to_owned()
    }

    fn verify_at(&self, token: &str, now: Timestamp) -> Result<AccessClaims, Refusal> {
        self.verifier.verify_access(&self.ring, token, now)
    }

    fn verify(&self, token: &str) -> Result<AccessClaims, Refusal> {
        self.verify_at(token, Timestamp::from_seconds(NOW))
    }
}

/// A bad token: what is bad about it, the token, the reason it must be refused for.
type Bad = (String, String, Refusal);

/// Runs a part of the corpus with both algorithms, after showing that a good token is accepted.
fn all_refused(corpus: fn(&World) -> Vec<Bad>) {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let world = world(algorithm);
        assert!(world.verify(&world.good()).is_ok());
        for (what, token, expected) in corpus(&world) {
            assert_eq!(world.verify(&token).map(|_| ()), Err(expected), "{algorithm:?}: {what}");
        }
    }
}

#[test]
fn j1_only_the_keys_own_algorithm_is_accepted() {
    all_refused(corpus::j1);
}

#[test]
fn j2_headers_that_bring_keys_encodings_or_extensions_are_refused_though_signed() {
    all_refused(corpus::j2);
}

#[test]
fn j3_a_key_is_found_by_its_exact_id_only() {
    all_refused(corpus::j3);
}

#[test]
fn j4_only_the_typ_of_an_access_token_is_accepted() {
    all_refused(corpus::j4);
}

#[test]
fn f49_every_attack_of_jwt_tool_is_refused_for_its_own_reason() {
    all_refused(corpus::jwt_tool);
    let world = world(Algorithm::Es256);
    let made: std::collections::BTreeSet<String> = corpus::jwt_tool(&world)
        .into_iter()
        .map(|(what, ..)| what.split(':').next().unwrap_or_default().to_owned())
        .collect();
    let made: Vec<&str> = made.iter().map(String::as_str).collect();
    let expected = "-C -I -S -X a -X b -X i -X k -X n -X p -X s kid";
    assert_eq!(made.join(" "), expected, "each of the tool's attacks by its name");
}

#[test]
fn j5_every_claim_must_be_there_with_its_type_and_no_other() {
    all_refused(corpus::j5);
}

#[test]
fn j6_times_and_lifetimes_out_of_range_are_refused() {
    all_refused(corpus::j6);
}

#[test]
fn j7_only_the_strict_compact_form_is_read() {
    all_refused(corpus::j7);
}

#[test]
fn f49_the_corpus_holds_at_least_500_tokens() {
    let world = world(Algorithm::Es256);
    let parts: [fn(&World) -> Vec<Bad>; 7] = [
        corpus::j1,
        corpus::j2,
        corpus::j3,
        corpus::j4,
        corpus::j5,
        corpus::j6,
        corpus::j7,
    ];
    let count: usize = parts.iter().map(|part| part(&world).len()).sum();
    println!("{count} bad tokens");
    assert!(count >= 500, "{count}");
}

#[test]
fn a_good_token_gives_back_exactly_its_claims_with_either_algorithm() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let (world, claims) = (world(algorithm), claims());
        let token = sign_access(&world.ring, &claims).unwrap();
        assert_eq!(world.verify(token.expose_secret()), Ok(claims));
    }
}

#[test]
fn j6_each_time_limit_holds_to_the_second_with_the_one_tolerance() {
    let mut world = world(Algorithm::Es256);
    let mut later = claims();
    later.nbf = NOW + 100;
    let mut issued_later = claims();
    issued_later.iat = NOW + 100;
    for tolerance in [0, 30, 120] {
        world.verifier.tolerance = Duration::from_secs(u64::try_from(tolerance).unwrap());
        let expiry = NOW + 900 + tolerance;
        let begin = NOW + 100 - tolerance;
        let table = [
            (claims(), (expiry - 1) * 1000, None),
            (claims(), expiry * 1000 - 1, None),
            (claims(), expiry * 1000, Some(Refusal::Expired)),
            (claims(), (expiry + 1) * 1000, Some(Refusal::Expired)),
            (later.clone(), (begin - 1) * 1000, Some(Refusal::NotYetValid)),
            (later.clone(), begin * 1000 - 1, Some(Refusal::NotYetValid)),
            (later.clone(), begin * 1000, None),
            (later.clone(), (begin + 1) * 1000, None),
            (issued_later.clone(), (begin - 1) * 1000, Some(Refusal::IssuedInFuture)),
            (issued_later.clone(), begin * 1000 - 1, Some(Refusal::IssuedInFuture)),
            (issued_later.clone(), begin * 1000, None),
        ];
        for (claims, millis, expected) in table {
            let token = sign_access(&world.ring, &claims).unwrap();
            let answer = world.verify_at(token.expose_secret(), Timestamp::from_millis(millis));
            assert_eq!(answer.err(), expected, "tolerance {tolerance} s, at {millis} ms");
        }
    }
}

#[test]
fn j6_no_configuration_gives_more_than_two_minutes_of_tolerance() {
    let mut world = world(Algorithm::Es256);
    world.verifier.tolerance = Duration::from_hours(24);
    let token = world.good();
    assert!(
        world
            .verify_at(&token, Timestamp::from_seconds(NOW + 900 + 119))
            .is_ok()
    );
    let late = world.verify_at(&token, Timestamp::from_seconds(NOW + 900 + 120));
    assert_eq!(late.unwrap_err(), Refusal::Expired);
}

#[test]
fn j6_a_lifetime_is_accepted_up_to_the_maximum_and_not_a_second_longer() {
    let world = world(Algorithm::Es256);
    for (lifetime, accepted) in [(3599, true), (3600, true), (3601, false), (1, true)] {
        let claims = AccessClaims {
            exp: NOW + lifetime,
            ..claims()
        };
        let token = sign_access(&world.ring, &claims).unwrap();
        assert_eq!(world.verify(token.expose_secret()).is_ok(), accepted, "{lifetime} s");
    }
}

#[test]
fn no_clock_however_wrong_makes_the_verifier_panic() {
    let world = world(Algorithm::Es256);
    let token = world.good();
    for millis in [i64::MIN, -1, 0, 1, 59_000, i64::MAX] {
        assert!(world.verify_at(&token, Timestamp::from_millis(millis)).is_err());
    }
}

#[test]
fn j3_next_keys_already_verify_and_removed_ones_are_unknown() {
    let world = world(Algorithm::Es256);
    assert!(world.ring.verifying(&world.next_kid).is_some());
    assert!(world.ring.verifying(&world.removed_kid).is_none());
}

#[test]
fn m6_a_token_with_five_roles_has_at_most_700_bytes() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let length = world(algorithm).good().len();
        println!("{algorithm:?}: {length} bytes");
        assert!(length <= 700, "{length} bytes");
    }
}

#[test]
fn c3_a_token_says_nothing_but_the_fixed_list_of_claims() {
    let claims = serde_json::to_value(claims()).unwrap();
    let mut expected: Vec<_> = Claim::ALL.iter().map(|claim| claim.as_str()).collect();
    let mut found: Vec<_> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn l5_no_refusal_shows_a_piece_of_the_token() {
    let world = world(Algorithm::Es256);
    let parts: [fn(&World) -> Vec<Bad>; 2] = [corpus::j3, corpus::j7];
    for (_, token, refusal) in parts.iter().flat_map(|part| part(&world)) {
        let shown = format!("{refusal} {refusal:?}");
        let payload = token.split('.').nth(1).unwrap_or_default();
        assert!(payload.len() < 8 || !shown.contains(payload));
        assert!(shown.len() < 60);
    }
}

#[test]
fn every_altered_bit_of_a_token_is_refused() {
    let world = world(Algorithm::Es256);
    let token = world.good();
    for i in 0..token.len() {
        for bit in 0..7 {
            let mut altered = token.clone().into_bytes();
            altered[i] ^= 1 << bit;
            let altered = String::from_utf8(altered).unwrap();
            assert!(world.verify(&altered).is_err(), "byte {i} bit {bit}");
        }
    }
}

#[test]
fn installing_the_crypto_twice_does_nothing() {
    install_crypto();
    install_crypto();
}
