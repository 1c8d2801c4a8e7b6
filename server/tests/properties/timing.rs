//! Whether the time of a comparison tells how much of a secret was guessed right (J14, R7), measured as dudect does it
//! (Reparaz, Balasch, Verbauwhede, "Dude, is my code constant time?", 2017).
//!
//! What is presented is wrong in its first byte or in its last one, in random order. Each comparison is timed, the
//! slowest times are left out at several thresholds, and Welch's t-test says how surely the two kinds differ. Noise of
//! the machine can look like a difference once, but a leak does so every time: all of [`REPETITIONS`] have to find it.
//!
//! The procedure has to show first that it could fail: it finds a comparison that ends at the first wrong byte, alone
//! and behind the product's own work, and finds nothing between two kinds that are one. What is measured is this build;
//! the full run measures the optimised one, too.
//!
//! Not measured: web sessions, links and recovery codes, which are looked up by a hash and never compared; codes of six
//! digits, which the library compares as one number; passwords, behind milliseconds of argon2id; a device's secret,
//! which is hashed and compared as a client's, but between two queries. Comparisons with `==` are looked for in the
//! source (`j14_secrets_are_compared_in_constant_time_only`).

use std::hint::black_box;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderValue};
use data_encoding::BASE64URL_NOPAD;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use server::domain::client::Authentication;
use server::domain::clock::Timestamp;
use server::domain::dpop::{self, Expected, Nonces, Refusal};
use server::domain::id::SessionId;
use server::domain::keys::{Algorithm, KeyEncryptionKey, KeyRecord, KeyRing};
use server::domain::random::SystemRandom;
use server::domain::refresh::{self, Presented, SessionSecret};
use server::http::protect::{FORM_TOKEN_HEADER, header_form_token_matches};
use server::http::web_session::new_form_token;
use tower_sessions::Session;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Result as StoreResult, SessionStore};
use uuid::Uuid;
use zeroize::Zeroizing;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// From this |t| on, two kinds differ (the bound of dudect).
const BOUND: f64 = 10.0;
/// With at least this |t| a comparison is found that does nothing but leak.
const FAR: f64 = 5.0 * BOUND;
/// How many times in a row a difference has to be found to be one.
const REPETITIONS: usize = 4;
/// Calls in one measurement: it has to be long beside the steps of the clock.
const CALLS: usize = 4;
/// Measurements in a row during which the machine is as busy as it is.
const MOMENT: usize = 64;
/// How much is kept, the quickest first, in percent.
const KEPT: [usize; 6] = [30, 50, 70, 80, 90, 99];
/// A kind of which fewer are left says nothing.
const FEWEST: usize = 100;

/// One measurement in nanoseconds.
struct Sample {
    /// Wrong at the second place, not at the first.
    is_late: bool,
    nanos: f64,
}

fn full() -> bool {
    std::env::var("MAYFLY_TEST_FULL").is_ok_and(|value| value == "1")
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a comparison took; the tests' own time, not the product's"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Measurements would disturb each other: one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("few"))
}

/// What nobody should write: it ends at the first byte that is wrong.
#[inline(never)]
fn naive(secret: &[u8], presented: &[u8]) -> bool {
    let mut pairs = secret.iter().zip(presented);
    secret.len() == presented.len() && pairs.all(|(kept, sent)| black_box(*kept) == black_box(*sent))
}

/// A letter other than this byte: one may stand in every text of ours, and in a tag it is a byte like any other.
fn other_letter(byte: u8, random: &mut ChaCha20Rng) -> u8 {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef";
    loop {
        let [drawn, ..] = random.next_u32().to_le_bytes();
        let letter = LETTERS[usize::from(drawn % 32)];
        if letter != byte {
            return letter;
        }
    }
}

/// Times many comparisons with a secret that is wrong at one of two places: |t| of the difference.
///
/// `present` brings the bytes into the form that is compared, outside of the measured time. `is_right` gets both.
fn difference<T>(
    secret: &[u8],
    places: [usize; 2],
    random: &mut ChaCha20Rng,
    present: &impl Fn(&[u8]) -> T,
    is_right: &impl Fn(&[u8], &T) -> bool,
) -> f64 {
    let count = if full() { 40_000 } else { 10_000 };
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let is_late = random.next_u32() % 2 == 1;
        let place = places[usize::from(is_late)];
        let mut bytes = secret.to_vec();
        bytes[place] = other_letter(secret[place], random);
        let presented = present(&bytes);
        let mut accepted = false;
        let begun = now();
        for _ in 0..CALLS {
            accepted |= black_box(is_right(black_box(bytes.as_slice()), black_box(&presented)));
        }
        let took = now() - begun;
        assert!(!accepted, "a byte is wrong");
        samples.push(Sample {
            is_late,
            nanos: took.as_secs_f64() * 1e9,
        });
    }
    take_off_moments(&mut samples);
    largest_t(&samples)
}

/// Takes off what the machine did for longer than a measurement, which is the same for both kinds.
fn take_off_moments(samples: &mut [Sample]) {
    for moment in samples.chunks_mut(MOMENT) {
        // Not the mean, which the slowest make, nor the median, which lies between the kinds where they differ.
        let quick = sorted(moment)[moment.len() / 10];
        for sample in moment {
            sample.nanos -= quick;
        }
    }
}

fn sorted(samples: &[Sample]) -> Vec<f64> {
    let mut times: Vec<f64> = samples.iter().map(|sample| sample.nanos).collect();
    times.sort_unstable_by(f64::total_cmp);
    times
}

/// |t| where it is largest, of what is left when the slowest go.
fn largest_t(samples: &[Sample]) -> f64 {
    let sorted = sorted(samples);
    let kept = |is_late: bool, most: f64| -> Vec<f64> {
        let kept = samples
            .iter()
            .filter(|sample| sample.is_late == is_late && sample.nanos <= most);
        kept.map(|sample| sample.nanos).collect()
    };
    let mut largest = 0.0_f64;
    for percent in KEPT {
        let most = sorted[sorted.len() * percent / 100];
        let (early, late) = (kept(false, most), kept(true, most));
        if early.len().min(late.len()) >= FEWEST {
            largest = largest.max(welch(&early, &late).abs());
        }
    }
    largest
}

/// Welch's t.
fn welch(one: &[f64], other: &[f64]) -> f64 {
    let mean_and_error = |times: &[f64]| {
        let count = float(times.len());
        let mean = times.iter().sum::<f64>() / count;
        let squares: f64 = times.iter().map(|time| (time - mean).powi(2)).sum();
        // The clock knows nothing shorter than a nanosecond, and so there is something to divide by.
        (mean, (squares / (count - 1.0)).max(1.0) / count)
    };
    let ((one, error), (other, other_error)) = (mean_and_error(one), mean_and_error(other));
    (other - one) / (error + other_error).sqrt()
}

/// The least |t| of the repetitions. Below the bound it is no leak, and no more of them are needed.
fn least(mut repetition: impl FnMut() -> f64) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..REPETITIONS {
        least = least.min(repetition());
        if least < BOUND {
            break;
        }
    }
    least
}

/// The largest |t| of the repetitions: whether a leak can be seen at all. Once it is far, no more of them are needed.
fn most(mut repetition: impl FnMut() -> f64) -> f64 {
    let mut most: f64 = 0.0;
    for _ in 0..REPETITIONS {
        most = most.max(repetition());
        if most >= FAR {
            break;
        }
    }
    most
}

/// Of a comparison that ends at the first wrong byte, between these places.
fn naive_difference(secret: &[u8], places: [usize; 2], random: &mut ChaCha20Rng) -> f64 {
    let is_right = |_: &[u8], presented: &Vec<u8>| naive(secret, presented);
    difference(secret, places, random, &<[u8]>::to_vec, &is_right)
}

/// Fails if a comparison of the product takes longer the more of the secret is right, or if that could not be seen.
#[track_caller]
fn tells_nothing<T>(what: &str, secret: &[u8], present: impl Fn(&[u8]) -> T, is_right: impl Fn(&T) -> bool) {
    assert!(is_right(&present(secret)), "{what}: the right one is accepted");
    let (places, mut random) = ([0, secret.len() - 1], ChaCha20Rng::from_seed([14; 32]));
    let alone = most(|| naive_difference(secret, places, &mut random));
    let behind = |bytes: &[u8], presented: &T| {
        let accepted = is_right(presented);
        black_box(naive(secret, bytes)) || accepted
    };
    let behind = most(|| difference(secret, places, &mut random, &present, &behind));
    let own = |_: &[u8], presented: &T| is_right(presented);
    let own = least(|| difference(secret, places, &mut random, &present, &own));
    println!(
        "{what}, {} bytes: |t| = {own:.1}; of a comparison that ends at the first wrong byte {alone:.0}, and behind \
         the same work {behind:.0}",
        secret.len()
    );
    assert!(
        alone >= FAR,
        "{what}: a leak of this length is not seen clearly: {alone}"
    );
    assert!(behind >= BOUND, "{what}: a leak would not be seen here: {behind}");
    assert!(own < BOUND, "{what}: the time tells how much is right: {own}");
}

#[test]
fn j14_measuring_finds_a_comparison_that_ends_at_the_first_wrong_byte_and_nothing_where_nothing_is() {
    let _turn = turn();
    let mut random = ChaCha20Rng::from_seed([14; 32]);
    for length in [16, 32] {
        let secret = vec![7_u8; length];
        let last = length - 1;
        let found = most(|| naive_difference(&secret, [0, last], &mut random));
        let nothing = least(|| naive_difference(&secret, [last, last], &mut random));
        println!("{length} bytes, first or last one wrong: |t| = {found:.0}; always the last one: {nothing:.1}");
        assert!(found >= FAR, "{length} bytes: {found}");
        assert!(nothing < BOUND, "{length} bytes: {nothing}");
    }
}

/// A refresh token of what is signed and the tag over it.
fn token(signed: &[u8], outer: &[u8]) -> String {
    format!("mfr_{}", BASE64URL_NOPAD.encode(&[signed, outer].concat()))
}

#[test]
fn j14_the_time_of_a_wrong_refresh_token_does_not_tell_how_much_of_its_tags_is_right() {
    if !full() {
        println!("skipped: only in the full run");
        return;
    }
    let _turn = turn();
    let (random, kek) = (SystemRandom::default(), KeyEncryptionKey::from_bytes([7; 32]));
    let mut signing = KeyRecord::generate_signing(Algorithm::EdDsa, &kek, NOW, &random).expect("a key");
    signing.activate(NOW).expect("activates");
    let mut edge = KeyRecord::generate_edge(1, &kek, NOW, &random).expect("a key");
    edge.activate(NOW).expect("activates");
    let ring = KeyRing::open(vec![signing, edge], &kek).expect("opens");
    let secret = SessionSecret::new(Zeroizing::new([3; 32]));
    let genuine = refresh::derive(&ring, &secret, SessionId(Uuid::from_u128(1)), 17, NOW);
    let encoded = genuine.expose_secret().strip_prefix("mfr_").expect("our prefix");
    let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).expect("ours");
    // TOKENS.md §2: version, key, session and generation; the inner tag; the outer one.
    let (signed, outer) = bytes.split_at(26 + 16);
    let (head, inner) = signed.split_at(26);
    let (_, edge) = ring.edge_at(NOW);

    tells_nothing("outer tag", outer, <[u8]>::to_vec, |tag: &Vec<u8>| {
        edge.verify(signed, tag)
    });
    tells_nothing(
        "outer tag of a token that is read",
        outer,
        |tag: &[u8]| token(signed, tag),
        |text: &String| refresh::parse(&ring, text).is_some(),
    );
    // Whoever gets as far as the inner tag has the key of the outer one.
    let with_inner = |tag: &[u8]| {
        let signed = [head, tag].concat();
        let outer = edge.tag(&signed);
        refresh::parse(&ring, &token(&signed, &outer)).expect("the outer tag is right")
    };
    tells_nothing("inner tag", inner, with_inner, |presented: &Presented| {
        presented.is_authentic(&secret)
    });
}

/// Nothing is kept and nothing is found: for a session that is only in memory.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl SessionStore for Nowhere {
    async fn save(&self, _: &Record) -> StoreResult<()> {
        Ok(())
    }

    async fn load(&self, _: &Id) -> StoreResult<Option<Record>> {
        Ok(None)
    }

    async fn delete(&self, _: &Id) -> StoreResult<()> {
        Ok(())
    }
}

#[test]
fn j14_the_time_of_a_wrong_form_token_or_nonce_does_not_tell_how_much_of_it_is_right() {
    if !full() {
        println!("skipped: only in the full run");
        return;
    }
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let session = Session::new(None, Arc::new(Nowhere), None);
    let kept = runtime
        .block_on(new_form_token(&session, &SystemRandom::default()))
        .expect("in memory");
    let with_form_token = |token: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(FORM_TOKEN_HEADER, HeaderValue::from_bytes(token).expect("letters"));
        headers
    };
    tells_nothing("form token", kept.as_bytes(), with_form_token, |headers: &HeaderMap| {
        let matches = runtime.block_on(header_form_token_matches(headers, &session));
        matches.expect("in memory")
    });

    let nonces = Nonces::new(&[9; 32]);
    let expected = Expected {
        method: "POST",
        address: "https://mayfly.example/oauth/token",
        token: None,
        nonces: Some(&nonces),
        tolerance: Duration::from_secs(30),
    };
    // The nonce is looked at before other claims and the signature.
    let with_nonce = |nonce: &[u8]| {
        let nonce = std::str::from_utf8(nonce).expect("letters");
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let (header, claims) = (json!({ "typ": "dpop+jwt" }), json!({ "nonce": nonce }));
        format!("{}.{}.AA", part(&header), part(&claims))
    };
    tells_nothing(
        "nonce of a proof of possession",
        nonces.current(NOW).as_bytes(),
        with_nonce,
        |proof: &String| !matches!(dpop::verify(proof, &expected, NOW), Err(Refusal::Nonce)),
    );
}

#[test]
fn r7_the_time_of_a_wrong_client_secret_does_not_tell_how_much_of_its_hash_is_right() {
    if !full() {
        println!("skipped: only in the full run");
        return;
    }
    let _turn = turn();
    // No stranger chooses the bytes of a hash: if these may be chosen and nothing is told, then nothing is.
    let hash: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7).expect("small"));
    let kept = Authentication::Secret(hash);
    tells_nothing(
        "hash of a client's secret",
        &hash,
        |bytes: &[u8]| <[u8; 32]>::try_from(bytes).expect("32 bytes"),
        |presented: &[u8; 32]| kept.is_secret(presented),
    );
}
