//! What can happen around one session: tabs with one cookie jar, a network that loses, delays, copies and reorders,
//! a server that crashes between commit and answer, pauses, and a thief with a copy of the jar.
//!
//! Owns the state and its transitions, which change the row exactly as `services::tokens::carry_out` and
//! `storage::sessions` do. Must not know how states are visited.
//!
//! Generations are kept as distances from the current one (0 = current, 1 = its parent), times as ages: two
//! histories that the rule cannot tell apart are one state.

use std::time::Duration;

use server::domain::clock::Timestamp;
use server::domain::id::{SessionId, UserId};
use server::domain::policy::{Lifetimes, Limits, Mfa, Rule as PolicyRule};
use server::domain::refresh::{self, Decision, MAX_REISSUES};
use server::domain::session::{Client, Session};
use server::domain::user::{User, UserStatus};
use uuid::Uuid;

/// The signature of `domain::refresh::decide`.
pub type Rule = fn(&Session, &User, Option<&Limits>, u64, Timestamp) -> Decision;

/// Distances from here on are one: no rule looks that far back.
pub const FAR: u8 = 8;
/// Ages from here on are one, in seconds: no rule looks further back than `SUPERSEDED`.
const OLD: u8 = 60;
/// An answer under way this long may have been overtaken by that of the next rotation, in seconds (`FRESH`).
const OVERTAKEN: u8 = 10;
/// Lifetime of an access token in these worlds, in seconds: between the pauses of a minute and of two hours.
const ACCESS: u16 = 900;
/// A budget that is never used up.
pub const NO_END: u8 = u8::MAX;

const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
const GENERATION: u64 = 1_000;

/// A server: the rule, and how its decisions are carried out.
#[derive(Clone, Copy)]
pub struct Server {
    /// The rule.
    pub rule: Rule,
    /// A re-issue counts as handing out tokens now: for the 10 s and 60 s it is like a rotation.
    pub reissue_restarts: bool,
    /// The minute of mercy begins when the child is confirmed, not when it was made.
    pub mercy_from_confirmation: bool,
    /// The UPDATE of a rotation also repeats when tokens were last handed out.
    pub rotation_sees_reissues: bool,
    /// Each UPDATE repeats what was decided upon, and a decision about what changed meanwhile is taken again.
    pub conditional_writes: bool,
}

/// The product's own.
pub const PRODUCT: Server = Server {
    rule: refresh::decide,
    reissue_restarts: true,
    mercy_from_confirmation: true,
    rotation_sees_reissues: true,
    conditional_writes: true,
};

/// What may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Refreshes that are begun, the thief's included.
    pub refreshes: u8,
    /// Pauses.
    pub pauses: u8,
    /// Requests and answers lost; an answer is also lost when the server crashes after the commit.
    pub losses: u8,
    /// Requests and answers that arrive twice.
    pub copies: u8,
}

/// One small world.
#[derive(Clone, Copy)]
pub struct World {
    /// For the report.
    pub name: &'static str,
    /// The server.
    pub server: Server,
    /// Kind of client.
    pub client: Client,
    /// Refreshes under way at once; none: each is answered at once.
    pub tabs: usize,
    /// Bounds.
    pub budget: Budget,
    /// Lengths of pauses in seconds.
    pub pauses: &'static [u16],
    /// Reading and writing of a refresh are two steps, as for two nodes on one database.
    pub two_nodes: bool,
    /// Somebody may copy the jar.
    pub thief: bool,
    /// It begins two hours after a rotation whose answer was lost.
    pub begins_lost: bool,
    /// Exceptions to property A that are left out.
    pub excused: &'static [Exception],
}

/// A documented exception to property A.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// A request that was stuck for 60 s.
    StuckRequest,
    /// An answer that was under way for 10 s while a newer one overtook it.
    OvertakenAnswer,
}

impl Exception {
    /// All of them that explorations leave out.
    pub const ALL: &'static [Self] = &[Self::StuckRequest, Self::OvertakenAnswer];
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// Nothing.
    Free,
    /// A request on its way to the server. Nobody waits for the answer to a copy.
    Request { token: u8, age: u8, copy: bool },
    /// The server has read the row, decided, and not yet written.
    Decided {
        token: u8,
        age: u8,
        copy: bool,
        what: Verdict,
        seen: Seen,
    },
    /// Tokens on their way to the jar.
    Answer { token: u8, age: u8 },
}

/// What happened to a row since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    /// Rotations.
    behind: u8,
    /// A re-issue.
    reissued: bool,
}

impl Seen {
    /// Nothing.
    const NOW: Self = Self {
        behind: 0,
        reissued: false,
    };
}

/// A decision of `domain::refresh` without its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Rotate,
    Reissue,
    Fresh,
    Superseded,
    Reuse,
    Ahead,
}

impl Verdict {
    /// All of them but `Ahead`, which no restored backup leads to here.
    pub const MET: [Self; 5] = [Self::Rotate, Self::Reissue, Self::Fresh, Self::Superseded, Self::Reuse];
}

const WIRE: usize = 10;

/// Everything that the future depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    age: u8,
    superseded: u8,
    confirmed: bool,
    reissues: u8,
    access_lives: bool,
    jar: u8,
    wire: [Slot; WIRE],
    held_by_thief: Option<u8>,
    shown_by_victim: u8,
    shown_by_thief: u8,
    left: Budget,
}

/// One thing that happens; `words` tells what each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Send,
    Handle(Slot),
    Read(Slot),
    Write(Slot),
    Lose(Slot),
    Copy(Slot),
    Deliver(Slot),
    Show,
    Visit,
    Pause(u16),
    ComeBack,
    Steal,
    ThiefRefreshes,
    ThiefShows,
}

/// Property of TOKENS.md §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// Without a thief nobody is ever signed out.
    A,
    /// A thief who uses what he has is found out, or gets nothing.
    B,
    /// One child per token, one rotation per generation.
    C,
}

/// Where a step leads.
#[derive(Clone, Copy)]
pub enum Target {
    /// Another state.
    State(State),
    /// The session ends with an alert, as it should.
    Ended,
    /// An exception that is documented.
    Excused,
    /// A property is broken.
    Broken(Property, &'static str),
}

/// One step, with what the explorer counts and the report tells.
#[derive(Clone, Copy)]
pub struct Step {
    /// What happened.
    pub action: Action,
    /// Where it leads.
    pub to: Target,
    /// What the server decided, if it was asked.
    pub verdict: Option<Verdict>,
    /// The thief was given tokens.
    pub thief_gains: bool,
    /// The victim was given tokens.
    pub victim_gains: bool,
    /// The victim came with an older token than the thief has shown, was given nothing and was not warned.
    pub turned_away: bool,
}

/// A row, its owner and limits that never matter: filled in for each question to the rule.
pub struct Bench {
    session: Session,
    user: User,
    limits: Limits,
}

impl Bench {
    /// For this kind of client.
    pub fn new(client: Client) -> Self {
        let long = Duration::from_hours(24 * 30);
        let rule = PolicyRule {
            role: "member".to_owned(),
            version: 1,
        };
        let lifetimes = Lifetimes {
            access: Duration::from_secs(ACCESS.into()),
            idle: long,
            absolute: long,
            idle_warning: Duration::ZERO,
            remember_device: Duration::ZERO,
            mfa: Mfa::Optional,
            step_up: long,
            max_sessions: 10,
        };
        let user = User {
            id: UserId(Uuid::from_u128(1)),
            username: "max".to_owned(),
            email: None,
            display_name: "Max".to_owned(),
            status: UserStatus::Active,
            password_changed_at: None,
            auth_epoch: 0,
            grant_epoch: 0,
            created_at: NOW,
            roles: vec!["member".to_owned()],
        };
        let session = Session {
            id: SessionId(Uuid::from_u128(2)),
            user_id: user.id,
            device_id: None,
            client,
            secret_sealed: Vec::new(),
            generation: GENERATION,
            rotated_at: NOW,
            superseded_at: NOW,
            child_confirmed: true,
            reissues: 0,
            access_expires_at: NOW,
            min_generation: 0,
            auth_epoch: 0,
            grant_epoch: 0,
            started_at: NOW,
            authenticated_at: NOW,
            last_active_at: NOW,
            access: lifetimes.access,
            idle: lifetimes.idle,
            idle_rule: rule.clone(),
            absolute_expires_at: NOW.plus(long),
            absolute_rule: rule.clone(),
            amr: "pwd".to_owned(),
            address: String::new(),
            user_agent: String::new(),
            ending: None,
        };
        let limits = Limits {
            lifetimes,
            idle_rule: rule.clone(),
            absolute_rule: rule.clone(),
            mfa_rule: rule,
        };
        Self { session, user, limits }
    }

    fn ask(&mut self, rule: Rule, state: &State, token: u8) -> Verdict {
        let session = &mut self.session;
        session.rotated_at = NOW.minus(Duration::from_secs(state.age.into()));
        session.superseded_at = NOW.minus(Duration::from_secs(state.superseded.into()));
        session.child_confirmed = state.confirmed;
        session.reissues = state.reissues.into();
        let left = if state.access_lives { 1 } else { 0 };
        session.access_expires_at = NOW.plus(Duration::from_secs(left));
        match rule(
            session,
            &self.user,
            Some(&self.limits),
            GENERATION - u64::from(token),
            NOW,
        ) {
            Decision::Over(ending) => panic!("no limit passes in these worlds: {ending:?}"),
            Decision::Rotate(_) => Verdict::Rotate,
            Decision::Fresh(_) => Verdict::Fresh,
            Decision::Reissue(_) => Verdict::Reissue,
            Decision::Superseded(_) => Verdict::Superseded,
            Decision::Reuse => Verdict::Reuse,
            Decision::Ahead => Verdict::Ahead,
        }
    }
}

/// What came of carrying out a decision.
enum Done {
    /// Tokens of the now current generation.
    Tokens,
    /// 409.
    Nothing,
    /// The session has ended.
    Ended,
    /// The row had changed: decide again.
    Again,
    /// The token was exchanged for two different children.
    Forked,
}

impl State {
    /// A living session whose last rotation lies back, its tokens in the jar and shown, or lost.
    pub fn begin(world: &World) -> Self {
        Self {
            age: OLD,
            superseded: OLD,
            confirmed: !world.begins_lost,
            reissues: 0,
            access_lives: !world.begins_lost,
            jar: u8::from(world.begins_lost),
            wire: [Slot::Free; WIRE],
            held_by_thief: None,
            shown_by_victim: u8::from(world.begins_lost && world.thief),
            shown_by_thief: FAR,
            left: world.budget,
        }
    }

    /// Everything that can happen next.
    pub fn steps(&self, world: &World, bench: &mut Bench, out: &mut Vec<Step>) {
        out.clear();
        let busy = self.wire.iter().any(|slot| matches!(slot, Slot::Decided { .. }));
        let may_refresh = self.left.refreshes > 0;
        let mut act = |action| out.push(self.step(world, bench, action));
        if world.tabs == 0 {
            act(Action::Visit);
        } else if may_refresh && self.tabs_waiting() < world.tabs {
            act(Action::Send);
        }
        let mut last = Slot::Free;
        for slot in self.wire {
            if slot == Slot::Free || slot == last {
                continue;
            }
            last = slot;
            match slot {
                Slot::Free => {}
                Slot::Request { .. } if world.two_nodes => act(Action::Read(slot)),
                Slot::Request { .. } => act(Action::Handle(slot)),
                Slot::Decided { .. } => act(Action::Write(slot)),
                Slot::Answer { .. } => act(Action::Deliver(slot)),
            }
            let lost_or_copied = !matches!(slot, Slot::Decided { .. });
            if lost_or_copied && self.left.losses > 0 {
                act(Action::Lose(slot));
            }
            if lost_or_copied && self.left.copies > 0 {
                act(Action::Copy(slot));
            }
        }
        if self.access_lives && self.jar == 0 && !(self.confirmed && self.shown_by_victim == 0) {
            act(Action::Show);
        }
        // Between reading and writing lie milliseconds.
        if self.left.pauses > 0 && !busy {
            world.pauses.iter().for_each(|&seconds| act(Action::Pause(seconds)));
        }
        if !world.thief {
            act(Action::ComeBack);
        }
        if world.thief {
            match self.held_by_thief {
                None => act(Action::Steal),
                Some(held) => {
                    if may_refresh {
                        act(Action::ThiefRefreshes);
                    }
                    if held == 0 && self.access_lives && !(self.confirmed && self.shown_by_thief == 0) {
                        act(Action::ThiefShows);
                    }
                }
            }
        }
    }

    fn tabs_waiting(&self) -> usize {
        let waits = |slot: &&Slot| match slot {
            Slot::Free => false,
            Slot::Request { copy, .. } | Slot::Decided { copy, .. } => !copy,
            Slot::Answer { .. } => true,
        };
        self.wire.iter().filter(waits).count()
    }

    /// Does one thing.
    fn step(&self, world: &World, bench: &mut Bench, action: Action) -> Step {
        let mut next = *self;
        let mut step = Step {
            action,
            to: Target::Excused,
            verdict: None,
            thief_gains: false,
            victim_gains: false,
            turned_away: false,
        };
        step.to = match action {
            Action::Send => {
                spend(&mut next.left.refreshes);
                next.put(Slot::Request {
                    token: self.jar,
                    age: 0,
                    copy: false,
                });
                Target::State(next)
            }
            Action::Visit => next.visit(world, bench, &mut step),
            Action::Handle(slot) => next.handle(world, bench, slot, &mut step),
            Action::Read(slot) => {
                let Slot::Request { token, age, copy } = slot else {
                    unreachable!("only requests are read")
                };
                let what = bench.ask(world.server.rule, self, token);
                step.verdict = Some(what);
                next.take(slot);
                next.put(Slot::Decided {
                    token,
                    age,
                    copy,
                    what,
                    seen: Seen::NOW,
                });
                Target::State(next)
            }
            Action::Write(slot) => {
                let Slot::Decided {
                    token,
                    age,
                    copy,
                    what,
                    seen,
                } = slot
                else {
                    unreachable!("only decisions are written")
                };
                next.take(slot);
                next.carry_out_for_victim(world, (token, age, copy), what, seen, &mut step)
            }
            Action::Lose(slot) => {
                spend(&mut next.left.losses);
                next.take(slot);
                Target::State(next)
            }
            Action::Copy(slot) => {
                spend(&mut next.left.copies);
                next.put(match slot {
                    Slot::Request { token, age, .. } => Slot::Request { token, age, copy: true },
                    other => other,
                });
                Target::State(next)
            }
            Action::Deliver(slot) => {
                let Slot::Answer { token, age } = slot else {
                    unreachable!("only answers are delivered")
                };
                next.take(slot);
                next.jar = token;
                if world.excused.contains(&Exception::OvertakenAnswer) && token > self.jar && age >= OVERTAKEN {
                    Target::Excused
                } else {
                    Target::State(next)
                }
            }
            Action::Show => {
                next.confirm(world.server);
                next.victim_shows(0);
                Target::State(next)
            }
            Action::Pause(seconds) => {
                spend(&mut next.left.pauses);
                next.pass(seconds);
                Target::State(next)
            }
            Action::ComeBack => self.come_back(world, bench, &mut step),
            Action::Steal => {
                next.held_by_thief = Some(self.jar);
                Target::State(next)
            }
            Action::ThiefRefreshes => next.thief_refreshes(world, bench, &mut step),
            Action::ThiefShows => {
                next.confirm(world.server);
                next.shown_by_thief = 0;
                Target::State(next)
            }
        };
        if let Target::State(next) = &mut step.to {
            next.wire.sort_unstable();
            if !world.thief {
                next.shown_by_victim = 0;
            }
        }
        step
    }

    fn handle(&mut self, world: &World, bench: &mut Bench, slot: Slot, step: &mut Step) -> Target {
        let Slot::Request { token, age, copy } = slot else {
            unreachable!("only requests are handled")
        };
        let what = bench.ask(world.server.rule, self, token);
        self.take(slot);
        self.carry_out_for_victim(world, (token, age, copy), what, Seen::NOW, step)
    }

    fn carry_out_for_victim(
        &mut self,
        world: &World,
        (token, age, copy): (u8, u8, bool),
        what: Verdict,
        seen: Seen,
        step: &mut Step,
    ) -> Target {
        step.verdict = Some(what);
        self.victim_shows(token);
        step.turned_away = token > self.shown_by_thief;
        match self.carry_out(world.server, token, what, seen) {
            Done::Forked => Target::Broken(Property::C, "one token was exchanged for two different children"),
            Done::Again => {
                step.turned_away = false;
                self.put(Slot::Request { token, age, copy });
                Target::State(*self)
            }
            Done::Ended => {
                step.turned_away = false;
                if world.thief {
                    Target::Ended
                } else if world.excused.contains(&Exception::StuckRequest) && age >= OLD {
                    Target::Excused
                } else {
                    Target::Broken(Property::A, "an honest person was signed out")
                }
            }
            Done::Nothing => Target::State(*self),
            Done::Tokens => {
                step.turned_away = false;
                step.victim_gains = true;
                if !copy {
                    self.put(Slot::Answer { token: 0, age: 0 });
                }
                Target::State(*self)
            }
        }
    }

    /// Request, answer and delivery in one.
    fn visit(&mut self, world: &World, bench: &mut Bench, step: &mut Step) -> Target {
        let token = self.jar;
        let what = bench.ask(world.server.rule, self, token);
        let target = self.carry_out_for_victim(world, (token, 0, false), what, Seen::NOW, step);
        if step.victim_gains {
            self.take(Slot::Answer { token: 0, age: 0 });
            self.jar = 0;
            return Target::State(*self);
        }
        target
    }

    /// Whatever was under way is lost, two hours pass, and the browser is opened again: it must be given tokens. Asked
    /// of every state, so that no budget hides somebody who is locked out; it leads to no state of its own.
    fn come_back(&self, world: &World, bench: &mut Bench, step: &mut Step) -> Target {
        let mut later = *self;
        later.pass(7200);
        let what = bench.ask(world.server.rule, &later, self.jar);
        step.verdict = Some(what);
        match what {
            Verdict::Rotate | Verdict::Reissue => Target::State(*self),
            // The documented exception: the same child was lost six times.
            Verdict::Reuse if self.jar == 1 && !self.confirmed && u32::from(self.reissues) == MAX_REISSUES => {
                Target::Excused
            }
            _ => Target::Broken(Property::A, "an honest person is locked out"),
        }
    }

    /// The thief's line is always quick.
    fn thief_refreshes(&mut self, world: &World, bench: &mut Bench, step: &mut Step) -> Target {
        let Some(token) = self.held_by_thief else {
            unreachable!("he holds something")
        };
        spend(&mut self.left.refreshes);
        let what = bench.ask(world.server.rule, self, token);
        step.verdict = Some(what);
        self.shown_by_thief = self.shown_by_thief.min(token);
        let lost_the_race = token > self.shown_by_victim;
        match self.carry_out(world.server, token, what, Seen::NOW) {
            Done::Forked => Target::Broken(Property::C, "one token was exchanged for two different children"),
            Done::Again => unreachable!("nothing comes between the thief's reading and writing"),
            Done::Ended => Target::Ended,
            Done::Nothing => Target::State(*self),
            Done::Tokens if lost_the_race => Target::Broken(
                Property::B,
                "the thief was given tokens for one that the victim had already shown a newer one than",
            ),
            Done::Tokens => {
                step.thief_gains = true;
                self.held_by_thief = Some(0);
                Target::State(*self)
            }
        }
    }

    /// `services::tokens::carry_out` with the conditions of `storage::sessions`.
    fn carry_out(&mut self, server: Server, token: u8, what: Verdict, seen: Seen) -> Done {
        let same_generation = seen.behind == 0 || !server.conditional_writes;
        let no_reissue = !seen.reissued || !server.rotation_sees_reissues || !server.conditional_writes;
        match what {
            Verdict::Rotate => {
                if !(same_generation && no_reissue) {
                    return Done::Again;
                }
                self.next_generation();
                // The token that was presented is now one further back; it must be the parent of what is given.
                if older(token) == 1 { Done::Tokens } else { Done::Forked }
            }
            Verdict::Reissue => {
                let holds = !self.confirmed && u32::from(self.reissues) < MAX_REISSUES;
                if server.conditional_writes && !(same_generation && holds) {
                    return Done::Again;
                }
                self.reissues = self.reissues.saturating_add(1).min(6);
                for slot in &mut self.wire {
                    if let Slot::Decided { seen, .. } = slot {
                        seen.reissued = true;
                    }
                }
                if server.reissue_restarts {
                    self.age = 0;
                    self.superseded = 0;
                }
                if token == 1 { Done::Tokens } else { Done::Forked }
            }
            Verdict::Fresh => {
                if seen.behind == 0 {
                    self.confirm(server);
                }
                Done::Nothing
            }
            Verdict::Superseded => Done::Nothing,
            Verdict::Reuse | Verdict::Ahead => Done::Ended,
        }
    }

    fn confirm(&mut self, server: Server) {
        if !self.confirmed && server.mercy_from_confirmation {
            self.superseded = 0;
        }
        self.confirmed = true;
    }

    fn next_generation(&mut self) {
        self.age = 0;
        self.superseded = 0;
        self.confirmed = false;
        self.reissues = 0;
        self.access_lives = true;
        self.jar = older(self.jar);
        self.held_by_thief = self.held_by_thief.map(older);
        self.shown_by_victim = older(self.shown_by_victim);
        self.shown_by_thief = older(self.shown_by_thief);
        for slot in &mut self.wire {
            match slot {
                Slot::Free => {}
                Slot::Request { token, .. } | Slot::Answer { token, .. } => *token = older(*token),
                Slot::Decided { token, seen, .. } => {
                    *token = older(*token);
                    seen.behind = older(seen.behind);
                }
            }
        }
    }

    fn victim_shows(&mut self, token: u8) {
        self.shown_by_victim = self.shown_by_victim.min(token);
    }

    fn pass(&mut self, seconds: u16) {
        let later = |age: u8| u8::try_from(u16::from(age) + seconds).map_or(OLD, |age| age.min(OLD));
        self.access_lives &= seconds < ACCESS;
        self.age = later(self.age);
        self.superseded = later(self.superseded);
        for slot in &mut self.wire {
            match slot {
                Slot::Free => {}
                Slot::Request { age, .. } | Slot::Answer { age, .. } | Slot::Decided { age, .. } => *age = later(*age),
            }
        }
    }

    fn put(&mut self, slot: Slot) {
        let free = self.wire.iter_mut().find(|slot| **slot == Slot::Free);
        *free.expect("the wire is longer than any world's budget") = slot;
    }

    fn take(&mut self, slot: Slot) {
        let found = self.wire.iter_mut().find(|found| **found == slot);
        *found.expect("it is under way") = Slot::Free;
    }

    /// Distance of the jar's token from the current one.
    pub fn jar(&self) -> u8 {
        self.jar
    }

    /// Distance of the thief's token from the current one.
    pub fn held_by_thief(&self) -> Option<u8> {
        self.held_by_thief
    }
}

fn older(distance: u8) -> u8 {
    (distance + 1).min(FAR)
}

fn spend(budget: &mut u8) {
    if *budget != NO_END {
        *budget -= 1;
    }
}
