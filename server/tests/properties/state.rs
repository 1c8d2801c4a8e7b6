//! The state of a world and its transitions, which change the row exactly as `services::tokens::carry_out` and
//! `storage::sessions` do. Must not know how states are visited.
//!
//! Generations are kept as distances from the current one (0 = current, 1 = its parent), times as ages: two
//! histories that the rule cannot tell apart are one state.

use server::domain::refresh::MAX_REISSUES;

use crate::bench::{ACCESS, Bench, Row};
use crate::world::{
    Action, Budget, Care, Exception, NO_END, Property, Seen, Server, Slot, Step, Target, Verdict, World,
};

/// Distances from here on are one: no rule looks that far back.
pub const FAR: u8 = 8;
/// Ages from here on are one, in seconds: no rule looks further back than `SUPERSEDED`.
const OLD: u8 = 60;
/// An answer under way this long may have been overtaken by that of the next rotation, in seconds (`FRESH`).
const OVERTAKEN: u8 = 10;
const WIRE: usize = 10;

/// Everything that the future depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    row: Row,
    jar: u8,
    wire: [Slot; WIRE],
    held_by_thief: Option<u8>,
    shown_by_victim: u8,
    shown_by_thief: u8,
    left: Budget,
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
            row: Row {
                age: OLD,
                superseded: OLD,
                confirmed: !world.begins_lost,
                reissues: 0,
                access_lives: !world.begins_lost,
                has_grants: true,
            },
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
        if self.row.is_accepted() && self.jar == 0 && !(self.row.confirmed && self.shown_by_victim == 0) {
            act(Action::Show);
        }
        // Between reading and writing lie milliseconds.
        if self.left.pauses > 0 && !busy {
            world.pauses.iter().for_each(|&seconds| act(Action::Pause(seconds)));
        }
        if self.left.changes > 0 && self.row.has_grants {
            act(Action::Change);
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
                    if held == 0 && self.row.is_accepted() && !(self.row.confirmed && self.shown_by_thief == 0) {
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
    #[expect(clippy::too_many_lines, reason = "one arm for each thing that can happen")]
    pub fn step(&self, world: &World, bench: &mut Bench, action: Action) -> Step {
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
                let what = bench.ask(world.server.rule, self.row, token);
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
            Action::Change => {
                spend(&mut next.left.changes);
                next.row.has_grants = false;
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
        let what = bench.ask(world.server.rule, self.row, token);
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
        let shown_before = self.shown_by_victim;
        self.victim_shows(token);
        step.turned_away = token > self.shown_by_thief;
        match self.carry_out(world.server, token, what, seen) {
            Done::Forked => Target::Broken(Property::C, "one token was exchanged for two different children"),
            Done::Again => {
                // Nothing was written: what was shown is not confirmed yet.
                self.shown_by_victim = shown_before;
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
        let what = bench.ask(world.server.rule, self.row, token);
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
        let what = bench.ask(world.server.rule, later.row, self.jar);
        step.verdict = Some(what);
        match what {
            Verdict::Rotate | Verdict::Reissue => Target::State(*self),
            // The documented exception: the same child was lost six times.
            Verdict::Reuse if self.jar == 1 && !self.row.confirmed && u32::from(self.row.reissues) == MAX_REISSUES => {
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
        let what = bench.ask(world.server.rule, self.row, token);
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
        let same_generation = seen.behind == 0 || !server.takes(Care::Conditions);
        let no_reissue = !seen.reissued || !server.takes(Care::RotationSeesReissues) || !server.takes(Care::Conditions);
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
                let holds = !self.row.confirmed && u32::from(self.row.reissues) < MAX_REISSUES;
                if server.takes(Care::Conditions) && !(same_generation && holds) {
                    return Done::Again;
                }
                self.row.reissues = self.row.reissues.saturating_add(1).min(6);
                for slot in &mut self.wire {
                    if let Slot::Decided { seen, .. } = slot {
                        seen.reissued = true;
                    }
                }
                if server.takes(Care::ReissueRestarts) {
                    self.row.age = 0;
                    self.row.superseded = 0;
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
        if !self.row.confirmed && server.takes(Care::MercyFromConfirmation) {
            self.row.superseded = 0;
        }
        self.row.confirmed = true;
    }

    fn next_generation(&mut self) {
        self.row.age = 0;
        self.row.superseded = 0;
        self.row.confirmed = false;
        self.row.reissues = 0;
        self.row.access_lives = true;
        self.row.has_grants = true;
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
        self.row.access_lives &= seconds < ACCESS;
        self.row.age = later(self.row.age);
        self.row.superseded = later(self.row.superseded);
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
