//! Who signs and who verifies. Every key is made from a fixed seed, so that the seeds of the targets stay genuine.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::domain::client::{ClientId, PublicKey, Scopes, parse_public_keys};
use crate::domain::clock::Timestamp;
use crate::domain::id::{EventId, SessionId, TokenId, UserId};
use crate::domain::jwt::{
    AccessClaims, Assertion, AssertionRefusal, ExpectedAssertion, LogoutClaims, LogoutEvent, Proven, ServiceClaims,
    Verifier, install_crypto,
};
use crate::domain::keys::{Algorithm, KeyEncryptionKey, KeyRecord, KeyRing, PublicKeys};
use crate::domain::random::Random;

const ISSUER: &str = "https://mayfly.example";
/// When everything happens.
pub const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
/// Header of our tokens.
pub const HEADER: &str = r#"{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}"#;
/// Header of our logout tokens.
pub const LOGOUT_HEADER: &str = r#"{"alg":"EdDSA","kid":"k1","typ":"logout+jwt"}"#;
/// Header of a client's assertion.
pub const ASSERTION_HEADER: &str = r#"{"alg":"EdDSA","kid":"k1"}"#;

/// A key pair. Ed25519 signs everything in one way only (RFC 8032): what verifies can be signed again and compared.
#[derive(Debug)]
pub struct Signer(Ed25519KeyPair);

impl Signer {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed has 32 bytes"))
    }

    fn jwk(&self) -> Value {
        let x = BASE64URL_NOPAD.encode(self.0.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k1" })
    }

    /// The compact form of these bytes.
    #[must_use]
    pub fn sign(&self, header: &[u8], claims: &[u8]) -> String {
        let message = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(claims));
        let signature = BASE64URL_NOPAD.encode(self.0.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }

    /// A token that was believed, taken apart and signed again: the same bytes, or it was never signed by this key.
    ///
    /// # Panics
    /// If it does not even have the form of a token.
    #[must_use]
    pub fn sign_again(&self, token: &str) -> String {
        let parts: Vec<Vec<u8>> = token
            .split('.')
            .map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64url"))
            .collect();
        let [header, claims, _] = &parts[..] else {
            panic!("{} parts were believed", parts.len())
        };
        self.sign(header, claims)
    }
}

/// Other bytes each time, and the same in every run. It draws no key that anybody uses.
#[derive(Debug, Default)]
struct Counted(AtomicU8);

impl Random for Counted {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
    }
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// Ours.
    pub signer: Signer,
    /// The client's.
    pub client_signer: Signer,
    /// Our public key.
    pub keys: PublicKeys,
    /// What our server expects.
    pub verifier: Verifier,
    /// The client that proves itself.
    pub client: ClientId,
    client_keys: Vec<PublicKey>,
    /// Our edge keys: the active one is 1, the next one 2.
    pub ring: KeyRing,
}

/// There is one.
pub static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        install_crypto();
        let (signer, client_signer) = (Signer::new(1), Signer::new(2));
        let (kek, random) = (KeyEncryptionKey::from_bytes([7; 32]), Counted::default());
        let mut signing = KeyRecord::generate_signing(Algorithm::EdDsa, &kek, NOW, &random).expect("a key");
        signing.activate(NOW).expect("activates");
        let mut edge = KeyRecord::generate_edge(1, &kek, NOW, &random).expect("a key");
        edge.activate(NOW).expect("activates");
        let next = KeyRecord::generate_edge(2, &kek, NOW, &random).expect("a key");
        let set = json!({ "keys": [signer.jwk()] }).to_string();
        Self {
            keys: PublicKeys::read(set.as_bytes()).expect("a set"),
            verifier: Verifier {
                issuer: ISSUER.to_owned(),
                audience: ISSUER.to_owned(),
                tolerance: Duration::from_secs(30),
                max_lifetime: Duration::from_hours(1),
            },
            client: ClientId::parse(&format!("svc-{}", BASE64URL_NOPAD.encode(&[5; 16]))).expect("an id"),
            client_keys: parse_public_keys(&client_signer.jwk().to_string()).expect("a key"),
            ring: KeyRing::open(vec![signing, edge, next], &kek).expect("opens"),
            signer,
            client_signer,
        }
    }

    /// What an assertion proves.
    ///
    /// # Errors
    /// The first [`AssertionRefusal`] met.
    pub fn prove(&self, token: &str) -> Result<Proven, AssertionRefusal> {
        let expected = ExpectedAssertion {
            audiences: [ISSUER, "https://mayfly.example/oauth/token"],
            tolerance: Duration::from_secs(30),
        };
        Assertion::parse(token)?.verify(&self.client, &self.client_keys, expected, NOW)
    }

    /// Good claims of a person, of a service, of a client about itself and of a logout: what the seeds hold.
    ///
    /// # Panics
    /// Never: they are good.
    #[must_use]
    pub fn good_claims(&self) -> [String; 4] {
        let token = |number| TokenId(uuid::Uuid::from_u128(number));
        let (now, client) = (NOW.as_seconds(), self.client.as_str());
        let person = AccessClaims {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            sub: UserId(uuid::Uuid::from_u128(1)),
            client_id: "mayfly-browser".to_owned(),
            sid: SessionId(uuid::Uuid::from_u128(2)),
            rg: 17,
            jti: token(3),
            iat: now,
            nbf: now,
            exp: now + 900,
            auth_time: now - 60,
            acr: "aal2".to_owned(),
            amr: vec!["pwd".to_owned(), "otp".to_owned()],
            roles: vec!["member".to_owned()],
            cnf: None,
        };
        let service = ServiceClaims {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            client_id: self.client.clone(),
            scope: Scopes::parse("read write").expect("scopes"),
            jti: token(7),
            iat: now,
            nbf: now,
            exp: now + 300,
        };
        let logout = LogoutClaims {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            iat: now,
            exp: now + 120,
            jti: EventId(uuid::Uuid::from_u128(8)),
            sub: UserId(uuid::Uuid::from_u128(1)),
            sid: SessionId(uuid::Uuid::from_u128(2)),
            events: LogoutEvent,
        };
        let soon = now + 60;
        let assertion =
            format!(r#"{{"iss":"{client}","sub":"{client}","aud":"{ISSUER}","jti":"once","iat":{now},"exp":{soon}}}"#);
        [
            serde_json::to_string(&person).expect("JSON"),
            serde_json::to_string(&service).expect("JSON"),
            assertion,
            serde_json::to_string(&logout).expect("JSON"),
        ]
    }
}
