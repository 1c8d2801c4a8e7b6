//! A database that goes and comes back, cuts its connections, or gives up what it was asked.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::clients::{Counts, load, load_during, timed};
use crate::cluster::Cluster;
use crate::kills::last_life;
use crate::place::{PASSWORD, Place, USERNAME, postgres_url};
use crate::serving::Serving;
use crate::{MACHINE, cannot_run, in_time, now, scale, seconds};

/// Nothing hangs: 5 seconds is all that anybody waits for the database, and the rest is a slow machine's.
const NO_ANSWER_LATER: Duration = Duration::from_millis(5500);

/// A PostgreSQL that may be stopped, if this run is on PostgreSQL.
async fn cluster() -> Option<Cluster> {
    if postgres_url().is_none() {
        println!("skipped: this run is not on PostgreSQL");
        return None;
    }
    let cluster = Cluster::start().await;
    if cluster.is_none() {
        cannot_run("PostgreSQL's programs are not in /usr/lib/postgresql");
    }
    cluster
}

/// Everything was answered, in time, and with a status that says what to do.
fn all_answered(serving: &Serving, counts: &Counts) {
    assert_eq!(counts.lost, 0, "{}", serving.log());
    assert_eq!(counts.of("500"), 0, "{}", serving.log());
    let slowest = counts.percentile(100);
    assert!(slowest < in_time(NO_ANSWER_LATER), "{slowest:?}");
}

/// Signs in again and again until it works.
async fn until_somebody_signs_in(serving: &Serving) -> Duration {
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_postgresql_stops_under_load_and_comes_back_and_nobody_is_signed_out() {
    let _turn = MACHINE.lock().await;
    let Some(mut cluster) = cluster().await else { return };
    let place = Place::postgres(cluster.url()).await;
    let mut clients = place.people(300).await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    let mut outages = Vec::new();
    for outage in 0..scale(2, 20) {
        // The first is a long one in the full run.
        let away = if outage == 0 { scale(500, 30_000) } else { 500 };
        // It stops while they refresh, and comes back while they go on trying.
        let gone = async {
            tokio::time::sleep(Duration::from_millis(100 + 50 * (outage as u64 % 5))).await;
            cluster.stop();
            tokio::time::sleep(Duration::from_millis(away as u64)).await;
            cluster.go_on().await;
            until_somebody_signs_in(&serving).await
        };
        let ends = if away > 500 { 0 } else { 199 };
        let (took, left, counts) = load_during(&serving, clients, 16, ends, gone).await;
        clients = left;
        println!(
            "away for {away} ms: {:?}, the slowest after {} ms; back after {} ms",
            counts.answers,
            counts.percentile(100).as_millis(),
            took.as_millis()
        );
        all_answered(&serving, &counts);
        assert!(counts.of("503") > 0, "some met the outage: {counts:?}");
        outages.push(took);
        place.let_pass(11).await;
    }
    assert!(
        outages.iter().all(|took| *took < in_time(Duration::from_secs(2))),
        "{outages:?}"
    );
    serving.kill();
    last_life(&place, &mut clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_a_thousand_that_come_back_all_at_once_are_served_and_nobody_is_accused() {
    let _turn = MACHINE.lock().await;
    let Some(mut cluster) = cluster().await else { return };
    let place = Place::postgres(cluster.url()).await;
    let clients = place.people(scale(300, 1000)).await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    // A third has rotated before, and its answers were lost: all of those come with a superseded token.
    for client in clients.iter().step_by(3) {
        let lost = serving.refresh(&client.token).await.expect("an answer");
        assert_eq!(lost.status, 200, "{lost:?}");
    }
    cluster.stop();
    let (left, counts) = load(&serving, clients, 32, 1, 0).await;
    all_answered(&serving, &counts);
    assert_eq!(counts.of("503"), counts.times.len(), "{counts:?}");

    cluster.go_on().await;
    let (back, mut first, mut counted) = (now(), None, Counts::default());
    let (mut waiting, mut clients) = (left, Vec::new());
    while !waiting.is_empty() {
        assert!(now() - back < Duration::from_secs(30), "{}", serving.log());
        let mut herd = JoinSet::new();
        for mut client in waiting.drain(..) {
            let way = serving.way();
            herd.spawn(async move {
                let (answer, took) = timed(way.refresh(&client.token)).await;
                let answer = answer.expect("an answer");
                client.take(&answer);
                (client, answer, took, now())
            });
        }
        for (client, answer, took, at) in herd.join_all().await {
            counted.note(&answer, took);
            if answer.status == 200 {
                first = Some(first.map_or(at, |first| at.min(first)));
            }
            // Who has rotated just before is told 409, and needs nothing.
            if answer.status == 503 {
                &mut waiting
            } else {
                &mut clients
            }
            .push(client);
        }
    }
    let first = first.expect("some were served") - back;
    println!(
        "{} at once: {:?}; the first after {} ms, all after {} ms",
        clients.len(),
        counted.answers,
        first.as_millis(),
        (now() - back).as_millis()
    );
    all_answered(&serving, &counted);
    let (rotated, reissued) = (counted.of("rotated"), counted.of("reissued"));
    assert_eq!(rotated + reissued, clients.len(), "{counted:?}");
    // Who was told 503 after 5 seconds may have been rotated all the same, and is handed that pair again.
    let least = clients.len().div_ceil(3);
    assert!(reissued >= least, "{counted:?}");
    if counted.of("503") == 0 {
        assert_eq!(reissued, least, "{counted:?}");
    }
    assert!(first < in_time(Duration::from_secs(2)), "{first:?}");
    serving.kill();
    place.let_pass(11).await;
    last_life(&place, &mut clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_with_its_connections_terminated_five_times_a_second_nobody_loses_the_session() {
    let _turn = MACHINE.lock().await;
    let Some(admin) = postgres_url() else {
        println!("skipped: this run is not on PostgreSQL");
        return;
    };
    let place = Place::postgres(admin).await;
    let mut clients = place.people(scale(300, 1000)).await;
    place.another("wanda").await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    // Apart from those who sign out now and then.
    let mut staying = clients.swap_remove(0);
    let first = serving.refresh(&staying.token).await.expect("an answer");
    staying.take(&first);
    let access = staying.access.clone();
    let end = now() + seconds(3, 60);
    let cutter = async {
        let mut connection = PgConnection::connect(&place.url()).await.expect("the database opens");
        let mut cut = 0;
        while now() < end {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let sql = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
            let those: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("cut");
            cut += those;
        }
        connection.close().await.expect("closed");
        cut
    };
    // A sign-in and a check ask for more in a row than a refresh does.
    let others = async {
        let mut counts = Counts::default();
        while now() < end {
            for (answer, took) in [
                timed(serving.sign_in("wanda", PASSWORD)).await,
                timed(serving.get("/api/v1/me/sessions", &access)).await,
            ] {
                let answer = answer.expect("an answer");
                assert!([200, 503].contains(&answer.status), "{answer:?}\n{}", serving.log());
                counts.note(&answer, took);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        counts
    };
    let both = Box::pin(async { tokio::join!(cutter, others) });
    let ((cut, other), left, counts) = load_during(&serving, clients, 16, 997, both).await;
    clients = left;
    println!(
        "{cut} connections terminated: {:?}, the slowest after {} ms; sign-ins and checks {:?}, after {} ms",
        counts.answers,
        counts.percentile(100).as_millis(),
        other.answers,
        other.percentile(100).as_millis()
    );
    all_answered(&serving, &counts);
    all_answered(&serving, &other);
    assert!(cut >= 20, "{cut} were there to terminate");
    assert!(counts.of("503") > 0 && counts.of("rotated") >= 200, "{counts:?}");
    serving.kill();
    clients.push(staying);
    place.let_pass(11).await;
    last_life(&place, &mut clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_a_lost_race_that_the_database_reports_is_a_matter_of_time() {
    let _turn = MACHINE.lock().await;
    let Some(admin) = postgres_url() else {
        println!("skipped: this run is not on PostgreSQL");
        return;
    };
    let place = Place::postgres(admin).await;
    let mut clients = place.people(200).await;
    // The number of a sequence is not taken back with the transaction. In turn a failed serialization and a deadlock.
    place
        .execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('lost') <= 60 THEN RAISE EXCEPTION 'lost by the test' USING \
             ERRCODE = CASE WHEN currval('lost') % 2 = 0 THEN '40001' ELSE '40P01' END; END IF; RETURN NULL; END $$",
        )
        .await;
    let serving = Serving::start(&place).await;
    // At the statement itself, and at its commit.
    for when in ["TRIGGER lose AFTER", "CONSTRAINT TRIGGER lose AFTER"] {
        place.let_pass(11).await;
        let deferred = if when.starts_with("CONSTRAINT") {
            "DEFERRABLE INITIALLY DEFERRED"
        } else {
            ""
        };
        place.execute("CREATE SEQUENCE lost").await;
        place
            .execute(&format!(
                "CREATE {when} INSERT OR UPDATE ON sessions {deferred} FOR EACH ROW EXECUTE FUNCTION lose()"
            ))
            .await;
        let (left, counts) = load(&serving, clients, 16, 2, 31).await;
        clients = left;
        let signed_in = serving.sign_in(USERNAME, PASSWORD).await.expect("an answer");
        let asked = place.rows("SELECT '', '', last_value FROM lost").await[0].2;
        place.execute("DROP TRIGGER lose ON sessions").await;
        place.execute("DROP SEQUENCE lost").await;
        println!("{when}, 60 of {asked} lost: {:?}", counts.answers);
        all_answered(&serving, &counts);
        assert!(asked > 60, "all of them were lost");
        assert!(counts.of("503") > 0 && counts.of("rotated") > 0, "{counts:?}");
        assert_eq!(signed_in.status, 200, "{signed_in:?}");
    }
    serving.kill();
    place.let_pass(11).await;
    last_life(&place, &mut clients).await;
}
