//! The clocks of several nodes side by side (F18). Small differences are what `tokens.clock_tolerance_seconds` is for;
//! a node that is minutes off ends sessions that live and hands out tokens that the others refuse.
//!
//! Who is wrong? Nodes whose clocks agree are a group; the largest group is right, and of two as large the one nearer to
//! the database's clock. A node outside it stops at once to clear away what seems old to it, and after [`RED_AFTER`] is
//! not ready: by then every report of a node that stopped, or from before the database's own clock was set, is forgotten.
//! So neither takes a good node out of service.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Backend, ServiceError};
use crate::domain::clock::{APART, Timestamp, Watch, millis};
use crate::domain::id::NodeId;
use crate::domain::jwt::Moment;
use crate::domain::session::LimitsNow;
use crate::storage::nodes::{self, GONE_AFTER};
use crate::storage::{StorageError, Tx};

/// How often a node says that it is there.
pub const REPORT_EVERY: Duration = Duration::from_secs(10);
/// A node that was in the wrong all this time is not ready.
pub const RED_AFTER: Duration = Duration::from_secs(45);

/// A difference from a node that is gone counts for so long: what it decides lies within a minute, or within the two that
/// the nodes may be apart. Idle limits are longer, and may come early by it once it is forgotten.
const REMEMBERED_FOR: Duration = Duration::from_mins(2);

/// What this node knows of its own clock.
#[derive(Debug)]
pub(super) struct NodeClock {
    id: NodeId,
    standing: Mutex<Standing>,
    seen: Mutex<Seen>,
    /// The largest of them, in milliseconds: asked for with every token.
    ahead: AtomicU64,
    behind: AtomicU64,
    ahead_of_all: AtomicU64,
    /// Since the others were last told.
    told: Mutex<Option<Watch>>,
    /// One tells them of a jump at a time.
    telling: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Those of the last [`REMEMBERED_FOR`].
    differences: Vec<Difference>,
    slow_one: Option<SlowOne>,
}

/// A clock that is wrong and behind. Since when it is known of, and when it was last seen, by time that no clock's setting
/// changes.
#[derive(Clone, Copy, Debug)]
struct SlowOne {
    since: Duration,
    last_seen_at: Duration,
    /// How far this clock was ahead of it at first, in milliseconds.
    ahead: u64,
}

impl SlowOne {
    /// What becomes of the knowledge of one, if this clock is `ahead` of such a one now.
    fn next(known: Option<Self>, ahead: Option<u64>, now: Duration) -> Option<Self> {
        let is_gone = |one: Self| now.saturating_sub(one.last_seen_at) >= REMEMBERED_FOR;
        let known = known.filter(|one| !is_gone(*one));
        let Some(ahead) = ahead else { return known };
        let is_another = |one: Self| ahead > one.ahead.saturating_add(millis(APART).unsigned_abs());
        let begun = Self {
            since: now,
            last_seen_at: now,
            ahead,
        };
        Some(match known {
            Some(one) if !is_another(one) => Self {
                last_seen_at: now,
                ..one
            },
            _ => begun,
        })
    }

    /// By now it gets no requests, and must not hide a theft for as long as it runs.
    fn is_out(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= REMEMBERED_FOR
    }
}

/// How far this clock was from those of the others that are right.
#[derive(Clone, Copy, Debug)]
struct Difference {
    /// Of the slowest, in milliseconds.
    ahead: u64,
    /// Of the fastest, in milliseconds.
    behind: u64,
    /// Of the slowest of all, in milliseconds, of those that are wrong, too.
    ahead_of_all: u64,
    /// When that was seen, by time that no clock's setting changes.
    seen_at: Duration,
}

impl Difference {
    fn take_larger(&mut self, other: &Self) {
        self.ahead = self.ahead.max(other.ahead);
        self.behind = self.behind.max(other.behind);
        self.ahead_of_all = self.ahead_of_all.max(other.ahead_of_all);
    }
}

#[derive(Clone, Copy, Debug)]
enum Standing {
    /// It has not been compared yet.
    Unknown,
    /// It agrees with the others, or there are none.
    Right,
    /// It is wrong since then, by time that no clock's setting changes.
    WrongSince(Duration),
}

impl NodeClock {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            id,
            standing: Mutex::new(Standing::Unknown),
            seen: Mutex::default(),
            ahead: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            ahead_of_all: AtomicU64::new(0),
            told: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
        }
    }

    fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    /// Before this node serves: the first comparison. Reports that nobody took back are removed after a day.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn join_nodes(&self) -> Result<(), ServiceError> {
        let mut tx = self.store.write().await?;
        let before = nodes::database_time(&mut tx).await?.minus(Duration::from_hours(24));
        nodes::forget_old_nodes(&mut tx, before).await?;
        tx.commit().await?;
        self.compare_clocks().await?;
        Ok(())
    }

    /// Tells the other nodes what this one's clock shows, and compares. Whether it seems right.
    ///
    /// # Errors
    /// When the database cannot be asked; then what was known stays.
    pub async fn compare_clocks(&self) -> Result<bool, StorageError> {
        let clock = &self.node_clock;
        let watch = self.watch();
        let mut tx = self.store.write().await?;
        let (ahead, there) = self.ahead_of_database(&mut tx).await?;
        nodes::report_node(&mut tx, clock.id, ahead, there).await?;
        let others = self.other_clocks(&mut tx, there).await?;
        tx.commit().await?;
        *clock.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        let is_wrong = is_wrong(ahead, &others);
        self.note_difference(ahead, &others);
        let mut standing = clock.standing.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = match (*standing, is_wrong) {
            (_, false) => Standing::Right,
            (Standing::WrongSince(since), true) => Standing::WrongSince(since),
            (_, true) => {
                tracing::error!(
                    seconds_ahead_of_the_database = ahead / 1000,
                    "this node's clock is minutes from the other nodes'; it will stop being ready until that is put right"
                );
                Standing::WrongSince(self.clock.elapsed())
            }
        };
        Ok(!is_wrong)
    }

    /// How far this clock is ahead of the database's, in milliseconds, and what that one shows.
    async fn ahead_of_database(&self, tx: &mut Tx) -> Result<(i64, Timestamp), StorageError> {
        let there = nodes::database_time(tx).await?;
        Ok((self.now().as_millis().saturating_sub(there.as_millis()), there))
    }

    /// Before this node writes down a moment that others go by: if its clock was set since they were last told, they are told
    /// first.
    pub(super) async fn tell_of_a_step(&self) -> Result<(), StorageError> {
        let clock = &self.node_clock;
        let is_told_otherwise = || {
            let told = *clock.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.is_some_and(|since| self.clock_has_stepped(&since))
        };
        if is_told_otherwise() {
            let _turn = clock.telling.lock().await;
            if is_told_otherwise() {
                self.compare_clocks().await?;
            }
        }
        Ok(())
    }

    /// Before anybody is accused of theft: what the other nodes' clocks show now. One that has just joined, or was set, was not
    /// compared with yet.
    pub(super) async fn look_at_clocks(&self, tx: &mut Tx) -> Result<(), StorageError> {
        let (ahead, there) = self.ahead_of_database(tx).await?;
        let others = self.other_clocks(tx, there).await?;
        self.note_difference(ahead, &others);
        Ok(())
    }

    fn note_difference(&self, this: i64, others: &[i64]) {
        let seen_at = self.clock.elapsed();
        let [ahead, behind] = difference(this, others);
        let slowest = others.iter().chain([&this]).min().unwrap_or(&this);
        let ahead_of_all = this.abs_diff(*slowest);
        let clock = &self.node_clock;
        let mut seen = clock.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let of_a_slow_one = (ahead_of_all > ahead).then_some(ahead_of_all);
        seen.slow_one = SlowOne::next(seen.slow_one, of_a_slow_one, seen_at);
        let ahead_of_all = if seen.slow_one.is_some_and(|one| one.is_out(seen_at)) {
            ahead
        } else {
            ahead_of_all
        };
        let differences = &mut seen.differences;
        // What another node wrote matters for a while, though the node may be gone.
        differences.retain(|one| seen_at.saturating_sub(one.seen_at) < REMEMBERED_FOR);
        let difference = Difference {
            ahead,
            behind,
            ahead_of_all,
            seen_at,
        };
        // Who is refused again and again has them looked at as often: one entry a second is enough.
        match differences.last_mut() {
            Some(last) if seen_at.saturating_sub(last.seen_at) < Duration::from_secs(1) => {
                last.take_larger(&difference);
            }
            _ => differences.push(difference),
        }
        let most = |of: fn(&Difference) -> u64| differences.iter().map(of).max().unwrap_or_default();
        clock.ahead.store(most(|one| one.ahead), Ordering::Relaxed);
        clock.behind.store(most(|one| one.behind), Ordering::Relaxed);
        clock
            .ahead_of_all
            .store(most(|one| one.ahead_of_all), Ordering::Relaxed);
    }

    /// Now by the slowest of the clocks that have written what is looked at: without the leaps of this one (F17), and its lead
    /// over other nodes' (F18). Nobody is accused of anything by a clock.
    pub(super) fn slowest_now(&self) -> Timestamp {
        self.now().minus(self.has_leapt() + self.lead())
    }

    /// The same by the slowest of all, also of those that are wrong: until such a one gets no requests any more, what it has
    /// written accuses nobody.
    pub(super) fn slowest_now_of_all(&self) -> Timestamp {
        let lead = self.node_clock.ahead_of_all.load(Ordering::Relaxed);
        self.now().minus(self.has_leapt() + Duration::from_millis(lead))
    }

    /// Now as limits go by it. When somebody was last there may have been written by a slower clock, and no idle limit ends
    /// early because clocks differ (F18); by a clock that is wrong itself it does not end late either. Leaps of this clock
    /// count: whoever slept through a limit is over.
    pub(super) fn limits_now(&self) -> LimitsNow {
        let now = self.now();
        let idle_now = now.minus(self.lead().min(APART));
        LimitsNow { now, idle_now }
    }

    /// What was issued before this moment is refused, of somebody all of whose sessions end by their ids, too: what a node
    /// whose clock is behind issues from now on is not from before.
    pub(super) fn revoked_before(&self) -> Timestamp {
        self.now().minus(self.lead().min(APART))
    }

    /// Over the slowest of the nodes' clocks.
    fn lead(&self) -> Duration {
        Duration::from_millis(self.node_clock.ahead.load(Ordering::Relaxed))
    }

    /// When a token of ours is looked at: what a node whose clock is ahead has just issued is not from the future.
    pub(super) fn moment(&self) -> Moment {
        let now = self.now();
        let behind = Duration::from_millis(self.node_clock.behind.load(Ordering::Relaxed));
        // By a clock that is wrong itself nothing is taken that the others would not take.
        let fastest = now.plus(behind.min(APART));
        Moment { now, fastest }
    }

    /// How far this clock, of a command beside serving nodes, is ahead of the database's, in milliseconds: if it is minutes
    /// from the clocks of all of them. What it wrote would stand at another time, and be looked for there.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn clock_is_off(&self) -> Result<Option<i64>, ServiceError> {
        let mut tx = self.store.read().await?;
        let (ahead, there) = self.ahead_of_database(&mut tx).await?;
        let others = self.other_clocks(&mut tx, there).await?;
        let is_off = !others.is_empty() && !others.iter().any(|other| agree(ahead, *other));
        Ok(is_off.then_some(ahead))
    }

    async fn other_clocks(&self, tx: &mut Tx, there: Timestamp) -> Result<Vec<i64>, StorageError> {
        // The database's time is cut to seconds: a report of this moment may seem to come from the next.
        let until = there.plus(Duration::from_secs(1));
        nodes::list_other_clocks(tx, self.node_clock.id, there.minus(GONE_AFTER), until).await
    }

    /// Whether this node's clock is fit to serve by.
    #[must_use]
    pub fn clock_is_in_order(&self) -> bool {
        match self.node_clock.standing() {
            Standing::Unknown | Standing::Right => true,
            Standing::WrongSince(since) => self.clock.elapsed().saturating_sub(since) < RED_AFTER,
        }
    }

    /// Whether this node may remove or end what seems old to it: not by a clock that seems wrong, or that was not yet
    /// compared. An embedded database has one node, and nothing to compare with.
    #[must_use]
    pub fn may_clear_away(&self) -> bool {
        !self.store.is_postgres() || matches!(self.node_clock.standing(), Standing::Right)
    }

    /// This node is gone: the others need not remember its clock.
    ///
    /// # Errors
    /// When the database fails; they forget it by themselves.
    pub async fn leave_nodes(&self) -> Result<(), ServiceError> {
        let mut tx = self.store.write().await?;
        nodes::forget_node(&mut tx, self.node_clock.id).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn agree(a: i64, b: i64) -> bool {
    a.abs_diff(b) <= millis(APART).unsigned_abs()
}

/// How far this clock is ahead of the slowest of those that are right, and behind the fastest. All as milliseconds ahead of
/// the database's clock.
fn difference(this: i64, others: &[i64]) -> [u64; 2] {
    let is_right = |at: &usize| {
        let mut rest = others.to_vec();
        let other = std::mem::replace(&mut rest[*at], this);
        !is_wrong(other, &rest)
    };
    let right = || (0..others.len()).filter(is_right).map(|at| others[at]).chain([this]);
    let [slowest, fastest] = [right().min(), right().max()].map(|other| other.unwrap_or(this));
    [slowest, fastest].map(|other| this.abs_diff(other))
}

/// All as milliseconds ahead of the database's clock.
fn is_wrong(this: i64, others: &[i64]) -> bool {
    let group = |of: i64| others.iter().chain([&this]).filter(|node| agree(of, **node)).count();
    let weight = |of: i64| (group(of), Reverse(of.unsigned_abs()));
    let mut disagreeing = others.iter().filter(|other| !agree(this, **other));
    disagreeing.any(|other| weight(*other) > weight(this))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn wrong_ones(clocks: &[i64]) -> Vec<usize> {
        let is_wrong = |at: &usize| {
            let mut others = clocks.to_vec();
            let this = others.remove(*at);
            is_wrong(this, &others)
        };
        (0..clocks.len()).filter(is_wrong).collect()
    }

    #[test]
    fn f18_the_larger_group_of_clocks_is_right_and_of_two_as_large_the_one_nearer_to_the_database() {
        for (clocks, wrong) in [
            (vec![0], vec![]),
            (vec![7 * MINUTE], vec![]),
            (vec![0, MINUTE / 2], vec![]),
            (vec![-MINUTE, MINUTE], vec![]),
            (vec![0, 5 * MINUTE], vec![1]),
            (vec![-5 * MINUTE, 0], vec![0]),
            // The database's clock is the wrong one, alone or together with a node beside it.
            (vec![60 * MINUTE, 60 * MINUTE + 1000], vec![]),
            (vec![60 * MINUTE, 60 * MINUTE, 0], vec![2]),
            (vec![-66 * MINUTE, -60 * MINUTE], vec![0]),
            (vec![0, 0, 10 * MINUTE, 10 * MINUTE], vec![2, 3]),
            (vec![0, 10 * MINUTE, -20 * MINUTE], vec![1, 2]),
            (vec![i64::MAX, i64::MIN, 0], vec![0, 1]),
        ] {
            assert_eq!(wrong_ones(&clocks), wrong, "{clocks:?}");
        }
    }

    #[test]
    fn f18_the_difference_of_a_clock_is_from_the_slowest_and_the_fastest_that_are_right() {
        for (this, others, expected) in [
            (0, vec![], [0, 0]),
            (30_000, vec![-30_000], [60_000, 0]),
            (-30_000, vec![30_000], [0, 60_000]),
            (0, vec![-1_000, 90_000, -2_000], [2_000, 90_000]),
            // Hours away: believed by nobody.
            (0, vec![-60 * MINUTE, -1_000, 60 * MINUTE], [1_000, 0]),
            // The others are right.
            (60 * MINUTE, vec![0, 1_000], [60 * MINUTE, 0]),
            (-60 * MINUTE, vec![0, 1_000], [0, 60 * MINUTE + 1_000]),
            (60 * MINUTE, vec![0, 1_000, -60 * 24 * MINUTE], [60 * MINUTE, 0]),
            (i64::MAX, vec![0, i64::MIN], [i64::MAX, 0]),
        ] {
            assert_eq!(
                difference(this, &others),
                expected.map(i64::unsigned_abs),
                "{this} {others:?}"
            );
        }
    }

    #[test]
    fn f18_a_slow_clock_counts_for_two_minutes_however_often_it_comes_and_goes_and_a_slower_one_anew() {
        let at = Duration::from_secs;
        let hour = 3_600_000;
        let (mut known, mut told) = (None, Vec::new());
        for (second, ahead) in [
            (0, Some(hour)),
            (30, None),
            (60, Some(hour + 100_000)),
            (119, None),
            (120, Some(hour)),
            (200, None),
            // Another one.
            (210, Some(2 * hour)),
            (329, Some(2 * hour)),
            (330, Some(hour)),
            // Gone for so long that it is another.
            (450, Some(hour)),
            (600, None),
        ] {
            known = SlowOne::next(known, ahead, at(second));
            told.push(known.map(|one| one.is_out(at(second))));
        }
        let [counts, is_out] = [Some(false), Some(true)];
        let expected = [
            counts, counts, counts, counts, is_out, is_out, counts, counts, is_out, counts, None,
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn f18_whatever_the_clocks_show_one_node_is_ready() {
        let values = [0, 1, -1, 3, -3, 4, 60, -60].map(|minutes| minutes * MINUTE);
        let mut seen = 0;
        for number in 0..values.len().pow(5) {
            let clocks: Vec<i64> = (0..5)
                .map(|place| values[number / values.len().pow(place) % values.len()])
                .collect();
            assert!(wrong_ones(&clocks).len() < clocks.len(), "{clocks:?}");
            seen += 1;
        }
        assert_eq!(seen, 32_768);
    }
}
