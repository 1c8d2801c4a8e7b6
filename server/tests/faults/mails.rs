//! Whose token was used twice is told by mail (F11) by a program that is killed while it sends, again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::mail_server::{AfterMail, Arrived, MailServer};
use crate::place::{Place, postgres_url};
use crate::serving::Serving;
use crate::{MACHINE, now, scale};

/// Thefts in each life.
const THEFTS: usize = 6;
/// Everything is sent within so much time.
const SENT_WITHIN: Duration = Duration::from_secs(30);

fn distinct(arrived: &[Arrived]) -> usize {
    let ids: BTreeSet<&str> = arrived.iter().map(|mail| mail.header("message-id")).collect();
    ids.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_whose_token_was_used_twice_gets_a_mail_though_the_program_is_killed_while_it_sends() {
    let _turn = MACHINE.lock().await;
    if postgres_url().is_some() {
        println!(
            "skipped: on PostgreSQL another node waits six minutes for one that was killed; tests/api does that by its own clock"
        );
        return;
    }
    let place = Place::make().await;
    let lives = scale(3, 30);
    let mut clients = place.people(THEFTS * (lives + 1)).await;
    place.execute("UPDATE users SET email = 'walter@example.org'").await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    let mut copies = Vec::new();
    for client in &mut clients {
        copies.push(client.token.clone());
        let answer = serving.refresh(&client.token).await.expect("an answer");
        client.take(&answer);
        let seen = serving.get("/api/v1/me", &client.access).await.expect("an answer");
        assert_eq!(seen.status, 200, "{seen:?}");
    }
    // On a busy machine a check may give up noting that a token is used: the next one notes it.
    for client in clients.iter().cycle() {
        let confirmed = "SELECT '', '', COUNT(*) FROM sessions WHERE generation > 0 AND child_confirmed = 1";
        if usize::try_from(place.rows(confirmed).await[0].2) == Ok(clients.len()) {
            break;
        }
        let seen = serving.get("/api/v1/me", &client.access).await.expect("an answer");
        assert_eq!(seen.status, 200, "{seen:?}");
    }
    serving.kill();
    place.let_pass(70).await;

    let server = MailServer::begin().await;
    server.after_mails(AfterMail::TakesSlowly);
    let url = server.url();
    let mail = [
        ("MAYFLY__MAIL__SERVER", url.as_str()),
        ("MAYFLY__MAIL__FROM", "mayfly@id.example.com"),
    ];
    let mut arrived = Vec::new();
    for (life, copies) in copies.chunks(THEFTS).enumerate() {
        let serving = Serving::start_with(&place, &mail).await;
        for copy in copies {
            let answer = serving.refresh(copy).await.expect("an answer");
            assert_eq!(
                (answer.status, answer.body["reason"].as_str()),
                (401, Some("token_reused")),
                "{answer:?}"
            );
        }
        // All but one of those there ever were: no more than a few may wait for one address.
        while distinct(&arrived) < THEFTS * (life + 1) - 1 {
            arrived.extend(server.wait_for(1).await);
        }
        if life == lives {
            let begun = now();
            while place.rows("SELECT '', '', COUNT(*) FROM mails").await[0].2 > 0
                || place.rows("SELECT '', '', COUNT(*) FROM notices").await[0].2 > 0
            {
                assert!(now() - begun < SENT_WITHIN, "{}", serving.log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        } else {
            tokio::time::sleep(Duration::from_millis(17 * life as u64 % 60)).await;
        }
        serving.kill();
    }
    arrived.extend(server.arrived());
    for mail in &arrived {
        assert_eq!(mail.recipient, "walter@example.org");
    }
    let thefts = copies.len();
    println!(
        "{thefts} thefts, told by {} mails of programs of which {lives} were killed",
        arrived.len()
    );
    assert_eq!(distinct(&arrived), thefts, "one mail for each");
    assert!(
        arrived.len() <= thefts + lives,
        "at most one comes twice for each that was killed: {}",
        arrived.len()
    );
    let sent = place
        .rows("SELECT '', '', COUNT(*) FROM audit_events WHERE kind = 'mail_sent'")
        .await[0]
        .2;
    assert_eq!(usize::try_from(sent), Ok(thefts));
}
