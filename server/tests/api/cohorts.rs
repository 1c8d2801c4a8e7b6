//! Many sessions ended at once: exactly the ones that are meant, and nobody else's.

use std::net::SocketAddr;
use std::time::Duration;

use server::domain::audit::Circumstances;
use server::domain::cohort::Cohort;
use server::domain::id::SessionId;
use server::services::keys::Order;
use server::storage::sessions::touch_session;

use crate::app::TestApp;
use crate::program::Program;

/// A program of this person's at this address.
async fn at(app: &TestApp, person: &crate::people::Person, address: [u8; 4]) -> Program {
    let mut program = Program::new(app);
    program.peer = SocketAddr::from((address, 40_000));
    program.sign_in(person).await.expect(200);
    program
}

#[tokio::test]
async fn f59_exactly_the_sessions_of_a_person_a_network_or_everybody_end() {
    let app = TestApp::start("f59").await;
    let max = app.add_person("max", &["member"], false).await;
    let eva = app.add_person("eva", &["member"], false).await;
    let order = Order {
        from: Circumstances::default(),
        by: "command_line",
        note: Some("a laptop was stolen"),
    };
    let end = async |cohort: Cohort| {
        app.backend()
            .end_cohort(&cohort, &order, |_, _| {})
            .await
            .expect("the database answers")
    };
    let programs = [
        at(&app, &max, [192, 0, 2, 1]).await,
        at(&app, &max, [198, 51, 100, 1]).await,
        at(&app, &eva, [192, 0, 2, 200]).await,
        at(&app, &eva, [203, 0, 113, 1]).await,
    ];
    let standing = async || {
        let mut standing = Vec::new();
        for program in &programs {
            let access = program.sessions().await.status.as_u16();
            // Nothing is exchanged yet: they were just signed in.
            let refresh = program.clone().renew().await;
            assert_eq!(
                (access, refresh.status == 401),
                (if access == 401 { 401 } else { 200 }, access == 401)
            );
            if access == 401 {
                assert_eq!(refresh.json()["reason"], "ended_by_admin", "{}", refresh.body);
            }
            standing.push(access == 200);
        }
        standing
    };
    assert_eq!(standing().await, [true; 4]);
    assert_eq!(
        end(Cohort::Network("192.0.2.0/25".parse().expect("a network"))).await,
        1
    );
    assert_eq!(standing().await, [false, true, true, true]);
    assert_eq!(end(Cohort::Person(eva.id)).await, 2);
    assert_eq!(standing().await, [false, true, false, false]);
    assert_eq!(end(Cohort::Person(eva.id)).await, 0, "once more ends nothing");
    assert_eq!(end(Cohort::Everybody).await, 1);
    assert_eq!(standing().await, [false; 4]);
    // Who signs in afterwards stays.
    let mut again = at(&app, &eva, [192, 0, 2, 1]).await;
    again.sessions().await.expect(200);
    app.pass(60);
    again.renew().await.expect(200);

    let each = "SELECT count(*) FROM audit_events WHERE kind = 'session_revoked' AND reason = 'ended_by_admin'";
    assert_eq!(app.number(each).await, 4, "each session once");
    let (begun, done) = ("mass_revocation_begun", "mass_revocation_done");
    assert_eq!((app.events(begun).await, app.events(done).await), (4, 4));
    let facts = app
        .rows("SELECT facts FROM audit_events WHERE kind = 'mass_revocation_done' AND reason = 'network'")
        .await;
    let facts = facts[0][0].as_deref().expect("facts");
    for fact in [
        "\"192.0.2.0/25\"",
        "\"sessions\":1",
        "command_line",
        "a laptop was stolen",
    ] {
        assert!(facts.contains(fact), "{fact} in {facts}");
    }
    let heard = app
        .backend()
        .read_revocations(0)
        .await
        .expect("answers")
        .expect("known");
    assert_eq!(heard.entries.len(), 4, "followers hear of each");
}

#[tokio::test]
async fn f59_the_command_wants_exactly_one_kind_of_cohort_and_a_person_who_exists() {
    let app = TestApp::start("f59 command").await;
    let (_, program) = app.add_program("max").await;
    for arguments in [
        &["sessions", "end"][..],
        &["sessions", "end", "--user", "max", "--all"],
        &["sessions", "end", "--all", "--network", "192.0.2.0/24"],
        &["sessions", "end", "--network", "example.org"],
        &["sessions", "end", "--user", "nobody"],
        &["sessions", "end", "--all", "--reason", "two\nlines"],
    ] {
        let output = app.command(arguments, &[]).await;
        assert!(!output.status.success(), "{arguments:?}");
        program.sessions().await.expect(200);
    }
    let output = app
        .command(&["sessions", "end", "--user", "MAX", "--reason", "a test"], &[])
        .await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("1 of 1 sessions ended") && said.contains("Done: 1 sessions ended"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    program.sessions().await.expect(401);
}

#[tokio::test]
async fn f59_meeting_a_transaction_that_goes_the_other_way_round_is_no_end_of_it() {
    let app = TestApp::start("f59 deadlock").await;
    let max = app.add_person("max", &["member"], false).await;
    let mut ids: Vec<SessionId> = Vec::new();
    for host in 1..=2 {
        let program = at(&app, &max, [192, 0, 2, host]).await;
        ids.push(program.session_id.parse().expect("an id"));
        app.pass(1);
    }
    let order = Order {
        from: Circumstances::default(),
        by: "command_line",
        note: None,
    };
    let later = app.now().plus(Duration::from_secs(1));
    let mut tx = app.backend().store().write().await.expect("a transaction");
    touch_session(&mut tx, ids[1], later.into()).await.expect("written");
    let other_way_round = async {
        // The batch has the first and waits for the second.
        tokio::time::sleep(Duration::from_millis(300)).await;
        // One of the two is told to give way.
        if touch_session(&mut tx, ids[0], later.into()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tx.commit().await.expect("committed");
        }
    };
    let ends = app.backend().end_cohort(&Cohort::Everybody, &order, |_, _| {});
    let (ended, ()) = tokio::join!(ends, other_way_round);
    assert_eq!(ended.expect("it goes on"), 2);
    assert_eq!(app.events("session_revoked").await, 2);
}
