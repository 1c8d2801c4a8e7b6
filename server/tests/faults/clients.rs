//! Programs that refresh, their own record of what they were told, and what must be true afterwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::place::{PASSWORD, Place};
use crate::serving::{Answer, Serving};
use crate::{now, released};

/// A session's owner asked for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No.
    Lives,
    /// Yes, and no answer came, or that it failed.
    Unknown,
    /// Yes, and it was acknowledged.
    Ended,
}

/// One program with one session.
#[derive(Clone, Debug)]
pub struct Client {
    /// Session id, hexadecimal.
    pub session: String,
    /// The refresh token it holds.
    pub token: String,
    /// The last access token it got.
    pub access: String,
    /// Every refresh token it ever got, by generation.
    pub tokens: BTreeMap<u64, String>,
    /// Whether it asked for the end.
    pub standing: Standing,
}

/// Session and generation that a token names.
fn parts(token: &str) -> (String, u64) {
    let encoded = token.strip_prefix("mfr_").expect("a refresh token");
    let bytes = data_encoding::BASE64URL_NOPAD
        .decode(encoded.as_bytes())
        .expect("base64url");
    let generation = u64::from_be_bytes(bytes[18..26].try_into().expect("8 bytes"));
    (data_encoding::HEXLOWER.encode(&bytes[2..18]), generation)
}

impl Client {
    /// One that holds this refresh token.
    pub fn new(token: &str) -> Self {
        let (session, generation) = parts(token);
        Self {
            session,
            token: token.to_owned(),
            access: String::new(),
            tokens: BTreeMap::from([(generation, token.to_owned())]),
            standing: Standing::Lives,
        }
    }

    /// The same where none may have come.
    fn hear(&mut self, answer: &Result<Answer, reqwest::Error>) {
        if let Ok(answer) = answer {
            self.take(answer);
        }
    }

    /// Takes what an answer to a refresh brings, and holds it against what it knows.
    pub fn take(&mut self, answer: &Answer) {
        match (answer.status, self.standing) {
            (200, Standing::Ended) => panic!("a session that was ended before gave tokens: {}", self.session),
            (200, _) => {
                let token = answer.body["refresh_token"].as_str().expect("a token").to_owned();
                let (session, generation) = parts(&token);
                assert_eq!(session, self.session, "its own session");
                let known = self.tokens.insert(generation, token.clone());
                assert!(
                    known.is_none_or(|known| known == token),
                    "two tokens of generation {generation}"
                );
                // Of two answers that cross, the newer pair is kept.
                if generation >= parts(&self.token).1 {
                    self.token = token;
                    answer.body["access_token"]
                        .as_str()
                        .expect("a token")
                        .clone_into(&mut self.access);
                }
            }
            (401, Standing::Unknown) => self.standing = Standing::Ended,
            (409 | 503, _) | (401, Standing::Ended) => {}
            _ => panic!(
                "{} (generation {}) was told {answer:?}",
                self.session,
                parts(&self.token).1
            ),
        }
    }
}

/// Signs a person in.
pub async fn sign_in(serving: &Serving, username: &str) -> Client {
    let mut answer = serving.sign_in(username, PASSWORD).await.expect("an answer");
    if answer.status == 503 && released().is_none() {
        // A debug build on a busy machine may need longer than one request has.
        answer = serving.sign_in(username, PASSWORD).await.expect("an answer");
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |name: &str| answer.body["tokens"][name].as_str().expect("a token").to_owned();
    let mut client = Client::new(&text("refresh_token"));
    client.access = text("access_token");
    client
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answers by name of the outcome, or status.
    pub answers: BTreeMap<String, usize>,
    /// Requests without an answer.
    pub lost: usize,
    /// How long each answer took.
    pub times: Vec<Duration>,
}

impl Counts {
    /// So many answers of that name.
    pub fn of(&self, name: &str) -> usize {
        self.answers.get(name).copied().unwrap_or_default()
    }

    /// What so many of a hundred answers did not exceed.
    pub fn percentile(&self, hundredths: usize) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times[(times.len() * hundredths / 100).min(times.len() - 1)]
    }

    /// Adds those.
    pub fn add(&mut self, other: Self) {
        for (name, count) in other.answers {
            *self.answers.entry(name).or_default() += count;
        }
        self.lost += other.lost;
        self.times.extend(other.times);
    }

    /// Counts this one.
    pub fn note(&mut self, answer: &Answer, took: Duration) {
        self.times.push(took);
        let name = if answer.outcome.is_empty() {
            answer.status.to_string()
        } else {
            answer.outcome.clone()
        };
        *self.answers.entry(name).or_default() += 1;
    }
}

/// Lets all of them refresh over so many connections, each as often as `rounds` says, until the program is gone. Every
/// seventh asks twice at once, as two tabs do; one in `ends` asks for its end instead (0: none). Those who got no
/// answer stand first afterwards.
pub async fn load(
    serving: &Serving,
    clients: Vec<Client>,
    connections: usize,
    rounds: usize,
    ends: usize,
) -> (Vec<Client>, Counts) {
    let most = clients.len() * rounds;
    load_until(serving, clients, connections, most, ends, &AtomicBool::new(false)).await
}

/// The same for as long as something else goes on, and what came of that.
pub async fn load_during<T>(
    serving: &Serving,
    clients: Vec<Client>,
    connections: usize,
    ends: usize,
    elsewhere: impl Future<Output = T>,
) -> (T, Vec<Client>, Counts) {
    let over = AtomicBool::new(false);
    let elsewhere = async {
        let done = elsewhere.await;
        over.store(true, Ordering::SeqCst);
        done
    };
    let load = load_until(serving, clients, connections, usize::MAX, ends, &over);
    let (done, (clients, counts)) = tokio::join!(elsewhere, load);
    (done, clients, counts)
}

async fn load_until(
    serving: &Serving,
    clients: Vec<Client>,
    connections: usize,
    most: usize,
    ends: usize,
    gone: &AtomicBool,
) -> (Vec<Client>, Counts) {
    let queue = Mutex::new(VecDeque::from(clients));
    let counts = Mutex::new(Counts::default());
    let turn = AtomicUsize::new(0);
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let connection = || async {
        while !gone.load(Ordering::SeqCst) {
            let turn = turn.fetch_add(1, Ordering::SeqCst);
            if turn >= most {
                return;
            }
            let Some(mut client) = lock().pop_front() else { return };
            let mut answers = Vec::new();
            if ends > 0 && turn % ends == ends - 1 && client.standing == Standing::Lives {
                let (answer, took) = timed(serving.revoke(&client.token)).await;
                client.standing = match &answer {
                    Ok(answer) if answer.status == 200 => Standing::Ended,
                    // Whether a commit that failed is on the disk is unknown (a connection that broke at that moment).
                    Ok(answer) if answer.status == 503 => Standing::Unknown,
                    Ok(answer) => panic!("an end was refused: {answer:?}"),
                    Err(_) => Standing::Unknown,
                };
                answers.push((answer, took));
            } else if turn % 7 == 6 {
                let refresh = || timed(serving.refresh(&client.token));
                let (one, two) = tokio::join!(refresh(), refresh());
                for (answer, took) in [one, two] {
                    client.hear(&answer);
                    answers.push((answer, took));
                }
            } else {
                let (answer, took) = timed(serving.refresh(&client.token)).await;
                client.hear(&answer);
                answers.push((answer, took));
            }
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            let before = counts.lost;
            for (answer, took) in &answers {
                match answer {
                    Ok(answer) => counts.note(answer, *took),
                    Err(_) => counts.lost += 1,
                }
            }
            if counts.lost > before {
                gone.store(true, Ordering::SeqCst);
                lock().push_front(client);
            } else {
                lock().push_back(client);
            }
        }
    };
    futures_of((0..connections).map(|_| connection())).await;
    let clients = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    (
        clients.into(),
        counts.into_inner().unwrap_or_else(PoisonError::into_inner),
    )
}

/// What comes of a request, and after how long.
pub async fn timed<T>(request: impl Future<Output = T>) -> (T, Duration) {
    let asked = now();
    let answer = request.await;
    (answer, now() - asked)
}

/// All of them at once, in one task.
async fn futures_of(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// Nobody whose end was acknowledged gets in again, with either token.
pub async fn check_ended(serving: &Serving, clients: &mut [Client]) -> usize {
    let mut ended = 0;
    for client in clients.iter_mut().filter(|client| client.standing == Standing::Ended) {
        ended += 1;
        let answer = serving.refresh(&client.token).await.expect("an answer");
        assert_eq!(answer.status, 401, "{answer:?}");
        if !client.access.is_empty() {
            let answer = serving
                .get("/api/v1/me/sessions", &client.access)
                .await
                .expect("an answer");
            assert_eq!(answer.status, 401, "an access token outlived its session: {answer:?}");
        }
    }
    ended
}

/// The clients' record against the database and its audit log. The program is down. How many rotations the log has.
pub async fn check(place: &Place, clients: &[Client]) -> usize {
    let id = place.hex("id");
    let sql = format!("SELECT {id}, COALESCE(end_reason, ''), generation FROM sessions");
    let sessions: BTreeMap<String, (String, u64)> = place
        .rows(&sql)
        .await
        .into_iter()
        .map(|(id, reason, generation)| (id, (reason, u64::try_from(generation).expect("a count"))))
        .collect();
    let sql = format!(
        "SELECT {}, facts, at FROM audit_events WHERE kind = 'token_rotated'",
        place.hex("session_id")
    );
    let mut rotated: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (session, facts, _) in place.rows(&sql).await {
        let facts: Value = serde_json::from_str(&facts).expect("JSON");
        let generation = facts["generation"].as_u64().expect("a generation");
        rotated.entry(session).or_default().push(generation);
    }
    let accusations = "SELECT kind, outcome, at FROM audit_events \
        WHERE kind IN ('authn_token_reuse', 'database_rolled_back', 'refresh_refused', 'session_expired')";
    assert_eq!(
        place.rows(accusations).await,
        [],
        "nobody is accused, nobody runs out of time"
    );
    let mut ended = BTreeSet::new();
    for client in clients {
        let (reason, generation) = &sessions[&client.session];
        let first = *client.tokens.keys().next().expect("its first token");
        let mut log = rotated.remove(&client.session).unwrap_or_default();
        log.sort_unstable();
        let expected: Vec<u64> = (first + 1..=*generation).collect();
        assert_eq!(
            log, expected,
            "exactly one token_rotated for each generation of {}",
            client.session
        );
        let told = *client.tokens.keys().next_back().expect("its last token");
        assert!(
            told <= *generation,
            "a token was handed out that the database does not know"
        );
        match client.standing {
            Standing::Lives => assert_eq!(reason, "", "{} was signed out", client.session),
            Standing::Unknown => {}
            Standing::Ended => assert_eq!(reason, "signed_out", "an acknowledged end was lost"),
        }
        if !reason.is_empty() {
            ended.insert(&client.session);
        }
    }
    let sql = "SELECT kind, outcome, COUNT(*) FROM audit_events WHERE kind = 'session_signed_out' GROUP BY 1, 2";
    let told = place.rows(sql).await.first().map_or(0, |row| row.2);
    assert_eq!(
        usize::try_from(told).expect("a count"),
        ended.len(),
        "each end is in the log once"
    );
    clients.iter().map(|client| client.tokens.len()).sum()
}
