//! Any bytes as header and claims, honestly signed: the way past the signature. What is believed is read without loss.
//!
//! The input is the header, a line end, and the claims.
#![no_main]

use std::collections::BTreeSet;
use std::time::Duration;

use fuzz::world::{ASSERTION_HEADER, HEADER, LOGOUT_HEADER, NOW, WORLD};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const SEEDS: [&[u8]; 4] = [
    include_bytes!("../seeds/claims/person"),
    include_bytes!("../seeds/claims/service"),
    include_bytes!("../seeds/claims/assertion"),
    include_bytes!("../seeds/claims/logout"),
];

fn the_seeds_are_good() {
    for ((seed, header), claims) in SEEDS
        .iter()
        .zip([HEADER, HEADER, ASSERTION_HEADER, LOGOUT_HEADER])
        .zip(WORLD.good_claims())
    {
        let expected = format!("{header}\n{claims}");
        assert_eq!(std::str::from_utf8(seed), Ok(expected.as_str()));
        assert!(believed(header.as_bytes(), claims.as_bytes()), "{expected}");
    }
}

/// Scopes are a set: neither order nor repetition says anything (RFC 6749, section 3.3).
fn as_set(mut claims: Value) -> Value {
    if let Some(scope) = claims["scope"].as_str() {
        let words: BTreeSet<&str> = scope.split(' ').collect();
        claims["scope"] = json!(words);
    }
    claims
}

/// Whether anybody believes it, after a look at what they read.
fn believed(header: &[u8], claims: &[u8]) -> bool {
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("it was believed");
    let token = WORLD.signer.sign(header, claims);
    let person = WORLD.verifier.verify_access(&WORLD.keys, &token, NOW);
    let service = WORLD.verifier.verify_service(&WORLD.keys, &token, NOW);
    if person.is_ok() || service.is_ok() {
        assert_eq!(json(header), json(HEADER.as_bytes()));
    }
    if let Ok(read) = &person {
        assert_eq!(serde_json::to_value(read).expect("JSON"), json(claims));
    }
    if let Ok(read) = &service {
        let written = serde_json::to_value(read).expect("JSON");
        assert_eq!(as_set(written), as_set(json(claims)));
    }
    let logout = WORLD.verifier.verify_logout(&WORLD.keys, &token, NOW);
    if let Ok(read) = &logout {
        assert_eq!(json(header), json(LOGOUT_HEADER.as_bytes()));
        assert_eq!(serde_json::to_value(read).expect("JSON"), json(claims));
    }
    let assertion = WORLD.prove(&WORLD.client_signer.sign(header, claims));
    if let Ok(proven) = &assertion {
        let signed = json(claims);
        assert_eq!(signed["jti"], proven.jti);
        assert_eq!(
            (&signed["iss"], &signed["sub"]),
            (&json!(WORLD.client.as_str()), &signed["iss"])
        );
        assert!(proven.until > NOW && proven.until <= NOW.plus(Duration::from_mins(6)));
    }
    person.is_ok() || service.is_ok() || logout.is_ok() || assertion.is_ok()
}

fuzz_target!(init: the_seeds_are_good(), |data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    if let (Some(header), Some(claims)) = (parts.next(), parts.next()) {
        believed(header, claims);
    }
});
