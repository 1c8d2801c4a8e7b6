//! Other software: a client of ours that proves itself by a secret or with a key of its own, and speaks in forms.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use axum::body::Body;
use axum::http::header::HOST;
use axum::http::{Method, Request};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use server::domain::audit::{Circumstances, Event, Kind};
use server::domain::backchannel_logout;
use server::domain::client::{ClientId, ClientName, Scopes, parse_public_keys};
use server::domain::id::{EventId, SessionId};
use server::domain::jwt::sign_logout;
use server::services::Backend;
use server::services::oauth::{AddClientOutcome, NewClient};

use crate::app::{ORIGIN, TestApp};
use crate::browser::encode;
use crate::people::Person;
use crate::reply::Reply;

/// How long a service's tokens usually live.
const USUAL: Duration = Duration::from_mins(5);

/// What a client is told when this session ends, whether or not it has ended.
pub fn logout_token(backend: &Backend, client: &ClientId, person: &Person, session: SessionId) -> String {
    let (now, from) = (backend.now(), Circumstances::default());
    let event = Event::new(EventId::new(now, backend.random()), now, Kind::SignedOut, &from);
    let event = event.subject(person.id).session(session);
    let claims = backchannel_logout::claims(&event, backend.issuer(), client, now).expect("an end");
    let token = sign_logout(&backend.keys(), &claims).expect("signed");
    token.expose_secret().to_owned()
}

/// Parameters of a form, or headers.
pub type Pairs<'a> = [(&'a str, &'a str)];

/// Sends a form as programs do: no `Origin`, no fetch metadata.
pub async fn post_form(app: &TestApp, path: &str, headers: &Pairs<'_>, fields: &Pairs<'_>) -> Reply {
    let headers = [&[("content-type", "application/x-www-form-urlencoded")], headers].concat();
    post_text(app, path, &headers, &encode(fields)).await
}

/// Sends any text with any headers.
pub async fn post_text(app: &TestApp, path: &str, headers: &Pairs<'_>, body: &str) -> Reply {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, "localhost:3000");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    app.send(SocketAddr::from(([192, 0, 2, 44], 45_000)), request).await
}

#[expect(
    clippy::disallowed_methods,
    reason = "keys of others are not made by our own randomness"
)]
fn chance() -> SystemRandom {
    SystemRandom::new()
}

/// A private key on a curve that nothing of ours uses.
pub fn pkcs8_p384() -> Vec<u8> {
    let algorithm = &aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &chance()).expect("a key");
    pkcs8.as_ref().to_vec()
}

/// A private Ed25519 key.
pub fn pkcs8_ed25519() -> Vec<u8> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&chance()).expect("a key");
    pkcs8.as_ref().to_vec()
}

/// A key pair of a client.
#[derive(Clone)]
pub enum Key {
    /// P-256.
    Es256(Arc<EcdsaKeyPair>),
    /// Ed25519.
    EdDsa(Arc<Ed25519KeyPair>),
}

impl Key {
    /// A new one on P-256.
    pub fn es256() -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &chance()).expect("a key");
        Self::Es256(Arc::new(
            EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).expect("our own key"),
        ))
    }

    /// A new Ed25519 one.
    pub fn ed_dsa() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&chance()).expect("a key");
        Self::EdDsa(Arc::new(
            Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("our own key"),
        ))
    }

    /// `alg`.
    pub const fn alg(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    /// Public side.
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::Es256(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]), "kid": "k1" })
            }
            Self::EdDsa(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()), "kid": "k1" })
            }
        }
    }

    /// Any header and claims, honestly signed.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = match self {
            Self::Es256(pair) => pair
                .sign(&chance(), message.as_bytes())
                .expect("a signature")
                .as_ref()
                .to_vec(),
            Self::EdDsa(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

/// One client.
#[derive(Clone)]
pub struct Service {
    /// The application it talks to.
    pub app: TestApp,
    /// Its id.
    pub client_id: String,
    /// Its secret; empty with a key.
    pub secret: String,
    /// Its key, if it has one.
    pub key: Option<Key>,
}

impl Service {
    /// A new client with a secret and tokens that live five minutes.
    pub async fn add(app: &TestApp, name: &str, scopes: &str) -> Self {
        Self::add_as(app, name, scopes, None, false, USUAL).await
    }

    /// The same with tokens that live so many minutes.
    pub async fn add_for(app: &TestApp, name: &str, scopes: &str, minutes: u64) -> Self {
        Self::add_as(app, name, scopes, None, false, Duration::from_mins(minutes)).await
    }

    /// A new client with a key.
    pub async fn with_key(app: &TestApp, name: &str, scopes: &str, key: Key) -> Self {
        Self::add_as(app, name, scopes, Some(key), false, USUAL).await
    }

    /// A new client that may ask about tokens.
    pub async fn resource_server(app: &TestApp) -> Self {
        Self::add_as(app, "resource server", "", None, true, USUAL).await
    }

    async fn add_as(
        app: &TestApp,
        name: &str,
        scopes: &str,
        key: Option<Key>,
        may_introspect: bool,
        access: Duration,
    ) -> Self {
        let keys = key
            .as_ref()
            .map(|key| parse_public_keys(&key.jwk().to_string()).expect("a public key"));
        let new = NewClient {
            name: ClientName::parse(name).expect("a name"),
            scopes: Scopes::parse(scopes).expect("scopes"),
            keys,
            access,
            may_introspect,
            logout_uri: None,
        };
        let AddClientOutcome::Added(added) = app.backend().add_client(new).await.expect("the database answers") else {
            panic!("the name {name} is taken");
        };
        Self {
            app: app.clone(),
            client_id: added.id.to_string(),
            secret: added
                .secret
                .map(|secret| secret.expose_secret().to_owned())
                .unwrap_or_default(),
            key,
        }
    }

    /// What it is told when this session ends, whether or not it has ended.
    pub fn logout_token(&self, person: &Person, session: SessionId) -> String {
        let client = ClientId::parse(&self.client_id).expect("an id");
        logout_token(self.app.backend(), &client, person, session)
    }

    /// `Authorization: Basic` with these words, each encoded as the standard says.
    pub fn basic(client_id: &str, secret: &str) -> String {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let text = format!("{}:{}", encode(client_id), encode(secret));
        format!("Basic {}", BASE64.encode(text.as_bytes()))
    }

    /// Claims of an assertion that is right.
    pub fn assertion_claims(&self, jti: &str) -> Value {
        let now = self.app.now().as_seconds();
        json!({
            "iss": self.client_id, "sub": self.client_id, "aud": ORIGIN, "jti": jti, "iat": now, "exp": now + 60,
        })
    }

    /// An assertion that is right.
    pub fn assertion(&self, jti: &str) -> String {
        let key = self.key.as_ref().expect("has a key");
        key.sign(&json!({ "alg": key.alg(), "kid": "k1" }), &self.assertion_claims(jti))
    }

    /// Sends a form, proving itself by its secret in the header.
    pub async fn ask(&self, path: &str, fields: &Pairs<'_>) -> Reply {
        let basic = Self::basic(&self.client_id, &self.secret);
        post_form(&self.app, path, &[("authorization", &basic)], fields).await
    }

    /// Asks for a token, proving itself with this assertion.
    pub async fn present(&self, assertion: &str) -> Reply {
        let fields = [
            ("grant_type", "client_credentials"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", assertion),
        ];
        post_form(&self.app, "/oauth/token", &[], &fields).await
    }

    /// A token in its own name.
    pub async fn token(&self) -> String {
        let reply = self
            .ask("/oauth/token", &[("grant_type", "client_credentials")])
            .await
            .expect(200);
        reply.json()["access_token"].as_str().expect("a token").to_owned()
    }

    /// What it hears about a token.
    pub async fn introspect(&self, token: &str) -> Value {
        self.ask("/oauth/introspect", &[("token", token)])
            .await
            .expect(200)
            .json()
    }

    /// Is disabled by the operator.
    pub async fn disable(&self) {
        let id = ClientId::parse(&self.client_id).expect("our own id");
        assert!(
            self.app
                .backend()
                .disable_client(&id)
                .await
                .expect("the database answers")
        );
    }
}
