//! Any bytes as a refresh token, and any bytes inside one whose outer tag is right (TOKENS.md, section 2).
#![no_main]

use data_encoding::BASE64URL_NOPAD;
use fuzz::domain::id::SessionId;
use fuzz::domain::refresh::{SessionSecret, derive, parse};
use fuzz::world::{NOW, WORLD};
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

const SEED: &str = include_str!("../seeds/refresh_tokens/token");
/// The same without its outer tag, as bytes.
const TAGGED_SEED: &[u8] = include_bytes!("../seeds/refresh_tokens/tagged");
/// version, key id, session, generation, inner tag.
const TAGGED: usize = 1 + 1 + 16 + 8 + 16;

fn the_seeds_are_genuine() {
    let secret = SessionSecret::new(Zeroizing::new([3; 32]));
    let ours = derive(&WORLD.ring, &secret, SessionId(uuid::Uuid::from_u128(2)), 17, NOW);
    assert_eq!(SEED, ours.expose_secret());
    assert!(as_it_stands(SEED));
    assert!(inside(TAGGED_SEED));
}

/// As it stands: believed only if the outer tag is that of the key it names, and in the one spelling.
fn as_it_stands(text: &str) -> bool {
    let Some(presented) = parse(&WORLD.ring, text) else {
        return false;
    };
    let encoded = text.strip_prefix("mfr_").expect("the prefix was believed");
    let bytes = BASE64URL_NOPAD
        .decode(encoded.as_bytes())
        .expect("base64url was believed");
    assert_eq!(format!("mfr_{}", BASE64URL_NOPAD.encode(&bytes)), text);
    let (tagged, tag) = bytes.split_at(TAGGED);
    let key = WORLD.ring.edge(tagged[1]).expect("the key id was believed");
    assert_eq!(key.tag(tagged), tag);
    assert_eq!(presented.session_id.0.as_bytes(), &tagged[2..18]);
    true
}

/// With the right tag behind it: read as exactly what it says, or of another version or an unknown key.
fn inside(data: &[u8]) -> bool {
    let Some(tagged) = data.get(..TAGGED) else {
        return false;
    };
    let mut believed = false;
    let named = WORLD.ring.edge(tagged[1]);
    let one = WORLD.ring.edge(1).expect("the active key");
    for (key, is_named) in [(named.unwrap_or(one), named.is_some()), (one, tagged[1] == 1)] {
        let token = format!("mfr_{}", BASE64URL_NOPAD.encode(&[tagged, &key.tag(tagged)].concat()));
        match parse(&WORLD.ring, &token) {
            Some(presented) => {
                assert!(is_named && tagged[0] == 1, "{token}");
                assert_eq!(presented.session_id.0.as_bytes(), &tagged[2..18]);
                assert_eq!(presented.generation.to_be_bytes(), &tagged[18..26]);
                believed |= as_it_stands(&token);
            }
            None => assert!(!is_named || tagged[0] != 1, "{token}"),
        }
    }
    believed
}

fuzz_target!(init: the_seeds_are_genuine(), |data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        as_it_stands(text);
    }
    inside(data);
});
