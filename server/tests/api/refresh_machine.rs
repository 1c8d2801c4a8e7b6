//! Random sequences against the server over HTTP, on a socket and behind the listener of the program, by a virtual
//! clock: a model of the table of TOKENS.md §3, written down once more and independently, predicts every answer; the
//! audit log is checked at the end of each sequence.
//!
//! The everyday run makes a few thousand steps, always the same; with `MAYFLY_TEST_FULL=1` it makes more than 10^5,
//! each time others. Both databases: see [`crate`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::http::Method;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use serde_json::json;
use server::domain::policy::{Lifetimes, Mfa};
use server::domain::session::Client;

use crate::app::TestApp;
use crate::browser::{ACCESS, Browser, REFRESH};
use crate::people::Person;
use crate::program::Program;
use crate::reply::Reply;

/// Limits of the role everybody here has, in seconds.
const ACCESS_LIFETIME: u64 = 900;
const IDLE: u64 = 3 * 3600;
const ABSOLUTE: u64 = 24 * 3600;
/// Tolerance for other machines' clocks in the default settings, in seconds.
const TOLERANCE: u64 = 30;

/// What should be true, in seconds since signing in.
#[derive(Clone, Debug)]
struct Model {
    client: Client,
    now: u64,
    generation: u64,
    issued_at: u64,
    superseded_at: u64,
    confirmed: bool,
    reissues: u32,
    all_reissues: usize,
    last_active: u64,
    /// `exp` of the access token of each generation.
    expiries: Vec<u64>,
    /// Generations whose tokens have reached the client.
    held: BTreeSet<u64>,
    over: Option<&'static str>,
    /// The answer to the last request: status, and the name or reason in it.
    answer: (u16, &'static str),
}

#[derive(Clone, Debug)]
enum Act {
    /// Presents the refresh token of a generation; the answer may be lost.
    Refresh { generation: u64, arrives: bool },
    /// Asks for something with the access token of a generation.
    Use { generation: u64 },
    /// Time passes.
    Pass(u64),
    /// Signs out with the access token of a generation.
    SignOut { generation: u64 },
}

impl Model {
    /// The end that a limit has brought meanwhile.
    fn look_at_limits(&mut self) {
        if self.over.is_none() && self.now >= ABSOLUTE {
            self.over = Some("expired");
        } else if self.over.is_none() && self.now >= self.last_active + IDLE {
            self.over = Some("idle");
        }
    }

    fn confirm(&mut self, generation: u64) {
        if generation == self.generation && !self.confirmed {
            self.confirmed = true;
            self.superseded_at = self.now;
        }
    }

    fn refresh(&mut self, presented: u64, arrives: bool) -> (u16, &'static str) {
        self.look_at_limits();
        if let Some(reason) = self.over {
            return (401, reason);
        }
        let behind = self.generation - presented;
        let is_due = self.now - self.issued_at >= 10
            || (self.client == Client::Native && self.now >= self.expiries[self.expiries.len() - 1]);
        let answer = match behind {
            0 if is_due => {
                self.generation += 1;
                (self.issued_at, self.superseded_at) = (self.now, self.now);
                (self.confirmed, self.reissues) = (false, 0);
                self.expiries.push((self.now + ACCESS_LIFETIME).min(ABSOLUTE));
                if self.client == Client::Native {
                    self.last_active = self.now;
                }
                (200, "rotated")
            }
            0 => {
                self.confirm(presented);
                (409, "fresh")
            }
            1 if !self.confirmed && self.reissues < 5 => {
                self.reissues += 1;
                self.all_reissues += 1;
                (self.issued_at, self.superseded_at) = (self.now, self.now);
                (200, "reissued")
            }
            _ if self.now - self.superseded_at + 10 * behind.saturating_sub(2) < 60 => (409, "superseded"),
            _ => {
                self.over = Some("token_reused");
                (401, "token_reused")
            }
        };
        if answer.0 == 200 && arrives {
            self.held.insert(self.generation);
        }
        answer
    }

    /// Whether an access token is accepted; if so, what that changes.
    fn use_access(&mut self, generation: u64) -> bool {
        let index = usize::try_from(generation).expect("few generations");
        if self.now >= self.expiries[index] + TOLERANCE {
            return false;
        }
        self.look_at_limits();
        if self.over.is_some() {
            return false;
        }
        self.confirm(generation);
        self.last_active = self.now;
        true
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Act;

    fn init_state() -> BoxedStrategy<Self> {
        select(vec![Client::Browser, Client::Native])
            .prop_map(|client| Self {
                client,
                now: 0,
                generation: 0,
                issued_at: 0,
                superseded_at: 0,
                // The page that a browser shows after signing in has used the access token.
                confirmed: client == Client::Browser,
                reissues: 0,
                all_reissues: 0,
                last_active: 0,
                expiries: vec![ACCESS_LIFETIME],
                held: BTreeSet::from([0]),
                over: None,
                answer: (0, ""),
            })
            .boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Act> {
        // Mostly the newest token, often its parent, now and then any.
        let held: Vec<u64> = state.held.iter().rev().copied().collect();
        let which = prop_oneof![
            6 => Just(held[0]),
            3 => Just(held[1.min(held.len() - 1)]),
            1 => select(held),
        ];
        let refresh = (which.clone(), prop::bool::weighted(0.6));
        prop_oneof![
            50 => refresh.prop_map(|(generation, arrives)| Act::Refresh { generation, arrives }),
            15 => which.clone().prop_map(|generation| Act::Use { generation }),
            35 => select(vec![1, 9, 10, 10, 10, 10, 10, 30, 50, 59, 60, 600, 930, 7200]).prop_map(Act::Pass),
            1 => which.prop_map(|generation| Act::SignOut { generation }),
        ]
        .boxed()
    }

    fn preconditions(state: &Self, act: &Act) -> bool {
        match act {
            Act::Refresh { generation, .. } | Act::Use { generation } | Act::SignOut { generation } => {
                state.held.contains(generation)
            }
            Act::Pass(_) => true,
        }
    }

    fn apply(mut state: Self, act: &Act) -> Self {
        state.answer = match *act {
            Act::Refresh { generation, arrives } => state.refresh(generation, arrives),
            Act::Use { generation } => (if state.use_access(generation) { 200 } else { 401 }, ""),
            Act::Pass(seconds) => {
                state.now += seconds;
                (0, "")
            }
            Act::SignOut { generation } => {
                let accepted = state.use_access(generation);
                if accepted {
                    state.over = Some("signed_out");
                }
                // Signing out twice is no error; with a token that is over nothing is signed out.
                let index = usize::try_from(generation).expect("few generations");
                let is_over = state.now >= state.expiries[index] + TOLERANCE;
                (if is_over { 401 } else { 204 }, "")
            }
        };
        state
    }
}

thread_local! {
    /// The application that all sequences of this thread's test share.
    static FIELD: RefCell<Option<Rc<Field>>> = const { RefCell::new(None) };
}

struct Field {
    runtime: tokio::runtime::Runtime,
    app: TestApp,
    person: Person,
    cases: RefCell<usize>,
    answers: RefCell<BTreeMap<&'static str, usize>>,
}

/// One signed-in client with all tokens it was ever given, the lost ones included.
struct Holder {
    field: Rc<Field>,
    actor: Actor,
    started: i64,
    /// Refresh and access token by generation.
    tokens: Vec<(String, String)>,
}

enum Actor {
    Browser(Box<Browser>),
    Program(Program),
}

impl Holder {
    async fn sign_in(field: &Rc<Field>, client: Client) -> Self {
        let app = &field.app;
        // A second of its own, by which its rows in the audit log are found.
        app.pass(1);
        let started = app.now().as_millis();
        let (actor, tokens) = match client {
            Client::Browser => {
                let mut browser = Browser::new(app);
                browser.sign_in(&field.person).await;
                let tokens = (browser.cookie(REFRESH), browser.cookie(ACCESS));
                (Actor::Browser(Box::new(browser)), tokens)
            }
            Client::Native => {
                let program = Program::signed_in(app, &field.person).await;
                let tokens = (program.refresh.clone(), program.access.clone());
                (Actor::Program(program), tokens)
            }
        };
        Self {
            field: field.clone(),
            actor,
            started,
            tokens: vec![tokens],
        }
    }

    /// The answer to a refresh token, and the tokens in it.
    async fn present(&self, token: &str) -> (Reply, Option<(String, String)>) {
        match &self.actor {
            Actor::Browser(browser) => {
                let mut tab = browser.clone();
                tab.jar.remove(ACCESS);
                tab.jar.insert(REFRESH.to_owned(), token.to_owned());
                let reply = tab.fetch(Method::POST, "/auth/refresh", &json!({})).await;
                let mut jar = Browser::new(&self.field.app);
                jar.keep(&reply);
                // An access token that has expired comes as a deletion.
                let access = jar.jar.remove(ACCESS).unwrap_or_default();
                let given = jar.jar.remove(REFRESH).map(|refresh| (refresh, access));
                (reply, given)
            }
            Actor::Program(program) => {
                let reply = program.clone().present(token).await;
                let body = reply.json();
                let text = |name: &str| body[name].as_str().map(str::to_owned);
                let given = text("refresh_token").zip(text("access_token"));
                (reply, given)
            }
        }
    }

    async fn refresh(&mut self, model: &Model, presented: usize) {
        let (reply, given) = self.present(&self.tokens[presented].0).await;
        let (status, word) = model.answer;
        assert_eq!(
            reply.status.as_u16(),
            status,
            "{word} was foretold: {} {model:?}",
            reply.body
        );
        let name = reply.header("mayfly-refresh").expect("the outcome is named");
        if status == 401 {
            assert!(
                name == "over" || (name == "reused") == (word == "token_reused"),
                "{name} {model:?}"
            );
            assert_eq!(reply.json()["reason"], word, "{model:?}");
        } else {
            assert_eq!(name, word, "{model:?}");
        }
        *self.field.answers.borrow_mut().entry(word).or_default() += 1;
        if status != 200 {
            assert!(
                given.is_none() && !reply.body.contains("mfr_"),
                "no tokens: {}",
                reply.body
            );
            assert!(
                status != 409 || reply.cookies().is_empty(),
                "no cookie is touched: {:?}",
                reply.cookies()
            );
            return;
        }
        let given = given.unwrap_or_else(|| panic!("tokens: {} {:?}", reply.body, reply.cookies()));
        if word == "rotated" {
            assert!(
                self.tokens.iter().all(|(refresh, _)| *refresh != given.0),
                "a new child"
            );
            self.tokens.push(given);
        } else {
            let child = self.tokens.last_mut().expect("at least the first");
            assert_eq!(child.0, given.0, "the very same child, byte for byte");
            // Of an expired one the first copy is as good.
            if !given.1.is_empty() {
                child.1 = given.1;
            }
        }
        assert_eq!(self.tokens.len() as u64, model.generation + 1, "{model:?}");
    }

    async fn ask(&self, generation: usize, method: Method, path: &str) -> Reply {
        let asker = Program::new(&self.field.app);
        asker.ask_with(&self.tokens[generation].1, method, path).await
    }

    /// C: exactly one rotation per generation, without gaps; and the alarm rang exactly if it had to.
    async fn check_the_log(&self, model: &Model) {
        let query = format!(
            "SELECT kind, facts FROM audit_events WHERE at >= {} AND kind IN ('token_rotated', 'token_reissued', \
             'authn_token_reuse') ORDER BY at, id",
            self.started
        );
        let rows = self.field.app.rows(&query).await;
        let of = |kind: &str| rows.iter().filter(|row| row[0].as_deref() == Some(kind)).count();
        let rotated = rows.iter().filter(|row| row[0].as_deref() == Some("token_rotated"));
        let generations: Vec<u64> = rotated
            .map(|row| {
                let facts: serde_json::Value = serde_json::from_str(row[1].as_deref().expect("facts")).expect("JSON");
                facts["generation"].as_u64().expect("a number")
            })
            .collect();
        assert_eq!(generations, (1..=model.generation).collect::<Vec<_>>(), "{model:?}");
        assert_eq!(of("token_reissued"), model.all_reissues, "{model:?}");
        assert_eq!(
            of("authn_token_reuse") == 1,
            model.over == Some("token_reused"),
            "{model:?}"
        );
    }
}

struct Sequence;

impl StateMachineTest for Sequence {
    type SystemUnderTest = Holder;
    type Reference = Model;

    fn init_test(model: &Model) -> Holder {
        let field = FIELD.with_borrow(|field| field.clone().expect("the test has made it"));
        *field.cases.borrow_mut() += 1;
        field.runtime.block_on(Holder::sign_in(&field, model.client))
    }

    fn apply(mut holder: Holder, model: &Model, act: Act) -> Holder {
        let field = holder.field.clone();
        let index = |generation: u64| usize::try_from(generation).expect("few generations");
        match act {
            Act::Refresh { generation, .. } => field.runtime.block_on(holder.refresh(model, index(generation))),
            Act::Pass(seconds) => field.app.pass(seconds),
            Act::Use { generation } => {
                let asked = holder.ask(index(generation), Method::GET, "/api/v1/me/sessions");
                let reply = field.runtime.block_on(asked);
                assert_eq!(reply.status.as_u16(), model.answer.0, "{} {model:?}", reply.body);
            }
            Act::SignOut { generation } => {
                let asked = holder.ask(index(generation), Method::POST, "/auth/logout");
                let reply = field.runtime.block_on(asked);
                assert_eq!(reply.status.as_u16(), model.answer.0, "{} {model:?}", reply.body);
            }
        }
        holder
    }

    fn teardown(holder: Holder, model: Model) {
        let field = holder.field.clone();
        field.runtime.block_on(holder.check_the_log(&model));
    }
}

async fn field() -> (TestApp, Person) {
    let app = TestApp::start("f50 machine").await;
    app.serve();
    let lifetimes = Lifetimes {
        access: Duration::from_secs(ACCESS_LIFETIME),
        idle: Duration::from_secs(IDLE),
        absolute: Duration::from_secs(ABSOLUTE),
        idle_warning: Duration::ZERO,
        remember_device: Duration::ZERO,
        mfa: Mfa::Optional,
        step_up: Duration::from_mins(15),
        max_sessions: 2,
    };
    app.add_role("machine", lifetimes).await;
    let person = app.add_person("max", &["machine"], false).await;
    (app, person)
}

#[test]
fn f50_random_sequences_of_refreshes_are_answered_as_the_table_says() {
    let full = std::env::var("MAYFLY_TEST_FULL").is_ok_and(|value| value == "1");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (app, person) = runtime.block_on(field());
    let field = Rc::new(Field {
        runtime,
        app,
        person,
        cases: RefCell::default(),
        answers: RefCell::default(),
    });
    FIELD.set(Some(field.clone()));
    let config = Config {
        cases: if full { 2_600 } else { 48 },
        failure_persistence: None,
        max_shrink_iters: 500,
        rng_seed: if full { RngSeed::Random } else { RngSeed::Fixed(50) },
        ..Config::default()
    };
    let steps = Arc::new(AtomicUsize::new(0));
    let outcome = TestRunner::new(config.clone()).run(
        &Model::sequential_strategy(if full { 40..80 } else { 20..60 }),
        |(model, acts, seen)| {
            steps.fetch_add(acts.len(), std::sync::atomic::Ordering::Relaxed);
            Sequence::test_sequential(config.clone(), model, acts, seen);
            Ok(())
        },
    );
    FIELD.set(None);
    let (cases, steps) = (*field.cases.borrow(), steps.load(std::sync::atomic::Ordering::Relaxed));
    let answers = field.answers.borrow();
    println!("{cases} sequences, {steps} steps, refreshes answered: {answers:?}");
    if let Err(error) = outcome {
        panic!("{error}");
    }
    for word in ["rotated", "reissued", "fresh", "superseded", "token_reused", "idle"] {
        assert!(answers.contains_key(word), "the sequences met {word}: {answers:?}");
    }
    assert!(!full || steps >= 100_000, "{steps} steps");
    // Without a socket these would be the addresses that browsers and programs of the tests say they have.
    let elsewhere = "SELECT count(*) FROM sessions WHERE address <> '127.0.0.1'";
    let elsewhere = field.runtime.block_on(field.app.number(elsewhere));
    assert_eq!(elsewhere, 0, "every request came over a connection");
}
