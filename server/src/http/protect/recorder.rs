//! A sink that remembers, for tests.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{Protection, RefusalSink};
use crate::config::LimitSettings;
use crate::domain::audit::{Circumstances, Kind};
use crate::domain::clock::SystemClock;
use crate::http::limits::Limits;

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

/// Protection of `https://id.example`.
pub(crate) fn protection(sink: Arc<Recorder>) -> Protection {
    Protection {
        public_url: Arc::new("https://id.example".parse().unwrap()),
        sink,
        max_body_bytes: 65_536,
        limits: Arc::new(Limits::new(&LimitSettings::default(), Arc::new(SystemClock))),
    }
}
