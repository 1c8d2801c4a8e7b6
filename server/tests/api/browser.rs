//! A browser without JavaScript: keeps cookies as RFC 6265 says, sends what Chromium sends, fills in forms.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE, COOKIE, HOST, ORIGIN as ORIGIN_HEADER, REFERER, USER_AGENT};
use axum::http::{Method, Request};

use crate::app::{ORIGIN, TestApp};
use crate::people::Person;
use crate::reply::Reply;

/// Firefox on Linux, as it names itself.
pub const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
/// Chrome on Windows, as it names itself.
pub const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

/// Names of the cookies that tests look at.
pub const ACCESS: &str = "__Host-Http-mayfly-at";
/// Refresh token.
pub const REFRESH: &str = "__Host-Http-mayfly-rt";
/// Device.
pub const DEVICE: &str = "__Host-Http-mayfly-device";
/// State beside a sign-in.
pub const FLOW: &str = "__Host-Http-mayfly-flow";

/// One browser of one person. A clone is a second tab that does not see the first one's new cookies.
#[derive(Clone)]
pub struct Browser {
    /// The application it talks to.
    pub app: TestApp,
    /// Cookies by name.
    pub jar: BTreeMap<String, String>,
    /// How it names itself.
    pub user_agent: String,
    /// Address it comes from.
    pub peer: SocketAddr,
    /// Path and query of the page shown.
    pub here: String,
    /// Token of the forms on the page shown.
    pub form_token: String,
}

impl Browser {
    /// A new browser, on Linux, in a network of documentation addresses.
    pub fn new(app: &TestApp) -> Self {
        Self {
            app: app.clone(),
            jar: BTreeMap::new(),
            user_agent: FIREFOX.to_owned(),
            peer: SocketAddr::from(([198, 51, 100, 7], 40_000)),
            here: "/".to_owned(),
            form_token: String::new(),
        }
    }

    /// The same in another browser and network.
    pub fn elsewhere(app: &TestApp) -> Self {
        let peer = SocketAddr::from(([203, 0, 113, 80], 50_000));
        Self {
            user_agent: CHROME.to_owned(),
            peer,
            ..Self::new(app)
        }
    }

    /// A cookie's value.
    #[track_caller]
    pub fn cookie(&self, name: &str) -> String {
        self.jar
            .get(name)
            .cloned()
            .unwrap_or_else(|| panic!("no cookie {name} in {:?}", self.jar.keys()))
    }

    /// Has tokens.
    pub fn is_signed_in(&self) -> bool {
        self.jar.contains_key(REFRESH)
    }

    /// A request with this browser's cookies and name, and nothing else of a browser's.
    pub fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        let host = ORIGIN.strip_prefix("http://").unwrap_or(ORIGIN);
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(USER_AGENT, &self.user_agent);
        if !self.jar.is_empty() {
            let pairs: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            builder = builder.header(COOKIE, pairs.join("; "));
        }
        builder
    }

    /// Sends a request and keeps the cookies of the answer.
    pub async fn send(&mut self, request: Request<Body>) -> Reply {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        let is_page = request.method() == Method::GET;
        let reply = self.app.send(self.peer, request).await;
        self.keep(&reply);
        if is_page && let Some(token) = reply.form_token() {
            self.form_token = token;
            self.here = path;
        }
        reply
    }

    /// Keeps and deletes cookies as the answer says.
    pub fn keep(&mut self, reply: &Reply) {
        for line in reply.cookies() {
            let cookie = cookie::Cookie::parse(line).expect("a cookie");
            let gone = cookie.max_age().is_some_and(|age| !age.is_positive());
            if gone {
                self.jar.remove(cookie.name());
            } else {
                self.jar.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
    }

    /// Opens a page by a click on a page of ours.
    pub async fn get(&mut self, path: &str) -> Reply {
        let request = self
            .navigation(Method::GET, path, "same-origin")
            .header(REFERER, format!("{ORIGIN}{}", self.here))
            .body(Body::empty())
            .expect("a request");
        self.send(request).await
    }

    /// Opens a page and whatever it redirects to.
    pub async fn open(&mut self, path: &str) -> Reply {
        let mut reply = self.get(path).await;
        for _ in 0..10 {
            if !reply.status.is_redirection() {
                return reply;
            }
            let next = reply.location().to_owned();
            reply = self.get(&next).await;
        }
        panic!("{path} redirects without end");
    }

    /// The headers of a page being opened, `site` as in `Sec-Fetch-Site`.
    pub fn navigation(&self, method: Method, path: &str, site: &str) -> axum::http::request::Builder {
        self.request(method, path)
            .header(
                ACCEPT,
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            )
            .header("sec-fetch-site", site)
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-user", "?1")
    }

    /// The headers of a script's request on a page of ours.
    pub fn script(&self, method: Method, path: &str) -> axum::http::request::Builder {
        let unsafe_method = !matches!(method, Method::GET | Method::HEAD);
        let mut builder = self
            .request(method, path)
            .header(ACCEPT, "application/json")
            .header("sec-fetch-site", "same-origin")
            .header("sec-fetch-mode", "cors")
            .header("sec-fetch-dest", "empty")
            .header(REFERER, format!("{ORIGIN}{}", self.here));
        if unsafe_method {
            builder = builder
                .header(ORIGIN_HEADER, ORIGIN)
                .header("x-form-token", &self.form_token);
        }
        builder
    }

    /// A script's request with a JSON body.
    pub async fn fetch(&mut self, method: Method, path: &str, body: &serde_json::Value) -> Reply {
        let request = self
            .script(method, path)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .expect("a request");
        self.send(request).await
    }

    /// A script's request without a body.
    pub async fn fetch_empty(&mut self, method: Method, path: &str) -> Reply {
        let request = self.script(method, path).body(Body::empty()).expect("a request");
        self.send(request).await
    }

    /// The request that sends a form of the page shown.
    pub fn form(&self, action: &str, fields: &[(&str, &str)]) -> Request<Body> {
        let mut fields = fields.to_vec();
        fields.insert(0, ("form_token", &self.form_token));
        self.navigation(Method::POST, &format!("/actions/{action}"), "same-origin")
            .header(ORIGIN_HEADER, ORIGIN)
            .header(REFERER, format!("{ORIGIN}{}", self.here))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(encode(&fields)))
            .expect("a request")
    }

    /// Sends a form of the page shown.
    pub async fn submit(&mut self, action: &str, fields: &[(&str, &str)]) -> Reply {
        let request = self.form(action, fields);
        self.send(request).await
    }

    /// Sends a form and opens where it leads.
    pub async fn submit_and_follow(&mut self, action: &str, fields: &[(&str, &str)]) -> Reply {
        let next = self.submit(action, fields).await.location().to_owned();
        self.open(&next).await
    }

    /// Sends a form the way a script does, for the status instead of a redirect.
    pub async fn submit_by_script(&mut self, action: &str, fields: &[(&str, &str)]) -> Reply {
        let mut fields = fields.to_vec();
        fields.insert(0, ("form_token", &self.form_token));
        let request = self
            .script(Method::POST, &format!("/actions/{action}"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(encode(&fields)))
            .expect("a request");
        self.send(request).await
    }

    /// Types name and password; the answer to the form.
    pub async fn give_password(&mut self, identifier: &str, password: &str) -> Reply {
        self.open("/sign-in").await;
        self.submit(
            "sign_in",
            &[("identifier", identifier), ("password", password), ("return_to", "")],
        )
        .await
    }

    /// Signs in completely and shows the devices page.
    pub async fn sign_in(&mut self, person: &Person) -> Reply {
        let reply = self.give_password(&person.username, &person.password).await;
        let next = reply.location().to_owned();
        let mut page = self.open(&next).await;
        if next == "/sign-in/code" {
            let code = person.code(&self.app);
            page = self.submit_and_follow("verify_code", &[("code", &code)]).await;
        }
        assert!(
            self.is_signed_in(),
            "{} is signed in: {} {}",
            person.username,
            page.status,
            page.body
        );
        page.expect(200)
    }

    /// Shows a factor again and goes to `return_to`.
    pub async fn step_up(&mut self, person: &Person, return_to: &str) -> Reply {
        self.open(&format!("/step-up?return_to={return_to}")).await.expect(200);
        let answer = if person.totp.is_some() {
            person.code(&self.app)
        } else {
            person.password.clone()
        };
        self.submit_and_follow("step_up", &[("answer", &answer), ("return_to", return_to)])
            .await
    }
}

/// A form's fields as browsers send them.
pub fn encode(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._*".contains(&byte) {
                out.push(char::from(byte));
            } else if byte == b' ' {
                out.push('+');
            } else {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
    };
    fields
        .iter()
        .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
        .collect::<Vec<_>>()
        .join("&")
}
