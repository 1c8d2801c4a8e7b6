//! The parts of a verifier without any network: events, dates, readings of keys.

mod clock;

use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::ExposeSecret as _;
use serde_json::json;

use super::events::{Event, Reader};
use super::*;
use crate::domain::clock::ManualClock;
use crate::domain::dpop::Thumbprint;
use crate::domain::id::{EventId, SessionId, TokenId, UserId};
use crate::domain::jwt::{Confirmation, LogoutEvent, install_crypto, sign_access, sign_logout};
use crate::domain::keys::{Algorithm, JwksError, KeyEncryptionKey, KeyRecord, KeyRing, VerifyingKeys as _};
use crate::domain::random::Random;

const NOW: Timestamp = Timestamp::from_seconds(1_795_251_600);

#[derive(Debug)]
struct Counting(AtomicU32);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = u8::try_from(self.0.fetch_add(1, Ordering::Relaxed) % 251).expect("small");
        }
    }
}

fn ring() -> KeyRing {
    install_crypto();
    let random = Counting(AtomicU32::new(1));
    let kek = KeyEncryptionKey::from_base64(&data_encoding::BASE64.encode(&std::array::from_fn::<u8, 32, _>(|i| {
        u8::try_from(i * 7 + 3).expect("small")
    })))
    .expect("a key");
    let mut signing = KeyRecord::generate_signing(Algorithm::Es256, &kek, NOW, &random).expect("a key");
    signing.activate(NOW).expect("next");
    let mut edge = KeyRecord::generate_edge(1, &kek, NOW, &random).expect("a key");
    edge.activate(NOW).expect("next");
    KeyRing::open(vec![signing, edge], &kek).expect("a ring")
}

fn claims(session: SessionId, user: UserId, rg: u64) -> AccessClaims {
    let random = Counting(AtomicU32::new(77));
    AccessClaims {
        iss: "https://id.example".into(),
        aud: "orders".into(),
        sub: user,
        client_id: "mayfly-native".into(),
        sid: session,
        rg,
        jti: TokenId::new(NOW, &random),
        iat: NOW.as_seconds(),
        nbf: NOW.as_seconds(),
        exp: NOW.as_seconds() + 600,
        auth_time: NOW.as_seconds(),
        acr: "aal1".into(),
        amr: vec!["pwd".into()],
        roles: vec!["member".into()],
        cnf: None,
    }
}

/// An issuer that counts who asks for its keys, and has no feed.
struct Issuer {
    keys: Mutex<Result<Vec<u8>, TransportError>>,
    asked: AtomicU32,
}

#[async_trait]
impl Transport for Issuer {
    async fn get(&self, path: &str) -> Result<Vec<u8>, TransportError> {
        assert_eq!(path, KEYS_PATH);
        self.asked.fetch_add(1, Ordering::SeqCst);
        locked(&self.keys).clone()
    }

    async fn open(&self, _: &str) -> Result<Box<dyn Chunks>, TransportError> {
        Err(TransportError::Status(404))
    }
}

pub(super) struct World {
    ring: KeyRing,
    issuer: Arc<Issuer>,
    clock: Arc<ManualClock>,
    pub(super) checker: Arc<Checker>,
    session: SessionId,
    user: UserId,
}

impl World {
    pub(super) fn new() -> Self {
        let ring = ring();
        let issuer = Arc::new(Issuer {
            keys: Mutex::new(Ok(ring.jwks().to_string().into_bytes())),
            asked: AtomicU32::new(0),
        });
        let clock = Arc::new(ManualClock::new(NOW));
        let expected = Expected {
            issuer: "https://id.example".into(),
            audience: "orders".into(),
            clock_tolerance: Duration::from_secs(30),
            bound: BOUND,
            address: Some("https://orders.example".into()),
        };
        let random = Counting(AtomicU32::new(5));
        Self {
            checker: Arc::new(Checker::new(expected, issuer.clone(), clock.clone())),
            ring,
            issuer,
            clock,
            session: SessionId::new(NOW, &random),
            user: UserId::new(NOW, &random),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn bound_token(&self, jkt: Thumbprint) -> String {
        let claims = AccessClaims {
            cnf: Some(Confirmation { jkt }),
            ..claims(self.session, self.user, 0)
        };
        let signed = sign_access(&self.ring, &claims).expect("signs");
        signed.expose_secret().to_owned()
    }

    pub(super) fn token(&self, rg: u64) -> String {
        let signed = sign_access(&self.ring, &claims(self.session, self.user, rg)).expect("signs");
        signed.expose_secret().to_owned()
    }

    /// Opens the stream at this moment and hears that nothing is missing as of now.
    pub(super) fn hear(&self, entries: &[serde_json::Value]) {
        let now = self.clock.now();
        locked(&self.checker.follower).opened(now);
        let revoked = |entry: &serde_json::Value| format!("event: revoked\nid: 1\ndata: {entry}\n\n");
        let text = entries
            .iter()
            .map(revoked)
            .chain([beat(9, now, now)])
            .collect::<String>();
        let watch = Watch::begin(self.clock.as_ref());
        if self.checker.received(text.as_bytes(), &watch) != Err(Broken::ClockSetBack) {
            return;
        }
        assert_eq!(locked(&self.checker.follower).cursor(), 0, "everything anew");
        locked(&self.checker.follower).opened(now);
        self.checker.received(text.as_bytes(), &watch).expect("understood");
    }
}

fn beat(cursor: u64, as_of: Timestamp, at: Timestamp) -> String {
    let data = json!({ "cursor": cursor, "as_of": as_of.as_millis(), "at": at.as_millis() });
    format!("event: heartbeat\nid: {cursor}\ndata: {data}\n\n")
}

#[tokio::test]
async fn a_good_token_passes_a_revoked_one_and_old_knowledge_do_not() {
    let world = World::new();
    let token = world.token(3);
    let unknown = Err(Denied::Unknown("revocations are not known"));
    assert_eq!(
        world.checker.check(&token).await.map(drop),
        unknown,
        "before anything was heard"
    );
    world.hear(&[]);
    assert_eq!(world.checker.check(&token).await.expect("good").sid, world.session);

    world.clock.advance(BOUND);
    world.checker.check(&token).await.expect("just within the bound");
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.checker.check(&token).await.map(drop), unknown);

    let until = NOW.as_millis() + 900_000;
    let sid = world.session.to_short();
    world.hear(&[json!({ "cursor": 1, "sid": sid, "below": 3, "at": 0, "until": until })]);
    world.checker.check(&token).await.expect("of this generation");
    assert_eq!(world.checker.check(&world.token(2)).await, Err(Denied::Revoked));
    world.hear(&[json!({ "cursor": 2, "sid": sid, "at": 0, "until": until })]);
    assert_eq!(world.checker.check(&token).await, Err(Denied::Revoked));
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(
        world.checker.check(&token).await,
        Err(Denied::Revoked),
        "known for certain, however old"
    );
}

#[tokio::test]
async fn r16_a_logout_whose_key_cannot_be_read_is_never_refused_for_good() {
    let shop = "svc-AAAAAAAAAAAAAAAAAAAAAA";
    let world = World::new();
    let claims = LogoutClaims {
        iss: "https://id.example".into(),
        aud: shop.into(),
        iat: NOW.as_seconds(),
        exp: NOW.as_seconds() + 120,
        jti: EventId::new(NOW, &Counting(AtomicU32::new(9))),
        sub: world.user,
        sid: world.session,
        events: LogoutEvent,
    };
    let signed = sign_logout(&world.ring, &claims).expect("signs");
    let token = signed.expose_secret();
    // Keys of another past, as after a recovery, and an issuer that is not back yet.
    let old = json!({ "keys": [] }).to_string().into_bytes();
    let new = std::mem::replace(&mut *locked(&world.issuer.keys), Ok(old));
    world.checker.read_keys(None).await.expect("read");
    *locked(&world.issuer.keys) = Err(TransportError::Status(502));
    for _ in 0..3 {
        let checked = world.checker.check_logout(token, shop).await;
        assert!(matches!(checked, Err(Denied::Unknown(_))), "{checked:?}");
        world.clock.advance(Duration::from_secs(1));
    }
    *locked(&world.issuer.keys) = new;
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(world.checker.check_logout(token, shop).await, Ok(claims));
    // What is wrong in itself is refused, and a person's token is no logout.
    let others = world.checker.check_logout(token, "svc-AAAAAAAAAAAAAAAAAAAAAQ").await;
    assert_eq!(others, Err(Denied::Refused(Refusal::Audience)));
    let persons = world.checker.check_logout(&world.token(1), shop).await;
    assert_eq!(persons, Err(Denied::Refused(Refusal::Typ)));
}

#[tokio::test]
async fn each_kind_of_revocation_refuses_the_tokens_it_is_about() {
    let until = NOW.as_millis() + 900_000;
    let before = |millis: i64| json!({ "cursor": 1, "before": NOW.as_millis() + millis, "at": 0, "until": until });
    let named = |mut entry: serde_json::Value, name: &str, value: String| {
        entry[name] = value.into();
        entry
    };
    let plain = json!({ "cursor": 1, "at": 0, "until": until });
    let world = World::new();
    let kid = world.ring.active_signing().kid().to_owned();
    let jti = claims(world.session, world.user, 0).jti.to_short();
    let cases = [
        (named(plain.clone(), "kid", kid), true),
        (named(plain.clone(), "kid", "another".into()), false),
        (named(plain.clone(), "jti", jti), true),
        (named(before(1), "sub", world.user.to_string()), true),
        (named(before(0), "sub", world.user.to_string()), false),
        (named(before(1), "sub", "somebody else".into()), false),
    ];
    for (entry, revoked) in cases {
        let world = World::new();
        let token = {
            // The same session and key in every world.
            world.hear(std::slice::from_ref(&entry));
            world.token(0)
        };
        let checked = world.checker.check(&token).await;
        // Each world has a key of its own.
        if entry.get("kid").is_none() {
            assert_eq!(checked.is_err(), revoked, "{entry}: {checked:?}");
        }
    }
    let world = World::new();
    let kid = world.ring.active_signing().kid().to_owned();
    world.hear(&[named(plain, "kid", kid)]);
    assert_eq!(world.checker.check(&world.token(0)).await, Err(Denied::Revoked));
}

#[tokio::test]
async fn j13_ten_thousand_unknown_keys_cost_one_reading_in_thirty_seconds() {
    let world = World::new();
    world.hear(&[]);
    let good = world.token(0);
    world.checker.check(&good).await.expect("the first reading");
    assert_eq!(world.issuer.asked.load(Ordering::SeqCst), 1);
    let rest = good.split_once('.').expect("three parts").1;
    let with_kid = |kid: &str| {
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }).to_string();
        format!("{}.{rest}", data_encoding::BASE64URL_NOPAD.encode(header.as_bytes()))
    };
    world.clock.advance(keys::PAUSE);
    for n in 0..10_000 {
        let refused = world.checker.check(&with_kid(&format!("invented-{n}"))).await;
        assert_eq!(refused, Err(Denied::Refused(Refusal::KeyUnknown)));
    }
    assert_eq!(world.issuer.asked.load(Ordering::SeqCst), 2);
    world.clock.advance(Duration::from_millis(29_999));
    assert!(world.checker.check(&with_kid("another")).await.is_err());
    assert_eq!(world.issuer.asked.load(Ordering::SeqCst), 2);
    world.clock.advance(Duration::from_millis(1));
    assert!(world.checker.check(&with_kid("another")).await.is_err());
    assert_eq!(world.issuer.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn f15_a_stale_key_set_costs_one_reading_and_no_outage() {
    let world = World::new();
    world.hear(&[]);
    let old = world.token(0);
    world.checker.check(&old).await.expect("the first reading");
    // The issuer signs with another key, and publishes both: what the verifier has is old now.
    let issuer = ring();
    let newer = World { ring: issuer, ..world };
    let mut both = newer.ring.jwks();
    let published = serde_json::from_slice::<serde_json::Value>(&locked(&newer.issuer.keys).clone().expect("keys"));
    both["keys"]
        .as_array_mut()
        .expect("keys")
        .extend(published.expect("JSON")["keys"].as_array().expect("keys").clone());
    *locked(&newer.issuer.keys) = Ok(both.to_string().into_bytes());
    newer.clock.advance(keys::PAUSE);
    newer.hear(&[]);
    let new = newer.token(0);
    for token in [&new, &old, &new] {
        newer.checker.check(token).await.expect("nobody is refused");
    }
    let asked = || newer.issuer.asked.load(Ordering::SeqCst);
    assert_eq!(asked(), 2, "one reading for the new key");
    // Tokens of keys that nobody has, all within thirty seconds of it, bring about no other.
    let rest = new.split_once('.').expect("three parts").1;
    for n in 0..10_000 {
        newer
            .clock
            .set(NOW.plus(keys::PAUSE + Duration::from_millis(n * 3 - n / 10)));
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": format!("invented-{n}") }).to_string();
        let token = format!("{}.{rest}", data_encoding::BASE64URL_NOPAD.encode(header.as_bytes()));
        let refused = newer.checker.check(&token).await;
        assert_eq!(refused, Err(Denied::Refused(Refusal::KeyUnknown)));
    }
    assert_eq!(asked(), 2);
    newer.hear(&[]);
    for token in [&new, &old] {
        newer
            .checker
            .check(token)
            .await
            .expect("nor is anybody refused for them");
    }
}

/// In an emergency another key signs at once, and a stranger's invented one may just have used up the reading for it.
#[tokio::test]
async fn j12_keys_are_read_anew_when_one_was_removed_whatever_strangers_have_asked_for() {
    let world = World::new();
    let checker = world.checker.clone();
    let following = tokio::spawn(async move { checker.follow_keys().await });
    let issuer = world.issuer.clone();
    let asked = || issuer.asked.load(Ordering::SeqCst);
    let until = async |times: u32| {
        let reads = async {
            while asked() < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reads)
            .await
            .expect("it reads");
    };
    until(1).await;
    world.hear(&[]);
    let rest = world.token(0);
    let rest = rest.split_once('.').expect("three parts").1;
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "invented" }).to_string();
    let invented = format!("{}.{rest}", data_encoding::BASE64URL_NOPAD.encode(header.as_bytes()));
    let refused = Err(Denied::Refused(Refusal::KeyUnknown));
    assert_eq!(world.checker.check(&invented).await, refused);
    assert_eq!(asked(), 2);

    let newer = World { ring: ring(), ..world };
    *locked(&newer.issuer.keys) = Ok(newer.ring.jwks().to_string().into_bytes());
    let new = newer.token(0);
    assert_eq!(newer.checker.check(&new).await, refused, "not so soon again");
    let at = newer.now().as_millis();
    newer.hear(&[json!({ "cursor": 1, "kid": "removed", "at": at, "until": at + 3_600_000 })]);
    // Once more a moment later, as the node that was asked may not have heard of it yet.
    for times in [3, 4] {
        until(times).await;
    }
    newer.checker.check(&new).await.expect("its key is known");
    following.abort();
}

#[tokio::test]
async fn j12_nobody_goes_by_keys_that_were_read_long_ago() {
    let world = World::new();
    world.hear(&[]);
    world.checker.check(&world.token(0)).await.expect("good");
    *locked(&world.issuer.keys) = Err(TransportError::Failed("no route".into()));
    world.clock.advance(keys::MOST_STALE);
    world.hear(&[]);
    let now = world.now().as_seconds();
    let newer = AccessClaims {
        iat: now,
        nbf: now,
        exp: now + 600,
        ..claims(world.session, world.user, 0)
    };
    let newer = sign_access(&world.ring, &newer).expect("signs");
    world.checker.check(newer.expose_secret()).await.expect("good");
    world.clock.advance(Duration::from_secs(1));
    world.hear(&[]);
    assert_eq!(
        world.checker.check(newer.expose_secret()).await,
        Err(Denied::Unknown("keys are too old"))
    );
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_not_known_to_be_wrong() {
    let world = World::new();
    world.hear(&[]);
    *locked(&world.issuer.keys) = Err(TransportError::Failed("no route".into()));
    let token = world.token(0);
    assert_eq!(
        world.checker.check(&token).await,
        Err(Denied::Unknown("keys cannot be read"))
    );
    assert_eq!(
        world.checker.check(&token).await,
        Err(Denied::Unknown("keys are not known"))
    );
    let garbage = world.checker.check("a.b.c").await;
    assert!(
        matches!(garbage, Err(Denied::Refused(_))),
        "what is no token at all is still refused"
    );
}

#[test]
fn published_keys_are_read_strictly() {
    let ring = ring();
    let good = ring.jwks();
    let key = good["keys"][0].clone();
    let read = |document: serde_json::Value| PublicKeys::read(document.to_string().as_bytes()).map(drop);
    let keys = PublicKeys::read(good.to_string().as_bytes()).expect("ours");
    assert!(keys.find(ring.active_signing().kid()).is_some());
    assert_eq!(read(json!({ "keys": [key, key] })), Err(JwksError::Twice));
    let mut private = key.clone();
    private["d"] = "AA".into();
    assert_eq!(read(json!({ "keys": [private] })), Err(JwksError::Private));
    assert_eq!(read(json!({ "keys": vec![key.clone(); 65] })), Err(JwksError::TooMany));
    assert_eq!(read(json!([])), Err(JwksError::Form));
    for (member, value) in [
        ("kty", "RSA"),
        ("crv", "P-384"),
        ("use", "enc"),
        ("alg", "HS256"),
        ("x", "AA"),
    ] {
        let mut other = key.clone();
        other[member] = value.into();
        let keys = PublicKeys::read(json!({ "keys": [other] }).to_string().as_bytes()).expect("a set");
        assert!(keys.find(ring.active_signing().kid()).is_none(), "{member}={value}");
    }
}

#[test]
fn knowledge_held_up_on_the_way_is_old_when_it_arrives() {
    let at = |seconds: u64| NOW.plus(Duration::from_secs(seconds));
    // The node's clock is an hour ahead of ours.
    let node = |seconds: u64| at(seconds + 3600);
    let mut follower = Follower::new(BOUND);
    // Sent at 0; everything takes five seconds.
    follower.opened(at(0));
    follower
        .received(beat(1, node(0), node(0)).as_bytes(), at(5), true)
        .expect("reads");
    assert!(!follower.is_fresh(at(5)), "as of 0 at best");
    follower
        .received(beat(1, node(4), node(4)).as_bytes(), at(9), true)
        .expect("reads");
    assert!(!follower.is_fresh(at(9)));
    // It catches up.
    follower
        .received(beat(1, node(10), node(10)).as_bytes(), at(10), true)
        .expect("reads");
    assert!(follower.is_fresh(at(10)) && follower.is_fresh(at(11)) && !follower.is_fresh(at(12)));
    // The node's clock jumps ahead: not fresher than its arrival.
    follower
        .received(beat(1, node(999), node(999)).as_bytes(), at(13), true)
        .expect("reads");
    assert!(follower.is_fresh(at(14)) && !follower.is_fresh(at(15)));
    // The node itself has lost touch with its database.
    follower.opened(at(20));
    follower
        .received(beat(1, node(15), node(20)).as_bytes(), at(20), true)
        .expect("reads");
    assert!(!follower.is_fresh(at(20)));
    // Our own clock is set back.
    follower
        .received(beat(1, node(20), node(20)).as_bytes(), at(20), true)
        .expect("reads");
    assert!(follower.is_fresh(at(20)) && !follower.is_fresh(at(1)));
}

#[test]
fn knowledge_is_no_older_for_a_stream_that_has_much_to_tell_first() {
    let (at, node) = (
        |seconds: u64| NOW.plus(Duration::from_secs(seconds)),
        |seconds: u64| NOW.plus(Duration::from_secs(1000 + seconds)),
    );
    let opened = format!(
        "event: opened\nid: 0\ndata: {}\n\n",
        json!({ "at": node(0).as_millis() })
    );
    for (opened, is_fresh) in [(opened.as_str(), true), ("", false)] {
        let mut follower = Follower::new(BOUND);
        follower.opened(at(0));
        follower.received(opened.as_bytes(), at(0), true).expect("reads");
        assert!(!follower.is_fresh(at(0)), "it has heard nothing of revocations yet");
        let told = json!({ "cursor": 1, "kid": "k", "at": 1, "until": node(900).as_millis() });
        let told = format!("event: revoked\nid: 1\ndata: {told}\n\n");
        follower.received(told.as_bytes(), at(9), true).expect("reads");
        assert!(!follower.is_fresh(at(9)), "nor everything");
        let beat = beat(1, node(10), node(10));
        follower.received(beat.as_bytes(), at(10), true).expect("reads");
        // Without the moment of opening the age of all knowledge is counted from the sending.
        assert_eq!(follower.is_fresh(at(10)), is_fresh);
    }
}

#[test]
fn what_makes_no_sense_breaks_the_stream() {
    let now = NOW;
    let opened = || {
        let mut follower = Follower::new(BOUND);
        follower.opened(now);
        follower
    };
    for text in [
        "event: revoked\ndata: {\"cursor\":1,\"until\":5,\"device\":\"x\"}\n\n",
        "event: revoked\ndata: nothing\n\n",
        "event: heartbeat\ndata: {}\n\n",
        "event: opened\ndata: {}\n\n",
    ] {
        assert_eq!(
            opened().received(text.as_bytes(), now, true),
            Err(Broken::Content),
            "{text}"
        );
    }
    assert_eq!(opened().received(&vec![b'x'; 70_000], now, true), Err(Broken::Stream));
    assert_eq!(opened().received(b"data: \xff\n", now, true), Err(Broken::Stream));
    opened()
        .received(b": a comment\n\nevent: later\ndata: x\n\n", now, true)
        .expect("ignored");
}

#[test]
fn events_are_put_together_however_they_are_cut() {
    let text = "\u{feff}event: a\r\ndata: one\rdata:two\nid: 7\n\ndata\n\nevent: none\n\n:c\ndata:  x\n\n";
    let expected = [("a", "one\ntwo"), ("", ""), ("", " x")].map(|(kind, data)| Event {
        kind: kind.into(),
        data: data.into(),
    });
    for size in 1..text.len() {
        let mut reader = Reader::default();
        let events: Vec<Event> = text
            .as_bytes()
            .chunks(size)
            .flat_map(|piece| reader.read(piece).expect("a stream"))
            .collect();
        assert_eq!(events, expected, "in pieces of {size}");
    }
}
