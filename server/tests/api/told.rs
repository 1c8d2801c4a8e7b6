//! A service that is told of ended sessions, independent of the product: a port on loopback that keeps what arrives and
//! answers as the test wants.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::Value;
use server::domain::backchannel_logout::{LogoutReceiver, LogoutUri};
use server::domain::client::{ClientId, ClientName, LONGEST_ACCESS, Scopes};
use server::domain::id::SessionId;
use server::services::backchannel_logout::TellOutcome;
use server::services::oauth::{AddClientOutcome, NewClient};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::access_tokens::claims;
use crate::app::TestApp;
use crate::people::Person;
use crate::program::Program;

/// How it answers.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// With this status.
    Status(u16),
    /// To another place.
    Redirect(&'static str),
    /// Not at all.
    Never,
}

/// What arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Headers of the request.
    pub headers: HeaderMap,
    body: String,
}

impl Arrived {
    /// The one token in the form.
    pub fn token(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/x-www-form-urlencoded");
        let fields: Vec<_> = form_urlencoded::parse(self.body.as_bytes()).into_owned().collect();
        let [(name, token)] = &fields[..] else {
            panic!("one parameter: {fields:?}")
        };
        assert_eq!(name, "logout_token");
        token.clone()
    }

    /// What it says.
    pub fn claims(&self) -> Value {
        claims(&self.token())
    }

    /// The session it names.
    pub fn session(&self) -> String {
        self.claims()["sid"].as_str().expect("a session").to_owned()
    }
}

#[derive(Clone, Default)]
struct Desk {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    /// The next answers; then 200.
    manners: Arc<Mutex<VecDeque<Manner>>>,
    /// Always answered so, by session.
    never_taken: Arc<Mutex<HashMap<String, u16>>>,
}

impl Desk {
    async fn take(self, headers: HeaderMap, body: Bytes) -> Response {
        let body = String::from_utf8(body.to_vec()).expect("text");
        let arrived = Arrived { headers, body };
        let session = arrived.session();
        locked(&self.arrived).push(arrived);
        let usual = locked(&self.never_taken).get(&session).copied().unwrap_or(200);
        let manner = locked(&self.manners).pop_front().unwrap_or(Manner::Status(usual));
        match manner {
            Manner::Status(status) => StatusCode::from_u16(status).expect("a status").into_response(),
            Manner::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
            Manner::Never => std::future::pending().await,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A service of the test's own behind a port, independent of the product.
pub struct Told {
    app: TestApp,
    /// As a client.
    pub id: ClientId,
    desk: Desk,
    serving: JoinHandle<()>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Told {
    /// A new one that is told from now on.
    pub async fn begin(app: &TestApp, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let uri = format!("http://{}/logout?from=mayfly", listener.local_addr().expect("bound"));
        let desk = Desk::default();
        let taking = desk.clone();
        let elsewhere = desk.clone();
        let routes = Router::new()
            .route("/logout", post(move |headers, body| taking.take(headers, body)))
            .route("/elsewhere", post(move |headers, body| elsewhere.take(headers, body)));
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.expect("serves") });
        Self {
            app: app.clone(),
            id: add(app, name, &uri).await,
            desk,
            serving,
        }
    }

    /// How it will answer, before it goes back to 200.
    pub fn will_answer(&self, manners: impl IntoIterator<Item = Manner>) {
        locked(&self.desk.manners).extend(manners);
    }

    /// What arrived since the last look.
    pub fn heard(&self) -> Vec<Arrived> {
        std::mem::take(&mut *locked(&self.desk.arrived))
    }

    /// The sessions in it.
    pub fn sessions(&self) -> Vec<String> {
        self.heard().iter().map(Arrived::session).collect()
    }

    /// It never takes the end of this session.
    pub fn will_never_take(&self, session: &str, status: u16) {
        locked(&self.desk.never_taken).insert(session.to_owned(), status);
    }

    /// How the product sees it.
    pub async fn receiver(&self) -> LogoutReceiver {
        let all = receivers(&self.app).await;
        all.into_iter()
            .find(|receiver| receiver.client == self.id)
            .expect("it is told")
    }

    /// One turn. What has happened is sealed before.
    pub async fn turn(&self) -> TellOutcome {
        self.app.seal().await;
        tell(&self.app, self.receiver().await).await
    }

    /// Answers 200 again from now on.
    pub fn is_well_again(&self) {
        locked(&self.desk.manners).clear();
    }

    /// Its port is closed.
    pub async fn close(&self) {
        self.serving.abort();
        while !self.serving.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// A turn after which it was told so many.
    #[track_caller]
    pub fn told(outcome: TellOutcome) -> usize {
        match outcome {
            TellOutcome::Told(told) => told.endings,
            other => panic!("{other:?}"),
        }
    }
}

/// All that are told, as the product sees them.
pub async fn receivers(app: &TestApp) -> Vec<LogoutReceiver> {
    let all = app.backend().list_logout_receivers().await;
    all.expect("the database answers")
}

/// One turn for this one, as it was read.
pub async fn tell(app: &TestApp, receiver: LogoutReceiver) -> TellOutcome {
    let told = app.backend().tell_logouts_to(receiver).await;
    told.expect("the database answers")
}

/// A client that is told there.
pub async fn add(app: &TestApp, name: &str, uri: &str) -> ClientId {
    let new = NewClient {
        name: ClientName::parse(name).expect("a name"),
        scopes: Scopes::default(),
        keys: None,
        access: LONGEST_ACCESS,
        may_introspect: false,
        logout_uri: Some(LogoutUri::parse(uri).expect("an address")),
    };
    match app.backend().add_client(new).await.expect("the database answers") {
        AddClientOutcome::Added(client) => client.id,
        AddClientOutcome::NameTaken => panic!("{name} is there already"),
    }
}

/// A session as tokens name it.
pub fn short(id: &str) -> String {
    id.parse::<SessionId>().expect("an id").to_short()
}

/// Somebody signs in once more and the new session is ended; its name in tokens.
pub async fn end_one(app: &TestApp, person: &Person, owner: &Program) -> String {
    let other = Program::signed_in(app, person).await;
    assert!(owner.end(&other.session_id).await.status.is_success());
    short(&other.session_id)
}
