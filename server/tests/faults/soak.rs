//! A long while of work at half of what the machine can do: memory and open files do not grow. Only in the full run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::clients::{Client, load, timed};
use crate::place::{PASSWORD, Place, USERNAME};
use crate::serving::{Serving, Way};
use crate::{MACHINE, now, released, scale};

/// Who comes and goes. Time passes quicker for the sessions of [`USERNAME`], and must not for those that are used here.
const GUEST: &str = "wanda";
/// Sessions that refresh.
const PROGRAMS: usize = 200;

/// What may be kept for each round of signing in and out: its end is remembered for an hour so that its access token is
/// refused (about 200 bytes), and allocators round up. A leak of one request's data would be several times that.
const BYTES_A_ROUND: f64 = 1024.0;
/// What fills up and then stays: SQLite's page caches (8 MiB for the writer, 1 MiB for each of eight readers) while the
/// database grows, and the allocator's own keeping; the memory of a password being hashed, 19 MiB, is there or not when it
/// is measured, which comes to little over many measurements. Beside this, two minutes show only a gross leak of a round; an
/// hour (`MAYFLY_TEST_SOAK_SECONDS=3600`) shows one of two kilobytes.
const NOISE: f64 = 18.0 * 1024.0 * 1024.0;
/// Nothing may be kept for a rotation. So all that may grow, shared among the rotations, is what each could hide; there have
/// to be so many of them that this is less than one answer with its two tokens.
const BYTES_A_ROTATION: f64 = 1024.0;

/// Resident memory in bytes, and open files, of a process.
fn measure(id: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("its memory");
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number");
    let files = std::fs::read_dir(format!("/proc/{id}/fd")).expect("it runs").count();
    (kib * 1024.0, float(files))
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("few"))
}

/// Slope of the line that fits best (least squares), in units a second.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = float(samples.len());
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (time, value) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let over: f64 = samples.iter().map(|(at, is)| (at - time) * (is - value)).sum();
    let under: f64 = samples.iter().map(|(at, _)| (at - time).powi(2)).sum();
    over / under
}

/// Does it again and again until it is time to stop, each time as fast as the machine can; then rests for as long as that
/// took, which comes to half of what the machine can do.
async fn half_the_time(stop: &AtomicBool, done: &AtomicUsize, mut work: impl AsyncFnMut() -> usize) {
    while !stop.load(Ordering::SeqCst) {
        let (count, took) = timed(work()).await;
        done.fetch_add(count, Ordering::SeqCst);
        tokio::time::sleep(took).await;
    }
}

/// All of them refresh; then the seconds pass that lie between two rotations of a session.
async fn rotate(place: &Place, serving: &Serving, clients: &mut Vec<Client>) -> usize {
    let (left, counts) = load(serving, std::mem::take(clients), 16, 1, 0).await;
    assert_eq!(counts.lost, 0, "{counts:?}");
    // With its last token alone: all those of an hour would fill the memory of this test.
    *clients = left.iter().map(|client| Client::new(&client.token)).collect();
    let back = ["rotated_at", "handed_out_at", "superseded_at"].map(|column| format!("{column} = {column} - 11000"));
    place
        .execute(&format!(
            "UPDATE sessions SET {} WHERE user_id = (SELECT id FROM users WHERE username = '{USERNAME}')",
            back.join(", ")
        ))
        .await;
    counts.of("rotated")
}

/// Signs in, uses it, refreshes, signs out.
async fn come_and_go(serving: &Serving) -> usize {
    let answer = serving.sign_in(GUEST, PASSWORD).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |name: &str| answer.body["tokens"][name].as_str().expect("a token").to_owned();
    let (access, refresh) = (text("access_token"), text("refresh_token"));
    let used = serving.get("/api/v1/me/sessions", &access).await.expect("an answer");
    assert_eq!(used.status, 200, "{used:?}");
    // It was just signed in: it holds what is fresh.
    assert_eq!(serving.refresh(&refresh).await.expect("an answer").status, 409);
    assert_eq!(serving.revoke(&refresh).await.expect("an answer").status, 200);
    assert_eq!(serving.get("/api/v1/me", &access).await.expect("an answer").status, 401);
    1
}

/// Follows revocations for a moment with a token and over a connection of its own, and goes.
async fn follow(serving: &Serving, service: &Service) -> usize {
    let token = service.token(serving).await;
    let way: Way = Serving::through(serving.address());
    let mut stream = way
        .begin("/oauth/revocations/stream?cursor=0", &token)
        .send()
        .await
        .expect("an answer");
    assert_eq!(stream.status(), 200);
    for _ in 0..3 {
        assert!(stream.chunk().await.expect("it goes on").is_some());
    }
    1
}

/// A service that may follow the feed.
struct Service {
    id: String,
    secret: String,
}

impl Service {
    fn add(place: &Place) -> Self {
        let add = ["clients", "add", "--name", "feed", "--scope", "revocations"];
        assert!(place.command(&add, "client").wait().expect("our own child").success());
        let said = place.said("client");
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.expect("it says so").trim().to_owned()
        };
        Self {
            id: value("client_id:"),
            secret: value("client_secret:"),
        }
    }

    async fn token(&self, serving: &Serving) -> String {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.id),
            ("client_secret", &self.secret),
        ];
        let answer = serving
            .way()
            .post_form("/oauth/token", &fields)
            .await
            .expect("an answer");
        let token: &Value = &answer.body["access_token"];
        token.as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f76_memory_and_open_files_do_not_grow_with_use() {
    let seconds = std::env::var("MAYFLY_TEST_SOAK_SECONDS").map(|text| text.parse::<u64>().expect("seconds"));
    let seconds = seconds.unwrap_or(scale(0, 120) as u64);
    if seconds == 0 {
        println!("skipped: only in the full run, or with MAYFLY_TEST_SOAK_SECONDS");
        return;
    }
    let _turn = MACHINE.lock().await;
    let place = Place::make().await;
    let mut clients = place.people(PROGRAMS).await;
    place.another(GUEST).await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    let service = Service::add(&place);
    let stop = AtomicBool::new(false);
    let [rotations, rounds, streams] = <[AtomicUsize; 3]>::default();
    let sample = async {
        let begun = now();
        let warm = Duration::from_secs(seconds) / 4;
        let done = || [&rotations, &rounds, &streams].map(|count| count.load(Ordering::SeqCst));
        let (mut samples, mut before) = (Vec::new(), done());
        while now() - begun < Duration::from_secs(seconds) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let at = now() - begun;
            if at < warm {
                before = done();
            } else {
                samples.push((at.as_secs_f64(), measure(serving.id())));
            }
        }
        stop.store(true, Ordering::SeqCst);
        let after = done();
        (samples, [0, 1, 2].map(|kind| float(after[kind] - before[kind])))
    };
    let ((samples, [rotated, rounds, streams]), (), (), (), (), ()) = tokio::join!(
        sample,
        half_the_time(&stop, &rotations, async || rotate(&place, &serving, &mut clients).await),
        half_the_time(&stop, &rounds, async || come_and_go(&serving).await),
        half_the_time(&stop, &rounds, async || come_and_go(&serving).await),
        half_the_time(&stop, &streams, async || follow(&serving, &service).await),
        half_the_time(&stop, &streams, async || follow(&serving, &service).await),
    );
    let column = |of: fn(&(f64, f64)) -> f64| -> Vec<(f64, f64)> {
        samples.iter().map(|(at, measured)| (*at, of(measured))).collect()
    };
    let (memory, files) = (column(|measured| measured.0), column(|measured| measured.1));
    let lasted = samples[samples.len() - 1].0 - samples[0].0;
    let (grown, opened) = (slope(&memory) * lasted, slope(&files) * lasted);
    println!(
        "{lasted:.0} s after warming up: {rotated} rotations ({:.0} a second), {rounds} rounds of signing in and out, \
         {streams} streams; memory {:.1} MiB, grown by {:.0} KiB ({:.0} bytes a round, {:.0} a rotation); open files {:.0}, \
         grown by {opened:.1}",
        rotated / lasted,
        memory[0].1 / 1_048_576.0,
        grown / 1024.0,
        grown / rounds.max(1.0),
        grown / rotated.max(1.0),
        files[0].1,
    );
    assert!(rounds > 10.0 && rotated > 10.0, "there was work");
    let most = NOISE + BYTES_A_ROUND * rounds;
    assert!(grown < most, "memory grows by {grown} bytes");
    // Of a program that was not optimised, and in a shorter run, there are too few.
    if released().is_some() && seconds >= 120 {
        assert!(
            most < BYTES_A_ROTATION * rotated,
            "{rotated} rotations do not show what each of them keeps"
        );
    }
    assert!(opened < 5.0, "files are left open: {opened}");
    serving.kill();
}
