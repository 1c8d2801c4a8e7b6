//! A database that somebody else holds: SQLite has one writer at a time, whichever program it is.

use std::time::Duration;

use sqlx::{Connection as _, SqliteConnection};

use crate::clients::{load, load_during, timed};
use crate::kills::last_life;
use crate::place::{PASSWORD, Place, USERNAME, postgres_url};
use crate::serving::Serving;
use crate::{MACHINE, in_time, now, scale, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f6_a_locked_database_is_waited_for_five_seconds_and_then_works_again() {
    let _turn = MACHINE.lock().await;
    if postgres_url().is_some() {
        println!("skipped: a lock on the whole file is SQLite's");
        return;
    }
    let place = Place::sqlite(None);
    let mut clients = place.people(40).await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    let first = serving.refresh(&clients[0].token).await.expect("an answer");
    clients[0].take(&first);
    let access = clients[0].access.clone();

    let mut other = SqliteConnection::connect(&place.url())
        .await
        .expect("the database opens");
    sqlx::query("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .expect("locked");
    let lasts = seconds(7, 10);
    let held = async {
        tokio::time::sleep(lasts).await;
        sqlx::query("ROLLBACK").execute(&mut other).await.expect("given back");
        other.close().await.expect("closed");
    };
    let begun = now();
    let refresh = |who: usize, wait: u64| {
        let serving = &serving;
        let token = clients[who].token.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            timed(serving.refresh(&token)).await
        }
    };
    let check = async {
        let answer = serving.get("/.well-known/jwks.json", "").await.expect("an answer");
        let asked = now();
        let checked = serving.get("/api/v1/me/sessions", &access).await.expect("an answer");
        (answer.status, checked.status, now() - asked)
    };
    let sign_in = timed(serving.sign_in(USERNAME, PASSWORD));
    // The second begins to wait behind the first, and waits no longer for that.
    let tabs = async { tokio::join!(refresh(1, 0), refresh(1, 100), refresh(1, 200)) };
    // It has to be written down, too, that its token was used.
    let sign_out = timed(serving.post("/auth/logout", &access));
    let ((), (one, tab, third), two, three, four, out, checked) =
        tokio::join!(held, tabs, refresh(2, 500), refresh(3, 1500), sign_in, sign_out, check);
    assert_eq!((checked.0, checked.1), (200, 200), "{checked:?}");
    assert!(
        checked.2 < Duration::from_secs(4),
        "a check waits for no writer: {checked:?}"
    );
    for (answer, took) in [one, tab, third, two, three, four, out] {
        let answer = answer.expect("an answer");
        println!("locked: {} after {} ms", answer.status, took.as_millis());
        assert_eq!(answer.status, 503, "{answer:?} after {took:?}");
        assert!(answer.retry_after.is_some(), "{answer:?}");
        assert!(
            took >= Duration::from_millis(4500) && took < in_time(Duration::from_millis(6500)),
            "{took:?}"
        );
    }
    let again = serving.refresh(&clients[1].token).await.expect("an answer");
    clients[1].take(&again);
    assert_eq!(again.status, 200, "{again:?}");
    println!(
        "works again {} ms after the lock was taken",
        (now() - begun).as_millis()
    );
    assert!(
        now() - begun < lasts + in_time(Duration::from_millis(1500)),
        "within a second and a half of its end"
    );
    let (left, counts) = load(&serving, clients, 8, 1, 0).await;
    clients = left;
    assert_eq!(counts.of("503"), 0, "{counts:?}");
    assert!(counts.percentile(99) < in_time(Duration::from_secs(1)), "{counts:?}");
    serving.kill();
    last_life(&place, &mut clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f6_fifty_writers_and_a_lock_taken_again_and_again_are_never_told_500() {
    let _turn = MACHINE.lock().await;
    if postgres_url().is_some() {
        println!("skipped: a lock on the whole file is SQLite's");
        return;
    }
    let place = Place::sqlite(None);
    let mut clients = place.people(400).await;
    place.another("wanda").await;
    let serving = Serving::start(&place).await;
    let end = now() + seconds(3, 60);
    let least = scale(3, 20) as u64;
    let locker = async {
        let mut other = SqliteConnection::connect(&place.url())
            .await
            .expect("the database opens");
        // The program's writers follow one another without a gap, so who comes from outside may have to wait long.
        let patience = sqlx::query("PRAGMA busy_timeout = 20000").execute(&mut other);
        patience.await.expect("set");
        let mut held = 0;
        // Its waits take as long as the program lets them.
        while now() < end || held < least {
            for sql in [
                "BEGIN IMMEDIATE",
                // What was just rotated may be again: so that all of them write for as long as this goes on.
                "UPDATE sessions SET rotated_at = rotated_at - 11000, handed_out_at = handed_out_at - 11000, \
                    superseded_at = superseded_at - 11000",
            ] {
                sqlx::query(sql).execute(&mut other).await.expect("the lock comes");
            }
            tokio::time::sleep(Duration::from_millis(30 + held % 5 * 30)).await;
            sqlx::query("COMMIT").execute(&mut other).await.expect("given back");
            held += 1;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        other.close().await.expect("closed");
        held
    };
    let sign_ins = async {
        let mut signed_in = 0;
        while now() < end {
            let answer = serving.sign_in("wanda", PASSWORD).await.expect("an answer");
            assert!([200, 503].contains(&answer.status), "{answer:?}");
            signed_in += usize::from(answer.status == 200);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        signed_in
    };
    // Whatever is no 200, 409 or 503 fails there.
    let both = async { tokio::join!(locker, sign_ins) };
    let ((held, signed_in), left, counts) = load_during(&serving, clients, 50, 199, both).await;
    clients = left;
    println!(
        "locked {held} times: {signed_in} sign-ins, {:?}; p99 {} ms",
        counts.answers,
        counts.percentile(99).as_millis()
    );
    assert_eq!(counts.lost, 0, "{}", serving.log());
    assert!(counts.of("rotated") >= 100, "{counts:?}");
    assert!(counts.percentile(100) < in_time(Duration::from_secs(6)), "{counts:?}");
    assert!(signed_in > 0 && held >= least, "{held}");

    place.let_pass(11).await;
    let (left, counts) = load(&serving, clients, 50, 1, 0).await;
    clients = left;
    println!("without the lock: p99 {} ms", counts.percentile(99).as_millis());
    assert_eq!(counts.of("503"), 0, "{counts:?}");
    assert!(counts.percentile(99) < in_time(Duration::from_secs(1)), "{counts:?}");
    serving.kill();
    last_life(&place, &mut clients).await;
}
