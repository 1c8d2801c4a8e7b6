//! A wire between one node and its PostgreSQL that can fall silent: nothing is closed, and nothing comes through.

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::app::TestApp;

/// The state of the wire.
#[derive(Default)]
struct State {
    /// Connections that have said LISTEN hear nothing any more.
    is_deaf: AtomicBool,
    /// Connections with a lower number carry nothing any more.
    silent_below: AtomicUsize,
    /// Connections made.
    made: AtomicUsize,
    listening: AtomicUsize,
    swallowed: AtomicUsize,
}

/// The wire; taken away when dropped.
pub struct Wire {
    /// Address of the database at this end.
    pub url: String,
    state: Arc<State>,
    carrying: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

impl Wire {
    /// To the database of this application. None on SQLite: a file has no wire.
    pub async fn to(app: &TestApp) -> Option<Self> {
        if !app.backend().store().is_postgres() {
            return None;
        }
        let url = app.database_url();
        let options = PgConnectOptions::from_str(&url).expect("an address");
        let database = format!("{}:{}", options.get_host(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let here = listener.local_addr().expect("bound").to_string();
        assert!(url.contains(&database), "the address names host and port");
        let state = Arc::new(State::default());
        Some(Self {
            url: url.replacen(&database, &here, 1),
            state: state.clone(),
            carrying: tokio::spawn(async move {
                let mut talks = JoinSet::new();
                loop {
                    let (node, _) = listener.accept().await.expect("a connection");
                    let number = state.made.fetch_add(1, Ordering::SeqCst);
                    talks.spawn(talk(node, database.clone(), number, state.clone()));
                }
            }),
        })
    }

    /// From now on the database's calls do not reach the node; everything else does.
    pub async fn swallow_calls(&self) {
        let listening = async {
            while self.state.listening.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), listening)
            .await
            .expect("the node listens");
        self.state.is_deaf.store(true, Ordering::SeqCst);
    }

    /// How many pieces were swallowed.
    pub fn swallowed(&self) -> usize {
        self.state.swallowed.load(Ordering::SeqCst)
    }

    /// From now on nothing comes through, neither on the connections there are nor on new ones.
    pub fn fall_silent(&self) {
        self.state.silent_below.store(usize::MAX, Ordering::SeqCst);
    }

    /// New connections carry again. Those of before stay silent for ever, as behind a firewall that has forgotten them.
    pub fn carry_new(&self) {
        let made = self.state.made.load(Ordering::SeqCst);
        self.state.silent_below.store(made, Ordering::SeqCst);
    }
}

/// Carries one connection until either end closes it.
async fn talk(node: TcpStream, database: String, number: usize, state: Arc<State>) {
    let database = TcpStream::connect(database).await.expect("the database listens");
    let (from_node, to_node) = node.into_split();
    let (from_database, to_database) = database.into_split();
    let listens = AtomicBool::new(false);
    let is_silent = || number < state.silent_below.load(Ordering::SeqCst);
    let asks = carry(from_node, to_database, |piece| {
        if piece.windows(6).any(|word| word == b"LISTEN") && !listens.swap(true, Ordering::SeqCst) {
            state.listening.fetch_add(1, Ordering::SeqCst);
        }
        !is_silent()
    });
    let answers = carry(from_database, to_node, |_| {
        let swallows = state.is_deaf.load(Ordering::SeqCst) && listens.load(Ordering::SeqCst);
        state.swallowed.fetch_add(usize::from(swallows), Ordering::SeqCst);
        !swallows && !is_silent()
    });
    // A connection that breaks is its owner's to notice.
    tokio::select! {
        ended = asks => drop(ended),
        ended = answers => drop(ended),
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passes: impl FnMut(&[u8]) -> bool,
) -> std::io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        if passes(&piece[..length]) {
            to.write_all(&piece[..length]).await?;
        }
    }
}
