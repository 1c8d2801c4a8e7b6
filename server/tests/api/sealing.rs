//! Sealing the audit log as it goes on: what comes late, and what has piled up.

use std::time::Duration;

use server::domain::audit::{Circumstances, Event, Kind};
use server::domain::audit_seal::Tampering;
use server::domain::clock::Timestamp;
use server::domain::id::EventId;
use server::services::audit_checkpoint::LogEnd;
use server::startup::checkpoint_path;
use server::storage::audit::append_events;
use uuid::Uuid;

use crate::app::TestApp;
use crate::recovery::recover;

/// Commits now so many events that happened at the moment.
async fn commit(app: &TestApp, at: Timestamp, ids: std::ops::Range<u128>) {
    let event = |id| {
        Event::new(
            EventId(Uuid::from_u128(id)),
            at,
            Kind::SignedIn,
            &Circumstances::default(),
        )
    };
    let events: Vec<Event> = ids.map(event).collect();
    let mut tx = app.backend().store().write().await.expect("a transaction");
    append_events(&mut tx, &events).await.expect("appends");
    tx.commit().await.expect("commits");
}

/// One event that happens now.
async fn commit_one(app: &TestApp) {
    let at = app.now();
    let id = u128::try_from(at.as_millis()).expect("after 1970");
    commit(app, at, id..id + 1).await;
}

async fn seal(app: &TestApp) -> usize {
    let checkpoint = checkpoint_path(&app.settings(&[]));
    app.backend().seal_audit(&checkpoint).await.expect("sealed")
}

async fn assert_whole(app: &TestApp) {
    let checkpoint = checkpoint_path(&app.settings(&[]));
    let report = app.backend().verify_audit(&checkpoint).await.expect("verified");
    assert!(report.is_intact() && report.checkpoint, "{report}");
}

#[tokio::test]
async fn l7_what_is_committed_long_after_its_moment_is_sealed_too() {
    let app = TestApp::start("l7 late").await;
    assert!(seal(&app).await > 0, "the start");
    for (number, late) in [(1, 0), (2, 4), (3, 50), (4, 179)] {
        app.pass(5);
        commit(&app, app.now(), 10 * number..10 * number + 1).await;
        assert_eq!(seal(&app).await, 1, "what happens now, at the next look");
        commit(
            &app,
            app.now().minus(Duration::from_secs(late)),
            10 * number + 1..10 * number + 2,
        )
        .await;
        // As the server does it.
        let mut sealed = 0;
        for _ in 0..7 {
            app.pass(5);
            sealed += seal(&app).await;
        }
        assert_eq!(sealed, 1, "{late} s late: sealed within 35 s");
    }
    app.pass(600);
    assert_whole(&app).await;
}

#[tokio::test]
async fn l7_however_much_has_piled_up_for_however_long_nothing_stays_unsealed() {
    let app = TestApp::start("l7 piled up").await;
    assert!(seal(&app).await > 0, "the start");
    for minute in 0..10 {
        app.pass(60);
        commit(&app, app.now(), 1000 * minute + 1..1000 * minute + 301).await;
    }
    assert_eq!(seal(&app).await, 3000);
    app.pass(600);
    assert_whole(&app).await;
}

#[tokio::test]
async fn l7_a_checkpoint_does_not_follow_a_log_that_got_shorter() {
    let app = TestApp::start("l7 shorter").await;
    let path = checkpoint_path(&app.settings(&[]));
    commit(&app, app.now(), 1..3).await;
    assert!(seal(&app).await > 0);
    let kept = std::fs::read_to_string(&path).expect("a checkpoint");
    // Somebody with the database alone takes away the newest event and its seal.
    for table in ["audit_seals", "audit_events"] {
        let on = if app.backend().store().is_postgres() {
            format!(" ON {table}")
        } else {
            String::new()
        };
        app.execute(&format!("DROP TRIGGER {table}_no_delete{on}")).await;
    }
    app.execute("CREATE TABLE taken AS SELECT seq, event_id FROM audit_seals ORDER BY seq DESC LIMIT 1")
        .await;
    app.execute("DELETE FROM audit_seals WHERE seq IN (SELECT seq FROM taken)")
        .await;
    app.execute("DELETE FROM audit_events WHERE id IN (SELECT event_id FROM taken)")
        .await;
    let assert_kept = async |app: &TestApp| {
        assert_eq!(std::fs::read_to_string(&path).expect("a checkpoint"), kept);
        let report = app.backend().verify_audit(&path).await.expect("verified");
        assert!(!report.is_intact(), "{report}");
    };
    app.pass(60);
    assert_eq!(seal(&app).await, 0);
    assert_kept(&app).await;
    // Nor once it is longer again, nor after a start.
    commit(&app, app.now(), 3..6).await;
    assert_eq!(seal(&app).await, 4, "and the event that says so");
    assert_kept(&app).await;
    let app = app.restart().await;
    commit(&app, app.now(), 6..9).await;
    assert!(seal(&app).await > 0);
    assert_kept(&app).await;
    // Until somebody says that the loss is known; what proved it is kept.
    let done = recover(&app, &path).await.expect("recovered");
    assert_eq!(done.log, LogEnd::Replaced);
    let aside = done.put_aside.expect("it was put aside");
    assert_eq!(std::fs::read_to_string(aside).expect("it is there"), kept);
    assert_whole(&app).await;
}

#[tokio::test]
async fn l7_a_checkpoint_that_is_damaged_stays_until_it_is_put_aside() {
    let app = TestApp::start("l7 damaged").await;
    let path = checkpoint_path(&app.settings(&[]));
    assert!(seal(&app).await > 0);
    let good = std::fs::read(&path).expect("a checkpoint");
    let cut = good[..good.len() - 2].to_vec();
    for damaged in [vec![], b"\xff\xfe".to_vec(), cut] {
        std::fs::write(&path, &damaged).expect("written");
        app.pass(60);
        commit_one(&app).await;
        assert_eq!(seal(&app).await, 1);
        assert_eq!(std::fs::read(&path).expect("there"), damaged);
        let report = app.backend().verify_audit(&path).await.expect("verified");
        assert_eq!(report.tampering, Some(Tampering::CheckpointForged));
        let done = recover(&app, &path).await.expect("recovered");
        assert_eq!(done.log, LogEnd::CheckpointForged);
        assert_whole(&app).await;
    }
}

#[tokio::test]
async fn l7_after_a_start_what_happens_is_sealed_before_all_that_has_piled_up() {
    let app = TestApp::start("l7 start").await;
    assert!(seal(&app).await > 0, "the start");
    commit(&app, app.now().minus(Duration::from_hours(1)), 1..2001).await;
    // The last before the stop, and the first after it.
    commit(&app, app.now(), 3001..3002).await;
    app.pass(600);
    let app = app.restart().await;
    commit(&app, app.now(), 2001..2002).await;
    assert!(seal(&app).await > 2001);
    let after = |at| {
        format!(
            "SELECT count(*) FROM audit_seals s JOIN audit_events e ON e.id = s.event_id WHERE e.at {at} AND s.seq > \
            (SELECT MAX(n.seq) FROM audit_seals n JOIN audit_events m ON m.id = n.event_id WHERE m.at = {})",
            app.now().as_millis()
        )
    };
    assert_eq!(app.number(&after(&format!("< {}", app.now().as_millis()))).await, 2000);
    app.pass(600);
    assert_whole(&app).await;
}
