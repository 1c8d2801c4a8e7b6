//! A sink that remembers, and an edge that tells it, for tests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::{Extension, Router};

use super::{HeaderPolicy, Protection, RefusalSink};
use crate::config::{ForwardedHeader, LimitSettings};
use crate::domain::audit::{Circumstances, Kind};
use crate::domain::clock::SystemClock;
use crate::domain::random::SystemRandom;
use crate::http::client::Identification;
use crate::http::error::Bodies;
use crate::http::limits::Limits;
use crate::http::{Edge, Rules};
use crate::services::metrics::Metrics;
use crate::storage::EventCounts;

#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<(Kind, &'static str)>>);

impl Recorder {
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.0.lock().unwrap().iter().map(|(kind, _)| *kind).collect()
    }

    pub(crate) fn reasons(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().iter().map(|(_, reason)| *reason).collect()
    }
}

#[async_trait]
impl RefusalSink for Recorder {
    async fn refused(&self, kind: Kind, _circumstances: &Circumstances, reason: &'static str) {
        self.0.lock().unwrap().push((kind, reason));
    }
}

/// Routes behind the edge, asked by somebody at 203.0.113.1.
pub(crate) fn edge(sink: &Arc<Recorder>, routes: Router) -> Router {
    let peer = SocketAddr::from(([203, 0, 113, 1], 4711));
    Edge::around(routes, rules(sink)).layer(Extension(ConnectInfo(peer)))
}

/// The edge's rules for `https://id.example`: little time, small bodies.
pub(in crate::http) fn rules(sink: &Arc<Recorder>) -> Rules {
    Rules {
        identification: Identification {
            trusted_proxies: Arc::from([]),
            forwarded_header: ForwardedHeader::XForwardedFor,
            random: Arc::new(SystemRandom::default()),
        },
        headers: HeaderPolicy { https: true },
        bodies: Bodies {
            style: Some("/pkg/main.css".into()),
        },
        time_limit: Duration::from_millis(50),
        protection: protection(sink.clone()),
        body_limit: DefaultBodyLimit::max(1024),
        metrics: Arc::new(Metrics::new(EventCounts::default())),
    }
}

/// Protection of `https://id.example`.
pub(crate) fn protection(sink: Arc<Recorder>) -> Protection {
    Protection {
        public_url: Arc::new("https://id.example".parse().unwrap()),
        sink,
        max_body_bytes: 65_536,
        limits: Arc::new(Limits::new(&LimitSettings::default(), Arc::new(SystemClock))),
    }
}
