//! Steps in plain words, for the report. Must not know how they were found.

use crate::state::State;
use crate::world::{Action, Slot, Step, Target, Verdict};

/// Tells a way through a world, one line per step. The token in the jar at its beginning has number 0.
pub fn tell(way: &[(State, Step)]) -> Vec<String> {
    let mut generation = way.first().map_or(0, |(begin, _)| i32::from(begin.jar()));
    let mut lines = Vec::new();
    for (number, (before, step)) in way.iter().enumerate() {
        let line = line(generation, before, step);
        lines.push(format!("{:>2}. {line}", number + 1));
        let writes = !matches!(step.action, Action::Read(_) | Action::ComeBack);
        let rotated = step.verdict == Some(Verdict::Rotate) && writes && !is_taken_again(step);
        generation += i32::from(rotated);
    }
    lines
}

/// What was decided no longer held when it was to be written.
fn is_taken_again(step: &Step) -> bool {
    let gives = matches!(step.verdict, Some(Verdict::Rotate | Verdict::Reissue));
    let written = matches!((step.action, step.to), (Action::Write(_), Target::State(_)));
    gives && written && !step.victim_gains
}

fn line(generation: i32, before: &State, step: &Step) -> String {
    let token = |distance: u8| format!("token {}", generation - i32::from(distance));
    let held = || before.held_by_thief().map_or_else(|| "nothing".to_owned(), token);
    let carried = |slot: &Slot| match *slot {
        Slot::Free => String::new(),
        Slot::Request { token: t, copy, .. } => {
            format!(
                "{} with {}",
                if copy { "the copy of a request" } else { "a request" },
                token(t)
            )
        }
        Slot::Decided { token: t, what, .. } => format!("a request with {} ({})", token(t), word(what)),
        Slot::Answer { token: t, .. } => format!("an answer with {}", token(t)),
    };
    let mut said = match &step.action {
        Action::Send => format!("A tab sends a refresh with {}.", token(before.jar())),
        Action::Handle(slot) => format!("The server handles {}", carried(slot)),
        Action::Read(slot) => format!("A node reads the row for {}", carried(slot)),
        Action::Write(slot) => format!("That node writes: {}", carried(slot)),
        Action::Lose(slot) => format!("On its way is lost: {}.", carried(slot)),
        Action::Copy(slot) => format!("The network doubles {}.", carried(slot)),
        Action::Deliver(slot) => format!("Into the cookie jar comes {}.", carried(slot)),
        Action::Show => format!(
            "A page is asked for with the access token of {}: it has arrived.",
            token(0)
        ),
        Action::Visit => format!("The victim comes with {}", token(before.jar())),
        Action::Pause(seconds) => format!("{seconds} s pass."),
        Action::Change => "The person's roles change, or the signing key is revoked.".to_owned(),
        Action::ComeBack => format!(
            "Nothing more arrives; two hours later a tab presents {}",
            token(before.jar())
        ),
        Action::Steal => format!("A thief copies the jar: {}.", token(before.jar())),
        Action::ThiefRefreshes => format!("The thief presents {}", held()),
        Action::ThiefShows => format!("The thief uses the access token of {}.", token(0)),
    };
    said += &step.verdict.map_or_else(String::new, |verdict| match verdict {
        _ if is_taken_again(step) => ": too late, it decides again.".to_owned(),
        Verdict::Rotate => format!(": {}, token {}.", word(verdict), generation + 1),
        Verdict::Reissue => format!(": {}, {}.", word(verdict), token(0)),
        _ => format!(": {}.", word(verdict)),
    });
    match step.to {
        Target::State(_) => said,
        Target::Ended => format!("{said} The session ends with an alert."),
        Target::Excused => format!("{said} (a documented exception)"),
        Target::Broken(property, why) => format!("{said} PROPERTY {property:?} IS BROKEN: {why}."),
    }
}

/// The name that the header `mayfly-refresh` has for it.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Rotate => "rotated",
        Verdict::Reissue => "reissued",
        Verdict::Fresh => "fresh",
        Verdict::Superseded => "superseded",
        Verdict::Reuse => "reused",
        Verdict::Ahead => "ahead",
    }
}
