//! Stored keys that somebody deletes: who serves goes on and says so, who starts does not, and no other key takes their
//! place by itself (F12).

use crate::app::TestApp;
use crate::browser::Browser;
use crate::keys::kid;
use crate::program::Program;
use crate::replaced::refused_start;

#[tokio::test]
async fn f12_keys_that_somebody_deletes_at_run_time_do_not_stop_the_server_and_it_says_so() {
    let app = TestApp::start("f12 running").await;
    let other = app.beside_at(app.now()).await;
    let (_, mut program) = app.add_program("max").await;
    let backend = app.backend();
    let note = async || backend.note_damaged_keys().await.expect("the database answers");
    app.execute("CREATE TABLE kept AS SELECT * FROM keys WHERE purpose = 'edge'")
        .await;
    app.execute("DELETE FROM keys WHERE purpose = 'edge'").await;
    for _ in 0..3 {
        app.pass(60);
        program.renew().await.expect(200);
        program.sessions().await.expect(200);
        note().await;
    }
    // All nodes have the same table: were one not ready for it, none would be.
    Browser::new(&app).get("/readyz").await.expect(200);
    assert_eq!(app.events("stored_keys_damaged").await, 1, "once");
    backend.draw_consequences().await.expect("the database answers");
    let alerts = "SELECT count(*) FROM audit_events WHERE kind = 'alert_raised' AND reason = 'keys_damaged'";
    assert_eq!(app.number(alerts).await, 1);
    // Put right it is no more.
    other.pass(180);
    program.app = other.clone();
    program.sessions().await.expect(200);
    app.execute("INSERT INTO keys SELECT * FROM kept").await;
    app.execute("DROP TABLE kept").await;
    app.pass(1);
    program.app = app.clone();
    program.sessions().await.expect(200);
    note().await;
    assert_eq!(app.events("stored_keys_damaged").await, 1);
    assert!(app.command(&["keys", "list"], &[]).await.status.success());
    // A key that is marked as removed goes all the same.
    app.execute("UPDATE keys SET state = 'removed', removed_at = 1 WHERE purpose = 'signing'")
        .await;
    app.pass(1);
    assert!(!program.sessions().await.status.is_success());
    Browser::new(&app).get("/readyz").await.expect(503);
}

#[tokio::test]
async fn f12_a_start_without_a_stored_key_is_refused_and_only_recovery_makes_another() {
    for purpose in ["edge", "signing"] {
        let app = TestApp::start(&format!("f12 no {purpose}")).await;
        let (person, program) = app.add_program("max").await;
        app.execute(&format!("DELETE FROM keys WHERE purpose = '{purpose}'"))
            .await;
        let keys = async || app.rows("SELECT id, state FROM keys").await;
        let left = keys().await;
        let said = refused_start(&app, &[]).await;
        assert!(said.contains(purpose), "{said}");
        assert_eq!(keys().await, left, "left alone");
        assert_eq!(app.events("key_created").await, 2);

        let recovered = app.command(&["recover"], &[]).await;
        assert!(
            recovered.status.success(),
            "{}",
            String::from_utf8_lossy(&recovered.stderr)
        );
        let again = app.restart().await;
        let mut old = Program {
            app: again.clone(),
            ..program
        };
        // Whom the edge key vouched for is a stranger now; nobody is accused.
        assert!(!old.renew().await.status.is_success());
        assert_eq!(again.events("authn_token_reuse").await, 0);
        again.pass(60);
        let anew = Program::signed_in(&again, &person).await;
        assert_ne!(kid(&anew.access), kid(&old.access));
    }
}

#[tokio::test]
async fn f12_of_keys_that_were_altered_recovery_makes_others_if_the_key_encryption_key_is_proved_right() {
    let app = TestApp::start("f12 altered").await;
    let keys = async || app.rows("SELECT id, state FROM keys ORDER BY id").await;
    let alter = async |which: &str| {
        let bytes = if app.backend().store().is_postgres() {
            "'\\x00'::bytea"
        } else {
            "x'00'"
        };
        app.execute(&format!("UPDATE keys SET private_sealed = {bytes} WHERE {which}"))
            .await;
    };
    let other = data_encoding::BASE64URL_NOPAD.encode(&server::services::sha256(b"of another server"));
    let other = [("SECRETS__KEY_ENCRYPTION_KEY", other.as_str())];
    let recover = async |changes: &[(&str, &str)]| {
        let output = app.command(&["recover"], changes).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let intact = keys().await;
    // All is there, and the operator has the wrong key at hand.
    let (done, said) = recover(&other).await;
    assert!(!done && said.contains("another key-encryption key"), "{said}");
    // Nothing is left that tells which key is the right one.
    alter("state <> 'removed'").await;
    let (done, said) = recover(&[]).await;
    assert!(!done && said.contains("another key-encryption key"), "{said}");
    assert_eq!(keys().await, intact, "left alone");
    // A session's secret tells it, also if no key is left.
    let (person, _) = app.add_program("max").await;
    assert!(!recover(&other).await.0);
    app.execute("CREATE TABLE kept AS SELECT * FROM keys").await;
    app.execute("DELETE FROM keys").await;
    assert!(!recover(&other).await.0);
    assert_eq!(keys().await.len(), 0, "none is made with it");
    app.execute("INSERT INTO keys SELECT * FROM kept").await;
    app.execute("DROP TABLE kept").await;
    assert_eq!(keys().await, intact, "left alone");
    for which in [
        "state <> 'removed'",
        "state = 'active' AND purpose = 'edge'",
        "state = 'active' AND purpose = 'signing'",
    ] {
        alter(which).await;
        let before = keys().await;
        refused_start(&app, &[]).await;
        assert_eq!(keys().await, before, "left alone");
        let (done, said) = recover(&[]).await;
        assert!(done, "{which}: {said}");
        let again = app.restart().await;
        again.pass(60);
        Program::signed_in(&again, &person).await.sessions().await.expect(200);
    }
    // All of it is done, or nothing.
    alter("state = 'active' AND purpose = 'edge'").await;
    let before = keys().await;
    let checkpoint = server::startup::checkpoint_path(&app.settings(&[]));
    let _ = std::fs::remove_file(&checkpoint);
    std::fs::create_dir(&checkpoint).expect("made");
    let (done, said) = recover(&[]).await;
    assert!(!done, "{said}");
    assert_eq!(keys().await, before, "left alone");
    let damaged = "SELECT COUNT(*) FROM audit_events WHERE kind = 'key_removed' AND reason = 'damaged'";
    assert_eq!(app.number(damaged).await, 4);
}
