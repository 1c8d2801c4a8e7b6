//! Puts the product together: used by the binary and by the tests alike.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use secrecy::ExposeSecret;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::cli::CliError;
use crate::config::{ConfigError, LogFormat, Settings};
use crate::domain::clock::Clock;
use crate::domain::jwt::install_crypto;
use crate::domain::keys::{KeyEncryptionKey, load_or_create_key_file};
use crate::domain::password::HashParams;
use crate::domain::random::Random;
use crate::http::limits::Limits;
use crate::http::places::Places;
use crate::http::{AppState, Shared, assets, events, feed, health, listen, metrics, router};
use crate::services::audit_seal::SEAL_EVERY;
use crate::services::forgetting::Past;
use crate::services::hashing::Hasher;
use crate::services::keys::LOOK_EVERY;
use crate::services::node_clocks::REPORT_EVERY;
use crate::services::{Backend, Parts, ServiceError};
use crate::storage::{DatabaseSettings, Store, Tx, keys};

/// For telling services of ended sessions and sending a mail, when the server ends.
const LAST_TURNS: Duration = Duration::from_secs(2);
/// The pause between two looks for what follows from events, and for mails that wait.
const LOOK_FOR_NOTICES: Duration = Duration::from_secs(1);
/// For sealing the last events when the server ends.
const LAST_SEAL: Duration = Duration::from_secs(2);
/// A folder that does not say for longer whether the key file is there is as good as gone.
const KEY_FILE_ANSWERS: Duration = Duration::from_secs(30);

/// The product, ready to serve.
pub struct Application {
    state: AppState,
    router: Router,
}

/// Why the program ended; whoever supervises it starts it again.
const SYNC_FAILED: &str = "the disk did not take what was written (see the log before this): what was answered with \
                           success is there; look at the disk, and start again";

impl Application {
    /// Opens (on the first run: makes) data folder, secrets, database and keys, and assembles the router.
    ///
    /// # Errors
    /// One clear sentence about what cannot be opened.
    pub async fn build(settings: Settings, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Self, CliError> {
        let backend = Arc::new(open_backend(&settings, clock.clone(), random, Purpose::Serve).await?);
        backend.adopt_algorithm(settings.tokens.algorithm).await?;
        let limits = Arc::new(Limits::new(&settings.limits, clock));
        let state = Arc::new(Shared {
            backend,
            settings,
            limits,
            assets: assets::load()?,
            draining: health::Draining::default(),
            streams: Places::new(feed::MOST_STREAMS),
            polls: Places::new(events::MOST_WAITING),
        });
        let router = router(&state);
        Ok(Self { state, router })
    }

    /// The assembled router, for tests that need no socket.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// What the handlers share.
    #[must_use]
    pub const fn state(&self) -> &AppState {
        &self.state
    }

    /// Serves until asked to stop, then drains.
    ///
    /// # Errors
    /// When the address cannot be bound, the listener fails, or the disk did not take what was written.
    pub async fn run(self) -> Result<(), CliError> {
        let backend = self.state.backend.clone();
        let metrics_address = self.state.settings.metrics.address;
        let metrics_listener = metrics_address.map(listen::bind_to).transpose()?;
        backend.record_start().await?;
        if let Some(link) = backend.first_admin_link().await? {
            println!(
                "Make the first administrator (once, within an hour): {}",
                link.expose_secret()
            );
        }
        // An embedded database has one node: nothing to compare with.
        let has_others = backend.store().is_postgres();
        if has_others {
            // Before anything is cleared away by this node's clock.
            backend.join_nodes().await?;
        } else {
            backend.take_over().await?;
        }
        let checkpoint = checkpoint_path(&self.state.settings);
        let sealing = tokio::spawn(seal(backend.clone(), checkpoint.clone()));
        let housekeeping = tokio::spawn(housekeeping(self.state.clone()));
        let looking = tokio::spawn(watch_key_file(self.state.clone()));
        let following = tokio::spawn({
            let backend = backend.clone();
            async move { backend.follow_revocations().await }
        });
        let (stop_telling, stopped) = oneshot::channel::<()>();
        let mut telling = tokio::spawn(backend.clone().tell_logouts(async move { drop(stopped.await) }));
        let watching = tokio::spawn(watch(backend.clone()));
        let mut drawing = tokio::spawn(draw(backend.clone()));
        let mut sending = tokio::spawn(send(backend.clone()));
        let comparing = has_others.then(|| tokio::spawn(compare_clocks(backend.clone())));
        let metrics = metrics_listener
            .map(|listener| listen::Beside::serve(listener, "Metrics", metrics::router(&self.state)))
            .transpose()?;
        let served = listen::serve(&self.state, self.router, backend.store().sync_failed()).await;
        drop(metrics);
        sealing.abort();
        housekeeping.abort();
        looking.abort();
        following.abort();
        watching.abort();
        if let Some(comparing) = comparing {
            comparing.abort();
            if let Err(error) = backend.leave_nodes().await {
                tracing::warn!(%error, "the other nodes will have to forget this one by themselves");
            }
        }
        backend.begin_to_end();
        drop(stop_telling);
        let last = tokio::join!(
            tokio::time::timeout(LAST_TURNS, &mut telling),
            tokio::time::timeout(LAST_TURNS, &mut sending),
            tokio::time::timeout(LAST_TURNS, &mut drawing),
        );
        if last.0.is_err() {
            tracing::warn!("services were still being told of ended sessions; they will be told again");
            telling.abort();
        }
        if last.1.is_err() {
            tracing::warn!("a mail was still being sent; it will be sent again");
            sending.abort();
        }
        if last.2.is_err() {
            tracing::warn!("what follows from events was still being drawn; the next start will");
            drawing.abort();
        }
        // What happened last would else be without a seal for as long as no server runs.
        match tokio::time::timeout(LAST_SEAL, backend.seal_last(&checkpoint)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last events could not be sealed; the next start will"),
            Err(_) => tracing::warn!("the last events could not be sealed in time; the next start will"),
        }
        backend.store().close().await;
        served?;
        if backend.store().has_sync_failed() {
            return Err(SYNC_FAILED.into());
        }
        Ok(())
    }
}

/// What the database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Serving, or nothing but this: the tables are brought to this version's.
    Serve,
    /// A command, perhaps beside nodes of an older version: tables are made in a new database only (F9).
    Command,
    /// `mayfly recover`, which also makes keys in the place of lost ones.
    Recover,
    /// The tables have to be this version's.
    AsItIs,
}

/// Opens the database.
///
/// # Errors
/// When it cannot be opened, or is of another version.
pub async fn open_store(settings: &Settings, purpose: Purpose) -> Result<Store, CliError> {
    prepare_data_dir(&settings.data_dir)?;
    let store = Store::connect(&database(settings)).await?;
    match purpose {
        Purpose::Serve => store.migrate().await?,
        Purpose::Command | Purpose::Recover => store.migrate_if_new().await?,
        Purpose::AsItIs => {}
    }
    store.check_schema().await?;
    Ok(store)
}

/// Opens the database for what nobody else may use meanwhile.
///
/// # Errors
/// When it cannot be opened, is of another version, or is in use.
pub async fn open_store_alone(settings: &Settings) -> Result<Store, CliError> {
    let store = open_store(settings, Purpose::AsItIs).await?;
    store.close().await;
    if Store::is_open_elsewhere(&database(settings)).await? {
        return Err("the database is in use: stop every node first, and start none before this is done".into());
    }
    open_store(settings, Purpose::AsItIs).await
}

fn database(settings: &Settings) -> DatabaseSettings {
    DatabaseSettings {
        url: settings.database_url().expose_secret().to_owned(),
        max_connections: settings.database.max_connections,
    }
}

/// Opens the services: folder, secrets, database, keys, roles.
///
/// # Errors
/// One clear sentence about what cannot be opened.
pub async fn open_backend(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    purpose: Purpose,
) -> Result<Backend, CliError> {
    let parts = open_parts(settings, clock, random, purpose).await?;
    Ok(Backend::start(parts, settings.tokens.algorithm).await?)
}

/// The same for a database that was put back, or has lost its keys: with the transaction to recover it in.
///
/// # Errors
/// One clear sentence about what cannot be opened.
pub async fn open_to_recover(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<(Backend, Tx), CliError> {
    let parts = open_parts(settings, clock, random, Purpose::Recover).await?;
    Ok(Backend::start_to_recover(parts, settings.tokens.algorithm).await?)
}

async fn open_parts(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    purpose: Purpose,
) -> Result<Parts, CliError> {
    install_crypto();
    let store = open_store(settings, purpose).await?;
    let is_new = keys::keys_version(&mut store.read().await?).await?.is_empty();
    let checkpoint = checkpoint_path(settings);
    if is_new && checkpoint.exists() {
        // Not the first run: whoever lost the database must not find a server that everybody is a stranger to.
        return Err(format!(
            "the database is empty, but {} says that there was one: put the database back, or begin anew in another data folder",
            checkpoint.display()
        )
        .into());
    }
    let kek = open_key(settings, is_new, random.as_ref())?;
    let password = &settings.password;
    let params = HashParams::new(password.memory_kib, password.iterations, password.parallelism)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let hasher = Hasher::new(
        params,
        kek.derive("password pepper"),
        password.hashing_threads.unwrap_or(cores),
        password.queue,
    );
    Ok(Parts {
        store,
        clock,
        random,
        kek,
        hasher,
        issuer: settings.public_url.as_str().to_owned(),
        audience: settings.audience().to_owned(),
        clock_tolerance: Duration::from_secs(settings.tokens.clock_tolerance_seconds),
        rotate_keys_every: Duration::from_hours(24 * settings.keys.rotate_days),
        binds_browsers: settings.tokens.bind_browsers,
        mail: settings.mail.outlet().map_err(ConfigError::Values)?,
    })
}

fn open_key(settings: &Settings, is_new: bool, random: &dyn Random) -> Result<KeyEncryptionKey, CliError> {
    if let Some(text) = &settings.secrets.key_encryption_key {
        return Ok(KeyEncryptionKey::from_base64(text.expose_secret())?);
    }
    // Made once, in the data folder, for a new database. A file that the operator named has to exist, and so has the
    // one that an old database was sealed with: another one would open nothing.
    let create = is_new && settings.secrets.key_encryption_key_file.is_none();
    Ok(load_or_create_key_file(&settings.key_file(), create, random)?)
}

#[cfg(unix)]
fn prepare_data_dir(path: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| format!("the data folder {} cannot be made: {error}", path.display()).into())
}

/// Seals the audit log. On its own: in a long log the first time takes a while, and other work must not wait for it.
async fn seal(backend: Arc<Backend>, checkpoint: PathBuf) {
    let mut every = tokio::time::interval(SEAL_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        if let Err(error) = backend.seal_audit(&checkpoint).await {
            tracing::error!(%error, "the audit log could not be sealed, or its checkpoint not be shown; will try again");
        }
    }
}

/// Work that nobody waits for: rotating keys, writing down ends, forgetting old flows and rate limits.
async fn housekeeping(state: AppState) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let backend = &state.backend;
        state.limits.forget_rested();
        backend.store().rest();
        backend.forget_old_checks();
        if !backend.may_clear_away() {
            continue;
        }
        backend.forget_past_revocations();
        if let Err(error) = backend.keep_keys().await {
            tracing::error!(%error, "the keys could not be kept in order; will try again");
        }
        if let Err(error) = backend.bring_back_sessions().await {
            tracing::error!(%error, "sessions of a clock that was ahead could not be brought back; will try again");
        }
        if let Err(error) = backend.sweep_expired().await {
            tracing::error!(%error, "ended sessions could not be written down; will try again");
        }
        for past in Past::ALL {
            if let Err(error) = backend.forget(past).await {
                tracing::error!(%error, ?past, "what is over could not be removed; will try again");
            }
        }
    }
}

/// Says so, once, when the file with the key-encryption key is no longer there, and again after it was back (F12).
async fn watch_key_file(state: AppState) {
    if state.settings.secrets.key_encryption_key.is_some() {
        return;
    }
    let file = state.settings.key_file();
    let mut every = tokio::time::interval(Duration::from_secs(5));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_noted = false;
    loop {
        every.tick().await;
        let (tell, mut told) = oneshot::channel();
        let path = file.clone();
        // By a thread that nobody waits for at the end: a folder of another machine may never answer.
        let look = move || tell.send(path.try_exists().unwrap_or(false)).is_ok();
        if let Err(error) = std::thread::Builder::new().spawn(look) {
            tracing::warn!(%error, "the key file is not looked at");
            continue;
        }
        let answer = tokio::time::timeout(KEY_FILE_ANSWERS, &mut told).await;
        let is_there = matches!(answer, Ok(Ok(true)));
        if !is_there && !is_noted {
            tracing::error!(file = %file.display(), "the key file is gone: this server goes on, the next start will not");
            match state.backend.note_missing_key_file().await {
                Ok(()) => is_noted = true,
                Err(error) => tracing::error!(%error, "that could not be written down; will try again"),
            }
        }
        is_noted &= !is_there;
        if answer.is_err() {
            // One at a time.
            drop(told.await);
        }
    }
}

/// Hears of keys that another node or the command line made or removed, and of a wall clock that jumped.
async fn watch(backend: Arc<Backend>) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        every.tick().await;
        let clock = backend.watch_clock().await.map(drop);
        let keys = match backend.follow_keys().await {
            Ok(()) => backend.note_damaged_keys().await,
            failed => failed,
        };
        match keys.and(clock) {
            Ok(()) => failing = false,
            // Once is enough: every request that needs the keys says so too.
            Err(error) if !failing => {
                failing = true;
                tracing::error!(%error, "clock and keys could not be watched over; will try again");
            }
            Err(_) => {}
        }
    }
}

/// Draws what follows from events, and gives up mails that nobody took for days.
async fn draw(backend: Arc<Backend>) {
    let turn = |backend: Arc<Backend>| async move {
        Ok(backend.draw_consequences().await? > 0 || backend.give_up_old_mails().await?)
    };
    again_and_again(backend, "what follows from events could not be drawn", turn).await;
}

/// Sends mails. On its own: nothing else waits for a mail server.
async fn send(backend: Arc<Backend>) {
    let turn = |backend: Arc<Backend>| async move { backend.send_mails().await };
    again_and_again(backend, "mails could not be sent", turn).await;
}

/// Turn after turn until the server ends, with a pause when there is no more to do. One that fails or panics is said once.
async fn again_and_again<F>(backend: Arc<Backend>, failed: &str, turn: impl Fn(Arc<Backend>) -> F)
where
    F: Future<Output = Result<bool, ServiceError>> + Send + 'static,
{
    let mut failing = false;
    let mut ending = backend.ending();
    loop {
        // Its own task, which ends with this one: the next turn may go well after one that panicked.
        let mut under_way = JoinSet::new();
        // By a clock that is known to be wrong nothing is due: the other nodes do it.
        if backend.may_clear_away() {
            under_way.spawn(turn(backend.clone()));
        }
        let done = match under_way.join_next().await {
            Some(Ok(done)) => done.map_err(CliError::from),
            Some(Err(panicked)) => Err(panicked.into()),
            None => Ok(false),
        };
        if let Err(error) = &done
            && !failing
        {
            tracing::error!(%error, "{failed}; will try again");
        }
        failing = done.is_err();
        let pause = if done.is_ok_and(|may_be_more| may_be_more) {
            Duration::ZERO
        } else {
            LOOK_FOR_NOTICES
        };
        tokio::select! {
            _ = ending.wait_for(|is_ending| *is_ending) => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Keeps the clocks of several nodes side by side, after the first comparison.
async fn compare_clocks(backend: Arc<Backend>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(REPORT_EVERY).await;
        let compared = backend.compare_clocks().await;
        if let Err(error) = &compared
            && !failing
        {
            tracing::error!(%error, "the clocks of the nodes could not be compared; will try again");
        }
        failing = compared.is_err();
    }
}

/// Where log lines go: standard error, as JSON or text.
pub fn install_logging(settings: &Settings) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(&settings.log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match settings.log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    // Tests build many applications in one process; the first one's logging serves all.
    drop(installed);
}

/// Where the checkpoint of the audit log is kept: outside the database.
#[must_use]
pub fn checkpoint_path(settings: &Settings) -> PathBuf {
    settings.data_dir.join("audit-checkpoint")
}

/// The address of a listener that is already bound, for printing.
#[must_use]
pub fn display_address(address: SocketAddr, tls: bool) -> String {
    format!("{}://{address}", if tls { "https" } else { "http" })
}
