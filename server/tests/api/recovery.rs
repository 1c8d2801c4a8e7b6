//! Restored backups: after `mayfly recover` nothing that was handed out since is worth anything, and nobody is accused.

use std::path::Path;

use serde_json::json;
use server::domain::keys::KeyPurpose;
use server::domain::revocation::Target;
use server::services::ServiceError;
use server::services::recovery::Recovery;
use server::startup::checkpoint_path;

use crate::app::TestApp;
use crate::keys::{keep, kid, rotate};
use crate::people::Person;
use crate::program::Program;
use crate::reply::Reply;

/// The reason in the answer.
fn reason(reply: &Reply) -> String {
    reply.json()["reason"].as_str().unwrap_or_default().to_owned()
}

const LIVING: &str = "SELECT count(*) FROM sessions WHERE ended_at IS NULL";

/// As the command does it.
pub async fn recover(app: &TestApp, checkpoint: &Path) -> Result<Recovery, ServiceError> {
    let tx = app.backend().store().write().await?;
    app.backend().recover(tx, checkpoint).await
}

#[tokio::test]
async fn f10_after_a_restored_backup_nothing_lives_that_was_handed_out_since_and_nobody_is_accused() {
    let app = TestApp::start("f10 recovery").await;
    let (_, alice) = app.add_program("alice").await;
    let (_, bob) = app.add_program("bob").await;
    let (_, dora) = app.add_program("dora").await;
    let carol = app.add_person("carol", &["member"], false).await;
    let erin = app.add_person("erin", &["member"], true).await;
    let mut half_way = Program::new(&app);
    let body = json!({ "identifier": "erin", "password": erin.password });
    half_way.post("/auth/login", &body).await.expect(200);
    app.execute("UPDATE devices SET trusted_until = 9999999999999").await;
    app.backend().first_admin_link().await.expect("the database answers");
    app.backend()
        .seal_audit(&checkpoint_path(&app.settings(&[])))
        .await
        .expect("sealed");
    let app = app.back_up_and_restart().await;

    // What the backup knows nothing of.
    let [mut alice, bob, dora, half_way] = [alice, bob, dora, half_way].map(|program| anew_on(&app, &program));
    let of_the_backup = alice.refresh.clone();
    for _ in 0..2 {
        app.pass(60);
        alice.renew().await.expect(200);
        alice.sessions().await.expect(200);
    }
    let code = erin.code(&app);
    let mut since = half_way.clone();
    since.post("/auth/mfa", &json!({ "code": code })).await.expect(200);
    assert!(bob.end(&bob.session_id).await.status.is_success());
    let carol = Program::signed_in(&app, &carol).await;
    let followed = app
        .backend()
        .read_revocations(0)
        .await
        .expect("answers")
        .expect("known");
    let sealed = app.backend().seal_audit(&checkpoint_path(&app.settings(&[]))).await;
    assert!(sealed.expect("sealed") > 0);

    let app = app.restore_and_restart().await;
    assert_eq!(
        app.number(LIVING).await,
        3,
        "bob's session lives again: that is the danger"
    );
    let checkpoint = checkpoint_path(&app.settings(&[]));
    let report = app.backend().verify_audit(&checkpoint).await.expect("verified");
    assert!(!report.is_intact(), "the log lost its end");
    let done = recover(&app, &checkpoint).await.expect("recovered");
    assert_eq!((done.sessions, done.keys, done.links, done.devices), (3, 1, 1, 3));
    assert!(
        done.log.lost().expect("a checkpoint was there") > 5 && done.put_aside.is_some(),
        "{done:?}"
    );
    assert!(done.last_written < Some(app.now()), "{done:?}");

    // Nobody is accused; everybody is told why.
    let told = |program: &Program, token: &str| {
        let (mut program, token) = (anew_on(&app, program), token.to_owned());
        async move { program.present(&token).await }
    };
    for (program, token) in [
        (&alice, &alice.refresh),
        (&alice, &of_the_backup),
        (&bob, &bob.refresh),
        (&dora, &dora.refresh),
    ] {
        let reply = told(program, token).await.expect(401);
        assert_eq!(reason(&reply), "database_rolled_back", "{}", reply.body);
    }
    told(&carol, &carol.refresh).await.expect(400);
    for program in [&alice, &bob, &carol, &dora] {
        anew_on(&app, program).sessions().await.expect(401);
    }
    for accusation in ["authn_token_reuse", "database_rolled_back"] {
        assert_eq!(app.events(accusation).await, 0, "{accusation}");
    }
    // A sign-in under way is forgotten, a code that was used is used, links are void.
    let refused = anew_on(&app, &half_way)
        .post("/auth/mfa", &json!({ "code": code }))
        .await;
    assert!(refused.status.is_client_error(), "{}", refused.body);
    let mut again = Program::new(&app);
    again.post("/auth/login", &body).await.expect(200);
    let refused = again.post("/auth/mfa", &json!({ "code": code })).await;
    assert!(refused.status.is_client_error(), "{}", refused.body);
    let unused = "SELECT count(*) FROM one_time_links WHERE used_at IS NULL";
    assert_eq!(app.number(unused).await, 0);

    // Who follows revocations goes on from a number that was never given twice, and hears of the keys.
    let heard = app.backend().read_revocations(followed.cursor).await.expect("answers");
    let heard = heard.expect("the number of before still means something");
    assert!(heard.cursor > followed.cursor);
    assert!(heard.entries.iter().all(|entry| entry.cursor > followed.cursor));
    assert!(matches!(&heard.entries[..], [one] if matches!(one.target, Target::Key { .. })));
    sign_in_again(&app, erin).await;
}

#[tokio::test]
async fn f10_a_backup_a_day_old_signs_everybody_out_and_what_a_key_unknown_to_it_has_signed_is_refused() {
    let app = TestApp::start("f10 a day").await;
    let (person, alice) = app.add_program("alice").await;
    let (_, bob) = app.add_program("bob").await;
    let app = app.back_up_and_restart().await;

    // A day that the backup knows nothing of: one signs out, all keys are replaced, the other stays.
    let [mut alice, bob] = [alice, bob].map(|program| anew_on(&app, &program));
    let (first, of_the_backup) = (kid(&alice.access), alice.refresh.clone());
    assert!(bob.end(&bob.session_id).await.status.is_success());
    for purpose in [KeyPurpose::Signing, KeyPurpose::Edge] {
        rotate(&app, purpose).await;
    }
    assert_eq!(keep(&app).await, 2, "both come into use");
    for _ in 0..24 {
        app.pass(3600);
        alice.renew().await.expect(200);
        alice.sessions().await.expect(200);
    }
    let unknown = kid(&alice.access);
    assert_ne!(unknown, first);

    let app = app.restore_and_restart().await;
    assert_eq!(
        app.number(LIVING).await,
        2,
        "bob's session lives again: that is the danger"
    );
    let done = recover(&app, &checkpoint_path(&app.settings(&[]))).await;
    let done = done.expect("recovered");
    assert_eq!((done.sessions, done.keys), (2, 1));
    let [mut alice, mut bob] = [alice, bob].map(|program| anew_on(&app, &program));
    // No time has passed: it is the key that is not there. Nor is the edge key of the refresh token.
    alice.sessions().await.expect(401);
    alice.renew().await.expect(400);
    for reply in [alice.present(&of_the_backup).await, bob.renew().await] {
        let reply = reply.expect(401);
        assert_eq!(reason(&reply), "database_rolled_back", "{}", reply.body);
    }
    for accusation in ["authn_token_reuse", "database_rolled_back"] {
        assert_eq!(app.events(accusation).await, 0, "{accusation}");
    }
    let again = Program::signed_in(&app, &person).await;
    again.sessions().await.expect(200);
    assert!(![first, unknown].contains(&kid(&again.access)));
}

/// Everybody signs in again; the log is whole and says what happened. Once more does no more.
async fn sign_in_again(app: &TestApp, erin: Person) {
    let checkpoint = checkpoint_path(&app.settings(&[]));
    let person = Person {
        username: "dora".to_owned(),
        totp: None,
        ..erin
    };
    let mut dora = Program::signed_in(app, &person).await;
    dora.sessions().await.expect(200);
    app.pass(60);
    dora.renew().await.expect(200);
    let report = app.backend().verify_audit(&checkpoint).await.expect("verified");
    assert!(report.is_intact() && report.checkpoint, "{report}");
    let done = recover(app, &checkpoint).await.expect("recovered");
    assert_eq!(
        (done.sessions, done.keys, done.links, done.log.lost()),
        (1, 1, 0, Some(0))
    );
    let reply = anew_on(app, &dora).renew().await.expect(401);
    assert_eq!(reason(&reply), "database_rolled_back");
    assert_eq!(app.events("database_recovered").await, 2);
}

fn anew_on(app: &TestApp, program: &Program) -> Program {
    Program {
        app: app.clone(),
        ..program.clone()
    }
}

#[tokio::test]
async fn f8_a_token_newer_than_the_restored_copy_raises_one_alarm_and_recovery_ends_what_lives_again() {
    let app = TestApp::start("f8 snapshot").await;
    let (_, alice) = app.add_program("alice").await;
    let (_, bob) = app.add_program("bob").await;
    // Rested: the next refresh rotates.
    app.pass(60);
    let app = app.back_up_and_restart().await;

    // The second that is lost.
    let [mut alice, bob] = [alice, bob].map(|program| anew_on(&app, &program));
    app.pass(1);
    let of_the_copy = alice.refresh.clone();
    alice.renew().await.expect(200);
    assert_ne!(alice.refresh, of_the_copy);
    assert!(bob.end(&bob.session_id).await.status.is_success());
    bob.sessions().await.expect(401);

    let app = app.restore_and_restart().await;
    let [mut alice, mut bob] = [alice, bob].map(|program| anew_on(&app, &program));
    let newer = alice.refresh.clone();
    for (token, outcome) in [(&newer, "ahead"), (&newer, "over"), (&of_the_copy, "over")] {
        let reply = alice.present(token).await.expect(401);
        assert_eq!(
            (reply.header("mayfly-refresh"), reason(&reply).as_str()),
            (Some(outcome), "database_rolled_back")
        );
        assert_eq!(
            app.events("database_rolled_back").await,
            1,
            "one, however often it comes"
        );
    }
    alice.sessions().await.expect(401);
    assert_eq!(app.number(LIVING).await, 1, "bob's lives again: that is the danger");
    bob.sessions().await.expect(200);
    bob.renew().await.expect(200);

    let done = recover(&app, &checkpoint_path(&app.settings(&[]))).await;
    assert_eq!(done.expect("recovered").sessions, 1, "alice's had ended");
    assert_eq!(app.number(LIVING).await, 0);
    bob.sessions().await.expect(401);
    assert_eq!(reason(&bob.renew().await.expect(401)), "database_rolled_back");
    assert_eq!(app.events("database_rolled_back").await, 1, "recovering accuses nobody");
    assert_eq!(app.events("authn_token_reuse").await, 0);
    // Not by the end of its row alone: the account has left the sign-in of that time behind.
    app.execute("UPDATE sessions SET ended_at = NULL, end_reason = NULL")
        .await;
    bob.renew().await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f8_one_command_recovers_says_what_it_did_and_the_log_fits_afterwards() {
    let app = TestApp::start("f8 command").await;
    let (person, program) = app.add_program("alice").await;
    app.backend().store().close().await;
    let output = app.command(&["recover"], &[]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in [
        "last written at 2026-11-21T09:00:00Z",
        "1 sessions ended",
        "1 signing keys removed",
        "passwords that were changed",
        "restart it",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    let verified = app.command(&["audit", "verify"], &[]).await;
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
    let app = app.restart().await;
    let mut program = anew_on(&app, &program);
    assert_eq!(reason(&program.renew().await.expect(401)), "database_rolled_back");
    program.sessions().await.expect(401);
    program.sign_in(&person).await.expect(200);
    let facts = app
        .rows("SELECT facts FROM audit_events WHERE kind = 'database_recovered'")
        .await;
    assert!(
        facts[0][0]
            .as_deref()
            .is_some_and(|facts| facts.contains("command_line")),
        "{facts:?}"
    );
    program.sessions().await.expect(200);
}
