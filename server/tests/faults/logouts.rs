//! Services are told of ended sessions (F11) by a program that is killed in the middle of it, again and again, and by one that
//! is asked to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use server::domain::backchannel_logout::CLAIM;
use server::domain::id::SessionId;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::place::{Place, postgres_url};
use crate::serving::Serving;
use crate::{MACHINE, now, scale};

/// Sessions that end in each life.
const ENDED: usize = 30;
/// An answer takes so long, so that a kill falls among them.
const SLOWLY: Duration = Duration::from_millis(10);
/// One in so many answers is that there is trouble.
const TROUBLE: usize = 40;
/// So many are told at most before it is written down that they were.
const A_TURN: usize = 100;
/// So many are told again after trouble at most: it tells eight at once, of which others get ahead of a slow one, and goes on
/// behind the last that all before were.
const AT_TROUBLE: usize = 24;
/// Sealed every five seconds, and then told; what runs here is not optimised.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// How often each `jti` of each session arrived.
type Heard = Arc<Mutex<BTreeMap<String, BTreeMap<String, usize>>>>;

/// A service that is told.
struct Shop {
    uri: String,
    heard: Heard,
    serving: JoinHandle<()>,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn claims(form: &[u8]) -> Value {
    let (_, token) = form_urlencoded::parse(form).next().expect("a field");
    let claims = token.split('.').nth(1).expect("three parts").to_owned();
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).expect("base64url");
    serde_json::from_slice(&claims).expect("JSON")
}

impl Shop {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let uri = format!("http://{}/logout", listener.local_addr().expect("bound"));
        let heard = Heard::default();
        let kept = heard.clone();
        let take = async move |form: Bytes| {
            tokio::time::sleep(SLOWLY).await;
            let text = |name: &str| claims(&form)[name].as_str().expect("a text").to_owned();
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let in_all: usize = kept.values().flat_map(BTreeMap::values).sum();
            // It has taken note even where it says that there was trouble, as a service that breaks down does.
            *kept.entry(text("sid")).or_default().entry(text("jti")).or_default() += 1;
            if in_all % TROUBLE == TROUBLE - 1 {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            }
        };
        let routes = Router::new().route("/logout", post(take));
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.expect("serves") });
        Self { uri, heard, serving }
    }

    fn sessions(&self) -> BTreeSet<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.keys().cloned().collect()
    }

    /// Until something holds of the sessions it has heard of; it goes on hearing of others.
    async fn until(&self, serving: &Serving, holds: impl Fn(&BTreeSet<String>) -> bool) {
        let (mut heard, mut since) = (self.sessions(), now());
        while !holds(&heard) {
            let before = std::mem::replace(&mut heard, self.sessions());
            if heard.len() > before.len() {
                since = now();
            }
            let waited = now() - since;
            assert!(waited < TOLD_WITHIN, "{} heard of: {}", heard.len(), serving.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_a_service_hears_of_every_ended_session_though_the_program_is_killed_while_it_tells() {
    let _turn = MACHINE.lock().await;
    if postgres_url().is_some() && scale(0, 1) == 0 {
        println!("skipped: on PostgreSQL another node waits two minutes for one that was killed; in the full run");
        return;
    }
    let place = Place::make().await;
    let lives = if postgres_url().is_some() { 3 } else { scale(3, 40) };
    let clients = place.people(ENDED * (lives + 1)).await;
    let shop = Shop::open().await;
    let added = place
        .command(
            &[
                "clients",
                "add",
                "--name",
                "Shop",
                "--backchannel-logout-uri",
                &shop.uri,
            ],
            "added",
        )
        .wait();
    assert!(added.expect("it ends").success());
    let mut ended = BTreeSet::new();
    for (life, crowd) in clients.chunks(ENDED).enumerate() {
        let serving = Serving::start(&place).await;
        let before = shop.sessions().len();
        for client in crowd {
            let answer = serving.revoke(&client.token).await.expect("an answer");
            assert_eq!(answer.status, 200, "{answer:?}");
            let session = Uuid::try_parse(&client.session).expect("an id");
            ended.insert(SessionId(session).to_short());
        }
        if life == lives {
            // Asked to stop while it tells, it comes to an end with what it has begun, and the next one goes on.
            shop.until(&serving, |heard| heard.len() > before).await;
            let mut serving = serving;
            serving.signal("-TERM");
            assert!(serving.ended().await.success(), "{}", serving.log());
            let serving = Serving::start(&place).await;
            shop.until(&serving, |heard| *heard == ended).await;
            serving.kill();
        } else if postgres_url().is_some() {
            shop.until(&serving, |heard| heard.len() > before).await;
            serving.kill();
            tokio::time::sleep(CLAIM + Duration::from_secs(1)).await;
        } else {
            shop.until(&serving, |heard| heard.len() > before).await;
            tokio::time::sleep(Duration::from_millis(7 * life as u64 % 60)).await;
            serving.kill();
        }
    }
    let heard = shop.heard.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(heard.values().all(|ids| ids.len() == 1), "one id for each: {heard:?}");
    let in_all: usize = heard.values().flat_map(BTreeMap::values).sum();
    println!(
        "{} ended sessions, told {in_all} times by {} programs that were killed and one that was stopped",
        ended.len(),
        lives
    );
    let explained = ended.len() + lives * A_TURN + in_all / TROUBLE * AT_TROUBLE;
    assert!(
        in_all <= explained,
        "no more often than trouble and kills explain: {in_all}"
    );
}
