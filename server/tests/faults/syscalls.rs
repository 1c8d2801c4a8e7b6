//! SIGKILL at the very system call: the k-th write to the disk, the k-th answer, counted by strace from outside. So the
//! program needs no points to fail at.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::clients::{check, load};
use crate::kills::{PAUSES, last_life};
use crate::place::{Place, postgres_url};
use crate::serving::Serving;
use crate::{MACHINE, cannot_run, now, scale};

/// Writes of the database's file; what goes to the client, and to PostgreSQL. One after the other, because strace counts
/// each kind of call by itself.
const CALLS: [&str; 7] = [
    "pwrite64",
    "fdatasync",
    "fsync",
    "ftruncate",
    "sendto",
    "sendmsg",
    "writev",
];
/// More calls than a request makes.
const MOST_CALLS: usize = 60;

/// strace on a running program; it ends with it.
struct Tracer(Child);

impl Tracer {
    /// Does this to these calls from now on, counted for each of the program's threads.
    async fn attach(place: &Place, serving: &Serving, calls: &str, what: &str) -> Self {
        Self::attach_with(place, serving, calls, what, &[]).await
    }

    /// The same with more words for strace.
    async fn attach_with(place: &Place, serving: &Serving, calls: &str, what: &str, more: &[&str]) -> Self {
        let said = place.file("strace");
        let mut child = Command::new("strace")
            .args(["-f", "-e", &format!("trace={calls}")])
            .args(more)
            .args(["-e", &format!("inject={calls}:{what}")])
            .args(["-p", &serving.id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said).expect("a file"))
            .spawn()
            .expect("strace is there");
        let begun = now();
        while !std::fs::read_to_string(&said)
            .expect("what it says")
            .contains("attached")
        {
            assert!(child.try_wait().expect("our child").is_none(), "strace ended");
            assert!(now() - begun < Duration::from_secs(10), "strace never attached");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self(child)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Mostly it has ended with the program.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The calls that strace has seen, in all of the program's threads.
fn calls_made(place: &Place) -> Vec<String> {
    let seen = place.said("strace");
    let calls = seen
        .lines()
        .filter(|line| line.contains('(') && !line.contains("resumed>"));
    calls.map(str::to_owned).collect()
}

/// Says so if it is not.
fn is_there() -> bool {
    let is_there = Command::new("strace").arg("--version").output().is_ok();
    if !is_there {
        cannot_run("strace is not installed, so nothing can stop the program at a system call");
    }
    is_there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_killed_at_a_system_call_between_the_first_write_and_the_answer_nothing_is_lost() {
    let _turn = MACHINE.lock().await;
    if !is_there() {
        return;
    }
    let place = Place::make().await;
    let mut clients = place.people(1).await;
    let client = &mut clients[0];
    let everyday = if postgres_url().is_none() {
        vec![
            ("pwrite64", 1),
            ("pwrite64", 9),
            ("fsync", 1),
            ("writev", 1),
            ("writev", 2),
        ]
    } else {
        [1, 2, 4, 6, 8, 10, 12].map(|k| ("sendto", k)).to_vec()
    };
    let all = CALLS
        .into_iter()
        .flat_map(|calls| (1..=MOST_CALLS).map(move |k| (calls, k)));
    let is_full = scale(0, 1) == 1;
    let points = if is_full { all.collect() } else { everyday };
    let (mut killed, mut forgiven, mut unclear, mut reached) = (0, 0, 0, usize::MAX);
    let mut last = "";
    for (at, (calls, k)) in points.into_iter().enumerate() {
        if calls == last && k > reached {
            continue;
        }
        if calls != last {
            (last, reached) = (calls, usize::MAX);
        }
        assert!(k < MOST_CALLS, "the {k}-th of {calls} is still within the request");
        let one = at % PAUSES.len();
        let pauses = if is_full { &PAUSES[..] } else { &PAUSES[one..=one] };
        let mut answered = 0;
        for &pause in pauses {
            place.let_pass(11).await;
            // One thread for requests, because strace counts for each thread by itself.
            let mut serving = Serving::start_with(&place, &[("TOKIO_WORKER_THREADS", "1")]).await;
            let tracer = Tracer::attach(&place, &serving, calls, &format!("signal=SIGKILL:when={k}")).await;
            let answer = serving.refresh(&client.token).await;
            if let Ok(answer) = &answer {
                client.take(answer);
                assert_eq!(answer.status, 200, "{answer:?}");
                answered += 1;
            } else {
                killed += 1;
                let begun = now();
                while serving.runs() {
                    assert!(now() - begun < Duration::from_secs(5), "no answer, but it runs");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            serving.kill();
            drop(tracer);
            if answer.is_ok() {
                // The list ends because the request was over, and not because its calls were spread over threads.
                let made = calls_made(&place);
                let threads: BTreeSet<_> = made.iter().map(|call| call.split(']').next()).collect();
                if made.len() < k && threads.len() <= 1 {
                    println!("{calls}: {} in the whole request", made.len());
                } else {
                    // Something else of the program's was at work, such as a checkpoint: the next number will tell.
                    answered -= 1;
                    unclear += 1;
                    assert!(unclear <= 3, "{calls} {k}: {made:#?}");
                }
            }
            place.let_pass(pause).await;
            let serving = Serving::start(&place).await;
            let again = serving.refresh(&client.token).await.expect("an answer");
            client.take(&again);
            assert!(
                again.status == 200 || (pause == 0 && answer.is_ok() && again.outcome == "fresh"),
                "{calls} {k}, {pause} s later: {again:?}"
            );
            forgiven += usize::from(again.outcome == "reissued");
            serving.kill();
            check(&place, std::slice::from_ref(client)).await;
        }
        if answered == pauses.len() {
            // Beyond the last such call: no later one would be reached either.
            reached = k;
        }
    }
    println!(
        "{killed} kills at chosen system calls; {forgiven} of them after the commit, and the answer was given again"
    );
    // Which of the program's threads talks to PostgreSQL, and so which call is which, is not known beforehand.
    let expected = usize::from(postgres_url().is_none());
    assert!(
        killed >= 3 && forgiven >= expected,
        "{killed} kills, {forgiven} after the commit"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f5_what_the_disk_did_not_take_is_not_acknowledged_and_the_process_ends() {
    let _turn = MACHINE.lock().await;
    if postgres_url().is_some() {
        println!("skipped: the disk of PostgreSQL is not ours");
        return;
    }
    if !is_there() {
        return;
    }
    let place = Place::sqlite(None);
    let mut clients = place.people(120).await;
    let (log, file) = (place.database_file("-wal"), place.database_file(""));
    let commits = (1..=scale(3, 30)).flat_map(|at| [("EIO", at, &log), ("ENOSPC", at, &log)]);
    // That of a checkpoint, of which no request hears.
    let points = commits.chain([("EIO", 1, &file)]);
    let (mut refused, mut rotated) = (0, 0);
    for (error, fails_at, path) in points {
        place.let_pass(11).await;
        let mut serving = Serving::start(&place).await;
        let before = serving.log().len();
        let inject = format!("error={error}:when={fails_at}");
        let tracer = Tracer::attach_with(&place, &serving, "fdatasync,fsync", &inject, &["-P", path]).await;
        let (left, counts) = load(&serving, clients, 8, 1000, 11).await;
        clients = left;
        let ended = serving.ended().await;
        let said = serving.log().split_off(before);
        assert_eq!(ended.code(), Some(1), "{error} {fails_at} {path}: {said}");
        assert!(said.contains("the disk did not take"), "{said}");
        // Whoever comes before the listener is closed hears that nothing was done; `load` wants no other answer.
        refused += counts.of("503");
        rotated += counts.of("rotated");
        serving.kill();
        drop(tracer);
    }
    println!("{refused} requests refused, {rotated} rotations that were acknowledged before");
    assert!(refused > 0 && rotated > 0);
    last_life(&place, &mut clients).await;
}
