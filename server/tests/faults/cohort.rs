//! Many sessions ended at once, while people sign in and another service follows what is revoked; and the command
//! killed in the middle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use server::domain::client::{ClientName, LONGEST_ACCESS, Scopes};
use server::domain::clock::SystemClock;
use server::domain::random::SystemRandom;
use server::services::oauth::{AddClientOutcome, NewClient};
use server::startup::{Purpose, open_backend};
use server::verify::{BOUND, Checker, Denied, Expected};
use tokio::task::JoinHandle;

use crate::clients::{Client, sign_in};
use crate::place::{Place, USERNAME};
use crate::serving::Serving;
use crate::{MACHINE, in_time, now, released, scale};

#[path = "../../examples/orders/issuer.rs"]
mod issuer;

const WANDA: &str = "wanda";
const REASON: [&str; 2] = ["--reason", "the test of an emergency"];
/// So many of a crowd are looked at before and after.
const HELD: usize = 5;
/// Ending the sessions of a cohort takes no longer.
const IN_TIME: Duration = Duration::from_secs(5);
/// A service that had to hear of very many endings at once knows everything again. What runs here is not optimised.
const CAUGHT_UP: Duration = Duration::from_secs(10);
/// Between two clocks of this machine.
const APART: Duration = Duration::from_millis(50);

/// A service that checks access tokens by itself and follows what is revoked, as `examples/orders` does.
struct Shop {
    checker: Arc<Checker>,
    following: JoinHandle<()>,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Shop {
    /// Opens beside the program and is ready.
    async fn beside(place: &Place, serving: &Serving) -> Self {
        let (settings, clock) = (place.settings(), Arc::new(SystemClock));
        let random = Arc::new(SystemRandom::default());
        let backend = open_backend(&settings, clock.clone(), random, Purpose::Command)
            .await
            .expect("it opens");
        let new = NewClient {
            name: ClientName::parse("orders").expect("a name"),
            scopes: Scopes::parse("revocations").expect("scopes"),
            keys: None,
            access: LONGEST_ACCESS,
            may_introspect: false,
            logout_uri: None,
        };
        let added = backend.add_client(new).await.expect("the database answers");
        backend.store().close().await;
        let AddClientOutcome::Added(client) = added else {
            panic!("{added:?}")
        };
        let url = format!("http://{}", serving.address());
        let secret = client.secret.expect("no keys, so a secret");
        let issuer = issuer::Issuer::new(url, client.id.to_string(), secret, clock.clone()).expect("a client");
        let expected = Expected {
            issuer: settings.public_url.as_str().to_owned(),
            audience: settings.audience().to_owned(),
            clock_tolerance: Duration::from_secs(30),
            bound: BOUND,
            address: None,
        };
        let checker = Arc::new(Checker::new(expected, Arc::new(issuer), clock));
        let following = tokio::spawn({
            let checker = checker.clone();
            async move { checker.follow().await }
        });
        let shop = Self { checker, following };
        let begun = now();
        while !shop.checker.is_up_to_date() {
            assert!(now() - begun < CAUGHT_UP, "the feed never came");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        shop
    }

    /// Lets the bearer of a good token in, at the latest when it has caught up; until then it says that it cannot tell.
    async fn accepts(&self, access: &str) -> Duration {
        let begun = now();
        loop {
            match self.checker.check(access).await {
                Ok(_) => return now() - begun,
                Err(Denied::Unknown(why)) => assert!(now() - begun < CAUGHT_UP, "still not told: {why}"),
                Err(denied) => panic!("a good token: {denied}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Refuses the token of a session that had ended by then, as soon as it has caught up. Later than its bound it lets
    /// nobody in with it in any case.
    async fn refuses(&self, access: &str, ended: Instant) {
        loop {
            let asked = now();
            match self.checker.check(access).await {
                Err(Denied::Revoked) => return,
                Ok(_) => assert!(asked - ended < BOUND + APART, "let in though its session had ended"),
                Err(Denied::Unknown(why)) => assert!(asked - ended < CAUGHT_UP, "still not told: {why}"),
                Err(denied) => panic!("a token that was good: {denied}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Sessions that live, sessions that the command ended, its rows in the audit log, and revocations.
async fn counts(place: &Place) -> [i64; 4] {
    let sql = "SELECT '', '', (SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL) \
        UNION ALL SELECT '', '', (SELECT COUNT(*) FROM sessions WHERE end_reason = 'ended_by_admin') \
        UNION ALL SELECT '', '', (SELECT COUNT(DISTINCT session_id) FROM audit_events WHERE kind = 'session_revoked') \
        UNION ALL SELECT '', '', (SELECT COUNT(*) FROM revocations WHERE kind = 'session')";
    let rows = place.rows(sql).await;
    [rows[0].2, rows[1].2, rows[2].2, rows[3].2]
}

/// Living sessions of a kind.
async fn living(place: &Place, of: &str) -> i64 {
    let sql = format!("SELECT '', '', COUNT(*) FROM sessions WHERE ended_at IS NULL AND {of}");
    place.rows(&sql).await[0].2
}

/// The command and what tells it whose sessions to end.
fn end<'a>(which: &[&'a str]) -> Vec<&'a str> {
    [["sessions", "end"].as_slice(), which, &REASON].concat()
}

/// Has the command end so many sessions, and waits for it.
async fn end_in_time(place: &Place, which: [&str; 2], found: i64) {
    let begun = now();
    let mut command = place.command(&end(&which), "ended");
    let status = loop {
        if let Some(status) = command.try_wait().expect("our own child") {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let took = now() - begun;
    assert!(status.success(), "{}", place.said("command.log"));
    let said = place.said("ended");
    assert!(said.contains(&format!("Done: {found} sessions ended")), "{said}");
    println!(
        "{found} sessions of {which:?} ended in {} ms from start to exit",
        took.as_millis()
    );
    assert!(released().is_none() || took < IN_TIME, "{took:?}");
}

/// Waits until the command has said how far it is.
async fn first_line(place: &Place, output: &str) {
    let begun = now();
    while !place.said(output).contains("sessions ended") {
        assert!(now() - begun < Duration::from_mins(1), "{}", place.said("command.log"));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// They come for access tokens, which are good everywhere.
async fn come(serving: &Serving, shop: &Shop, clients: &mut [Client]) {
    for client in clients.iter_mut() {
        let answer = serving.refresh(&client.token).await.expect("an answer");
        client.take(&answer);
    }
    stay(serving, shop, clients).await;
}

/// Their access tokens are good at the program and at the service.
async fn stay(serving: &Serving, shop: &Shop, clients: &[Client]) {
    for client in clients {
        let answer = serving.get("/api/v1/me", &client.access).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        shop.accepts(&client.access).await;
    }
}

/// Their sessions have just ended: the running program hears of it, and so does the service.
async fn go(serving: &Serving, shop: &Shop, clients: &[Client]) {
    let ended = now();
    for client in clients {
        let me = async || serving.get("/api/v1/me", &client.access).await.expect("an answer");
        while me().await.status != 401 {
            assert!(
                now() - ended < in_time(Duration::from_secs(1)),
                "refused within a second"
            );
        }
    }
    for client in clients {
        shop.refuses(&client.access, ended).await;
        let answer = serving.refresh(&client.token).await.expect("an answer");
        assert_eq!(
            (answer.status, answer.body["reason"].as_str()),
            (401, Some("ended_by_admin")),
            "{answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f59_everybodys_sessions_end_though_the_command_is_killed_in_the_middle_and_who_signs_in_stays() {
    let _turn = MACHINE.lock().await;
    let place = Place::make().await;
    let many = scale(8000, 100_000);
    let mut clients = place.people(many).await;
    place.another(WANDA).await;
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    let shop = Shop::beside(&place, &serving).await;
    let held = &mut clients[many - HELD..];
    come(&serving, &shop, held).await;

    let mut killed = place.command(&end(&["--all"]), "killed");
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
    let mut again = place.command(&end(&["--all"]), "again");
    first_line(&place, "again").await;
    // Wanda signs in again and again meanwhile.
    let (mut wandas, mut slowest): (Vec<Client>, _) = (Vec::new(), Duration::ZERO);
    let status = loop {
        let asked = now();
        wandas.push(sign_in(&serving, WANDA).await);
        slowest = slowest.max(now() - asked);
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
    if released().is_some() {
        assert!(took < IN_TIME, "{took:?}");
    }
    assert!(
        slowest < in_time(Duration::from_secs(2)),
        "nobody waits long: {slowest:?}"
    );

    go(&serving, &shop, held).await;
    // Not only those who came while there was less to know.
    wandas.push(sign_in(&serving, WANDA).await);
    let caught_up = shop.accepts(&wandas[wandas.len() - 1].access).await;
    println!("the service lets Wanda in after {} ms", caught_up.as_millis());
    stay(&serving, &shop, &wandas).await;
    drop(shop);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f59_very_many_sessions_of_a_network_and_of_one_person_end_within_seconds_and_nobody_elses_do() {
    let _turn = MACHINE.lock().await;
    let place = Place::make().await;
    let clients = place.people(scale(2400, 200_000)).await;
    place.another(WANDA).await;
    // Half of them, by the last digits of their ids.
    let digit = format!("substr({}, 32, 1)", place.hex("id"));
    let lower = "('0', '1', '2', '3', '4', '5', '6', '7')";
    // From tens of thousands of addresses.
    let address = format!("'2001:db8::' || substr({}, 25, 4)", place.hex("id"));
    let moved = format!("UPDATE sessions SET address = {address} WHERE {digit} IN {lower}");
    place.execute(&moved).await;
    let is_far = |client: &Client| client.session.ends_with(|digit: char| ('0'..='7').contains(&digit));
    let (mut far, mut near): (Vec<_>, Vec<_>) = clients.into_iter().partition(is_far);
    far.truncate(HELD);
    near.truncate(HELD);
    place.let_pass(11).await;
    let serving = Serving::start(&place).await;
    let shop = Shop::beside(&place, &serving).await;
    come(&serving, &shop, &mut far).await;
    come(&serving, &shop, &mut near).await;
    let mut wandas = vec![sign_in(&serving, WANDA).await];

    let found = living(&place, "address LIKE '2001:db8::%'").await;
    end_in_time(&place, ["--network", "2001:db8::/32"], found).await;
    go(&serving, &shop, &far).await;
    stay(&serving, &shop, &near).await;
    wandas.push(sign_in(&serving, WANDA).await);
    stay(&serving, &shop, &wandas).await;

    let walters = format!("user_id = (SELECT id FROM users WHERE username = '{USERNAME}')");
    let rest = living(&place, &walters).await;
    end_in_time(&place, ["--user", USERNAME], rest).await;
    go(&serving, &shop, &near).await;
    wandas.push(sign_in(&serving, WANDA).await);
    stay(&serving, &shop, &wandas).await;
    drop(shop);
    serving.kill();
    assert_eq!(living(&place, &walters).await, 0);
    let [_, ended, written, revoked] = counts(&place).await;
    assert_eq!(
        (ended, ended, ended),
        (found + rest, written, revoked),
        "those and no others"
    );
}
