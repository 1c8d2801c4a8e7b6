//! What this process counts and measures for those who operate it (M29), in the words of Prometheus.
//!
//! Every label is a closed word: never a name, an address, an id or a token (M15), for metrics are kept by other systems and
//! read by other people than the log. Events are counted where they are committed, by `storage`; what is counted here
//! leaves none, or not always.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::tokens::{AccessOutcome, RefreshOutcome};
use super::{Backend, ServiceError};
use crate::domain::audit::Kind;
use crate::storage::{EventCounts, mail, sessions};

/// Upper bounds in seconds: from one rotation up to the longest time for a request.
const SECONDS: [f64; 14] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Whole tables are counted anew after this, however often somebody asks.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// Nobody waits longer for that: the other metrics are wanted most while the database is slow.
const PATIENCE_TO_COUNT: Duration = Duration::from_secs(1);

/// What came of it when the database or anything else failed.
const UNAVAILABLE: &str = "unavailable";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithOutcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClass {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AtStep {
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPart {
    part: &'static str,
}

#[derive(Clone)]
struct Durations;

impl MetricConstructor<Histogram> for Durations {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// A number that is asked for; not a number while it cannot be known.
type Level = Gauge<f64, std::sync::atomic::AtomicU64>;

fn unknown() -> Level {
    let level = Level::default();
    level.set(f64::NAN);
    level
}

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    refreshes: Family<WithOutcome, Counter>,
    refresh_seconds: Histogram,
    access_checks: Family<WithOutcome, Counter>,
    sign_in_seconds: Family<AtStep, Histogram, Durations>,
    responses: Family<OfClass, Counter>,
    ready: Family<OfPart, Gauge>,
    sessions_alive: Level,
    mails_waiting: Level,
    /// When whole tables were last counted, by the clock that nobody sets.
    counted: Mutex<Option<Duration>>,
}

impl Metrics {
    /// With nothing counted but these events.
    #[must_use]
    pub fn new(events: EventCounts) -> Self {
        let mut all = Registry::with_prefix("mayfly");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        all.register("build", "Version of this server", version);
        all.register(
            "events",
            "Events that this process wrote to the audit log, as far as somebody waited for that",
            events.by_kind.clone(),
        );
        all.register(
            "refusals",
            "Of these events, what was refused or failed, by reason",
            events.refusals,
        );
        let new = Self {
            ready: registered(
                &mut all,
                "ready",
                "Whether this part lets requests come: 1 yes, 0 no; /readyz says yes when all do",
                Family::default(),
            ),
            refreshes: registered(
                &mut all,
                "refreshes",
                "Refresh tokens presented, by what came of them",
                Family::default(),
            ),
            refresh_seconds: registered(
                &mut all,
                "refresh_duration_seconds",
                "Time for a refresh that was decided, from the token to the answer",
                Durations.new_metric(),
            ),
            access_checks: registered(
                &mut all,
                "access_token_checks",
                "Access tokens presented here, by what came of them",
                Family::default(),
            ),
            sign_in_seconds: registered(
                &mut all,
                "sign_in_duration_seconds",
                "Time for a step of signing in that was decided, waiting for the hashing of others included",
                Family::new_with_constructor(Durations),
            ),
            responses: registered(
                &mut all,
                "http_responses",
                "Answers of the application but to probes of its health, by the first digit of their status",
                Family::default(),
            ),
            sessions_alive: registered(
                &mut all,
                "sessions_alive",
                "Sessions in the database, of all nodes, whose end is not written down; counted every half minute",
                unknown(),
            ),
            mails_waiting: registered(
                &mut all,
                "mails_waiting",
                "Mails in the database, of all nodes, that no mail server has taken yet; counted every half minute",
                unknown(),
            ),
            counted: Mutex::default(),
            registry: all,
        };
        // What has not happened yet stands at zero: its first time is a change, too.
        for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Newer) {
            drop(events.by_kind.get_or_create(&(*kind).into()));
        }
        for outcome in RefreshOutcome::NAMES {
            drop(new.refreshes.get_or_create(&WithOutcome { outcome }));
        }
        for class in ["2xx", "3xx", "4xx", "5xx"] {
            drop(new.responses.get_or_create(&OfClass { class }));
        }
        new
    }

    /// An answer goes out with this status.
    pub fn answered(&self, status: u16) {
        let class = match status {
            ..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.responses.get_or_create(&OfClass { class }).inc();
    }

    pub(super) fn refreshed(&self, outcome: &Result<RefreshOutcome, ServiceError>, took: Duration) {
        let name = outcome.as_ref().map_or(UNAVAILABLE, RefreshOutcome::name);
        self.refreshes.get_or_create(&WithOutcome { outcome: name }).inc();
        // Anybody can send what is no token, as often as they like, and it takes no time.
        if !matches!(outcome, Ok(RefreshOutcome::Malformed) | Err(_)) {
            self.refresh_seconds.observe(took.as_secs_f64());
        }
    }

    pub(super) fn refused_to_refresh(&self, outcome: &RefreshOutcome) {
        let outcome = outcome.name();
        self.refreshes.get_or_create(&WithOutcome { outcome }).inc();
    }

    pub(super) fn checked(&self, outcome: &Result<AccessOutcome, ServiceError>) {
        let outcome = outcome.as_ref().map_or(UNAVAILABLE, AccessOutcome::name);
        self.access_checks.get_or_create(&WithOutcome { outcome }).inc();
    }
}

/// The metric, which shows under this name from now on.
fn registered<M: Metric + Clone>(all: &mut Registry, name: &str, help: &str, metric: M) -> M {
    all.register(name, help, metric.clone());
    metric
}

impl Backend {
    /// What is counted and measured.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What comes of something, and after how long by the clock that nobody sets.
    pub(super) async fn timed<T>(&self, work: impl Future<Output = T>) -> (T, Duration) {
        let began = self.clock.elapsed();
        let done = work.await;
        (done, self.clock.elapsed().saturating_sub(began))
    }

    /// What comes of a step of signing in, measured if it was decided: who is turned away at once has not waited.
    pub(super) async fn measure_sign_in<T>(
        &self,
        step: &'static str,
        decided: impl Future<Output = Result<T, ServiceError>>,
    ) -> Result<T, ServiceError> {
        let (outcome, took) = self.timed(decided).await;
        if outcome.is_ok() {
            let seconds = self.metrics.sign_in_seconds.get_or_create(&AtStep { step });
            seconds.observe(took.as_secs_f64());
        }
        outcome
    }

    /// All of it at this moment, as `OpenMetrics` text. `ready`: the parts of readiness.
    ///
    /// # Errors
    /// Never, as far as is known; the library says that text may not be writable.
    pub fn show_metrics(&self, ready: &[(&'static str, bool)]) -> Result<String, std::fmt::Error> {
        for (part, is_ready) in ready {
            let part = OfPart { part };
            self.metrics.ready.get_or_create(&part).set(i64::from(*is_ready));
        }
        let mut text = String::new();
        encode(&mut text, &self.metrics.registry)?;
        Ok(text)
    }

    /// Counts what is counted in whole tables, if it is time and nobody else is at it.
    pub async fn count_tables(&self) {
        let Ok(mut last) = self.metrics.counted.try_lock() else {
            return;
        };
        let now = self.clock.elapsed();
        if last.is_some_and(|last| now.saturating_sub(last) < COUNT_EVERY) {
            return;
        }
        let counted = timeout(PATIENCE_TO_COUNT, self.count_rows()).await;
        let (sessions, mails) = counted.unwrap_or(Err(ServiceError::Busy)).unwrap_or_else(|error| {
            tracing::warn!(%error, "sessions and mails could not be counted for the metrics");
            (f64::NAN, f64::NAN)
        });
        self.metrics.sessions_alive.set(sessions);
        self.metrics.mails_waiting.set(mails);
        *last = Some(now);
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 rows")]
    async fn count_rows(&self) -> Result<(f64, f64), ServiceError> {
        let mut tx = self.store.read().await?;
        let sessions = sessions::count_all_living_sessions(&mut tx).await?;
        let mails = mail::count_mails(&mut tx).await?;
        Ok((sessions as f64, mails as f64))
    }
}
