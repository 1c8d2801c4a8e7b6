//! Thirty days of sign-ins, use and endings, in the order in which they happen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::DAYS;
use super::cast::{Actor, Cast, caller};
use crate::cli::CliError;
use crate::domain::clock::{Clock, ManualClock, Timestamp};
use crate::domain::random::Random;
use crate::domain::sign_in::{Flow, Step};
use crate::domain::user::MEMBER;
use crate::services::Backend;
use crate::services::sessions::Live;
use crate::services::sign_in::{Caller, CodeOutcome, DeviceCookie, SignedIn};
use crate::services::tokens::RefreshOutcome;
use secrecy::ExposeSecret;

/// Sign-ins of the month.
const SESSIONS: usize = 1_880;
/// Of these, how many are still alive at its end (give or take what limits do).
const LIVING: usize = 390;
/// Uses of each session, on average.
const USES: u64 = 8;

/// What a session does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    SignIn,
    Use,
    End,
    Sweep,
    WrongPassword,
}

struct Running {
    live: Live,
    refresh: SecretString,
    caller: Caller,
}

/// Lives through the month. Says in figures what it made.
pub async fn live_through(
    backend: &Arc<Backend>,
    clock: &Arc<ManualClock>,
    cast: &Cast,
    until: Timestamp,
) -> Result<String, CliError> {
    let start = clock.now();
    let mut agenda: BinaryHeap<Reverse<(Timestamp, Act, usize)>> = BinaryHeap::new();
    let whole = until.since(start);
    for index in 0..SESSIONS {
        let stays = index < LIVING;
        plan(backend.random(), &mut agenda, index, stays, start, whole);
    }
    for index in 0..DAYS * 4 {
        agenda.push(Reverse((start.plus(Duration::from_hours(index * 6)), Act::Sweep, 0)));
    }
    for index in 0..40 {
        let at = start.plus(Duration::from_secs(below(backend.random(), whole.as_secs())));
        agenda.push(Reverse((at, Act::WrongPassword, index)));
    }
    let mut running: Vec<Option<Running>> = std::iter::repeat_with(|| None).take(SESSIONS).collect();
    let mut devices: std::collections::HashMap<(usize, usize), DeviceCookie> = std::collections::HashMap::new();
    let (mut signed_in, mut rotated) = (0, 0);
    while let Some(Reverse((at, act, index))) = agenda.pop() {
        clock.set(at.min(until));
        let who = actor_of(cast, index);
        let actor = &cast.people[who];
        match act {
            Act::SignIn => {
                let which = index % actor.devices.len();
                let (agent, address) = &actor.devices[which];
                let mut caller = caller(agent, address);
                caller.device = devices.get(&(who, which)).cloned();
                if let Some(done) = sign_in(backend, clock, actor, &caller).await? {
                    signed_in += 1;
                    devices.insert((who, which), done.device);
                    running[index] = Some(Running {
                        live: done.issued.live,
                        refresh: done.issued.refresh,
                        caller,
                    });
                }
            }
            Act::Use => {
                let Some(session) = running[index].as_mut() else {
                    continue;
                };
                let mut from = session.caller.from.clone();
                from.session_id = Some(session.live.session.id);
                match backend
                    .refresh(session.refresh.expose_secret(), session.caller.client, true, &from)
                    .await?
                {
                    RefreshOutcome::Rotated(issued) => {
                        rotated += 1;
                        session.live = issued.live.clone();
                        session.refresh = issued.refresh;
                    }
                    RefreshOutcome::Fresh(_) | RefreshOutcome::Superseded(_) => {}
                    _ => running[index] = None,
                }
            }
            Act::End => {
                let Some(session) = running[index].take() else { continue };
                let mut from = session.caller.from.clone();
                from.actor_id = Some(actor.id);
                from.session_id = Some(session.live.session.id);
                backend.sign_out(&session.live.session, &from).await?;
            }
            Act::Sweep => while backend.sweep_expired().await? > 0 {},
            Act::WrongPassword => {
                let (agent, address) = &actor.devices[0];
                let caller = caller(agent, address);
                backend
                    .check_password(&actor.username, "not the password", "/".to_owned(), &caller)
                    .await?;
            }
        }
    }
    clock.set(until);
    while backend.sweep_expired().await? > 0 {}
    Ok(format!(
        "Demo realm: {} people, {signed_in} sign-ins, {rotated} refreshes in {DAYS} days.",
        cast.people.len()
    ))
}

/// Long-lived sessions belong to members: other roles' limits end theirs within minutes.
fn actor_of(cast: &Cast, index: usize) -> usize {
    let first_member = cast.people.iter().position(|actor| actor.role == MEMBER).unwrap_or(0);
    if index < LIVING {
        first_member + index % (cast.people.len() - first_member)
    } else {
        index % cast.people.len()
    }
}

fn plan(
    random: &dyn Random,
    agenda: &mut BinaryHeap<Reverse<(Timestamp, Act, usize)>>,
    index: usize,
    stays: bool,
    start: Timestamp,
    whole: Duration,
) {
    const HOUR: u64 = 3600;
    let total = whole.as_secs();
    if stays {
        // Begun in the last six days and used until shortly before now.
        let began = total - HOUR - below(random, 6 * 24 * HOUR);
        agenda.push(Reverse((start.plus(Duration::from_secs(began)), Act::SignIn, index)));
        for _ in 0..USES {
            let at = began + 60 + below(random, total - began - 60);
            agenda.push(Reverse((start.plus(Duration::from_secs(at)), Act::Use, index)));
        }
        return;
    }
    let began = 2 * HOUR + below(random, total - 30 * HOUR);
    agenda.push(Reverse((start.plus(Duration::from_secs(began)), Act::SignIn, index)));
    let mut at = began;
    for _ in 0..USES {
        at += 90 + below(random, 13 * 60);
        agenda.push(Reverse((start.plus(Duration::from_secs(at)), Act::Use, index)));
    }
    // Three in four sign out; the rest are left to their limits, which the month's last week cuts short here.
    if below(random, 4) > 0 || began + 8 * 24 * HOUR > total {
        agenda.push(Reverse((start.plus(Duration::from_secs(at + 60)), Act::End, index)));
    }
}

async fn sign_in(
    backend: &Arc<Backend>,
    clock: &ManualClock,
    actor: &Actor,
    caller: &Caller,
) -> Result<Option<SignedIn>, CliError> {
    let Some(user) = backend.find_user(actor.id).await? else {
        return Ok(None);
    };
    let Some(totp) = &actor.totp else {
        return Ok(backend.sign_in_after_password(actor.id, caller).await?);
    };
    let flow = Flow {
        user_id: actor.id,
        auth_epoch: user.auth_epoch,
        password_at: clock.now(),
        return_to: "/".to_owned(),
        step: Step::Code { wrong: 0 },
        key: None,
    };
    match backend.check_code(flow, &totp.code_at(clock.now()), caller).await? {
        CodeOutcome::SignedIn(done) => Ok(Some(done)),
        // The same code twice within its half minute: the person would wait; the realm goes on without.
        CodeOutcome::Wrong(_) | CodeOutcome::FlowOver => Ok(None),
    }
}

/// Evenly distributed below `bound` (good enough for a realm of made-up days).
fn below(random: &dyn Random, bound: u64) -> u64 {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    u64::from_be_bytes(bytes) % bound.max(1)
}
