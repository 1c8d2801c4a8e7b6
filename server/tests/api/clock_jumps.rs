//! A wall clock that jumps, forth and back: nobody is accused of theft, nothing panics, nothing lives longer.

use std::sync::Arc;
use std::time::Duration;

use server::domain::clock::{ManualClock, Timestamp};
use server::services::forgetting::Past;
use server::startup::{Application, checkpoint_path};

use crate::app::{BEGIN, SeededRandom, TestApp};
use crate::people::Auditor;
use crate::program::Program;
use crate::reply::Reply;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Further than any session lives.
const FAR: i64 = 2 * DAY;

/// What a jump of so many seconds may do to an honest program: nothing, or end the session for its age.
fn judge(reply: &Reply, jump: i64) {
    match reply.status.as_u16() {
        200 | 409 => assert!(jump < 60 * DAY, "{jump} s: no session lives as long: {}", reply.body),
        401 => {
            let reason = reply.json()["reason"].as_str().unwrap_or_default().to_owned();
            assert!(
                jump >= MINUTE && ["idle", "expired"].contains(&reason.as_str()),
                "{jump} s: {}",
                reply.body
            );
        }
        other => panic!("{jump} s: {other} {}", reply.body),
    }
}

#[tokio::test]
async fn f17_whichever_way_the_clock_jumps_nobody_is_accused_of_theft() {
    let app = TestApp::start("f17").await;
    let to_1970 = Timestamp::from_seconds(30).as_seconds() - BEGIN.as_seconds() - 5 * MINUTE;
    let jumps = [
        1,
        MINUTE,
        HOUR,
        DAY,
        FAR,
        365 * DAY,
        20 * 365 * DAY,
        80 * 365 * DAY,
        -1,
        -MINUTE,
        -HOUR,
        -DAY,
        to_1970,
    ];
    for (at, jump) in jumps.into_iter().enumerate() {
        app.set_clock(BEGIN);
        let person = app.add_person(&format!("person{at}"), &["member"], false).await;
        let mut honest = Program::signed_in(&app, &person).await;
        let mut unlucky = Program::signed_in(&app, &person).await;
        app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() + 4 * MINUTE));
        honest.renew().await.expect(200);
        honest.sessions().await.expect(200);
        // The answer of this one was lost.
        unlucky.present(&unlucky.refresh.clone()).await.expect(200);

        let real = BEGIN.as_seconds() + 5 * MINUTE;
        app.set_clock(Timestamp::from_seconds(real + jump));
        assert!(!honest.sessions().await.status.is_server_error(), "{jump} s");
        let now = [honest.renew().await, unlucky.renew().await];
        for reply in &now {
            judge(reply, jump);
        }
        if jump < 0 {
            honest.sessions().await.expect(200);
        }
        // The clock is put right again.
        app.set_clock(Timestamp::from_seconds(real + MINUTE));
        for (program, before) in [&mut honest, &mut unlucky].into_iter().zip(&now) {
            let reply = program.renew().await;
            judge(&reply, jump);
            assert_eq!(reply.status == 401, before.status == 401, "{jump} s: {}", reply.body);
        }
    }
    for accusation in ["authn_token_reuse", "database_rolled_back", "sys_crash"] {
        assert_eq!(app.events(accusation).await, 0, "{accusation}");
    }
}

#[tokio::test]
async fn f17_a_clock_that_is_years_ahead_for_hours_removes_nobodys_session() {
    let app = TestApp::start("f17 years ahead").await;
    let person = app.add_person("ada", &["member"], false).await;
    let mut program = Program::signed_in(&app, &person).await;
    let ended = Program::signed_in(&app, &person).await;
    assert!(ended.end(&ended.session_id).await.status.is_success());
    let clear_away = async || {
        app.backend().watch_clock().await.expect("the database answers");
        app.backend().sweep_expired().await.expect("swept");
        app.backend().forget(Past::Sessions).await.expect("removed")
    };
    app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() + 20 * 365 * DAY));
    assert_eq!(clear_away().await, 0, "nothing, so soon after a jump");
    app.pass(3 * 60 * 60);
    assert_eq!(clear_away().await, 1, "only what ended years ago by this clock");

    app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() + MINUTE));
    assert_eq!(program.sessions().await.expect(401).json()["reason"], "expired");
    assert_eq!(program.renew().await.expect(401).json()["reason"], "expired");
    assert_eq!(app.events("refresh_refused").await, 0, "nobody is called a forger");
}

/// Sizes and reasons of the jumps that were written down, in any order.
async fn written_down(app: &TestApp) -> Vec<(i64, String)> {
    let rows = app
        .rows("SELECT facts, reason FROM audit_events WHERE kind = 'clock_jump'")
        .await;
    let mut jumps: Vec<(i64, String)> = rows
        .into_iter()
        .map(|row| {
            let facts: serde_json::Value = serde_json::from_str(row[0].as_deref().expect("facts")).expect("JSON");
            let seconds = facts["seconds"].as_i64().expect("seconds");
            (seconds, row[1].clone().expect("a reason"))
        })
        .collect();
    jumps.sort();
    jumps
}

#[tokio::test]
async fn f17_a_jump_of_the_clock_is_written_down_once_with_its_size() {
    let app = TestApp::start("f17 written down").await;
    let look = async || app.backend().watch_clock().await.expect("the database answers");
    let step = |seconds: i64| app.set_clock(Timestamp::from_seconds(app.now().as_seconds() + seconds));
    for passing in [0, 1, 30, 31, 86_400] {
        app.pass(passing);
        assert_eq!(look().await, None, "{passing} s: time that passes is no jump");
    }
    for correction in [1, -1, 30, -30] {
        step(correction);
        assert_eq!(look().await, None, "{correction} s: a correction");
    }
    let jumps = [31, 60, HOUR, DAY, 20 * 365 * DAY, -31, -MINUTE, -HOUR, -DAY];
    for jump in jumps {
        // Time passes as well.
        app.pass(7);
        step(jump);
        assert_eq!(look().await, Some(jump));
        assert_eq!(look().await, None, "once");
    }
    let mut expected = jumps.map(|jump| {
        let reason = if jump < 0 {
            "clock_was_set_back"
        } else {
            "clock_was_set_forward_or_machine_was_suspended"
        };
        (jump, reason.to_owned())
    });
    expected.sort();
    assert_eq!(written_down(&app).await, expected);

    let mut auditor = Auditor::sign_in(&app).await;
    let page = auditor
        .browser
        .open("/admin/audit?kind=clock_jump")
        .await
        .expect(200)
        .page();
    for words in [
        "Clock jump",
        "clock was set forward or machine was suspended",
        "seconds: 3600",
        "system",
    ] {
        assert!(page.contains(words), "{words} in {page}");
    }
}

#[tokio::test]
async fn f17_after_a_clock_was_set_back_the_log_is_sealed_on_and_fits() {
    let app = TestApp::start("f17 sealed").await;
    let checkpoint = checkpoint_path(&app.settings(&[]));
    let seal = async || app.backend().seal_audit(&checkpoint).await.expect("sealed");
    app.add_program("before").await;
    assert!(seal().await > 0);
    app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() - DAY));
    assert_eq!(app.backend().watch_clock().await.expect("written down"), Some(-DAY));
    app.add_program("after").await;
    assert!(
        seal().await > 1,
        "what happens now is older than the last seal, and is sealed all the same"
    );
    app.pass(120);
    let report = app.backend().verify_audit(&checkpoint).await.expect("verified");
    assert!(report.is_intact() && report.checkpoint, "{report}");
}

#[tokio::test]
async fn f17_a_serving_node_looks_at_its_clock_by_itself() {
    let app = TestApp::start("f17 serving").await;
    let clock = Arc::new(ManualClock::new(BEGIN));
    let settings = app.settings(&[("SERVER__ADDRESS", "127.0.0.1:0")]);
    let random = Arc::new(SeededRandom::new("f17 serving, the node"));
    let node = Application::build(settings, clock.clone(), random)
        .await
        .expect("it starts");
    let serving = tokio::spawn(node.run());
    let until = async |count: i64| {
        for _ in 0..100 {
            if app.events("clock_jump").await >= count {
                return;
            }
            assert!(!serving.is_finished(), "it goes on");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{count} jumps are not written down: {:?}", written_down(&app).await);
    };
    while app.events("sys_startup").await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    clock.set(Timestamp::from_seconds(BEGIN.as_seconds() + 20 * 365 * DAY));
    until(1).await;
    clock.set(BEGIN);
    until(2).await;
    clock.advance(Duration::from_hours(1));
    tokio::time::sleep(Duration::from_millis(600)).await;
    let sizes: Vec<i64> = written_down(&app)
        .await
        .into_iter()
        .map(|(seconds, _)| seconds)
        .collect();
    assert_eq!(sizes, [-20 * 365 * DAY, 20 * 365 * DAY], "and each only once");
    serving.abort();
}

#[tokio::test]
async fn f18_nodes_whose_clocks_differ_by_the_tolerance_refuse_nothing_of_each_other() {
    for skew in [-30, 30] {
        let here = TestApp::start(&format!("f18 {skew}")).await;
        let there = here.beside_at(Timestamp::from_seconds(BEGIN.as_seconds() + skew)).await;
        let (_, mut program) = here.add_program("max").await;
        let person = there.add_person("eva", &["member"], false).await;
        let mut browser = crate::browser::Browser::new(&there);
        browser.sign_in(&person).await;
        for round in 0..20 {
            for node in [&there, &here] {
                (program.app, browser.app) = (node.clone(), node.clone());
                program.sessions().await.expect(200);
                let reply = program.renew().await;
                assert!(
                    [200, 409].contains(&reply.status.as_u16()),
                    "{skew} s, {round}: {}",
                    reply.body
                );
                let page = browser.open("/").await.expect(200).page();
                assert!(page.contains("Your devices"), "{skew} s, {round}: {page}");
                here.pass(20);
                there.pass(20);
            }
        }
        assert!(here.events("token_rotated").await >= 20, "both refreshed on the way");
        for wrong in [
            "authn_token_reuse",
            "database_rolled_back",
            "session_expired",
            "refresh_refused",
        ] {
            assert_eq!(here.events(wrong).await, 0, "{skew} s: {wrong}");
        }
        // What one node ends, the other refuses.
        program.app = here.clone();
        assert!(program.end(&program.session_id).await.status.is_success());
        program.app = there.clone();
        program.sessions().await.expect(401);
    }
}
