//! A browser that can hold a key (device bound session credentials): does by itself what Chromium does.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use server::domain::clock::Timestamp;

use crate::app::{ORIGIN, TestApp};
use crate::browser::Browser;
use crate::people::Person;
use crate::reply::Reply;
use crate::service::{Key, Pairs};

/// Bound cookie.
pub const BOUND: &str = "__Host-mayfly-bound";
/// Where browsers bring their key.
pub const REGISTER: &str = "/auth/binding";
/// Where they sign for their next cookie.
pub const RENEW: &str = "/auth/binding/renew";
/// The list of a person's own sessions.
pub const SESSIONS: &str = "/api/v1/me/sessions";

/// The header with the offer to bind a session.
pub const REGISTRATION: &str = "secure-session-registration";
/// The header with what was signed.
pub const RESPONSE: &str = "secure-session-response";
/// The header with what is to be signed.
pub const CHALLENGE: &str = "secure-session-challenge";
/// The header that names the session.
pub const SESSION_ID: &str = "sec-secure-session-id";

/// The browser, its key, and what it knows of its session. A clone has the key, too.
#[derive(Clone)]
pub struct BoundBrowser {
    /// What people see of it.
    pub browser: Browser,
    /// Its key.
    pub key: Key,
    /// Its session, as the server names it; empty before it is bound.
    pub session_id: String,
    /// What it signs next.
    pub challenge: String,
    /// When it deletes its bound cookie.
    pub until: Timestamp,
}

/// The challenge of the offer that an answer carries.
pub fn offered(reply: &Reply) -> Option<String> {
    let offer = reply.header(REGISTRATION)?;
    let challenge = offer.strip_prefix("(ES256);path=\"/auth/binding\";challenge=\"")?;
    Some(challenge.strip_suffix('"')?.to_owned())
}

/// Challenge and session of an answer.
fn challenged(reply: &Reply) -> Option<(String, String)> {
    let text = reply.header(CHALLENGE)?.strip_prefix('"')?.strip_suffix('"')?;
    let (challenge, session) = text.split_once("\";id=\"")?;
    Some((challenge.to_owned(), session.to_owned()))
}

impl BoundBrowser {
    /// A new one, not signed in.
    pub fn new(app: &TestApp) -> Self {
        Self {
            browser: Browser::new(app),
            key: Key::es256(),
            session_id: String::new(),
            challenge: String::new(),
            until: app.now(),
        }
    }

    /// One whose session is bound: it has signed with its key for the first time just now. A minute passes.
    pub async fn signed_in(app: &TestApp, person: &Person) -> Self {
        let mut browser = Self::new(app);
        let offer = browser.sign_in(person).await;
        browser.answer(&offer).await.expect(200);
        browser.browser.open("/").await.expect(200);
        app.pass(60);
        browser.ready().await.open("/").await.expect(200);
        browser
    }

    /// Signs in with the form; the answer with the first tokens, which is not followed.
    pub async fn sign_in(&mut self, person: &Person) -> Reply {
        let reply = self.browser.give_password(&person.username, &person.password).await;
        if reply.location() != "/sign-in/code" {
            return reply;
        }
        self.browser.open("/sign-in/code").await.expect(200);
        let code = person.code(&self.browser.app);
        self.browser.submit("verify_code", &[("code", &code)]).await
    }

    /// Shows the password again; the answer with the tokens of the new session, which is not followed.
    pub async fn step_up(&mut self, person: &Person) -> Reply {
        let browser = self.ready().await;
        browser.open("/step-up?return_to=/").await.expect(200);
        let fields = [("answer", person.password.as_str()), ("return_to", "/")];
        browser.submit("step_up", &fields).await
    }

    /// Brings its key to the session that is offered.
    pub async fn answer(&mut self, offer: &Reply) -> Reply {
        let challenge = offered(offer).expect("an offer");
        let proof = self.registration(&challenge);
        self.session_id.clear();
        self.post(REGISTER, &[(RESPONSE, &proof)]).await
    }

    /// The browser as it is when it sends a request: if its bound cookie is over, it has signed for another.
    pub async fn ready(&mut self) -> &mut Browser {
        if self.browser.app.now() >= self.until {
            self.browser.jar.remove(BOUND);
        }
        if !self.browser.jar.contains_key(BOUND) {
            self.renew().await.expect(200);
        }
        &mut self.browser
    }

    /// Signs for its next cookie; what it is told to sign, if its own challenge is too old. The last answer.
    pub async fn renew(&mut self) -> Reply {
        let own = self.challenge.clone();
        let reply = self.prove(&own).await;
        if reply.status != 403 {
            return reply;
        }
        // Hardware that keeps keys takes its time.
        self.browser.app.pass(1);
        let told = self.challenge.clone();
        self.prove(&told).await
    }

    /// Signs this for its next cookie.
    pub async fn prove(&mut self, challenge: &str) -> Reply {
        let (session, proof) = (self.session_id.clone(), self.renewal(challenge));
        self.post(RENEW, &[(SESSION_ID, &session), (RESPONSE, &proof)]).await
    }

    /// What it signs to have a session bound to its key.
    pub fn registration(&self, challenge: &str) -> String {
        let mut jwk = self.key.jwk();
        jwk.as_object_mut().expect("an object").remove("kid");
        let header = json!({ "typ": "dbsc+jwt", "alg": "ES256", "jwk": jwk });
        self.key.sign(&header, &Self::claims(challenge))
    }

    /// What it signs for its next cookie.
    pub fn renewal(&self, challenge: &str) -> String {
        let header = json!({ "typ": "dbsc+jwt", "alg": "ES256" });
        self.key.sign(&header, &Self::claims(challenge))
    }

    fn claims(challenge: &str) -> Value {
        json!({ "jti": challenge })
    }

    /// A request of the browser's own, with its cookies.
    pub async fn post(&mut self, path: &str, headers: &Pairs<'_>) -> Reply {
        let ours = [
            ("origin", ORIGIN),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-dest", "empty"),
        ];
        self.post_bare(path, &[&ours, headers].concat()).await
    }

    /// The same with these headers and no others.
    pub async fn post_bare(&mut self, path: &str, headers: &Pairs<'_>) -> Reply {
        let mut request = self.browser.request(Method::POST, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request: Request<Body> = request.body(Body::empty()).expect("a request");
        let reply = self.browser.send(request).await;
        self.learn(&reply);
        reply
    }

    /// Keeps what it is told about its own session.
    fn learn(&mut self, reply: &Reply) {
        if let Some((challenge, session)) = challenged(reply)
            && (self.session_id.is_empty() || self.session_id == session)
        {
            (self.challenge, self.session_id) = (challenge, session);
        }
        for line in reply.cookies() {
            let cookie = cookie::Cookie::parse(line).expect("a cookie");
            let age = cookie.max_age().filter(|age| age.is_positive());
            if let Some(age) = age.filter(|_| cookie.name() == BOUND) {
                let lifetime = Duration::from_secs(age.whole_seconds().unsigned_abs());
                self.until = self.browser.app.now().plus(lifetime);
            }
        }
    }
}

/// Whether the session that asks is bound, as its owner is told.
pub async fn is_bound(browser: &mut Browser) -> bool {
    let list = browser.fetch_empty(Method::GET, SESSIONS).await.expect(200).json();
    list[0]["bound_to_key"].as_bool().expect("said")
}

/// A member who has just signed in, and the answer that offers the browser to bind its session.
pub async fn offered_anew(name: &str) -> (TestApp, Person, BoundBrowser, Reply) {
    let app = TestApp::start(name).await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = BoundBrowser::new(&app);
    let offer = browser.sign_in(&person).await;
    (app, person, browser, offer)
}

/// A member whose browser's session is bound.
pub async fn bound(name: &str) -> (TestApp, Person, BoundBrowser) {
    let app = TestApp::start(name).await;
    let person = app.add_person("max", &["member"], false).await;
    let browser = BoundBrowser::signed_in(&app, &person).await;
    (app, person, browser)
}

/// What the log says of refusals, in order: the kind of event and its reason.
pub async fn refusals(app: &TestApp) -> Vec<String> {
    let sql = "SELECT kind, reason FROM audit_events WHERE kind IN ('proof_refused', 'bound_cookie_copied')";
    let rows = app.rows(sql).await.into_iter();
    let mut all: Vec<String> = rows
        .map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" "))
        .collect();
    all.sort();
    all
}
