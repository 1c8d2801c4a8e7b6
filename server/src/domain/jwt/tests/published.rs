//! The examples that the standards print, retyped: RFC 7515 (JWS), RFC 7517 (JWK), RFC 7519 (JWT), RFC 7638 and
//! RFC 8037 (Ed25519). What they sign with our two algorithms, we sign and verify alike; everything else is refused.

use super::compact::Compact;
use super::verify::check_signature;
use super::*;
use crate::domain::client::{ClientId, PublicKeyError, parse_public_keys};
use crate::domain::keys::{KeyRecord, PublicKeys, VerifyingKeys};

/// RFC 7515, appendix A.1.1, and RFC 7519, section 3.1: the claims of Joe.
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

/// RFC 7515, appendix A.1, and RFC 7519, section 3.1: HS256.
const HS256_HEADER: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
const HS256_SIGNATURE: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const HS256_KEY: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

/// RFC 7515, appendix A.2: RS256.
const RS256_HEADER: &str = "eyJhbGciOiJSUzI1NiJ9";
const RS256_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2F\
                               p5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBM\
                               Hlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2\
                               w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const RS256_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4Q\
                       lL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYU\
                       sLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmou\
                       dF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

/// RFC 7515, appendix A.3: ES256.
const ES256_HEADER: &str = "eyJhbGciOiJFUzI1NiJ9";
const ES256_SIGNATURE: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const ES256_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const ES256_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const ES256_D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
/// RFC 7638 over that key; no standard prints it, another implementation computed it.
const ES256_THUMBPRINT: &str = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U";

/// RFC 7515, appendix A.5, and RFC 7519, section 6.1: nobody signed it.
const NONE_HEADER: &str = "eyJhbGciOiJub25lIn0";

/// RFC 7515, appendix E: a `crit` that nobody knows, over the text FAIL.
const UNKNOWN_CRIT: &str = "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxlLmNvbS9VTkRFRklORUQiOnRydWUNCn0.RkFJTA.";

/// RFC 8037, appendix A.4: Ed25519 over "Example of Ed25519 signing", with the key of appendix A.1.
const ED25519_HEADER: &str = "eyJhbGciOiJFZERTQSJ9";
const ED25519_PAYLOAD: &str = "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
const ED25519_SIGNATURE: &str =
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
const ED25519_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const ED25519_D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
/// RFC 8037, appendix A.3.
const ED25519_THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

/// RFC 7638, section 3.1.
const RSA_7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPeb\
                          WKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY36\
                          8QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4\
                          lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

fn decode(text: &str) -> Vec<u8> {
    BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()
}

/// RFC 5208 with RFC 5915, and RFC 8410: the private keys of the two examples as we keep ours.
fn pkcs8(algorithm: Algorithm) -> Vec<u8> {
    match algorithm {
        Algorithm::Es256 => [
            &[
                0x30, 0x81, 0x87, 2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1,
            ][..],
            &[
                6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 4, 0x6d, 0x30, 0x6b, 2, 1, 1, 4, 0x20,
            ],
            &decode(ES256_D),
            &[0xa1, 0x44, 3, 0x42, 0, 4],
            &decode(ES256_X),
            &decode(ES256_Y),
        ]
        .concat(),
        Algorithm::EdDsa => [
            &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..],
            &decode(ED25519_D),
        ]
        .concat(),
    }
}

fn public_jwk(algorithm: Algorithm) -> Value {
    match algorithm {
        Algorithm::Es256 => json!({ "kty": "EC", "crv": "P-256", "x": ES256_X, "y": ES256_Y }),
        Algorithm::EdDsa => json!({ "kty": "OKP", "crv": "Ed25519", "x": ED25519_X }),
    }
}

const fn thumbprint(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Es256 => ES256_THUMBPRINT,
        Algorithm::EdDsa => ED25519_THUMBPRINT,
    }
}

/// A ring in which the private key of the example is the one we sign with. That it opens at all shows that the
/// thumbprint and the public members we derive from it are those of the standard.
fn ring(algorithm: Algorithm) -> KeyRing {
    install_crypto();
    let (now, random) = (Timestamp::from_seconds(NOW - 1000), SystemRandom::default());
    let kek = KeyEncryptionKey::from_bytes([7; 32]);
    let mut jwk = public_jwk(algorithm);
    for (name, value) in [
        ("kid", thumbprint(algorithm)),
        ("use", "sig"),
        ("alg", algorithm.as_str()),
    ] {
        jwk[name] = json!(value);
    }
    let mut signing = KeyRecord::generate_signing(algorithm, &kek, now, &random).unwrap();
    signing.id = thumbprint(algorithm).to_owned();
    signing.private_sealed = kek.seal("key", signing.id.as_bytes(), &pkcs8(algorithm), &random);
    signing.public_jwk = Some(jwk.to_string());
    signing.activate(now).unwrap();
    let mut edge = KeyRecord::generate_edge(1, &kek, now, &random).unwrap();
    edge.activate(now).unwrap();
    KeyRing::open(vec![signing, edge], &kek).unwrap()
}

/// What the signature of an example says about `message`.
fn check(ring: &KeyRing, message: &str, signature: &str) -> Result<(), Refusal> {
    let (header, claims) = Default::default();
    let token = Compact {
        header,
        claims,
        signed: message,
        signature,
    };
    check_signature(&token, ring.find(ring.active_signing().kid()).unwrap())
}

#[test]
fn j1_signatures_of_the_rfcs_verify_and_none_of_their_bits_may_change() {
    for (algorithm, header, payload, signature) in [
        (Algorithm::Es256, ES256_HEADER, JOE, ES256_SIGNATURE),
        (Algorithm::EdDsa, ED25519_HEADER, ED25519_PAYLOAD, ED25519_SIGNATURE),
    ] {
        let (ring, message) = (ring(algorithm), format!("{header}.{payload}"));
        assert_eq!(check(&ring, &message, signature), Ok(()), "{algorithm:?}");
        let key = ring.active_signing();
        let ours =
            jsonwebtoken::crypto::sign(message.as_bytes(), key.encoding(), library_algorithm(algorithm)).unwrap();
        assert_eq!(check(&ring, &message, &ours), Ok(()), "{algorithm:?}");
        // Ed25519 signs everything in one way only (RFC 8032); so do we.
        assert_eq!(ours == signature, algorithm == Algorithm::EdDsa);
        for bit in 0..512 {
            let mut altered = decode(signature);
            altered[bit / 8] ^= 1 << (bit % 8);
            let altered = BASE64URL_NOPAD.encode(&altered);
            assert_eq!(
                check(&ring, &message, &altered),
                Err(Refusal::Signature),
                "{algorithm:?}: bit {bit}"
            );
        }
        assert_eq!(check(&ring, &format!("{message} "), signature), Err(Refusal::Signature));
    }
}

#[test]
fn j1_tokens_of_the_rfcs_are_no_access_tokens_whoever_signed_them() {
    let joe = |header: &str, signature: &str| format!("{header}.{JOE}.{signature}");
    let typed = BASE64URL_NOPAD.encode(
        json!({ "typ": "at+jwt", "alg": "ES256", "kid": ES256_THUMBPRINT })
            .to_string()
            .as_bytes(),
    );
    let example = format!("{ED25519_HEADER}.{ED25519_PAYLOAD}.{ED25519_SIGNATURE}");
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let (ring, verifier) = (ring(algorithm), world(algorithm).verifier);
        let own = if algorithm == Algorithm::Es256 {
            Refusal::Signature
        } else {
            Refusal::KeyUnknown
        };
        for (what, token, refusal) in [
            ("HS256", joe(HS256_HEADER, HS256_SIGNATURE), Refusal::Typ),
            ("RS256", joe(RS256_HEADER, RS256_SIGNATURE), Refusal::Typ),
            ("ES256", joe(ES256_HEADER, ES256_SIGNATURE), Refusal::Typ),
            ("ES256 with a header of ours", joe(&typed, ES256_SIGNATURE), own),
            ("none", joe(NONE_HEADER, ""), Refusal::Typ),
            ("unknown crit", UNKNOWN_CRIT.to_owned(), Refusal::Json),
            ("Ed25519", example.clone(), Refusal::Json),
        ] {
            // At the moment of the examples, and today.
            for now in [1_300_819_379, NOW] {
                let now = Timestamp::from_seconds(now);
                assert_eq!(verifier.verify_access(&ring, &token, now), Err(refusal), "{what}");
                assert_eq!(verifier.verify_service(&ring, &token, now), Err(refusal), "{what}");
            }
        }
    }
}

#[test]
fn j1_a_client_with_the_keys_of_the_rfcs_is_believed_its_own_algorithm_only() {
    install_crypto();
    let now = Timestamp::from_seconds(1_300_819_379);
    let client = ClientId::new(now, &SystemRandom::default());
    let keys = [Algorithm::Es256, Algorithm::EdDsa].map(|algorithm| {
        let keys = parse_public_keys(&public_jwk(algorithm).to_string()).unwrap();
        assert_eq!((keys.len(), keys[0].algorithm()), (1, algorithm));
        keys[0].clone()
    });
    let expected = ExpectedAssertion {
        audiences: ["https://mayfly.example", "https://mayfly.example/oauth/token"],
        tolerance: Duration::from_secs(30),
    };
    let prove = |token: &str| Assertion::parse(token)?.verify(&client, &keys, expected, now);
    let mac = EncodingKey::from_secret(&decode(HS256_KEY));
    let mac = jsonwebtoken::crypto::sign(format!("{HS256_HEADER}.{JOE}").as_bytes(), &mac, Library::HS256).unwrap();
    assert_eq!(
        mac, HS256_SIGNATURE,
        "the example is genuine: it is refused for what it is"
    );
    for (header, signature, refusal) in [
        // Signed as it should be; but Joe is none of our clients.
        (ES256_HEADER, ES256_SIGNATURE, AssertionRefusal::Subject),
        (HS256_HEADER, HS256_SIGNATURE, AssertionRefusal::KeyUnknown),
        (RS256_HEADER, RS256_SIGNATURE, AssertionRefusal::KeyUnknown),
        (NONE_HEADER, "", AssertionRefusal::KeyUnknown),
        (ES256_HEADER, ED25519_SIGNATURE, AssertionRefusal::Signature),
        (ED25519_HEADER, ES256_SIGNATURE, AssertionRefusal::Signature),
    ] {
        assert_eq!(prove(&format!("{header}.{JOE}.{signature}")), Err(refusal), "{header}");
    }
    assert_eq!(prove(UNKNOWN_CRIT), Err(AssertionRefusal::Form));
    let [es256, ed25519] = &keys;
    assert!(es256.verifies(format!("{ES256_HEADER}.{JOE}").as_bytes(), &decode(ES256_SIGNATURE)));
    let message = format!("{ED25519_HEADER}.{ED25519_PAYLOAD}");
    assert!(ed25519.verifies(message.as_bytes(), &decode(ED25519_SIGNATURE)));
    assert!(!es256.verifies(message.as_bytes(), &decode(ED25519_SIGNATURE)));
}

#[test]
fn j7_the_claims_of_the_rfc_are_read_as_they_stand() {
    let token = format!("{HS256_HEADER}.{JOE}.{HS256_SIGNATURE}");
    let Ok(token) = Compact::parse(&token) else {
        panic!("a token in compact form")
    };
    assert_eq!(Value::from(token.header), json!({ "typ": "JWT", "alg": "HS256" }));
    let joe = json!({ "iss": "joe", "exp": 1_300_819_380, "http://example.com/is_root": true });
    assert_eq!(Value::from(token.claims), joe);
}

#[test]
fn j1_keys_of_the_rfcs_for_other_algorithms_or_uses_are_not_taken() {
    let refused = [
        (
            "RFC 7515, A.1.1",
            json!({ "kty": "oct", "k": HS256_KEY }),
            PublicKeyError::Private,
        ),
        (
            "RFC 7515, A.2.1",
            json!({ "kty": "RSA", "n": RS256_N, "e": "AQAB" }),
            PublicKeyError::Kind,
        ),
        (
            "RFC 7515, A.3.1, with its private part",
            json!({ "kty": "EC", "crv": "P-256", "x": ES256_X, "y": ES256_Y, "d": ES256_D }),
            PublicKeyError::Private,
        ),
        (
            "RFC 7638, 3.1",
            json!({ "kty": "RSA", "n": RSA_7638_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29" }),
            PublicKeyError::Kind,
        ),
        (
            "RFC 7517, A.1",
            json!({ "kty": "EC", "crv": "P-256", "use": "enc", "kid": "1",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" }),
            PublicKeyError::Kind,
        ),
        (
            "RFC 8037, A.1",
            json!({ "kty": "OKP", "crv": "Ed25519", "x": ED25519_X, "d": ED25519_D }),
            PublicKeyError::Private,
        ),
        (
            "RFC 8037, A.6",
            json!({ "kty": "OKP", "crv": "X25519", "kid": "Bob",
                "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08" }),
            PublicKeyError::Kind,
        ),
    ];
    for (what, jwk, refusal) in &refused {
        assert_eq!(parse_public_keys(&jwk.to_string()), Err(*refusal), "{what}");
    }
    // RFC 7517, section 5: a set may hold keys that its reader does not use. None of these verifies anything.
    let public = refused.iter().filter(|(_, jwk, _)| jwk.get("d").is_none());
    let set = json!({ "keys": public.map(|(_, jwk, _)| jwk).collect::<Vec<_>>() });
    let keys = PublicKeys::read(set.to_string().as_bytes()).unwrap();
    for kid in ["2011-04-29", "1", "Bob"] {
        assert!(keys.find(kid).is_none(), "{kid}");
    }
}
