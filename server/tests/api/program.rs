//! A program without a browser: JSON, no `Origin`, no fetch metadata; its tokens are in its own hands.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, USER_AGENT};
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::people::Person;
use crate::reply::Reply;

/// One program of one person.
#[derive(Clone)]
pub struct Program {
    /// The application it talks to.
    pub app: TestApp,
    /// Headers that every request carries.
    pub headers: Vec<(&'static str, String)>,
    /// The cookie of a sign-in in progress.
    pub jar: BTreeMap<String, String>,
    /// Address it comes from.
    pub peer: SocketAddr,
    /// Access token, once signed in.
    pub access: String,
    /// Refresh token, once signed in.
    pub refresh: String,
    /// Session, once signed in.
    pub session_id: String,
}

impl Program {
    /// A new one.
    pub fn new(app: &TestApp) -> Self {
        Self {
            app: app.clone(),
            headers: Vec::new(),
            jar: BTreeMap::new(),
            peer: SocketAddr::from(([192, 0, 2, 33], 44_000)),
            access: String::new(),
            refresh: String::new(),
            session_id: String::new(),
        }
    }

    /// One that is signed in.
    pub async fn signed_in(app: &TestApp, person: &Person) -> Self {
        let mut program = Self::new(app);
        let reply = program.sign_in(person).await;
        assert!(
            !program.refresh.is_empty(),
            "{} is signed in: {}",
            person.username,
            reply.body
        );
        program
    }

    /// The start of a request.
    pub fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost:3000")
            .header(USER_AGENT, "backup-tool/2.1");
        for (name, value) in &self.headers {
            builder = builder.header(*name, value);
        }
        if !self.jar.is_empty() {
            let pairs: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            builder = builder.header(COOKIE, pairs.join("; "));
        }
        builder
    }

    /// Posts JSON.
    pub async fn post(&mut self, path: &str, body: &Value) -> Reply {
        self.post_text(path, &body.to_string()).await
    }

    /// Posts a text that says it is JSON.
    pub async fn post_text(&mut self, path: &str, body: &str) -> Reply {
        let request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .expect("a request");
        let reply = self.app.send(self.peer, request).await;
        for line in reply.cookies() {
            let cookie = cookie::Cookie::parse(line).expect("a cookie");
            if cookie.max_age().is_some_and(|age| !age.is_positive()) {
                self.jar.remove(cookie.name());
            } else {
                self.jar.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
        reply
    }

    /// Signs in; keeps the tokens if it succeeds. The last answer.
    pub async fn sign_in(&mut self, person: &Person) -> Reply {
        let body = json!({ "identifier": person.username, "password": person.password });
        let mut reply = self.post("/auth/login", &body).await;
        if reply.status == 200 && reply.json()["status"] == "mfa_required" {
            let code = person.code(&self.app);
            reply = self.post("/auth/mfa", &json!({ "code": code })).await;
        }
        if reply.status == 200 && reply.json()["status"] == "signed_in" {
            let said = reply.json();
            self.session_id = text(&said["session_id"]);
            self.take(&said["tokens"]);
        }
        reply
    }

    fn take(&mut self, tokens: &Value) {
        self.access = text(&tokens["access_token"]);
        self.refresh = text(&tokens["refresh_token"]);
    }

    /// Presents a refresh token without keeping what comes.
    pub async fn present(&mut self, token: &str) -> Reply {
        self.post("/auth/refresh", &json!({ "refresh_token": token })).await
    }

    /// Refreshes; keeps new tokens if there are any.
    pub async fn renew(&mut self) -> Reply {
        let reply = self.present(&self.refresh.clone()).await;
        if reply.status == 200 {
            self.take(&reply.json());
        }
        reply
    }

    /// A request with an access token.
    pub async fn ask_with(&self, token: &str, method: Method, path: &str) -> Reply {
        let request = self
            .request(method, path)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty())
            .expect("a request");
        self.app.send(self.peer, request).await
    }

    /// Its own sessions, with its access token.
    pub async fn sessions(&self) -> Reply {
        self.ask_with(&self.access, Method::GET, "/api/v1/me/sessions").await
    }

    /// Ends a session of its owner's.
    pub async fn end(&self, session_id: &str) -> Reply {
        self.ask_with(
            &self.access,
            Method::DELETE,
            &format!("/api/v1/me/sessions/{session_id}"),
        )
        .await
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text, not {value}"))
        .to_owned()
}
