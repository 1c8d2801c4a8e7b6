//! SIGKILL at random moments under load; and stopped for a while, as with the machine it runs on.

use std::time::Duration;

use server::domain::random::{SystemRandom, secret};

use crate::clients::{Client, Counts, check, check_ended, load, timed};
use crate::place::Place;
use crate::serving::Serving;
use crate::{MACHINE, in_time, released, scale};

/// Seconds that pass before the program is there again.
pub const PAUSES: [i64; 3] = [0, 30, 7200];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_killed_at_random_under_load_nobody_is_signed_out_and_nothing_acknowledged_is_lost() {
    let _turn = MACHINE.lock().await;
    let place = Place::make().await;
    let mut clients = place.people(scale(400, 1000)).await;
    place.let_pass(11).await;
    let (kills, random) = (scale(6, 200), SystemRandom::default());
    // Few enough for most sessions to be there at the last kill.
    let ends = scale(37, 370);
    let (mut counts, mut slowest, mut alive) = (Counts::default(), Duration::ZERO, Duration::ZERO);
    for kill in 0..kills {
        let serving = Serving::start(&place).await;
        slowest = slowest.max(serving.ready_after);
        let after = 20 + u64::from(u16::from_le_bytes(*secret::<2>(&random))) % 400;
        let killer = async {
            tokio::time::sleep(Duration::from_millis(after)).await;
            serving.signal("-KILL");
        };
        let load = timed(load(&serving, clients, 32, 1000, ends));
        let ((), ((left, counted), lasted)) = tokio::join!(killer, load);
        clients = left;
        counts.add(counted);
        alive += lasted;
        serving.kill();
        place.let_pass(PAUSES[kill % PAUSES.len()]).await;
    }
    let (counted, ended) = last_life(&place, &mut clients).await;
    let rotations = counts.of("rotated") + counts.of("reissued");
    let rate = rotations as u128 * 1000 / alive.as_millis();
    println!(
        "{kills} kills under {rate} rotations a second, ready again in {} ms at most; {} requests without an answer; {:?}; then {:?}; {ended} ends held",
        slowest.as_millis(),
        counts.lost,
        counts.answers,
        counted.answers
    );
    assert!(counts.lost >= kills, "each kill met requests");
    let least = if released().is_some() { 200 } else { 10 };
    assert!(rate >= least, "{rate} rotations a second are no load");
    assert!(
        slowest < in_time(Duration::from_secs(2)),
        "ready again within two seconds"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_stopped_in_the_middle_of_refreshes_and_continued_everybody_goes_on() {
    let _turn = MACHINE.lock().await;
    let place = Place::make().await;
    let mut clients = place.people(200).await;
    let mut counts = Counts::default();
    for _ in 0..scale(2, 20) {
        place.let_pass(11).await;
        let serving = Serving::start(&place).await;
        let before = rotations(&place).await;
        let stopper = async {
            while rotations(&place).await == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            suspend(&serving, &place, 7200).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            serving.signal("-CONT");
        };
        let ((), (left, counted)) = tokio::join!(stopper, load(&serving, clients, 16, 4, 0));
        clients = left;
        assert_eq!(counted.lost, 0, "{counted:?}");
        // Within a life nobody rotates twice, unless time has passed in its middle.
        assert!(counted.of("rotated") > clients.len(), "{counted:?}");
        counts.add(counted);
        serving.kill();
    }
    println!("stopped for two hours in the middle: {:?}", counts.answers);
    last_life(&place, &mut clients).await;
    let jumps = "SELECT kind, facts, at FROM audit_events WHERE kind = 'clock_jump'";
    assert_eq!(
        place.rows(jumps).await,
        [],
        "a program that was stopped saw no clock jump"
    );
}

async fn rotations(place: &Place) -> i64 {
    let counted = "SELECT '', '', COUNT(*) FROM audit_events WHERE kind = 'token_rotated'";
    place.rows(counted).await[0].2
}

/// Stops the program, and so many seconds pass while it is. If it was stopped just when it held the database's only
/// lock, it runs on for a moment.
async fn suspend(serving: &Serving, place: &Place, seconds: i64) {
    for _ in 0..200 {
        serving.signal("-STOP");
        if place.let_pass_meanwhile(seconds).await {
            return;
        }
        serving.signal("-CONT");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it was never without the lock");
}

/// Everybody comes once more with what they hold, and again after a rest; then all of it is checked. What they were
/// told, and how many ends held.
pub async fn last_life(place: &Place, clients: &mut Vec<Client>) -> (Counts, usize) {
    let (mut counts, mut ended) = (Counts::default(), 0);
    for _ in 0..2 {
        let serving = Serving::start(place).await;
        let (left, counted) = load(&serving, std::mem::take(clients), 8, 1, 0).await;
        assert_eq!(counted.lost, 0, "{}", serving.log());
        *clients = left;
        counts.add(counted);
        ended = check_ended(&serving, clients).await;
        serving.kill();
        check(place, clients).await;
        place.let_pass(11).await;
    }
    (counts, ended)
}
