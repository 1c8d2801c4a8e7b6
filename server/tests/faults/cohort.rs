//! Many sessions ended at once while people sign in, and the command killed in the middle.

use std::time::Duration;

use crate::clients::Client;
use crate::place::{PASSWORD, Place};
use crate::serving::Serving;
use crate::{MACHINE, now, scale};

const WANDA: &str = "wanda";

/// Sessions that live, sessions that the command ended, its rows in the audit log, and revocations.
async fn counts(place: &Place) -> [i64; 4] {
    let sql = "SELECT '', '', (SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL) \
        UNION ALL SELECT '', '', (SELECT COUNT(*) FROM sessions WHERE end_reason = 'ended_by_admin') \
        UNION ALL SELECT '', '', (SELECT COUNT(DISTINCT session_id) FROM audit_events WHERE kind = 'session_revoked') \
        UNION ALL SELECT '', '', (SELECT COUNT(*) FROM revocations WHERE kind = 'session')";
    let rows = place.rows(sql).await;
    [rows[0].2, rows[1].2, rows[2].2, rows[3].2]
}

/// Waits until the command has said how far it is.
async fn first_line(place: &Place, output: &str) {
    let begun = now();
    while !place.said(output).contains("sessions ended") {
        assert!(now() - begun < Duration::from_mins(1), "{}", place.said("command.log"));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f59_everybodys_sessions_end_though_the_command_is_killed_in_the_middle_and_who_signs_in_stays() {
    let _turn = MACHINE.lock().await;
    let place = Place::make().await;
    let many = scale(4000, 100_000);
    let mut clients = place.people(many).await;
    place.another(WANDA).await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    let held = clients.len() - 5;
    for client in &mut clients[held..] {
        let answer = serving.refresh(&client.token).await.expect("an answer");
        client.take(&answer);
        let checked = serving.get("/api/v1/me", &client.access).await.expect("an answer");
        assert_eq!(checked.status, 200, "{checked:?}");
    }
    let arguments = ["sessions", "end", "--all", "--reason", "the test of an emergency"];

    let mut killed = place.command(&arguments, "killed");
    first_line(&place, "killed").await;
    killed.kill().expect("our own child");
    killed.wait().expect("our own child");
    let [living, ended, written, revoked] = counts(&place).await;
    println!("killed when {ended} of {} sessions had ended", living + ended);
    assert!(ended > 0 && living > 0, "in the middle");
    assert_eq!(
        (ended, ended),
        (written, revoked),
        "what ended is written down and revoked, and nothing else is"
    );

    let begun = now();
    let mut again = place.command(&arguments, "again");
    first_line(&place, "again").await;
    // Wanda signs in again and again meanwhile.
    let (mut wandas, mut slowest): (Vec<Client>, _) = (Vec::new(), Duration::ZERO);
    let status = loop {
        let asked = now();
        let answer = serving.sign_in(WANDA, PASSWORD).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        slowest = slowest.max(now() - asked);
        let tokens = &answer.body["tokens"];
        let mut wanda = Client::new(tokens["refresh_token"].as_str().expect("a token"));
        tokens["access_token"]
            .as_str()
            .expect("a token")
            .clone_into(&mut wanda.access);
        wandas.push(wanda);
        if let Some(status) = again.try_wait().expect("our own child") {
            break status;
        }
    };
    let took = now() - begun;
    assert!(status.success(), "{}", place.said("command.log"));
    println!(
        "{living} sessions ended in {} ms from start to exit; {} sign-ins meanwhile, {} ms at most",
        took.as_millis(),
        wandas.len(),
        slowest.as_millis()
    );
    assert!(
        place.said("again").contains(&format!("Done: {living} sessions ended")),
        "{}",
        place.said("again")
    );
    if crate::released().is_some() {
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert!(slowest < Duration::from_secs(2), "nobody waits long: {slowest:?}");

    // The running program has heard of it.
    let told = now();
    for client in &clients[held..] {
        while serving
            .get("/api/v1/me", &client.access)
            .await
            .expect("an answer")
            .status
            != 401
        {
            assert!(now() - told < Duration::from_secs(1), "refused within a second");
        }
        let answer = serving.refresh(&client.token).await.expect("an answer");
        assert_eq!(
            (answer.status, answer.body["reason"].as_str()),
            (401, Some("ended_by_admin")),
            "{answer:?}"
        );
    }
    for wanda in &wandas {
        let answer = serving.get("/api/v1/me", &wanda.access).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    serving.kill();
    let [living, ended, written, revoked] = counts(&place).await;
    assert_eq!(usize::try_from(living).expect("a count"), wandas.len());
    // Both people had one more from their invitation.
    assert_eq!(usize::try_from(ended).expect("a count"), many + 2);
    assert_eq!((ended, ended), (written, revoked));
    let audited = "SELECT kind, facts, at FROM audit_events WHERE kind LIKE 'mass_revocation%' ORDER BY at, id";
    let kinds: Vec<String> = place.rows(audited).await.into_iter().map(|row| row.0).collect();
    assert_eq!(
        kinds,
        ["mass_revocation_begun", "mass_revocation_begun", "mass_revocation_done"],
        "that it was interrupted can be seen"
    );
}
