//! Any bytes as a client's keys and as another server's key set: what is taken is public, and reads the same again.
#![no_main]

use fuzz::domain::client::{PublicKey, parse_public_keys};
use fuzz::domain::keys::{PublicKeys, VerifyingKeys as _};
use fuzz::world::WORLD;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SEEDS: [&str; 4] = [
    include_str!("../seeds/public_keys/ed25519.json"),
    include_str!("../seeds/public_keys/p256.json"),
    include_str!("../seeds/public_keys/set.json"),
    include_str!("../seeds/public_keys/pem"),
];

fn the_seeds_are_keys() {
    // Cryptography is ready.
    assert!(WORLD.keys.find("k1").is_some());
    for seed in SEEDS {
        assert!(taken(seed), "{seed}");
    }
}

fn taken(text: &str) -> bool {
    let Ok(keys) = parse_public_keys(text) else {
        return false;
    };
    assert!((1..=4).contains(&keys.len()));
    let set = PublicKey::to_jwks(&keys);
    assert_eq!(parse_public_keys(&set).as_ref(), Ok(&keys), "{set}");
    let read = PublicKeys::read(set.as_bytes()).expect("a set");
    for key in &keys {
        assert!(!key.verifies(b"nobody signed this", &[0; 64]));
        if let Some(kid) = key.kid() {
            let found = read.find(kid).map(|(algorithm, _)| algorithm);
            assert_eq!(found, Some(key.algorithm()), "{kid}");
        }
    }
    let written: Value = serde_json::from_str(&set).expect("JSON");
    let public = ["kty", "crv", "x", "y", "kid"];
    for jwk in written["keys"].as_array().expect("keys") {
        assert!(
            jwk.as_object()
                .expect("a key")
                .keys()
                .all(|name| public.contains(&name.as_str()))
        );
    }
    true
}

fuzz_target!(init: the_seeds_are_keys(), |data: &[u8]| {
    // A set of somebody else's may be anything, and is refused or read in part.
    drop(PublicKeys::read(data));
    if let Ok(text) = std::str::from_utf8(data) {
        taken(text);
    }
});
