//! The HTTP edge: which layers a request passes, in which order, before a service is asked.
//!
//! **Every request**, from outside in ([`Edge`]): who knocks (address, request id, log span) → response headers → bodies
//! of errors → panics → time limit → odd methods → long heads → doubled cookies → origin gate → body limit → the routes.
//!
//! **Around some routes** ([`router`]), again from outside in:
//! * pages, and JSON of browsers: redirects kept here → flow state (tower-sessions) → viewer (renewal);
//! * forms: redirects kept here → flow state → form token → viewer;
//! * JSON that is only read: viewer;
//! * key set, other software, browsers that sign for their cookie, files, health: nothing more.
//!
//! What every request passes is one service and one future: as axum layers around each route it was cloned anew, all
//! that lies beneath included, at every step of every request.

pub mod api;
pub mod assets;
pub mod auth;
pub mod body;
pub mod client;
pub mod cookies;
pub mod dbsc;
pub mod dpop;
pub mod error;
pub mod events;
pub mod feed;
pub mod health;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod oauth;
pub mod pages;
pub mod places;
pub mod protect;
pub mod refusal;
pub mod viewer;
pub mod web_session;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use app::types::Assets;
use async_trait::async_trait;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::HeaderMap;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tower::Service;
use tracing::Instrument as _;

use crate::config::Settings;
use crate::domain::audit::Circumstances;
use crate::domain::audit::Kind;
use crate::domain::session::Client;
use crate::services::Backend;
use crate::services::metrics::Metrics;
use crate::services::ports::{Guess, Throttle};
use crate::services::sign_in::{Caller, DeviceCookie};

use client::ClientAddress;
use error::Problem;
use limits::{LimitKind, Limits, RetryAfter};

/// All routes and all layers.
pub fn router(state: &AppState) -> Router {
    let settings = &state.settings.server;
    let protection = protect::Protection {
        public_url: Arc::new(state.settings.public_url.clone()),
        sink: state.backend.clone(),
        max_body_bytes: settings.max_body_bytes,
        limits: state.limits.clone(),
    };
    let flow = web_session::layer(&state.backend);
    let identify_viewer = from_fn_with_state(state.clone(), viewer::identify);
    let keep_redirects_here = from_fn_with_state(protection.clone(), protect::keep_redirects_here);
    let with_flow = Router::new()
        .merge(auth::routes())
        .merge(api::changes())
        .merge(pages::routes())
        .layer(identify_viewer.clone())
        .layer(flow.clone())
        .layer(from_fn(web_session::delete_completely))
        .layer(keep_redirects_here.clone());
    let forms = pages::actions()
        .layer(identify_viewer.clone())
        .layer(from_fn_with_state(protection.clone(), protect::check_form_token))
        .layer(flow)
        .layer(from_fn(web_session::delete_completely))
        .layer(keep_redirects_here);
    let only_read = api::reads().layer(identify_viewer);
    let report = post(protect::csp_report).with_state(protection.clone());
    let routes = Router::new()
        .merge(with_flow)
        .merge(forms)
        .merge(only_read)
        .merge(api::public_routes())
        .merge(dbsc::routes())
        .merge(oauth::routes())
        .merge(feed::routes())
        .merge(events::routes())
        .route(protect::REPORT_PATH, report)
        .with_state(state.clone())
        .merge(assets::routes())
        .merge(health::routes(health::Health::new(
            state.backend.clone(),
            state.draining.clone(),
        )));
    let rules = Rules {
        identification: client::Identification {
            trusted_proxies: settings.trusted_proxies.clone().into(),
            forwarded_header: settings.forwarded_header,
            random: state.backend.shared_random(),
        },
        headers: protect::HeaderPolicy::new(&state.settings.public_url),
        bodies: error::Bodies {
            style: Some(state.assets.style.as_str().into()).filter(|style: &Arc<str>| !style.is_empty()),
        },
        time_limit: Duration::from_secs(settings.request_timeout_seconds),
        body_limit: DefaultBodyLimit::max(settings.max_body_bytes),
        protection,
        metrics: state.backend.metrics().clone(),
    };
    Edge::around(routes, rules)
}

/// What every request passes, whatever it is for.
#[derive(Clone)]
struct Edge {
    rules: Arc<Rules>,
    routes: Router,
}

/// What the steps of [`Edge`] go by, in their order.
struct Rules {
    identification: client::Identification,
    headers: protect::HeaderPolicy,
    bodies: error::Bodies,
    time_limit: Duration,
    protection: protect::Protection,
    body_limit: DefaultBodyLimit,
    /// Counts the answers.
    metrics: Arc<Metrics>,
}

impl Edge {
    /// The routes behind the edge. (A router again, because that is what listens.)
    fn around(routes: Router, rules: Rules) -> Router {
        let rules = Arc::new(rules);
        Router::new().fallback_service(Self { rules, routes })
    }

    async fn answer(self, mut request: Request) -> Response {
        let rules = self.rules.clone();
        let Some(known) = rules.identification.identify(&mut request) else {
            return Problem::internal().into_response();
        };
        // The path stays out of the log: a one-time link is a secret.
        let span = tracing::info_span!("request", id = %known.id.0, method = %request.method());
        let for_people = error::accepts_html(request.headers());
        let is_probe = health::is_probe(request.uri().path());
        let answered = async {
            let body = body::Awaited::watch(&mut request);
            let Ok(answered) = caught(tokio::time::timeout(rules.time_limit, self.admit(request))).await else {
                let sink = &rules.protection.sink;
                sink.refused(Kind::HandlerPanicked, &known.from, "panic").await;
                return Problem::internal().into_response();
            };
            answered.unwrap_or_else(|_too_late| match body {
                Some(body) if body.is_true() => Problem::request_timeout().into_response(),
                _ => Problem::unavailable().into_response(),
            })
        };
        let answered = answered.instrument(span).await;
        let mut response = rules.bodies.give(answered, &known.id, for_people);
        rules.headers.set(response.headers_mut());
        known.id.name(response.headers_mut());
        if !is_probe {
            rules.metrics.answered(response.status().as_u16());
        }
        response
    }

    /// The gates, then the routes.
    async fn admit(mut self, mut request: Request) -> Response {
        let odd = protect::refuse_odd_method(request.method());
        if let Some(response) = odd.or_else(|| protect::refuse_long_head(&request)) {
            return response;
        }
        let protection = &self.rules.protection;
        let refused = protect::refuse_doubled_cookie(request.headers())
            .or_else(|| protect::refuse_foreign_origin(&request, &protection.public_url));
        if let Some(refused) = refused {
            return protection.refuse(&request, refused).await;
        }
        body::refuse_declared_beyond(protection.max_body_bytes, &mut request);
        self.rules.body_limit.apply(&mut request);
        let Ok(response) = self.routes.call(request).await;
        response
    }
}

impl Service<Request> for Edge {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let edge = self.clone();
        Box::pin(async move { Ok(edge.answer(request).await) })
    }
}

/// The end of a future that panicked.
struct Panicked;

/// What a panic says may hold anything, so it goes no further; [`error::install_panic_hook`] logs where it happened.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut future = pin!(future);
    // Nobody looks at the future again after a panic.
    std::future::poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(Err(Panicked)), |polled| polled.map(Ok))
    })
    .await
}

/// What handlers share. One count for all of it: every route holds it, and it is cloned on the way of every request.
pub type AppState = Arc<Shared>;

/// See [`AppState`].
pub struct Shared {
    /// The services.
    pub backend: Arc<Backend>,
    /// Configuration.
    pub settings: Settings,
    /// Rate limits.
    pub limits: Arc<Limits>,
    /// Names of the built files.
    pub assets: Assets,
    /// Readiness is false once the server is asked to stop.
    pub draining: health::Draining,
    /// Streams of the revocation feed.
    pub streams: Arc<places::Places>,
    /// Requests that wait for security events.
    pub polls: Arc<places::Places>,
}

/// A browser says where a request comes from; programs do not.
#[must_use]
pub fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-site") || headers.contains_key("origin")
}

/// Who knocks, for the services.
#[must_use]
pub fn caller(headers: &HeaderMap, from: Circumstances, address: ClientAddress) -> Caller {
    Caller {
        from,
        address: address.0,
        client: if is_browser(headers) {
            Client::Browser
        } else {
            Client::Native
        },
        device: cookies::read(headers, cookies::DEVICE).and_then(DeviceCookie::parse),
        key: None,
    }
}

impl Throttle for Limits {
    fn check(&self, guess: Guess, caller: &Caller, account: &str, known_device: bool) -> Result<(), u32> {
        let kind = match guess {
            Guess::Password => LimitKind::SignIn,
            Guess::Code => LimitKind::Code,
        };
        Self::check(self, kind, caller.address, Some(account), known_device).map_err(|wait: RetryAfter| wait.seconds)
    }
}

#[async_trait]
impl protect::RefusalSink for Backend {
    async fn refused(&self, kind: Kind, circumstances: &Circumstances, reason: &'static str) {
        if let Err(error) = self.record_refusal(kind, circumstances, reason).await {
            tracing::error!(%error, kind = kind.as_str(), reason, "a refusal could not be written down");
        }
    }
}

#[async_trait]
impl health::Readiness for Backend {
    async fn database(&self) -> bool {
        self.store().ping().await.is_ok()
    }

    async fn keys(&self) -> bool {
        self.keys_are_in_order().await
    }

    fn clock(&self) -> bool {
        self.clock_is_in_order()
    }
}

#[cfg(test)]
mod tests;
