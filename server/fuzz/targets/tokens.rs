//! Any bytes as a token, at every place that takes one. What is believed was signed by the right key, as it stands.
#![no_main]

use fuzz::domain::jwt::{TokenKind, key_id};
use fuzz::world::{ASSERTION_HEADER, HEADER, LOGOUT_HEADER, NOW, WORLD};
use libfuzzer_sys::fuzz_target;

/// Genuine ones, from which everything begins: a person's, a service's, a client's own, a logout.
const SEEDS: [&str; 4] = [
    include_str!("../seeds/tokens/person"),
    include_str!("../seeds/tokens/service"),
    include_str!("../seeds/tokens/assertion"),
    include_str!("../seeds/tokens/logout"),
];

fn the_seeds_are_genuine() {
    let [person, service, assertion, logout] = WORLD.good_claims();
    assert_eq!(SEEDS[0], WORLD.signer.sign(HEADER.as_bytes(), person.as_bytes()));
    assert_eq!(SEEDS[1], WORLD.signer.sign(HEADER.as_bytes(), service.as_bytes()));
    let own = WORLD
        .client_signer
        .sign(ASSERTION_HEADER.as_bytes(), assertion.as_bytes());
    assert_eq!(SEEDS[2], own);
    assert_eq!(SEEDS[3], WORLD.signer.sign(LOGOUT_HEADER.as_bytes(), logout.as_bytes()));
    assert!(SEEDS.into_iter().all(believed));
}

/// Whether anybody believes it, after a look at whether they may.
fn believed(token: &str) -> bool {
    let person = WORLD.verifier.verify_access(&WORLD.keys, token, NOW).is_ok();
    let service = WORLD.verifier.verify_service(&WORLD.keys, token, NOW).is_ok();
    let logout = WORLD.verifier.verify_logout(&WORLD.keys, token, NOW).is_ok();
    let client = WORLD.prove(token).is_ok();
    assert!(
        [person, service, logout, client].into_iter().filter(|is| *is).count() <= 1,
        "each kind is refused in the place of another"
    );
    if person || service || logout {
        let kind = if logout { TokenKind::Logout } else { TokenKind::Access };
        assert_eq!(key_id(token, kind).as_deref(), Ok("k1"));
        assert_eq!(WORLD.signer.sign_again(token), token);
    }
    if client {
        assert_eq!(WORLD.client_signer.sign_again(token), token);
    }
    person || service || logout || client
}

fuzz_target!(init: the_seeds_are_genuine(), |data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        believed(text);
    }
});
