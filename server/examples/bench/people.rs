//! Who is there to be measured: one person with twenty sessions made by signing in, or a crowd with ten programs each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use secrecy::{ExposeSecret, SecretString};
use server::cli::CliError;
use server::config::Settings;
use server::domain::audit::Circumstances;
use server::domain::client::{ClientName, Scopes};
use server::domain::clock::SystemClock;
use server::domain::id::{SessionId, UserId};
use server::domain::random::{Random, SystemRandom, secret};
use server::domain::refresh::{SessionSecret, derive};
use server::domain::session::Client;
use server::services::Backend;
use server::services::admin::NewPerson;
use server::services::invitations::{AcceptOutcome, Acceptance};
use server::services::oauth::{AddClientOutcome, NewClient};
use server::services::sign_in::{Caller, PasswordOutcome, SignedIn};
use server::startup::{Purpose, open_backend};
use server::storage::sessions::{find_session, insert_session};
use server::storage::users::{find_user, insert_user};

use crate::load::{Source, now, post};
use crate::{Failure, Place};

/// Sessions of the person whose pages are measured.
pub const SESSIONS: usize = 20;
/// Programs of each person in a crowd.
const PROGRAMS: usize = 10;

/// One person with twenty sessions; an access token of the last.
pub async fn with_sessions(place: &Place) -> Result<SecretString, Failure> {
    let backend = open(place).await?;
    let mut signed_in = add_person(&backend, Client::Browser).await?;
    for _ in 1..SESSIONS {
        let outcome = backend
            .check_password("bench", PASSWORD, "/".to_owned(), &caller(Client::Browser))
            .await?;
        let PasswordOutcome::SignedIn(again) = outcome else {
            return Err("not signed in".into());
        };
        signed_in = again;
    }
    backend.store().close().await;
    Ok(signed_in.issued.access)
}

/// Other software that may get tokens and ask about them: id and secret as it sends them (RFC 7617).
async fn add_service(backend: &Backend) -> Result<String, Failure> {
    let new = NewClient {
        name: ClientName::parse("Bench")?,
        scopes: Scopes::parse("orders.read")?,
        keys: None,
        access: Duration::from_mins(5),
        may_introspect: true,
        logout_uri: None,
    };
    let AddClientOutcome::Added(added) = backend.add_client(new).await? else {
        return Err("the client was not added".into());
    };
    let secret = added.secret.ok_or("a client without a secret")?;
    Ok(BASE64.encode(format!("{}:{}", added.id, secret.expose_secret()).as_bytes()))
}

/// One service, and people whose programs hold many sessions.
pub struct Crowd {
    /// What the service proves itself with.
    pub service: String,
    /// Of the program that signed in.
    pub access: SecretString,
    /// Of each of the other programs, in no order.
    pub refresh: Vec<String>,
}

/// Only one program is signed in: the others are rows like it, with ids and secrets of their own, and so are the people.
pub async fn with_refresh_tokens(place: &Place, sessions: usize) -> Result<Crowd, Failure> {
    let backend = open(place).await?;
    let service = add_service(&backend).await?;
    let signed_in = add_person(&backend, Client::Native).await?;
    let random = SystemRandom::default();
    let mut tx = backend.store().read().await?;
    let template = find_session(&mut tx, signed_in.issued.live.session.id).await?;
    let mut session = template.ok_or("the session is not there")?;
    let template = find_user(&mut tx, session.user_id).await?;
    let mut user = template.ok_or("the person is not there")?;
    drop(tx);
    // Long enough ago for all of them to be due.
    session.handed_out_at = session.handed_out_at.minus(REST);
    let ring = backend.keys();
    let mut tokens = Vec::with_capacity(sessions);
    while tokens.len() < sessions {
        let mut tx = backend.store().write().await?;
        for _ in 0..2000.min(sessions - tokens.len()) {
            if tokens.len().is_multiple_of(PROGRAMS) {
                user.id = UserId::new(backend.now(), &random);
                user.username = format!("bench-{}", tokens.len() / PROGRAMS);
                insert_user(&mut tx, &user, None).await?;
                session.user_id = user.id;
            }
            let secret = SessionSecret::new(secret::<32>(&random as &dyn Random));
            session.id = SessionId::new(backend.now(), &random);
            let kek = backend.key_encryption_key();
            session.secret_sealed = kek.seal("session", session.id.0.as_bytes(), secret.expose(), &random);
            insert_session(&mut tx, &session).await?;
            tokens.push(
                derive(&ring, &secret, session.id, session.generation, session.rotated_at)
                    .expose_secret()
                    .to_owned(),
            );
        }
        tx.commit().await?;
    }
    backend.store().close().await;
    shuffle(&mut tokens);
    Ok(Crowd {
        service,
        access: signed_in.issued.access,
        refresh: tokens,
    })
}

/// Who goes by the order in which the rows were made finds most of them on a page that was read just before. The same in
/// every run.
fn shuffle(tokens: &mut [String]) {
    let mut random = ChaCha20Rng::seed_from_u64(1);
    for last in (1..tokens.len()).rev() {
        let drawn = usize::try_from(random.next_u32()).expect("32 bits");
        tokens.swap(last, drawn % (last + 1));
    }
}

const PASSWORD: &str = "a long enough phrase";

async fn open(place: &Place) -> Result<Backend, CliError> {
    let settings = Settings::from_sources(None, place.environment())?;
    let random = Arc::new(SystemRandom::default());
    open_backend(&settings, Arc::new(SystemClock), random, Purpose::Command).await
}

fn caller(client: Client) -> Caller {
    Caller {
        from: Circumstances {
            user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0".into()),
            address: Some("198.51.100.7".into()),
            ..Circumstances::default()
        },
        address: [198, 51, 100, 7].into(),
        client,
        device: None,
        key: None,
    }
}

/// Made by the real services on the folder that the server will open.
async fn add_person(backend: &Backend, client: Client) -> Result<SignedIn, Failure> {
    let new = NewPerson {
        username: "bench".to_owned(),
        email: String::new(),
        display_name: "Bench".to_owned(),
        roles: vec!["member".to_owned()],
    };
    let link = backend.add_person(new).await?.map_err(|why| format!("{why:?}"))?;
    let secret = link.expose_secret().rsplit('/').next().unwrap_or_default().to_owned();
    let with = Acceptance {
        username: String::new(),
        email: String::new(),
        display_name: String::new(),
        password: SecretString::from(PASSWORD),
    };
    let accepted = backend
        .accept_invitation(&SecretString::from(secret), with, &caller(client))
        .await?;
    match accepted {
        AcceptOutcome::Accepted(PasswordOutcome::SignedIn(done)) => Ok(done),
        _ => Err("the invitation was refused".into()),
    }
}

/// Refresh tokens in use, each rested for as long as the server wants.
pub struct Tokens {
    waiting: Mutex<VecDeque<(String, Option<Instant>)>>,
    port: u16,
}

/// A client that rotated less than this ago already holds a fresh pair; and a little more.
const REST: Duration = Duration::from_millis(10_200);

impl Tokens {
    /// With tokens that were never used.
    pub fn new(tokens: Vec<String>, port: u16) -> Self {
        Self {
            waiting: Mutex::new(tokens.into_iter().map(|token| (token, None)).collect()),
            port,
        }
    }
}

impl Source for Tokens {
    fn next(&self) -> Option<Vec<u8>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, used) = waiting.front()?;
        if used.is_some_and(|used| now() - used < REST) {
            return None;
        }
        let (token, _) = waiting.pop_front()?;
        drop(waiting);
        let body = format!("{{\"refresh_token\":\"{token}\"}}");
        Some(post("/auth/refresh", self.port, &body))
    }

    fn answered(&self, body: &[u8]) -> Result<(), Failure> {
        #[derive(serde::Deserialize)]
        struct Answer {
            refresh_token: String,
        }
        let answer: Answer = serde_json::from_slice(body)?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back((answer.refresh_token, Some(now())));
        Ok(())
    }
}
