//! Several nodes on one database, each behind a socket of its own and on the system's clock; programs that talk to
//! them; and the example service beside them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use reqwest::{Client, Method, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use server::domain::audit::Circumstances;
use server::domain::client::{ClientId, ClientName, LONGEST_ACCESS, Scopes};
use server::domain::clock::{Clock, SystemClock};
use server::services::oauth::{AddClientOutcome, ClientProof, IssueOutcome, NewClient};
use server::startup::Application;
use server::verify::{Checker, Expected};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::app::{ORIGIN, SeededRandom, TestApp};
use crate::people::Person;

#[path = "../../examples/orders/issuer.rs"]
mod issuer;
#[path = "../../examples/orders/shop.rs"]
mod shop;

/// A client without proxies, redirects or patience.
pub fn http() -> Client {
    Client::builder()
        // Plain HTTP on loopback: the list of authorities need not be read.
        .tls_certs_only([])
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client")
}

/// Serves on a port of its own until the handle is aborted.
async fn serve(routes: Router) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(async move {
        axum::serve(listener, service).await.expect("serves");
    });
    (url, serving)
}

/// One node.
pub struct Node {
    /// The application.
    pub application: Application,
    /// Where it listens.
    pub url: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Node {
    /// A node on the database of this application.
    pub async fn beside(app: &TestApp, name: &str) -> Self {
        Self::beside_with(app, name, &[]).await
    }

    /// The same with other settings.
    pub async fn beside_with(app: &TestApp, name: &str, changes: &[(&str, &str)]) -> Self {
        Self::beside_by(app, name, changes, Arc::new(SystemClock)).await
    }

    /// The same by another clock.
    pub async fn beside_by(app: &TestApp, name: &str, changes: &[(&str, &str)], clock: Arc<dyn Clock>) -> Self {
        let random = Arc::new(SeededRandom::new(&format!("node {name}")));
        let application = Application::build(app.settings(changes), clock, random)
            .await
            .expect("the node starts");
        let (url, serving) = serve(application.router()).await;
        let backend = application.state().backend.clone();
        let following = tokio::spawn(async move { backend.follow_revocations().await });
        Self {
            application,
            url,
            tasks: vec![serving, following],
        }
    }

    /// A client with these scopes: its id and secret.
    pub async fn add_client(&self, name: &str, scopes: &str) -> (ClientId, SecretString) {
        let added = self
            .application
            .state()
            .backend
            .add_client(NewClient {
                name: ClientName::parse(name).expect("a name"),
                scopes: Scopes::parse(scopes).expect("scopes"),
                keys: None,
                access: LONGEST_ACCESS,
                may_introspect: false,
                logout_uri: None,
            })
            .await
            .expect("the database answers");
        match added {
            AddClientOutcome::Added(client) => (client.id, client.secret.expect("no keys, so a secret")),
            AddClientOutcome::NameTaken => panic!("{name} is there already"),
        }
    }

    /// An access token of a new client with these scopes.
    pub async fn service_token(&self, name: &str, scopes: &str) -> (ClientId, String) {
        let (id, secret) = self.add_client(name, scopes).await;
        let proof = ClientProof::Secret {
            client_id: id.to_string(),
            secret,
        };
        let issued = self
            .application
            .state()
            .backend
            .issue_service_token(&proof, None, &Circumstances::default(), |_| Ok::<_, ()>(()))
            .await
            .expect("the database answers");
        match issued.expect("it may ask") {
            IssueOutcome::Issued(issued) => (id, issued.access.expose_secret().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    /// Cuts it off from its database, as it is seen from inside: no connection and none to be had.
    pub async fn cut_off(&self) {
        self.application.state().backend.store().close().await;
    }

    /// A GET with a bearer token.
    pub async fn get(&self, path: &str, token: &str) -> Response {
        http()
            .get(format!("{}{path}", self.url))
            .bearer_auth(token)
            .send()
            .await
            .expect("an answer")
    }
}

/// A program that is signed in at a node.
#[derive(Clone)]
pub struct Remote {
    client: Client,
    /// Access token.
    pub access: String,
    /// Refresh token.
    pub refresh: String,
    /// Session.
    pub session_id: String,
}

impl Remote {
    /// Signs in with the password alone.
    pub async fn sign_in(node: &Node, person: &Person) -> Self {
        let client = http();
        let said = client
            .post(format!("{}/auth/login", node.url))
            .json(&json!({ "identifier": person.username, "password": person.password }))
            .send()
            .await
            .expect("an answer");
        assert_eq!(said.status(), StatusCode::OK);
        let said: Value = said.json().await.expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Self {
            client,
            access: text(&said["tokens"]["access_token"]),
            refresh: text(&said["tokens"]["refresh_token"]),
            session_id: text(&said["session_id"]),
        }
    }

    /// A request with the access token; the status.
    pub async fn ask(&self, method: Method, url: &str) -> StatusCode {
        self.client
            .request(method, url)
            .bearer_auth(&self.access)
            .send()
            .await
            .expect("an answer")
            .status()
    }

    /// Its own sessions.
    pub async fn sessions(&self, node: &Node) -> StatusCode {
        self.ask(Method::GET, &format!("{}/api/v1/me/sessions", node.url)).await
    }

    /// Ends its own session.
    pub async fn end(&self, node: &Node) -> StatusCode {
        let path = format!("{}/api/v1/me/sessions/{}", node.url, self.session_id);
        self.ask(Method::DELETE, &path).await
    }

    /// Exchanges the refresh token.
    pub async fn renew(&mut self, node: &Node) {
        let said = self
            .client
            .post(format!("{}/auth/refresh", node.url))
            .json(&json!({ "refresh_token": self.refresh }))
            .send()
            .await
            .expect("an answer");
        assert_eq!(said.status(), StatusCode::OK);
        let said: Value = said.json().await.expect("JSON");
        said["access_token"]
            .as_str()
            .expect("a text")
            .clone_into(&mut self.access);
        said["refresh_token"]
            .as_str()
            .expect("a text")
            .clone_into(&mut self.refresh);
    }
}

/// The example service, following a node.
pub struct Shop {
    /// Its verifier.
    pub checker: Arc<Checker>,
    /// Where its protected route is.
    pub orders: String,
    /// Where it is told of ended sessions.
    pub logout: String,
    /// Its id.
    pub client: ClientId,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Shop {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shop {
    /// Opens beside a node and is ready.
    pub async fn beside(node: &Node, bound: Duration) -> Self {
        let (id, secret) = node.add_client("orders", "revocations").await;
        let issuer = issuer::Issuer::new(node.url.clone(), id.to_string(), secret, Arc::new(SystemClock));
        let expected = Expected {
            issuer: ORIGIN.to_owned(),
            audience: node.application.state().settings.audience().to_owned(),
            clock_tolerance: Duration::from_secs(30),
            bound,
            address: None,
        };
        let checker = Arc::new(Checker::new(
            expected,
            Arc::new(issuer.expect("a client")),
            Arc::new(SystemClock),
        ));
        let (url, serving) = serve(shop::routes(checker.clone(), id.clone())).await;
        let following = tokio::spawn({
            let checker = checker.clone();
            async move { checker.follow().await }
        });
        let shop = Self {
            checker,
            orders: format!("{url}/orders"),
            logout: format!("{url}/logout"),
            client: id,
            tasks: vec![serving, following],
        };
        let ready = async {
            while !shop.checker.is_up_to_date() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ready)
            .await
            .expect("the feed is there");
        shop
    }
}
