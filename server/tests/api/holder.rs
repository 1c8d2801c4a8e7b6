//! A program that holds a key and proves it with each request (DPoP, RFC 9449).

use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::Body;
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use server::services::sha256;

use crate::app::{ORIGIN, TestApp};
use crate::people::Person;
use crate::program::Program;
use crate::reply::Reply;
use crate::service::{Key, post_form};

pub const TOKEN: &str = "/oauth/token";
pub const ME: &str = "/api/v1/me";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The program and its key.
#[derive(Clone)]
pub struct Holder {
    /// The program.
    pub program: Program,
    /// Its key.
    pub key: Key,
}

impl Holder {
    /// A new one, not signed in.
    pub fn new(app: &TestApp, key: Key) -> Self {
        let program = Program::new(app);
        Self { program, key }
    }

    /// One whose session is bound to its key.
    pub async fn signed_in(app: &TestApp, person: &Person, key: Key) -> Self {
        let mut holder = Self::new(app, key);
        holder.sign_in(person).await.expect(200);
        holder
    }

    /// Signs in with a proof at each step.
    pub async fn sign_in(&mut self, person: &Person) -> Reply {
        let body = json!({ "identifier": person.username, "password": person.password });
        let mut reply = self.post_proven("/auth/login", &body).await;
        if reply.status == 200 && reply.json()["status"] == "mfa_required" {
            let code = person.code(&self.program.app);
            reply = self.post_proven("/auth/mfa", &json!({ "code": code })).await;
        }
        if reply.status == 200 {
            let said = reply.json();
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            self.program.session_id = text(&said["session_id"]);
            self.program.access = text(&said["tokens"]["access_token"]);
            self.program.refresh = text(&said["tokens"]["refresh_token"]);
        }
        reply
    }

    /// Posts JSON with a proof.
    pub async fn post_proven(&mut self, path: &str, body: &Value) -> Reply {
        let proof = self.proof("POST", path, None);
        self.post(path, body, &[&proof]).await
    }

    /// Posts JSON with these proofs.
    pub async fn post(&mut self, path: &str, body: &Value, proofs: &[&str]) -> Reply {
        self.program.headers = proofs.iter().map(|proof| ("dpop", (*proof).to_owned())).collect();
        let reply = self.program.post(path, body).await;
        self.program.headers.clear();
        reply
    }

    /// Its public key as a proof carries it.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.key.jwk();
        jwk.as_object_mut().expect("an object").remove("kid");
        jwk
    }

    /// RFC 7638, by hand.
    pub fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let member = |name: &str| jwk[name].as_str().expect("a text").to_owned();
        let text = if jwk["kty"] == "EC" {
            let (x, y) = (member("x"), member("y"));
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
        } else {
            format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, member("x"))
        };
        BASE64URL_NOPAD.encode(&sha256(text.as_bytes()))
    }

    /// The header of a proof.
    pub fn header(&self) -> Value {
        json!({ "typ": "dpop+jwt", "alg": self.key.alg(), "jwk": self.jwk() })
    }

    /// Claims of a proof for now that was never used.
    pub fn claims(&self, method: &str, path: &str, token: Option<&str>) -> Value {
        let app = &self.program.app;
        let mut claims = json!({
            "jti": format!("jti {}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            "htm": method,
            "htu": format!("{ORIGIN}{path}"),
            "iat": app.now().as_seconds(),
            "nonce": app.backend().dpop_nonce(),
        });
        if let Some(token) = token {
            claims["ath"] = json!(BASE64URL_NOPAD.encode(&sha256(token.as_bytes())));
        }
        claims
    }

    /// A proof that is right.
    pub fn proof(&self, method: &str, path: &str, token: Option<&str>) -> String {
        self.key.sign(&self.header(), &self.claims(method, path, token))
    }

    /// Presents a refresh token at the token endpoint with these proofs.
    pub async fn present(&self, token: &str, proofs: &[&str]) -> Reply {
        let headers: Vec<_> = proofs.iter().map(|proof| ("dpop", *proof)).collect();
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
        post_form(&self.program.app, TOKEN, &headers, &fields).await
    }

    /// Refreshes as it should, once that is due; keeps the new tokens.
    pub async fn renew(&mut self) -> Reply {
        self.program.app.pass(10);
        let proof = self.proof("POST", TOKEN, None);
        let reply = self.present(&self.program.refresh, &[&proof]).await;
        if reply.status == 200 {
            let said = reply.json();
            let token = |name| said[name].as_str().expect("a token").to_owned();
            self.program.access = token("access_token");
            self.program.refresh = token("refresh_token");
        }
        reply
    }

    /// Asks who it is with this token, scheme and proofs.
    pub async fn ask(&self, scheme: &str, token: &str, proofs: &[&str]) -> Reply {
        let mut request = self
            .program
            .request(Method::GET, ME)
            .header(AUTHORIZATION, format!("{scheme} {token}"));
        for proof in proofs {
            request = request.header("dpop", *proof);
        }
        let request = request.body(Body::empty()).expect("a request");
        self.program.app.send(self.program.peer, request).await
    }

    /// Asks who it is as it should.
    pub async fn me(&self) -> Reply {
        let token = &self.program.access;
        self.ask("DPoP", token, &[&self.proof("GET", ME, Some(token))]).await
    }
}
