//! Wycheproof's vectors (C2SP/wycheproof, `testvectors_v1`, Apache-2.0): `json_web_signature_test.json`,
//! `json_web_key_test.json` and `ed25519_test.json`. They are not copied: packages for tests bring them, and name them by
//! their `tcId`.
//!
//! Their payloads are no claims and their headers have no `typ`. So the verifier's steps before the claims are taken one
//! by one, each as the product takes it; and the verifier as a whole must refuse every one of them.

use std::collections::BTreeMap;

use wycheproof_ng_eddsa as eddsa;
use wycheproof_ng_kdf_jose::json_web::{Test, TestName, TestSet};

use super::compact::{Compact, object, parts};
use super::verify::{check_header, check_signature};
use super::*;
use crate::domain::client::{PublicKeyError, parse_public_keys};
use crate::domain::keys::PublicKeys;

/// The flag by which a vector says that it is genuine; `acceptable` ones leave it to us, and there are none here.
fn is_valid(result: &impl std::fmt::Debug) -> bool {
    let result = format!("{result:?}");
    assert!(["Valid", "Invalid"].contains(&result.as_str()), "{result}");
    result == "Valid"
}

/// Form, header, key, signature: all but what a token claims.
fn believe(keys: &PublicKeys, token: &str) -> Result<(), Refusal> {
    let ([header, _], signed, signature) = parts(token)?;
    let mut header = object(&header)?;
    header.entry("typ").or_insert_with(|| json!("at+jwt"));
    let key = check_header(&header, TokenKind::Access, keys)?;
    let claims = serde_json::Map::new();
    let token = Compact {
        header,
        claims,
        signed,
        signature,
    };
    check_signature(&token, key)
}

/// In compact form; the JSON form of a token is a text like any other to us.
fn token(test: &Test) -> String {
    match test.jws.as_ref().expect("a JWS") {
        Value::String(compact) => compact.clone(),
        other => other.to_string(),
    }
}

/// A key, or a set of them, as a set.
fn set_of(keys: Option<&Value>) -> Value {
    match keys {
        None => json!({ "keys": [] }),
        Some(set) if set.get("keys").is_some() => set.clone(),
        Some(key) => json!({ "keys": [key] }),
    }
}

fn read(keys: Option<&Value>) -> Option<PublicKeys> {
    PublicKeys::read(set_of(keys).to_string().as_bytes()).ok()
}

fn nobody_accepts(keys: &PublicKeys, what: &str, token: &str) {
    let (verifier, now) = (world(Algorithm::Es256).verifier, Timestamp::from_seconds(NOW));
    assert!(verifier.verify_access(keys, token, now).is_err(), "{what}");
    assert!(verifier.verify_service(keys, token, now).is_err(), "{what}");
    assert!(Assertion::parse(token).is_err(), "{what}: the payload is no JSON");
}

#[test]
fn j7_of_wycheproofs_signatures_exactly_the_valid_ones_of_our_algorithms_are_believed() {
    install_crypto();
    let set = TestSet::load(TestName::JsonWebSignature).unwrap();
    let (mut believed, mut refused) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for group in &set.test_groups {
        let public = group.public_key.as_ref();
        let keys = read(public).expect("public keys");
        let is_ours = public.is_some_and(|key| key["crv"] == "P-256" && key["alg"] == "ES256" && key["use"] == "sig");
        for test in &group.tests {
            let (token, what) = (token(test), format!("tcId {}: {}", test.tc_id, test.comment));
            nobody_accepts(&keys, &what, &token);
            match believe(&keys, &token) {
                Ok(()) => believed.push(test.tc_id),
                Err(refusal) => *refused.entry(refusal.as_str()).or_default() += 1,
            }
            let expected = is_ours && is_valid(&test.result);
            assert_eq!(believed.last() == Some(&test.tc_id), expected, "{what}");
        }
    }
    println!(
        "{} signatures: {believed:?} believed, refused {refused:?}",
        set.number_of_tests
    );
    assert_eq!((set.number_of_tests, believed), (401, vec![18, 378]));
    for reason in "parts base64 header_forbidden key_unknown algorithm signature".split(' ') {
        assert!(refused.contains_key(reason), "{reason}: {refused:?}");
    }
}

#[test]
fn j11_none_of_wycheproofs_wrong_key_sets_verifies_anything() {
    install_crypto();
    let set = TestSet::load(TestName::JsonWebKey).unwrap();
    let signatures = TestSet::load(TestName::JsonWebSignature).unwrap();
    let p256 = signatures
        .test_groups
        .iter()
        .find(|group| group.group_comment == "es256")
        .unwrap();
    let good = read(p256.public_key.as_ref()).expect("a key");
    let mut only_the_key_is_wrong = Vec::new();
    for group in &set.test_groups {
        let keys = [group.public_key.as_ref(), group.private_key.as_ref()];
        for test in &group.tests {
            let (token, what) = (token(test), format!("tcId {}: {}", test.tc_id, test.comment));
            for keys in keys.iter().filter_map(|keys| read(*keys)) {
                assert!(believe(&keys, &token).is_err(), "{what}");
                nobody_accepts(&keys, &what, &token);
            }
            if believe(&good, &token).is_ok() {
                only_the_key_is_wrong.push(test.tc_id);
            }
        }
        // Nobody hands us a private key without being told so, whether it is ours to use or not.
        let private = set_of(group.private_key.as_ref());
        if let Some(key) = private["keys"].get(0) {
            assert_eq!(
                parse_public_keys(&key.to_string()),
                Err(PublicKeyError::Private),
                "{}",
                group.group_comment
            );
        }
    }
    assert_eq!(set.number_of_tests, 26);
    assert_eq!(
        only_the_key_is_wrong,
        [19, 20, 21, 22, 23, 24],
        "with the right key they are believed"
    );
}

#[test]
fn j1_wycheproofs_ed25519_signatures_are_told_apart() {
    install_crypto();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut counts = BTreeMap::<(bool, bool), usize>::new();
    for group in &set.test_groups {
        let x = BASE64URL_NOPAD.encode(&group.key.pk);
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k1" });
        let client = &parse_public_keys(&jwk.to_string()).unwrap()[0];
        let keys = read(Some(&jwk)).expect("a key");
        for test in &group.tests {
            let (what, expected) = (format!("tcId {}: {}", test.tc_id, test.comment), is_valid(&test.result));
            assert_eq!(client.verifies(&test.msg, &test.sig), expected, "{what}");
            // Ours sign text only.
            let text = std::str::from_utf8(&test.msg);
            if let Ok(signed) = text {
                let header = json!({ "alg": "EdDSA", "kid": "k1", "typ": "at+jwt" });
                let header = header.as_object().unwrap().clone();
                let key = check_header(&header, TokenKind::Access, &keys).unwrap();
                let token = Compact {
                    header: header.clone(),
                    claims: serde_json::Map::new(),
                    signed,
                    signature: &BASE64URL_NOPAD.encode(&test.sig),
                };
                assert_eq!(check_signature(&token, key).is_ok(), expected, "{what}");
            }
            *counts.entry((expected, text.is_ok())).or_default() += 1;
        }
    }
    println!(
        "{} signatures, by whether valid and whether text: {counts:?}",
        set.number_of_tests
    );
    assert_eq!(counts.values().sum::<usize>(), set.number_of_tests);
    assert!(counts.len() == 4 && set.number_of_tests >= 150, "{counts:?}");
}
