//! A sink that remembers, for tests.

use std::sync::Mutex;

use async_trait::async_trait;

use super::RefusalSink;
use crate::domain::audit::{Circumstances, Kind};

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
