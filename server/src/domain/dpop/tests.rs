//! The proofs that RFC 9449 itself publishes, and the edges of time and address.

use super::*;

/// RFC 9449, section 4.1, and section 7.1 with its access token.
pub const PUBLISHED: [(&str, Expected<'_>, i64); 2] = [
    (
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rsc\
         EJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In\
         19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIi\
         wiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3\
         Lg",
        Expected {
            method: "POST",
            address: "https://server.example.com/token",
            token: None,
            nonces: None,
            tolerance: Duration::from_secs(30),
        },
        1_562_262_616,
    ),
    (
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rsc\
         EJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In\
         19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZW\
         N0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ\
         9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA",
        Expected {
            method: "GET",
            address: "https://resource.example.org/protectedresource",
            token: Some("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"),
            nonces: None,
            tolerance: Duration::from_secs(30),
        },
        1_562_262_618,
    ),
];

/// RFC 9449, section 6.1: of the key of both.
const THUMBPRINT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

#[test]
fn r6_published_proofs_hold_for_a_minute_and_not_a_moment_longer() {
    for (proof, expected, iat) in PUBLISHED {
        let at = |millis: i64| verify(proof, &expected, Timestamp::from_millis(iat * 1000 + millis));
        let held = at(0).expect("holds");
        assert_eq!(held.key.to_string(), THUMBPRINT);
        assert_eq!(
            held.until,
            Timestamp::from_seconds(iat + 90),
            "for whoever's clock is behind"
        );
        for (millis, refused) in [
            (60_000, None),
            (60_001, Some(Refusal::TooOld)),
            (61_000, Some(Refusal::TooOld)),
            (-30_000, None),
            (-30_001, Some(Refusal::Future)),
            (-31_000, Some(Refusal::Future)),
            (i64::MAX / 2, Some(Refusal::TooOld)),
            (i64::MIN / 2, Some(Refusal::Future)),
        ] {
            assert_eq!(at(millis).err(), refused, "{millis} ms");
        }
    }
    let ids =
        PUBLISHED.map(|(proof, expected, iat)| verify(proof, &expected, Timestamp::from_seconds(iat)).unwrap().id);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn r6_a_published_proof_is_of_its_own_request_alone() {
    for (proof, expected, iat) in PUBLISHED {
        let now = Timestamp::from_seconds(iat);
        let other_method = Expected {
            method: "PUT",
            ..expected
        };
        assert_eq!(verify(proof, &other_method, now), Err(Refusal::Method));
        let other_address = Expected {
            address: "https://server.example.com/token/",
            ..expected
        };
        assert_eq!(verify(proof, &other_address, now), Err(Refusal::Address));
        let other_token = Expected {
            token: Some("another"),
            ..expected
        };
        let refused = verify(proof, &other_token, now).unwrap_err();
        assert!(matches!(refused, Refusal::Token | Refusal::Claims), "{refused:?}");
        let nonces = Nonces::new(&[7; 32]);
        let with_nonce = Expected {
            nonces: Some(&nonces),
            ..expected
        };
        assert_eq!(verify(proof, &with_nonce, now), Err(Refusal::Nonce));
        for at in 0..proof.len() {
            let mut altered = proof.as_bytes().to_vec();
            altered[at] ^= 1;
            let altered = String::from_utf8(altered).expect("ASCII");
            assert!(verify(&altered, &expected, now).is_err(), "byte {at}");
        }
    }
}

#[test]
fn r6_addresses_are_compared_in_their_normal_form() {
    let same = [
        "https://id.example/auth/a-b",
        "HTTPS://ID.example:443/auth/a-b",
        "https://id.example/auth/a-b?x=1#y",
        "https://id.example/auth/a-b#y?x=1",
        "https://id.example/%61uth/a%2db",
        "https://id.example/%61uth/a%2Db?",
    ];
    for address in same {
        assert_eq!(normal(address).as_deref(), Some(same[0]), "{address}");
    }
    for other in [
        "http://id.example/auth/a-b",
        "https://id.example:80/auth/a-b",
        "https://id.example:8443/auth/a-b",
        "https://id.example./auth/a-b",
        "https://id.example/auth/A-b",
        "https://id.example/auth/a-b/",
        "https://id.example//auth/a-b",
        "https://id.example/auth%2Fa-b",
        "https://id.example/auth/./a-b",
        "https://id.example.evil.example/auth/a-b",
    ] {
        assert_ne!(normal(other).as_deref(), Some(same[0]), "{other}");
        assert!(normal(other).is_some(), "{other}");
    }
    assert_eq!(normal("http://[::1]:80"), normal("http://[::1]/"));
    for nonsense in [
        "",
        "/auth/a-b",
        "id.example/auth",
        "https:///auth",
        "https://",
        "https://user@id.example/auth",
        "ftp://id.example/auth",
        "https://id.example/a b",
        "https://id.example/\u{e4}",
        "https://id.example/%6",
        "https://id.example/%zz",
        "javascript://id.example/%0aalert(1)\n",
    ] {
        assert_eq!(normal(nonsense), None, "{nonsense}");
    }
}

#[test]
fn r6_a_nonce_is_good_for_two_and_a_half_to_five_minutes() {
    let begin = Timestamp::from_millis(millis(NONCE_PERIOD) * 12_000_000);
    let (nonces, others) = (Nonces::new(&[1; 32]), Nonces::new(&[2; 32]));
    let (first, last) = (
        nonces.current(begin),
        nonces.current(begin.plus(Duration::from_millis(149_999))),
    );
    assert_eq!(first, last, "one for each period");
    let good = |seconds: u64| nonces.has(&first, begin.plus(Duration::from_secs(seconds)));
    assert!(good(0) && good(150) && good(299));
    assert!(!good(300) && !good(301));
    assert!(
        nonces.has(&first, begin.minus(Duration::from_secs(150))),
        "from a node whose clock is ahead"
    );
    assert!(!nonces.has(&first, begin.minus(Duration::from_secs(151))));
    assert!(!others.has(&first, begin), "under another key");
    for foreign in ["", "a", &first[1..], &format!("{first}a")] {
        assert!(!nonces.has(foreign, begin), "{foreign}");
    }
    assert!(!format!("{nonces:?}").contains(&first));
    for wild in [i64::MIN, -1, 0, i64::MAX] {
        let wild = Timestamp::from_millis(wild);
        assert!(nonces.has(&nonces.current(wild), wild));
    }
}

#[test]
fn r6_a_thumbprint_has_one_spelling() {
    assert_eq!(Thumbprint::parse(THUMBPRINT).expect("parses").to_string(), THUMBPRINT);
    for wrong in [
        "",
        &THUMBPRINT[1..],
        &format!("{THUMBPRINT}="),
        &THUMBPRINT.replace('-', "+"),
        // The last letter's spare bits.
        &THUMBPRINT.replace("uA4I", "uA4J"),
    ] {
        assert!(Thumbprint::parse(wrong).is_none(), "{wrong}");
    }
}
