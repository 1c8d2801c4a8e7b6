//! Keys from making to publishing.

use std::collections::BTreeSet;

use data_encoding::BASE64URL_NOPAD;

use super::*;
use crate::domain::clock::Timestamp;
use crate::domain::random::SystemRandom;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn kek() -> KeyEncryptionKey {
    KeyEncryptionKey::from_bytes([7; 32])
}

fn signing(algorithm: Algorithm) -> KeyRecord {
    KeyRecord::generate_signing(algorithm, &kek(), NOW, &SystemRandom::default()).unwrap()
}

fn edge(id: u32) -> KeyRecord {
    KeyRecord::generate_edge(id, &kek(), NOW, &SystemRandom::default()).unwrap()
}

fn active(mut key: KeyRecord) -> KeyRecord {
    key.activate(NOW).unwrap();
    key
}

fn retired(key: KeyRecord) -> KeyRecord {
    let mut key = active(key);
    key.retire(NOW).unwrap();
    key
}

fn removed(mut key: KeyRecord) -> KeyRecord {
    key.remove(NOW).unwrap();
    key
}

#[test]
fn j11_the_published_set_has_public_members_only_and_each_kid_once() {
    let gone = removed(signing(Algorithm::Es256));
    let records = vec![
        active(signing(Algorithm::Es256)),
        signing(Algorithm::EdDsa),
        retired(signing(Algorithm::Es256)),
        retired(signing(Algorithm::EdDsa)),
        gone.clone(),
        active(edge(1)),
        retired(edge(2)),
    ];
    let expected: BTreeSet<String> = records[..4].iter().map(|record| record.id.clone()).collect();
    let jwks = KeyRing::open(records, &kek()).unwrap().jwks();
    let keys = jwks["keys"].as_array().unwrap();
    let kids: BTreeSet<String> = keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
    assert_eq!((keys.len(), kids), (4, expected));
    assert_eq!(jwks.as_object().unwrap().len(), 1);
    for key in keys {
        let names: BTreeSet<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
        let public: &[&str] = match key["kty"].as_str().unwrap() {
            "EC" => &["kty", "crv", "x", "y", "kid", "use", "alg"],
            _ => &["kty", "crv", "x", "kid", "use", "alg"],
        };
        assert_eq!(names, public.iter().copied().collect());
        assert_eq!(key["use"], "sig");
        for coordinate in ["x", "y"].iter().filter_map(|name| key[name].as_str()) {
            assert_eq!(BASE64URL_NOPAD.decode(coordinate.as_bytes()).unwrap().len(), 32);
        }
    }
}

#[test]
fn j11_no_private_byte_stands_in_the_published_set() {
    let record = active(signing(Algorithm::EdDsa));
    let pkcs8 = kek().open("key", record.id.as_bytes(), &record.private_sealed).unwrap();
    let text = KeyRing::open(vec![record, active(edge(1))], &kek())
        .unwrap()
        .jwks()
        .to_string();
    // The seed is 32 bytes after the fixed beginning of a PKCS#8 document (RFC 8410).
    let seed = BASE64URL_NOPAD.encode(&pkcs8[16..48]);
    assert!(!text.contains(&seed) && !text.contains("\"d\""));
}

#[test]
fn the_key_id_is_the_thumbprint_of_the_rfcs() {
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    // RFC 8037, appendix A.3: the thumbprint of the key of appendix A.1.
    let mut pkcs8 = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    pkcs8.extend(decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"));
    let jwk = ring::public_jwk(Algorithm::EdDsa, &pkcs8).unwrap();
    assert_eq!(jwk.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert_eq!(jwk.json["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    // RFC 7638 itself shows an RSA key only; this is the `jkt` of RFC 9449, section 6.1, and its key of section 4.1.
    let point = [
        vec![4],
        decode("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"),
        decode("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"),
    ];
    let jwk = ring::Jwk::new(Algorithm::Es256, point.concat()).unwrap();
    assert_eq!(jwk.kid, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
}

#[test]
fn j3_keys_are_found_by_their_exact_id_and_removed_ones_not_at_all() {
    let gone = removed(signing(Algorithm::Es256));
    let first = active(signing(Algorithm::Es256));
    let next = signing(Algorithm::Es256);
    let records = vec![first.clone(), next.clone(), gone.clone(), active(edge(3))];
    let ring = KeyRing::open(records, &kek()).unwrap();
    assert_eq!(ring.active_signing().kid(), first.id);
    assert_eq!(ring.verifying(&next.id).unwrap().state(), KeyState::Next);
    for absent in [gone.id.as_str(), &first.id[1..], "", "edge-3"] {
        assert!(ring.verifying(absent).is_none(), "{absent}");
    }
}

#[test]
fn there_is_exactly_one_active_key_for_each_purpose() {
    let open = |records| KeyRing::open(records, &kek()).unwrap_err();
    assert_eq!(open(vec![]), KeyError::NotOneActive("edge", 0));
    assert_eq!(
        open(vec![active(edge(1)), signing(Algorithm::Es256)]),
        KeyError::NotOneActive("signing", 0)
    );
    let two = vec![
        active(edge(1)),
        active(signing(Algorithm::Es256)),
        active(signing(Algorithm::EdDsa)),
    ];
    assert_eq!(open(two), KeyError::NotOneActive("signing", 2));
    let two = vec![active(edge(1)), active(edge(2)), active(signing(Algorithm::Es256))];
    assert_eq!(open(two), KeyError::NotOneActive("edge", 2));
}

#[test]
fn a_row_somebody_altered_does_not_open() {
    let good = active(signing(Algorithm::Es256));
    let alter = |change: fn(&mut KeyRecord)| {
        let mut record = good.clone();
        change(&mut record);
        KeyRing::open(vec![record, active(edge(1))], &kek()).unwrap_err()
    };
    let inconsistent = KeyError::Inconsistent(good.id.clone());
    assert_eq!(alter(|record| record.id.push('A')), KeyError::DoesNotOpen);
    assert_eq!(alter(|record| record.private_sealed[20] ^= 1), KeyError::DoesNotOpen);
    assert_eq!(alter(|record| record.algorithm = KeyAlgorithm::EdDsa), inconsistent);
    assert_eq!(alter(|record| record.algorithm = KeyAlgorithm::Hs256), inconsistent);
    assert_eq!(alter(|record| record.public_jwk = None), inconsistent);
    assert_eq!(
        alter(|record| record.public_jwk = signing(Algorithm::Es256).public_jwk),
        inconsistent
    );
    let other = KeyEncryptionKey::from_bytes([8; 32]);
    assert_eq!(
        KeyRing::open(vec![good.clone()], &other).unwrap_err(),
        KeyError::DoesNotOpen
    );
}

#[test]
fn edge_tags_are_16_bytes_checked_whole() {
    let records = vec![active(edge(1)), retired(edge(200)), active(signing(Algorithm::Es256))];
    let ring = KeyRing::open(records, &kek()).unwrap();
    let (id, key) = ring.edge_at(NOW);
    let tag = key.tag(b"message");
    assert_eq!(id, 1);
    assert!(key.verify(b"message", &tag));
    assert!(!key.verify(b"massage", &tag));
    assert!(!ring.edge(200).unwrap().verify(b"message", &tag));
    assert!(ring.edge(2).is_none());
    for i in 0..tag.len() {
        let mut altered = tag;
        altered[i] ^= 1;
        assert!(!key.verify(b"message", &altered) && !key.verify(b"message", &tag[..i]));
    }
    assert!(KeyRecord::generate_edge(0, &kek(), NOW, &SystemRandom::default()).is_err());
}

#[test]
fn a_keys_life_only_goes_forward() {
    let mut key = signing(Algorithm::Es256);
    assert!(key.retire(NOW).is_err());
    key.activate(NOW).unwrap();
    assert!(key.activate(NOW).is_err());
    key.retire(NOW).unwrap();
    assert!(key.activate(NOW).is_err() && key.retire(NOW).is_err());
    key.remove(NOW).unwrap();
    assert!(key.remove(NOW).is_err() && key.activate(NOW).is_err());
    assert!(key.private_sealed.is_empty());
    assert_eq!((key.state, key.removed_at), (KeyState::Removed, Some(NOW)));
}

#[test]
fn words_of_the_database_are_read_back_and_others_refused() {
    for word in ["next", "active", "retired", "removed"] {
        assert_eq!(word.parse::<KeyState>().unwrap().as_str(), word);
    }
    for word in ["ES256", "EdDSA", "HS256"] {
        assert_eq!(word.parse::<KeyAlgorithm>().unwrap().as_str(), word);
    }
    for word in ["signing", "edge"] {
        assert_eq!(word.parse::<KeyPurpose>().unwrap().as_str(), word);
    }
    assert_eq!("ACTIVE".parse::<KeyState>(), Err(KeyError::UnknownWord("state")));
    assert_eq!("none".parse::<KeyAlgorithm>(), Err(KeyError::UnknownWord("algorithm")));
}

#[test]
fn l5_debug_of_a_ring_shows_no_private_bytes() {
    let records = vec![active(edge(1)), active(signing(Algorithm::Es256))];
    let private: Vec<_> = records
        .iter()
        .map(|record| kek().open("key", record.id.as_bytes(), &record.private_sealed).unwrap())
        .collect();
    let shown = format!("{:?}", KeyRing::open(records, &kek()).unwrap());
    for bytes in private {
        let numbers = format!("{:?}", &bytes[bytes.len() - 20..bytes.len() - 10]);
        assert!(!shown.contains(numbers.trim_matches(['[', ']'])));
    }
    assert!(shown.contains("redacted"));
}
