//! The life of keys: to the second on chosen days, and as properties of random ones. All keys are real.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::keys::{KeyEncryptionKey, KeyRing};
use crate::domain::random::SystemRandom;

const BEGIN: Timestamp = Timestamp::from_seconds(1_800_000_000);
const DAY: Duration = Duration::from_hours(24);
const RULES: Rules = Rules {
    rotate_every: Duration::from_hours(24 * 30),
    tolerance: Duration::from_secs(30),
};

fn kek() -> KeyEncryptionKey {
    KeyEncryptionKey::from_bytes([7; 32])
}

/// The stored keys and the time, as all nodes see them.
struct World {
    records: Vec<KeyRecord>,
    now: Timestamp,
    rules: Rules,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            records: Vec::new(),
            now: BEGIN,
            rules: RULES,
        };
        world.carry_out(&missing(&[], Algorithm::EdDsa));
        world
    }

    fn carry_out(&mut self, steps: &[Step]) {
        let random = SystemRandom::default();
        for step in steps {
            let now = self.now;
            let changes = step.act.changes(&self.records, now, &mut |new| match new {
                NewKey::Signing(algorithm) => KeyRecord::generate_signing(algorithm, &kek(), now, &random),
                NewKey::Edge(number) => KeyRecord::generate_edge(number, &kek(), now, &random),
            });
            for change in changes.expect("the plan fits the keys") {
                match change.from {
                    None => self.records.push(change.key),
                    Some(from) => {
                        let stored = self.records.iter_mut().find(|key| key.id == change.key.id);
                        let stored = stored.expect("it is stored");
                        assert_eq!(stored.state, from);
                        *stored = change.key;
                    }
                }
            }
        }
    }

    fn tick(&mut self) -> Vec<Step> {
        let steps = due(&self.records, &self.rules, self.now);
        self.carry_out(&steps);
        steps
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    fn ring(&self) -> KeyRing {
        KeyRing::open(self.records.clone(), &kek()).expect("exactly one active key of each purpose")
    }

    fn key(&self, purpose: KeyPurpose, state: KeyState) -> Option<KeyRecord> {
        find(&self.records, purpose, state).cloned()
    }

    fn signing(&self, state: KeyState) -> Option<String> {
        self.key(KeyPurpose::Signing, state).map(|key| key.id)
    }
}

fn acts(steps: &[Step]) -> Vec<(&'static str, Cause)> {
    let name = |act: &Act| match act {
        Act::Publish(NewKey::Signing(_)) => "publish signing",
        Act::Publish(NewKey::Edge(_)) => "publish edge",
        Act::Install(_) => "install",
        Act::Activate(_) => "activate",
        Act::RetireAnew(_) => "retire anew",
        Act::Remove(_) => "remove",
    };
    steps.iter().map(|step| (name(&step.act), step.cause)).collect()
}

#[test]
fn j12_a_scheduled_rotation_is_right_to_the_second() {
    let mut world = World::new();
    let first = world.signing(KeyState::Active).expect("made");
    let second = Duration::from_secs(1);
    world.now = BEGIN.plus(30 * DAY).minus(LEAD + second);
    assert!(world.tick().is_empty(), "not before its time");
    world.pass(second);
    let both = [("publish signing", Cause::Schedule), ("publish edge", Cause::Schedule)];
    assert_eq!(acts(&world.tick()), both);
    assert!(world.tick().is_empty(), "once");
    let next = world.signing(KeyState::Next).expect("published");
    assert!(world.ring().verifying(&next).is_some() && world.ring().active_signing().kid() == first);
    world.pass(LEAD);
    world.now = world.now.minus(second);
    assert!(world.tick().is_empty(), "published long enough only a second later");
    world.pass(second);
    assert_eq!(acts(&world.tick()), [("activate", Cause::Schedule); 2]);
    assert_eq!(world.now, BEGIN.plus(30 * DAY), "30 days to the second");
    assert_eq!(world.ring().active_signing().kid(), next);
    // The last token of the old key, from a node that had not heard of it yet, lives until here.
    world.pass(SPREAD + MAX_ACCESS + RULES.tolerance);
    world.now = world.now.minus(second);
    assert!(world.tick().is_empty());
    assert!(world.ring().verifying(&first).is_some());
    world.pass(second);
    assert_eq!(acts(&world.tick()), [("remove", Cause::Outlived)]);
    assert!(world.ring().verifying(&first).is_none());
    assert_eq!(
        world.key(KeyPurpose::Edge, KeyState::Retired).map(|key| key.id),
        Some("edge-1".to_owned()),
        "the edge key stays for the sessions that may hold its tags"
    );
}

#[test]
fn j12_ten_years_of_the_shortest_rotation_keep_three_published_keys_and_a_byte_for_each_edge_key() {
    let mut world = World::new();
    world.rules.rotate_every = 2 * DAY;
    let (mut switches, mut most) = (0, 0);
    let end = BEGIN.plus(3650 * DAY);
    while world.now < end {
        let steps = world.tick();
        switches += steps.iter().filter(|step| matches!(step.act, Act::Activate(_))).count();
        let published = |key: &&KeyRecord| key.purpose == KeyPurpose::Signing && key.state != KeyState::Removed;
        most = most.max(world.records.iter().filter(published).count());
        world.pass(Duration::from_mins(66));
    }
    assert!((3000..=3650).contains(&switches), "{switches}");
    assert_eq!(most, 2, "a tick every hour never sees three");
    assert!(
        world
            .key(KeyPurpose::Edge, KeyState::Active)
            .and_then(|key| key.edge_number())
            > Some(1000)
    );
    world.ring();
}

#[test]
fn f13_on_schedule_never_more_than_three_signing_keys_are_published() {
    let mut world = World::new();
    world.rules.rotate_every = DAY;
    let (mut most, end) = (0, BEGIN.plus(20 * DAY));
    // Looked at as often as a server does at least, near enough: every minute.
    while world.now < end {
        world.tick();
        let published = |key: &&KeyRecord| key.purpose == KeyPurpose::Signing && key.state != KeyState::Removed;
        most = most.max(world.records.iter().filter(published).count());
        world.pass(Duration::from_mins(1));
    }
    assert!((2..=3).contains(&most), "{most}");
}

#[test]
fn j12_a_rotation_somebody_asks_for_takes_one_cache_time_and_only_one_is_under_way() {
    let mut world = World::new();
    let step = asked(&world.records, KeyPurpose::Signing).expect("nothing is under way");
    world.carry_out(&[step]);
    assert_eq!(asked(&world.records, KeyPurpose::Signing), None);
    let next = world.key(KeyPurpose::Signing, KeyState::Next).expect("published");
    assert_eq!(used_from(&next), BEGIN.plus(LEAD));
    assert!(LEAD > JWKS_CACHE, "every copy was fetched again before it signs");
    world.pass(LEAD);
    assert_eq!(acts(&world.tick()), [("activate", Cause::Schedule)]);
    assert_eq!(world.signing(KeyState::Active), Some(next.id));
}

#[test]
fn j12_a_revoked_key_is_gone_at_once_and_another_signs() {
    let mut world = World::new();
    let first = world.signing(KeyState::Active).expect("made");
    world.carry_out(&[asked(&world.records, KeyPurpose::Signing).expect("a rotation")]);
    let next = world.signing(KeyState::Next).expect("published");
    let steps = revocation(&world.records, &first).expect("it is there");
    world.carry_out(&steps);
    let ring = world.ring();
    assert!(ring.verifying(&first).is_none() && ring.verifying(&next).is_none());
    let fresh = ring.active_signing().kid().to_owned();
    assert!(fresh != first && fresh != next);
    let day = BEGIN.plus(DAY);
    assert!(ring.may_have_lost_the_key_of(BEGIN, day) && !ring.may_have_lost_the_key_of(day, day));
    assert!(
        !ring.may_have_lost_the_key_of(BEGIN, BEGIN.minus(DAY)),
        "by a clock that was ahead"
    );
    assert_eq!(revocation(&world.records, &first), Err(NotRevoked::Gone));
    assert_eq!(revocation(&world.records, "edge-1"), Err(NotRevoked::Edge));
    assert_eq!(revocation(&world.records, "nobody"), Err(NotRevoked::Unknown));
    let all: Vec<_> = world
        .records
        .iter()
        .filter(|key| key.state == KeyState::Removed)
        .collect();
    assert!(all.len() == 2 && all.iter().all(|key| key.private_sealed.is_empty()));
}

#[test]
fn j12_another_algorithm_is_a_rotation_and_the_old_key_verifies_on() {
    let mut world = World::new();
    assert!(algorithm_changed(&world.records, Algorithm::EdDsa).is_empty());
    let old = world.signing(KeyState::Active).expect("made");
    let step = |world: &World, algorithm| algorithm_changed(&world.records, algorithm);
    world.carry_out(&step(&world, Algorithm::Es256));
    assert!(step(&world, Algorithm::Es256).is_empty(), "once");
    // Back again before it was used, and there again.
    world.carry_out(&step(&world, Algorithm::EdDsa));
    assert_eq!(world.signing(KeyState::Next), None);
    world.carry_out(&step(&world, Algorithm::Es256));
    world.pass(LEAD);
    world.tick();
    let ring = world.ring();
    assert_eq!(ring.active_signing().algorithm(), Algorithm::Es256);
    let old = ring.verifying(&old).expect("it verifies on");
    assert_eq!(old.algorithm(), Algorithm::EdDsa);
    // From now on its followers are of that algorithm too.
    world.pass(30 * DAY);
    world.tick();
    let next = world.key(KeyPurpose::Signing, KeyState::Next).expect("published");
    assert_eq!(next.algorithm, KeyAlgorithm::Es256);
}

#[test]
fn j12_a_clock_that_was_decades_ahead_does_not_stop_rotation() {
    let mut world = World::new();
    world.pass(20 * 365 * DAY);
    world.tick();
    world.pass(LEAD);
    world.tick();
    world.carry_out(&[asked(&world.records, KeyPurpose::Signing).expect("a rotation")]);
    world.now = BEGIN.plus(DAY);
    assert_eq!(acts(&world.tick())[0], ("remove", Cause::ClockWentBack));
    assert_eq!(acts(&world.tick())[0], ("publish signing", Cause::Schedule));
    world.pass(LEAD);
    assert_eq!(acts(&world.tick())[0], ("activate", Cause::Schedule));
    let active = world.key(KeyPurpose::Signing, KeyState::Active).expect("one");
    assert_eq!(active.activated_at, Some(world.now));
    // Nor does it keep for decades what retired by it.
    let retired = |world: &World| {
        world
            .records
            .iter()
            .filter(|key| key.state == KeyState::Retired)
            .count()
    };
    assert!(retired(&world) > 0);
    world.pass(MAX_ACCESS + MAX_ABSOLUTE + DAY);
    while !world.tick().is_empty() {
        world.pass(LEAD);
    }
    let ahead = |key: &KeyRecord| key.state != KeyState::Removed && key.retired_at > Some(world.now);
    assert!(!world.records.iter().any(ahead));
    assert_eq!(retired(&world), 2, "those that retired just now");
}

#[test]
fn edge_keys_share_a_byte_only_when_the_first_one_is_gone() {
    let mut world = World::new();
    for _ in 1..255 {
        world.carry_out(&[asked(&world.records, KeyPurpose::Edge).expect("a rotation")]);
        world.pass(LEAD);
        let next = world.key(KeyPurpose::Edge, KeyState::Next).expect("published");
        world.carry_out(&[Step {
            act: Act::Activate(next.id),
            cause: Cause::Schedule,
        }]);
    }
    let step = asked(&world.records, KeyPurpose::Edge).expect("a rotation");
    assert_eq!(step.act, Act::Publish(NewKey::Edge(256)));
    let refused = step
        .act
        .changes(&world.records, world.now, &mut |_| unreachable!("nothing is made"));
    assert_eq!(refused.unwrap_err(), KeyError::NoFreeByte);
    world.pass(60 * DAY);
    assert_eq!(
        acts(&world.tick()),
        [("publish signing", Cause::Schedule)],
        "only the edge key waits"
    );
    world.pass(MAX_ABSOLUTE);
    world.tick();
    world.tick();
    let left: Vec<u32> = world
        .records
        .iter()
        .filter(|key| key.state != KeyState::Removed)
        .filter_map(KeyRecord::edge_number)
        .collect();
    assert_eq!(left, [255, 256]);
    assert!(world.ring().edge(1).is_some(), "256 goes by the byte of 1");
    assert_eq!((edge_byte(1), edge_byte(255), edge_byte(256)), (1, 255, 1));
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Tick,
    Rotate(KeyPurpose),
    Revoke(usize),
    /// A node that is this many seconds behind makes a pair of tokens.
    Issue(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop_oneof![1..60u64, 60..400u64, 400..5000u64, 5000..90_000u64, 90_000..3_000_000u64].prop_map(Event::Pass),
        4 => Just(Event::Tick),
        1 => Just(Event::Rotate(KeyPurpose::Signing)),
        1 => Just(Event::Rotate(KeyPurpose::Edge)),
        1 => (0..20usize).prop_map(Event::Revoke),
        4 => (0..SPREAD.as_secs()).prop_map(Event::Issue),
    ]
}

struct Access {
    kid: String,
    ends_at: Timestamp,
}

struct Refresh {
    made_at: Timestamp,
    byte: u8,
    tag: [u8; 16],
    session_ends_at: Timestamp,
}

/// A world with the tokens in it, and what slow nodes still remember.
struct Watched {
    world: World,
    rings: Vec<(Timestamp, Arc<KeyRing>)>,
    revoked: Vec<String>,
    access: Vec<Access>,
    refresh: Vec<Refresh>,
}

impl Watched {
    fn ring_of(&self, behind: u64) -> Arc<KeyRing> {
        let seen = self.world.now.minus(Duration::from_secs(behind));
        let known = self.rings.partition_point(|(at, _)| *at <= seen);
        self.rings[known.max(1) - 1].1.clone()
    }

    fn happen(&mut self, event: &Event) {
        let world = &mut self.world;
        match event {
            Event::Pass(seconds) => world.pass(Duration::from_secs(*seconds)),
            Event::Tick => {
                let before = world.records.clone();
                for step in world.tick() {
                    if let Act::Activate(id) = &step.act {
                        let key = before.iter().find(|key| key.id == *id).expect("published before");
                        assert!(world.now.since(key.created_at) >= JWKS_CACHE, "used too early");
                    }
                    assert!(!matches!(step.act, Act::Install(_)), "only in an emergency");
                }
            }
            Event::Rotate(purpose) => {
                let step: Vec<Step> = asked(&world.records, *purpose).into_iter().collect();
                world.carry_out(&step);
            }
            Event::Revoke(index) => {
                let index = index % world.records.len();
                if let Ok(steps) = revocation(&world.records, &world.records[index].id) {
                    self.revoked.extend(steps.iter().filter_map(|step| match &step.act {
                        Act::Remove(id) => Some(id.clone()),
                        _ => None,
                    }));
                    world.carry_out(&steps);
                }
            }
            Event::Issue(behind) => {
                let ring = self.ring_of(*behind);
                let now = self.world.now;
                self.access.push(Access {
                    kid: ring.active_signing().kid().to_owned(),
                    ends_at: now.plus(MAX_ACCESS).plus(RULES.tolerance),
                });
                let (byte, edge) = ring.edge_at(now);
                self.refresh.push(Refresh {
                    made_at: now,
                    byte,
                    tag: edge.tag(b"a token"),
                    session_ends_at: now.plus(MAX_ABSOLUTE),
                });
            }
        }
    }

    fn check(&mut self) {
        let (now, ring) = (self.world.now, Arc::new(self.world.ring()));
        let (_, last) = self.rings.last().expect("one");
        if ring.version() != last.version() {
            self.rings.push((now, ring.clone()));
        }
        self.access.retain(|token| now < token.ends_at);
        for token in &self.access {
            let accepted = ring.verifying(&token.kid).is_some();
            assert_eq!(accepted, !self.revoked.contains(&token.kid), "within its life");
        }
        self.refresh.retain(|token| now < token.session_ends_at);
        for token in &self.refresh {
            let key = ring.edge(token.byte).expect("its session may live");
            assert!(key.verify(b"a token", &token.tag), "another key of the same byte");
            assert_eq!(ring.edge_at(token.made_at).0, token.byte, "made again, byte for byte");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn j12_on_any_schedule_no_token_outlives_its_key(events in prop::collection::vec(event(), 1..120)) {
        let world = World::new();
        let rings = vec![(world.now, Arc::new(world.ring()))];
        let mut watched = Watched {
            world,
            rings,
            revoked: Vec::new(),
            access: Vec::new(),
            refresh: Vec::new(),
        };
        for event in &events {
            watched.happen(event);
            watched.check();
        }
    }
}
