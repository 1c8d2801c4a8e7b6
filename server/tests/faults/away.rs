//! A database that somebody else holds, and one that goes and comes back.

use std::time::Duration;

use sqlx::{Connection as _, SqliteConnection};

use crate::clients::load;
use crate::cluster::Cluster;
use crate::kills::last_life;
use crate::place::{PASSWORD, Place, USERNAME, postgres_url};
use crate::serving::Serving;
use crate::{MACHINE, now, scale};

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
    let held = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        sqlx::query("ROLLBACK").execute(&mut other).await.expect("given back");
        other.close().await.expect("closed");
    };
    let begun = now();
    let timed = |who: usize, wait: u64| {
        let serving = &serving;
        let token = clients[who].token.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let asked = now();
            let answer = serving.refresh(&token).await.expect("an answer");
            (answer, now() - asked)
        }
    };
    let sign_in = async {
        let asked = now();
        let answer = serving.sign_in(USERNAME, PASSWORD).await.expect("an answer");
        (answer, now() - asked)
    };
    let check = async {
        let answer = serving.get("/.well-known/jwks.json", "").await.expect("an answer");
        let asked = now();
        let checked = serving.get("/api/v1/me/sessions", &access).await.expect("an answer");
        (answer.status, checked.status, now() - asked)
    };
    // The second begins to wait behind the first, and waits no longer for that.
    let ((), one, two, three, four, checked) =
        tokio::join!(held, timed(1, 0), timed(2, 500), timed(3, 1500), sign_in, check);
    assert_eq!((checked.0, checked.1), (200, 200), "{checked:?}");
    for (answer, took) in [&one, &two, &three, &four] {
        println!("locked: {} after {} ms", answer.status, took.as_millis());
        assert_eq!(answer.status, 503, "{answer:?} after {took:?}");
        assert!(answer.retry_after.is_some(), "{answer:?}");
        assert!((4500..6500).contains(&took.as_millis()), "{took:?}");
    }
    let again = serving.refresh(&clients[1].token).await.expect("an answer");
    clients[1].take(&again);
    assert_eq!(again.status, 200, "{again:?}");
    println!(
        "works again {} ms after the lock was taken",
        (now() - begun).as_millis()
    );
    assert!(
        now() - begun < Duration::from_millis(8500),
        "within a second and a half of its end"
    );
    let (left, counts) = load(&serving, clients, 8, 1, 0).await;
    clients = left;
    assert!(!counts.answers.contains_key("503"), "{counts:?}");
    serving.kill();
    last_life(&place, &mut clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_postgresql_stops_under_load_and_comes_back_and_nobody_is_signed_out() {
    let _turn = MACHINE.lock().await;
    if postgres_url().is_none() {
        println!("skipped: this run is not on PostgreSQL");
        return;
    }
    let Some(mut cluster) = Cluster::start().await else {
        println!("skipped: PostgreSQL's programs are not in /usr/lib/postgresql");
        return;
    };
    let place = Place::postgres(cluster.url()).await;
    let mut clients = place.people(300).await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    let mut outages = Vec::new();
    for outage in 0..scale(2, 20) {
        // It stops while they refresh, and comes back while they go on trying.
        let gone = async {
            tokio::time::sleep(Duration::from_millis(100 + 50 * (outage as u64 % 5))).await;
            cluster.stop();
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.go_on().await;
            let back = now();
            loop {
                let answer = serving.sign_in(USERNAME, PASSWORD).await.expect("an answer");
                if answer.status == 200 {
                    return now() - back;
                }
                assert_eq!(answer.status, 503, "{answer:?}");
                assert!(answer.retry_after.is_some(), "{answer:?}");
                assert!(now() - back < Duration::from_secs(10), "{}", serving.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (took, (left, counts)) = tokio::join!(gone, load(&serving, clients, 16, 6, 41));
        clients = left;
        println!(
            "stopped and started: {:?}; back after {} ms",
            counts.answers,
            took.as_millis()
        );
        assert_eq!(counts.lost, 0, "every request is answered");
        assert!(counts.answers.contains_key("503"), "some met the outage: {counts:?}");
        assert!(!counts.answers.contains_key("500"), "{counts:?}");
        outages.push(took);
        place.let_pass(11).await;
    }
    assert!(outages.iter().all(|took| *took < Duration::from_secs(3)), "{outages:?}");
    serving.kill();
    last_life(&place, &mut clients).await;
}
