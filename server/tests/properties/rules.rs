//! Rules and servers weakened on purpose: what others do, and what this product did not get right at first.

use server::domain::clock::Timestamp;
use server::domain::policy::Limits;
use server::domain::refresh::{Decision, FRESH, SUPERSEDED, decide};
use server::domain::session::{Session, Standing, Tightened};
use server::domain::user::User;

type Given<'a> = Option<&'a Limits>;

fn tight(session: &Session, user: &User, limits: Given<'_>, now: Timestamp) -> Tightened {
    match session.standing(user, limits, now) {
        Standing::Alive(tight) => tight,
        Standing::Over(ending) => panic!("no limit passes in these worlds: {ending:?}"),
    }
}

/// Whatever is not the current token is theft.
pub fn strict_single_use(s: &Session, u: &User, l: Given<'_>, presented: u64, now: Timestamp) -> Decision {
    match decide(s, u, l, presented, now) {
        Decision::Reissue(_) | Decision::Superseded(_) => Decision::Reuse,
        other => other,
    }
}

/// For 10 s after a rotation the predecessor is given the child again, whoever holds it already.
pub fn grace_that_reissues(s: &Session, u: &User, l: Given<'_>, presented: u64, now: Timestamp) -> Decision {
    if presented + 1 == s.generation && now.since(s.handed_out_at) < FRESH {
        return Decision::Reissue(tight(s, u, l, now));
    }
    strict_single_use(s, u, l, presented, now)
}

/// For 10 s after a rotation the predecessor is given a child of its own each time.
pub fn grace_that_forks(s: &Session, u: &User, l: Given<'_>, presented: u64, now: Timestamp) -> Decision {
    if presented + 1 == s.generation && now.since(s.handed_out_at) < FRESH {
        return Decision::Rotate(tight(s, u, l, now));
    }
    strict_single_use(s, u, l, presented, now)
}

/// The predecessor is good for ever.
pub fn predecessor_for_ever(s: &Session, u: &User, l: Given<'_>, presented: u64, now: Timestamp) -> Decision {
    if presented + 1 == s.generation {
        return Decision::Reissue(tight(s, u, l, now));
    }
    decide(s, u, l, presented, now)
}

/// A tab that lost a race is a thief.
pub fn no_mercy_for_tabs(s: &Session, u: &User, l: Given<'_>, presented: u64, now: Timestamp) -> Decision {
    match decide(s, u, l, presented, now) {
        Decision::Superseded(_) => Decision::Reuse,
        other => other,
    }
}

/// Rotates as often as asked.
pub fn never_fresh(s: &Session, u: &User, l: Given<'_>, presented: u64, now: Timestamp) -> Decision {
    match decide(s, u, l, presented, now) {
        Decision::Fresh(tight) => Decision::Rotate(tight),
        other => other,
    }
}

/// Whoever comes with access that was revoked is given other tokens at once.
pub fn never_fresh_after_a_change(s: &Session, u: &User, l: Given<'_>, presented: u64, now: Timestamp) -> Decision {
    match decide(s, u, l, presented, now) {
        Decision::Fresh(tight) if u.grant_epoch != s.grant_epoch => Decision::Rotate(tight),
        other => other,
    }
}

/// An old token is only ever turned away.
pub fn never_reuse(s: &Session, u: &User, l: Given<'_>, presented: u64, now: Timestamp) -> Decision {
    match decide(s, u, l, presented, now) {
        Decision::Reuse => Decision::Superseded(tight(s, u, l, now)),
        other => other,
    }
}

/// Any old token is turned away for a minute after the last rotation, however long ago it was superseded itself.
pub fn minute_from_the_last_rotation(s: &Session, u: &User, l: Given<'_>, presented: u64, now: Timestamp) -> Decision {
    match decide(s, u, l, presented, now) {
        Decision::Reuse if now.since(s.superseded_at) < SUPERSEDED => Decision::Superseded(tight(s, u, l, now)),
        other => other,
    }
}
