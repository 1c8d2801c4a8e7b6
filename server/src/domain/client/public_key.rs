//! A client's public keys: read strictly from a JWK, a JWK set (RFC 7517) or PEM, and what they verify.
//!
//! Must never take a private key: an operator who hands one over is told so, and nothing of it is kept.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, UnparsedPublicKey, VerificationAlgorithm,
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Map, Value, json};

use crate::domain::keys::Algorithm;

/// One in use, one to come, and some to spare.
const MOST_KEYS: usize = 4;
/// `SubjectPublicKeyInfo` (RFC 5480, RFC 8410) up to the key itself.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE,
    0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_SPKI: [u8; 12] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a public key is not taken. No message repeats what was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not a JWK, a JWK set or a PEM text with a public key.
    #[error("this is no public key: a JWK, a JWK set or a PEM file is expected")]
    Form,
    /// A private key was handed over.
    #[error("this is a private key; hand over the public one only, and make a new pair if this file went anywhere")]
    Private,
    /// Another kind of key.
    #[error("only keys on P-256 (ES256) and Ed25519 (EdDSA) for signatures are taken")]
    Kind,
    /// The bytes are no such key.
    #[error("this is no point of its curve")]
    Invalid,
    /// None, or too many.
    #[error("a client has one to four keys, each with a kid of its own if there are several")]
    Number,
}

/// A key that a client's signatures are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kid: Option<String>,
    algorithm: Algorithm,
    /// 0x04 | x | y on P-256, 32 bytes on Ed25519.
    bytes: Vec<u8>,
}

impl PublicKey {
    /// The client's own name for it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Its one algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// 0x04 | x | y on P-256, 32 bytes on Ed25519.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a token that says `alg` may be this key's. Ed25519 has two names (RFC 8037 and RFC 9864).
    #[must_use]
    pub fn signs_as(&self, alg: &str) -> bool {
        match self.algorithm {
            Algorithm::Es256 => alg == "ES256",
            Algorithm::EdDsa => alg == "EdDSA" || alg == "Ed25519",
        }
    }

    /// Whether this is its signature of these bytes.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(verification(self.algorithm), &self.bytes)
            .verify(message, signature)
            .is_ok()
    }

    fn new(kid: Option<String>, algorithm: Algorithm, bytes: Vec<u8>) -> Result<Self, PublicKeyError> {
        ParsedPublicKey::new(verification(algorithm), &bytes).map_err(|_| PublicKeyError::Invalid)?;
        Ok(Self { kid, algorithm, bytes })
    }

    /// A key on P-256 by its uncompressed point.
    pub(in crate::domain) fn from_p256_point(point: &[u8]) -> Result<Self, PublicKeyError> {
        Self::new(None, Algorithm::Es256, point.to_vec())
    }

    /// Only public keys of our two kinds, for signatures.
    pub(in crate::domain) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, PublicKeyError> {
        if ["d", "k", "p", "q"].iter().any(|member| jwk.contains_key(*member)) {
            return Err(PublicKeyError::Private);
        }
        let text = |member: &str| match jwk.get(member) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(PublicKeyError::Form),
        };
        let coordinate = |member: &str| {
            let bytes = BASE64URL_NOPAD.decode(text(member)?.ok_or(PublicKeyError::Form)?.as_bytes());
            bytes
                .ok()
                .filter(|bytes| bytes.len() == 32)
                .ok_or(PublicKeyError::Invalid)
        };
        let (algorithm, bytes) = match (text("kty")?, text("crv")?) {
            (Some("EC"), Some("P-256")) => (
                Algorithm::Es256,
                [vec![0x04], coordinate("x")?, coordinate("y")?].concat(),
            ),
            (Some("OKP"), Some("Ed25519")) => (Algorithm::EdDsa, coordinate("x")?),
            (Some(_), _) => return Err(PublicKeyError::Kind),
            (None, _) => return Err(PublicKeyError::Form),
        };
        let kid = text("kid")?.map(str::to_owned);
        let key = Self::new(kid, algorithm, bytes)?;
        let may_verify = match jwk.get("key_ops") {
            None => true,
            Some(Value::Array(operations)) => operations.iter().any(|operation| operation == "verify"),
            Some(_) => return Err(PublicKeyError::Form),
        };
        let fits = text("use")?.is_none_or(|used| used == "sig") && text("alg")?.is_none_or(|alg| key.signs_as(alg));
        if fits && may_verify {
            Ok(key)
        } else {
            Err(PublicKeyError::Kind)
        }
    }

    fn from_pem(text: &str) -> Result<Self, PublicKeyError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(PublicKeyError::Private);
        }
        let body = text
            .trim()
            .strip_prefix("-----BEGIN PUBLIC KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
            .ok_or(PublicKeyError::Form)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = BASE64.decode(body.as_bytes()).map_err(|_| PublicKeyError::Form)?;
        if let Some(point) = der.strip_prefix(&P256_SPKI) {
            Self::new(None, Algorithm::Es256, point.to_vec())
        } else if let Some(point) = der.strip_prefix(&ED25519_SPKI) {
            Self::new(None, Algorithm::EdDsa, point.to_vec())
        } else {
            Err(PublicKeyError::Kind)
        }
    }

    fn to_jwk(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let mut jwk = match self.algorithm {
            Algorithm::Es256 => {
                let (x, y) = self.bytes[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Algorithm::EdDsa => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&self.bytes) }),
        };
        if let Some(kid) = &self.kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    /// The JWK set of these keys, as it is stored; [`parse_public_keys`] reads it.
    #[must_use]
    pub fn to_jwks(keys: &[Self]) -> String {
        json!({ "keys": keys.iter().map(Self::to_jwk).collect::<Vec<_>>() }).to_string()
    }
}

fn verification(algorithm: Algorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::EdDsa => &ED25519,
    }
}

/// Reads the keys of one client: a JWK, a JWK set, or a PEM text with one public key.
///
/// # Errors
/// [`PublicKeyError`], without a piece of the text.
pub fn parse_public_keys(text: &str) -> Result<Vec<PublicKey>, PublicKeyError> {
    if text.contains("-----BEGIN ") {
        return Ok(vec![PublicKey::from_pem(text)?]);
    }
    let Ok(Value::Object(document)) = serde_json::from_str(text) else {
        return Err(PublicKeyError::Form);
    };
    let Some(set) = document.get("keys") else {
        return Ok(vec![PublicKey::from_jwk(&document)?]);
    };
    let jwks = set.as_array().ok_or(PublicKeyError::Form)?;
    let keys: Vec<PublicKey> = jwks
        .iter()
        .map(|jwk| PublicKey::from_jwk(jwk.as_object().ok_or(PublicKeyError::Form)?))
        .collect::<Result<_, _>>()?;
    let told_apart = keys.len() == 1
        || keys
            .iter()
            .enumerate()
            .all(|(index, key)| key.kid.is_some() && keys[..index].iter().all(|other| other.kid != key.kid));
    if (1..=MOST_KEYS).contains(&keys.len()) && told_apart {
        Ok(keys)
    } else {
        Err(PublicKeyError::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8037, appendix A.2, and RFC 7515, appendix A.3.1.
    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

    #[test]
    fn r7_published_keys_verify_published_signatures() {
        // RFC 8037, appendix A.4.
        let key = &parse_public_keys(ED).unwrap()[0];
        let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        assert!(key.verifies(message.as_bytes(), &signature));
        assert!(!key.verifies(&message.as_bytes()[1..], &signature));
        assert!(key.signs_as("EdDSA") && key.signs_as("Ed25519") && !key.signs_as("ES256") && !key.signs_as("none"));
        // RFC 7515, appendix A.3.
        let key = &parse_public_keys(EC).unwrap()[0];
        let message = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        assert!(key.verifies(message.as_bytes(), &signature));
        assert!(!key.verifies(message.as_bytes(), &signature[1..]));
        for text in [ED, EC] {
            let keys = parse_public_keys(text).unwrap();
            assert_eq!(parse_public_keys(&PublicKey::to_jwks(&keys)).unwrap(), keys);
        }
    }

    #[test]
    fn r7_a_pem_file_is_the_same_key_as_its_jwk() {
        let pem = |prefix: &[u8], key: &PublicKey| {
            let body = BASE64.encode(&[prefix, &key.bytes].concat());
            format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
        };
        for (text, prefix) in [(ED, ED25519_SPKI.as_slice()), (EC, P256_SPKI.as_slice())] {
            let keys = parse_public_keys(text).unwrap();
            assert_eq!(parse_public_keys(&pem(prefix, &keys[0])).unwrap(), keys);
        }
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----";
        assert_eq!(parse_public_keys(private), Err(PublicKeyError::Private));
    }

    #[test]
    fn r7_private_foreign_broken_and_doubled_keys_are_refused() {
        let with = |text: &str, member: &str, value: Value| {
            let mut jwk: Value = serde_json::from_str(text).unwrap();
            jwk[member] = value;
            jwk
        };
        let ed = |member, value| with(ED, member, value);
        let set = |keys: Vec<Value>| json!({ "keys": keys });
        let named = |kid: &str| ed("kid", json!(kid));
        for (jwk, expected) in [
            (
                ed("d", json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")),
                PublicKeyError::Private,
            ),
            (json!({ "kty": "oct", "k": "AAAA" }), PublicKeyError::Private),
            (json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" }), PublicKeyError::Kind),
            (ed("crv", json!("X25519")), PublicKeyError::Kind),
            (ed("use", json!("enc")), PublicKeyError::Kind),
            (ed("alg", json!("ES256")), PublicKeyError::Kind),
            (ed("key_ops", json!(["sign"])), PublicKeyError::Kind),
            (ed("kid", json!(7)), PublicKeyError::Form),
            (ed("x", json!("AAAA")), PublicKeyError::Invalid),
            (
                ed("x", json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")),
                PublicKeyError::Invalid,
            ),
            (
                with(EC, "y", json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU")),
                PublicKeyError::Invalid,
            ),
            (json!({}), PublicKeyError::Form),
            (json!([]), PublicKeyError::Form),
            (json!({ "keys": {} }), PublicKeyError::Form),
            (set(vec![]), PublicKeyError::Number),
            (set(vec![json!({})]), PublicKeyError::Form),
            (set(vec![named("a"), named("a")]), PublicKeyError::Number),
            (set(vec![named("a"), ed("use", json!("sig"))]), PublicKeyError::Number),
            (
                set(["a", "b", "c", "d", "e"].map(named).to_vec()),
                PublicKeyError::Number,
            ),
        ] {
            assert_eq!(parse_public_keys(&jwk.to_string()), Err(expected), "{jwk}");
        }
        assert_eq!(
            parse_public_keys(&set(vec![named("a"), named("b")]).to_string())
                .unwrap()
                .len(),
            2
        );
        assert_eq!(parse_public_keys("ssh-ed25519 AAAA"), Err(PublicKeyError::Form));
    }
}
