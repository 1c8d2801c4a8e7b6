//! Visits every state of a world, breadth first: the first way found to a broken property is a shortest one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::bench::Bench;
use crate::state::State;
use crate::words::{tell, word};
use crate::world::{Action, Property, Step, Target, Verdict, World};

/// What a world looked like.
pub struct Report {
    /// Name of the world.
    pub world: &'static str,
    /// States visited.
    pub states: usize,
    /// Steps tried.
    pub steps: usize,
    /// Times that the session ended with an alert.
    pub ended: usize,
    /// Times that a documented exception was met.
    pub excused: usize,
    /// How often each decision was taken.
    pub verdicts: [(Verdict, usize); 5],
    /// The first broken property.
    pub violation: Option<Violation>,
}

/// A broken property with the way to it.
#[derive(Debug)]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// How.
    pub why: &'static str,
    /// One line per step.
    pub trace: Vec<String>,
}

/// The states found, each with the step that first led to it.
pub struct Found {
    /// In the order of their distance from the beginning.
    pub states: Vec<State>,
    /// The state before and what happened there; the step itself is made again when its story is told.
    from: Vec<Option<(u32, Action)>>,
    index: HashMap<State, usize>,
}

impl Found {
    fn add(&mut self, state: State, from: Option<(u32, Action)>) -> usize {
        let next = self.states.len();
        match self.index.entry(state) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                place.insert(next);
                self.states.push(state);
                self.from.push(from);
                next
            }
        }
    }

    /// A shortest way to a state, each step with the state before it.
    pub fn way(&self, world: &World, mut to: usize) -> Vec<(State, Step)> {
        let (mut bench, mut way) = (Bench::new(world.client), Vec::new());
        while let Some((from, action)) = self.from[to] {
            to = from as usize;
            let state = self.states[to];
            way.push((state, state.step(world, &mut bench, action)));
        }
        way.reverse();
        way
    }
}

/// Explores until a property breaks or nothing new is found.
pub fn explore(world: &World) -> Report {
    visit(world, |_, _, _| {}).0
}

/// The same; tells of each step between two states.
pub fn visit(world: &World, mut tell_of: impl FnMut(usize, &Step, usize)) -> (Report, Found) {
    let mut found = Found {
        states: Vec::new(),
        from: Vec::new(),
        index: HashMap::new(),
    };
    let mut report = Report {
        world: world.name,
        states: 0,
        steps: 0,
        ended: 0,
        excused: 0,
        verdicts: Verdict::MET.map(|verdict| (verdict, 0)),
        violation: None,
    };
    found.add(State::begin(world), None);
    let (mut bench, mut steps, mut at) = (Bench::new(world.client), Vec::new(), 0);
    'all: while at < found.states.len() {
        let state = found.states[at];
        state.steps(world, &mut bench, &mut steps);
        for step in &steps {
            report.steps += 1;
            if let Some(count) = report
                .verdicts
                .iter_mut()
                .find(|(verdict, _)| Some(*verdict) == step.verdict)
            {
                count.1 += 1;
            }
            match step.to {
                Target::State(next) => {
                    let to = found.add(
                        next,
                        Some((u32::try_from(at).expect("fewer states than memory holds"), step.action)),
                    );
                    tell_of(at, step, to);
                }
                Target::Ended => report.ended += 1,
                Target::Excused => report.excused += 1,
                Target::Broken(property, why) => {
                    let mut way = found.way(world, at);
                    way.push((state, *step));
                    report.violation = Some(Violation {
                        property,
                        why,
                        trace: tell(&way),
                    });
                    break 'all;
                }
            }
        }
        at += 1;
    }
    report.states = found.states.len();
    (report, found)
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            world,
            states,
            steps,
            ended,
            excused,
            ..
        } = self;
        write!(
            f,
            "{world}: {states} states, {steps} steps, {ended} endings, {excused} documented exceptions;"
        )?;
        for (verdict, count) in self.verdicts {
            write!(f, " {} {count}", word(verdict))?;
        }
        match &self.violation {
            None => Ok(()),
            Some(violation) => write!(f, "\n{violation}"),
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "property {:?} is broken: {}\n  {}",
            self.property,
            self.why,
            self.trace.join("\n  ")
        )
    }
}
