//! Histories without end: a circle of states in which two things happen again and again.
//!
//! In a world without bounds a thief who is never found out goes round such a circle; if there is none, every history
//! comes to an end of the session, or to an end of the thief's gains.

use std::collections::{HashMap, VecDeque};

use crate::explore::{Report, Violation, visit};
use crate::words::tell;
use crate::world::{Property, Step, World};

/// Looks for a circle that holds a step of each kind, in a world whose budgets have no end.
pub fn for_ever(world: &World, why: &'static str, first: fn(&Step) -> bool, second: fn(&Step) -> bool) -> Report {
    let mut edges: Vec<Vec<(usize, Step)>> = Vec::new();
    let (mut report, found) = visit(world, |from, step, to| {
        edges.resize(edges.len().max(from + 1).max(to + 1), Vec::new());
        edges[from].push((to, *step));
    });
    if report.violation.is_some() {
        return report;
    }
    edges.resize(found.states.len(), Vec::new());
    let circle = circles(&edges);
    let inside = |from: usize, to: usize| circle[from] == circle[to];
    // Circles with a step of the second kind, and where it is.
    let mut seconds = HashMap::new();
    for (from, steps) in edges.iter().enumerate() {
        for (to, step) in steps {
            if second(step) && inside(from, *to) {
                seconds.entry(circle[from]).or_insert((from, *to, *step));
            }
        }
    }
    for (from, steps) in edges.iter().enumerate() {
        for (to, step) in steps {
            let Some(other) = seconds.get(&circle[from]) else {
                continue;
            };
            if !first(step) || !inside(from, *to) {
                continue;
            }
            let mut way = found.way(world, from);
            let before = way.len();
            let mut round = vec![(from, *step)];
            round.extend(path(&edges, *to, other.0));
            round.push((other.0, other.2));
            round.extend(path(&edges, other.1, from));
            way.extend(round.into_iter().map(|(at, step)| (found.states[at], step)));
            let mut trace = tell(&way);
            trace.insert(before, "… and from here on round and round:".to_owned());
            report.violation = Some(Violation {
                property: Property::B,
                why,
                trace,
            });
            return report;
        }
    }
    report
}

/// A shortest way between two states of one circle.
fn path(edges: &[Vec<(usize, Step)>], from: usize, to: usize) -> Vec<(usize, Step)> {
    let mut came: HashMap<usize, (usize, Step)> = HashMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        if at == to {
            break;
        }
        for (next, step) in &edges[at] {
            if *next != from && !came.contains_key(next) {
                came.insert(*next, (at, *step));
                queue.push_back(*next);
            }
        }
    }
    let (mut way, mut at) = (Vec::new(), to);
    while at != from {
        let (before, step) = came[&at];
        way.push((before, step));
        at = before;
    }
    way.reverse();
    way
}

/// For each state the number of its strongly connected component (Kosaraju's two passes, without recursion).
fn circles(edges: &[Vec<(usize, Step)>]) -> Vec<usize> {
    let mut back: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    let (mut seen, mut finished) = (vec![false; edges.len()], Vec::new());
    for root in 0..edges.len() {
        let mut stack = vec![(root, 0)];
        while let Some((at, next)) = stack.pop() {
            if next == 0 && std::mem::replace(&mut seen[at], true) {
                continue;
            }
            if let Some((to, _)) = edges[at].get(next) {
                stack.push((at, next + 1));
                back[*to].push(at);
                if !seen[*to] {
                    stack.push((*to, 0));
                }
            } else {
                finished.push(at);
            }
        }
    }
    let mut circle = vec![usize::MAX; edges.len()];
    for root in finished.into_iter().rev() {
        let mut stack = vec![root];
        while let Some(at) = stack.pop() {
            if circle[at] == usize::MAX {
                circle[at] = root;
                stack.extend(&back[at]);
            }
        }
    }
    circle
}
