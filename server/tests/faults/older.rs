//! Upgrades and ways back with both programs themselves (F77): today's, and the one before the tables last changed, by turns
//! on one database.

use std::ffi::{OsStr, OsString};

use crate::MACHINE;
use crate::clients::{Client, Standing, check, check_ended, load, sign_in};
use crate::place::{Place, USERNAME};
use crate::serving::Serving;

/// The version of the tables before today's.
fn version_before() -> i64 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/sqlite");
    let versions = std::fs::read_dir(folder).expect("a folder").map(|entry| {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        let (version, _) = name.split_once('_').expect("a number first");
        version.parse::<i64>().expect("a number")
    });
    versions.max().expect("one") - 1
}

/// Everybody goes on with this program; one more signs in, and one of those who were there leaves.
async fn live_with(place: &Place, program: &OsStr, mut clients: Vec<Client>) -> Vec<Client> {
    place.let_pass(70).await;
    let mut serving = Serving::start_program(program, place, &[]).await;
    let before = clients.len();
    // What the other program handed out is good here, also an access token that this one did not sign.
    for client in clients.iter().filter(|client| client.standing == Standing::Lives) {
        if !client.access.is_empty() {
            let answer = serving.get("/api/v1/me/sessions", &client.access).await;
            assert_eq!(
                answer.expect("an answer").status,
                200,
                "an access token of the other program"
            );
        }
    }
    let leaving = clients.iter_mut().find(|client| client.standing == Standing::Lives);
    let leaving = leaving.expect("somebody is there");
    let answer = serving.revoke(&leaving.token).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    leaving.standing = Standing::Ended;
    let (left, counts) = load(&serving, clients, 8, 2, 0).await;
    clients = left;
    assert_eq!(counts.lost, 0, "{}", serving.log());
    assert!(counts.of("rotated") + counts.of("reissued") >= before / 2, "{counts:?}");
    clients.push(sign_in(&serving, USERNAME).await);
    assert!(check_ended(&serving, &mut clients).await > 0);
    serving.signal("-TERM");
    assert!(serving.ended().await.success(), "{}", serving.log());
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f77_the_program_before_these_tables_takes_over_and_hands_back_and_nobody_notices() {
    let Some(older) = std::env::var_os("MAYFLY_TEST_OLDER_PROGRAM") else {
        assert!(
            !crate::is_set("MAYFLY_TEST_FULL", "1"),
            "the full run brings the older program"
        );
        println!("skipped: the older program is built for the full run only");
        return;
    };
    let _turn = MACHINE.lock().await;
    let today: OsString = crate::program_file();
    let place = Place::make().await;
    let mut clients = place.people(40).await;
    let back = ["migrate", "--back-to", &version_before().to_string()];
    let files = [&today, &older].map(|program| std::fs::read(program).expect("a program"));
    assert!(files[0] != files[1], "two programs");
    for _ in 0..2 {
        clients = live_with(&place, &today, clients).await;
        let taken_back = place.command(&back, "back").wait().expect("it ends");
        assert!(taken_back.success(), "{}", place.said("command.log"));
        clients = live_with(&place, &older, clients).await;
        let version = place.rows("SELECT '', '', MAX(version) FROM _sqlx_migrations").await;
        assert_eq!(version[0].2, version_before(), "it works on its own tables");
    }
    clients = live_with(&place, &today, clients).await;
    let rotations = check(&place, &clients).await;
    println!(
        "five turns of two programs: {} sessions, {rotations} rotations",
        clients.len()
    );
}
