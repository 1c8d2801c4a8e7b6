//! The HTTP edge: which layers a request passes, in which order, before a service is asked.
//!
//! From outside in: panic handler → response headers → time and body limits → who knocks (address, request id)
//! → doubled cookies → origin gate → flow state (tower-sessions) → form token → viewer (renewal) → handler.

pub mod api;
pub mod assets;
pub mod auth;
pub mod client;
pub mod cookies;
pub mod dpop;
pub mod error;
pub mod feed;
pub mod health;
pub mod limits;
pub mod listen;
pub mod oauth;
pub mod pages;
pub mod protect;
pub mod refusal;
pub mod viewer;
pub mod web_session;

use std::sync::Arc;

use app::types::Assets;
use async_trait::async_trait;
use axum::http::HeaderMap;

use crate::config::Settings;
use crate::domain::audit::Circumstances;
use crate::domain::audit::Kind;
use crate::domain::session::Client;
use crate::services::Backend;
use crate::services::ports::{Guess, Throttle};
use crate::services::sign_in::{Caller, DeviceCookie};

use client::ClientAddress;
use limits::{LimitKind, Limits, RetryAfter};

/// What handlers share.
#[derive(Clone)]
pub struct AppState {
    /// The services.
    pub backend: Arc<Backend>,
    /// Configuration.
    pub settings: Arc<Settings>,
    /// Rate limits.
    pub limits: Arc<Limits>,
    /// Names of the built files.
    pub assets: Arc<Assets>,
    /// Readiness is false once the server is asked to stop.
    pub draining: health::Draining,
    /// Streams of the revocation feed.
    pub streams: feed::Streams,
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
}
