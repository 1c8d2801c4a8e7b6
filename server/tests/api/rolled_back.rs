//! A database that loses its last commits under serving nodes, as in a failover to a replica that lagged behind.

use reqwest::Method;
use server::domain::revocation::Target;
use server::services::recovery::SKIPPED_CURSORS;

use crate::app::TestApp;
use crate::keys::{kid, revoke};
use crate::program::Program;
use crate::service::{Key, Service};

/// As if this revocation, and what it came with, had never been committed.
async fn lose(app: &TestApp, program: &Program) {
    let id = uuid::Uuid::try_parse(&program.session_id)
        .expect("an id")
        .simple()
        .to_string();
    let session = if app.backend().store().is_postgres() {
        format!("'{id}'")
    } else {
        format!("X'{id}'")
    };
    let undo = format!("UPDATE sessions SET ended_at = NULL, end_reason = NULL WHERE id = {session}");
    app.execute(&undo).await;
    app.execute("DELETE FROM revocations WHERE cursor = (SELECT last FROM revocation_cursor)")
        .await;
    app.execute("UPDATE revocation_cursor SET last = last - 1").await;
}

async fn sign_out(program: &Program) {
    program
        .ask_with(&program.access, Method::POST, "/auth/logout")
        .await
        .expect(204);
}

#[tokio::test]
async fn f8_what_a_node_knows_to_be_revoked_is_revoked_again_when_the_database_has_lost_it() {
    for is_given_again in [false, true] {
        let app = TestApp::start(&format!("f8 {is_given_again}")).await;
        let other = app.beside_at(app.now()).await;
        let person = app.add_person("max", &["member"], false).await;
        let (early, lost) = (
            Program::signed_in(&app, &person).await,
            Program::signed_in(&app, &person).await,
        );
        let (third, next, bystander) = (
            Program::signed_in(&app, &person).await,
            Program::signed_in(&app, &person).await,
            Program::signed_in(&app, &person).await,
        );
        let hears = async |node: &TestApp| node.backend().catch_up_with_revocations().await.expect("answers");
        sign_out(&early).await;
        sign_out(&lost).await;
        assert_eq!((hears(&app).await, hears(&other).await), (2, 2));
        // One of them knows more than the other.
        sign_out(&third).await;
        assert_eq!(hears(&other).await, 1);
        lose(&app, &third).await;
        lose(&app, &lost).await;
        lost.sessions().await.expect(200);
        if is_given_again {
            sign_out(&next).await;
        }
        let ends = if is_given_again { 3 } else { 2 };
        assert_eq!(hears(&app).await, ends, "everything anew");
        assert_eq!(hears(&other).await, ends + 1, "and what only the other knew");
        assert_eq!((hears(&app).await, hears(&other).await), (1, 0));
        lost.sessions().await.expect(401);
        third.sessions().await.expect(401);
        bystander.sessions().await.expect(200);
        let rows = app
            .rows("SELECT COUNT(*), MAX(end_reason) FROM sessions WHERE end_reason = 'database_rolled_back'")
            .await;
        assert_eq!(rows[0][0].as_deref(), Some("2"), "these and no other");
        // Whoever knows the numbers of before hears of all of them.
        let news = app
            .backend()
            .read_revocations(2)
            .await
            .expect("answers")
            .expect("known");
        assert!(news.entries.iter().all(|entry| entry.cursor > SKIPPED_CURSORS));
        for ended in [&early, &lost, &third] {
            let is_it =
                |target: &Target| matches!(target, Target::Session { id, .. } if id.to_string() == ended.session_id);
            assert!(news.entries.iter().any(|entry| is_it(&entry.target)), "{news:?}");
        }
        assert_eq!(
            app.events("revocations_lost").await,
            1,
            "by the first node that sees it"
        );
        app.backend().draw_consequences().await.expect("answers");
        let alerts =
            "SELECT COUNT(*) FROM audit_events WHERE kind = 'alert_raised' AND reason = 'database_rolled_back'";
        assert_eq!(app.number(alerts).await, 1);
    }
}

#[tokio::test]
async fn f8_a_persons_ended_sessions_a_disabled_client_and_a_revoked_key_stay_so_when_the_database_has_lost_it() {
    let app = TestApp::start("f8 all kinds").await;
    let backend = app.backend();
    let (person, program) = app.add_program("max").await;
    let service = Service::with_key(&app, "reports", "read", Key::es256()).await;
    let key = backend.keys().active_signing().kid().to_owned();
    let now = app.now().as_millis();
    let before = |sub: &str, cursor: i64| {
        format!(
            "INSERT INTO revocations (cursor, kind, value, below_generation, issued_before, at, until) \
             VALUES ({cursor}, 'subject', '{sub}', NULL, {now}, {now}, 9000000000000)"
        )
    };
    app.execute(&before(&person.id.to_string(), 1)).await;
    app.execute(&before(service.client_id.as_str(), 2)).await;
    app.execute(&format!(
        "INSERT INTO revocations (cursor, kind, value, below_generation, issued_before, at, until) \
         VALUES (3, 'key', '{key}', NULL, NULL, {now}, 9000000000000)"
    ))
    .await;
    let token = "018f2f2e-0000-7000-8000-000000000007";
    app.execute(&format!(
        "INSERT INTO revocations (cursor, kind, value, below_generation, issued_before, at, until) \
         VALUES (4, 'token', '{token}', NULL, NULL, {now}, 9000000000000)"
    ))
    .await;
    app.execute("UPDATE revocation_cursor SET last = 4").await;
    assert_eq!(backend.catch_up_with_revocations().await.expect("answers"), 4);
    app.execute("DELETE FROM revocations").await;
    app.execute("UPDATE revocation_cursor SET last = 0").await;
    let epoch = format!("SELECT auth_epoch FROM users WHERE username = '{}'", person.username);
    let before = app.number(&epoch).await;
    backend.catch_up_with_revocations().await.expect("answers");
    assert_eq!(
        app.number(&epoch).await,
        before + 1,
        "none of the person's sessions lives"
    );
    program.sessions().await.expect(401);
    assert_ne!(backend.keys().active_signing().kid(), key);
    service.present(&service.assertion("one")).await.expect(401);
    let state = "SELECT COUNT(*) FROM keys WHERE state = 'removed'";
    assert_eq!(app.number(state).await, 1);
    let written = app
        .rows("SELECT kind, COUNT(*) FROM revocations GROUP BY kind ORDER BY kind")
        .await;
    let written: Vec<String> = written
        .iter()
        .map(|row| {
            format!(
                "{} {}",
                row[0].as_deref().expect("a kind"),
                row[1].as_deref().expect("a count")
            )
        })
        .collect();
    assert_eq!(
        written,
        ["key 1", "subject 2", "token 1"],
        "whoever comes later hears of all of it"
    );
}

/// As many keys as before, in as many states: only their names say that they are others.
#[tokio::test]
async fn f8_all_nodes_sign_with_the_stored_key_after_a_revocation_of_a_key_was_lost_and_made_again() {
    let app = TestApp::start("f8 key").await;
    let other = app.beside_at(app.now()).await;
    let (person, program) = app.add_program("max").await;
    let first = kid(&program.access);
    app.execute("CREATE TABLE kept AS SELECT * FROM keys").await;
    revoke(&app, &first).await;
    let hears = async |node: &TestApp| node.backend().catch_up_with_revocations().await.expect("answers");
    assert_eq!((hears(&app).await, hears(&other).await), (1, 1));
    let looks = async || {
        for node in [&app, &other] {
            node.pass(1);
            node.backend().follow_keys().await.expect("the database answers");
        }
    };
    looks().await;
    let lost = kid(&Program::signed_in(&other, &person).await.access);
    assert_ne!(lost, first);

    for undo in [
        "DELETE FROM keys",
        "INSERT INTO keys SELECT * FROM kept",
        "DROP TABLE kept",
        "DELETE FROM revocations",
        "UPDATE revocation_cursor SET last = 0",
    ] {
        app.execute(undo).await;
    }
    hears(&app).await;
    hears(&other).await;
    looks().await;
    let stored = app
        .rows("SELECT id FROM keys WHERE purpose = 'signing' AND state = 'active'")
        .await;
    let stored = stored[0][0].clone().expect("an id");
    assert!(stored != first && stored != lost);
    for node in [&app, &other] {
        let program = Program::signed_in(node, &person).await;
        assert_eq!(kid(&program.access), stored);
        for asked in [&app, &other] {
            let program = Program {
                app: asked.clone(),
                ..program.clone()
            };
            program.sessions().await.expect(200);
        }
    }
}

#[tokio::test]
async fn f8_who_signed_in_after_an_end_that_was_not_lost_stays_signed_in() {
    let app = TestApp::start("f8 kept").await;
    let (person, _) = app.add_program("max").await;
    let backend = app.backend();
    let now = app.now().as_millis();
    let ended = format!(
        "INSERT INTO revocations (cursor, kind, value, below_generation, issued_before, at, until) \
         VALUES (1, 'subject', '{}', NULL, {now}, {now}, 9000000000000)",
        person.id
    );
    app.execute(&ended).await;
    app.execute("UPDATE revocation_cursor SET last = 1").await;
    assert_eq!(backend.catch_up_with_revocations().await.expect("answers"), 1);
    app.pass(60);
    let program = Program::signed_in(&app, &person).await;
    let lost = Program::signed_in(&app, &person).await;
    sign_out(&lost).await;
    assert_eq!(backend.catch_up_with_revocations().await.expect("answers"), 1);
    lose(&app, &lost).await;
    backend.catch_up_with_revocations().await.expect("answers");
    lost.sessions().await.expect(401);
    program.sessions().await.expect(200);
}

#[tokio::test]
async fn f8_numbers_that_were_skipped_by_a_recovery_are_no_loss() {
    let app = TestApp::start("f8 gap").await;
    let now = app.now().as_millis();
    // More than are read at once.
    let rows: Vec<String> = (1..=1500)
        .map(|number| format!("({number}, 'key', 'k{number}', NULL, NULL, {now}, 9000000000000)"))
        .collect();
    app.execute(&format!(
        "INSERT INTO revocations (cursor, kind, value, below_generation, issued_before, at, until) VALUES {}",
        rows.join(", ")
    ))
    .await;
    app.execute(&format!(
        "UPDATE revocation_cursor SET last = {}",
        SKIPPED_CURSORS + 1500
    ))
    .await;
    let hears = async || app.backend().catch_up_with_revocations().await.expect("answers");
    assert_eq!((hears().await, hears().await), (1500, 0));
    let (_, program) = app.add_program("max").await;
    sign_out(&program).await;
    assert_eq!((hears().await, hears().await), (1, 0));
    assert_eq!(app.events("revocations_lost").await, 0);
}
