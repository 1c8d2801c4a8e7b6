//! A wall clock that jumps, forth and back: nobody is accused of theft, nothing panics, nothing lives longer.

use std::sync::Arc;
use std::time::Duration;

use server::domain::clock::{ManualClock, Timestamp};
use server::domain::keys::KeyPurpose;
use server::services::forgetting::Past;
use server::startup::{Application, checkpoint_path};

use crate::app::{BEGIN, SeededRandom, TestApp};
use crate::keys::{keep, rotate};
use crate::people::{Auditor, first_admin_path};
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
        app.backend().watch_clock().await.expect("the database answers");
        let person = app.add_person(&format!("person{at}"), &["member"], false).await;
        let mut honest = Program::signed_in(&app, &person).await;
        let mut unlucky = Program::signed_in(&app, &person).await;
        app.pass(4 * 60);
        honest.renew().await.expect(200);
        honest.sessions().await.expect(200);
        // The answer of this one was lost.
        unlucky.present(&unlucky.refresh.clone()).await.expect(200);

        app.pass(60);
        let real = app.now().as_seconds();
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
        app.set_clock(Timestamp::from_seconds(real));
        app.pass(60);
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

#[tokio::test]
async fn f17_a_session_that_began_while_the_clock_was_ahead_lives_no_longer_than_any_other() {
    for ahead in [60 * DAY, 20 * 365 * DAY] {
        let app = TestApp::start(&format!("f17 began {ahead} s ahead")).await;
        let person = app.add_person("ada", &["member"], false).await;
        let old = Program::signed_in(&app, &person).await;
        let look = async || {
            app.backend().watch_clock().await.expect("the database answers");
            app.backend().bring_back_sessions().await.expect("the database answers")
        };
        app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() + ahead));
        look().await;
        let mut used = Program::signed_in(&app, &person).await;
        let mut left = Program::signed_in(&app, &person).await;
        app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() + MINUTE));
        assert_eq!(look().await, 0, "nobody knows yet which clock is right");
        used.renew().await.expect(200);
        left.renew().await.expect(200);
        app.pass(24 * 3600 + 1);
        assert_eq!((look().await, look().await), (2, 0));
        let limits = "SELECT started_at, absolute_expires_at, last_active_at, look_at FROM sessions";
        for row in app.rows(limits).await {
            let at: Vec<i64> = row
                .iter()
                .map(|at| at.as_deref().expect("a time").parse().expect("a number"))
                .collect();
            let now = app.now().as_millis();
            assert!(at[0] <= now && at[2] <= now, "{at:?}");
            assert_eq!(at[1] - at[0], 30 * DAY * 1000, "its own absolute limit: {at:?}");
            assert!(at[3] <= now + 7 * DAY * 1000, "it is looked at in time: {at:?}");
        }
        assert!(!old.sessions().await.body.contains("idle"));
        // In use it lives for thirty days, unused for seven.
        for week in 0..5 {
            app.pass(u64::try_from(6 * DAY).expect("positive"));
            let reply = used.renew().await;
            if week < 4 {
                reply.expect(200);
            } else {
                assert_eq!(reply.expect(401).json()["reason"], "expired", "{ahead} s");
            }
            if week == 1 {
                assert_eq!(left.renew().await.expect(401).json()["reason"], "idle", "{ahead} s");
            }
        }
    }
}

#[tokio::test]
async fn f17_a_session_of_a_clock_that_was_ahead_is_brought_back_though_the_server_is_started_every_night() {
    let app = TestApp::start("f17 nightly").await;
    let person = app.add_person("ada", &["member"], false).await;
    app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() + 20 * 365 * DAY));
    app.backend().watch_clock().await.expect("the database answers");
    Program::signed_in(&app, &person).await;
    app.seal().await;
    app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() + MINUTE));
    app.backend().watch_clock().await.expect("the database answers");
    let mut found = Vec::new();
    let mut app = app;
    for _ in 0..3 {
        app = app.restart().await;
        app.backend().record_start().await.expect("the database answers");
        app.seal().await;
        app.pass(13 * 3600);
        app.backend().watch_clock().await.expect("the database answers");
        found.push(app.backend().bring_back_sessions().await.expect("the database answers"));
    }
    assert_eq!(found, [0, 1, 0]);
}

#[tokio::test]
async fn f17_a_clock_that_is_behind_for_a_moment_ends_nobodys_session() {
    let app = TestApp::start("f17 behind").await;
    let mut lifetimes = server::domain::policy::presets()[0].lifetimes.clone();
    lifetimes.idle = Duration::from_mins(15);
    lifetimes.access = Duration::from_mins(5);
    app.add_role("brief", lifetimes).await;
    let person = app.add_person("ada", &["brief"], false).await;
    app.pass(10 * 24 * 3600);
    let look = async || {
        app.backend().watch_clock().await.expect("the database answers");
        assert_eq!(app.backend().bring_back_sessions().await.expect("answers"), 0);
    };
    for behind in [HOUR, DAY] {
        look().await;
        let mut program = Program::signed_in(&app, &person).await;
        app.pass(60);
        let now = app.now();
        app.set_clock(Timestamp::from_seconds(now.as_seconds() - behind));
        look().await;
        program.renew().await.expect(200);
        program.sessions().await.expect(200);
        if behind == DAY {
            // For hours.
            app.pass(2 * 3600);
            look().await;
        }
        app.set_clock(now);
        look().await;
        app.pass(60);
        program.renew().await.expect(200);
        program.sessions().await.expect(200);
    }
}

#[tokio::test]
async fn f17_what_is_revoked_while_a_nodes_clock_is_ahead_is_known_to_it_when_it_is_put_right() {
    let app = TestApp::start("f17 heard ahead").await;
    let ahead = app
        .beside_at(Timestamp::from_seconds(BEGIN.as_seconds() + 2 * HOUR))
        .await;
    let (_, program) = app.add_program("ada").await;
    assert!(program.end(&program.session_id).await.status.is_success());
    let hears = async || ahead.backend().catch_up_with_revocations().await.expect("answers");
    assert_eq!((hears().await, hears().await), (1, 0));
    // Nor if it stayed so for hours, and has forgotten by then.
    ahead.pass(2 * 3600);
    ahead.backend().forget_past_revocations();
    let late = ahead.now().minus(Duration::from_hours(4));
    ahead.set_clock(late);
    ahead.backend().watch_clock().await.expect("written down");
    assert_eq!((hears().await, hears().await), (1, 0));
}

#[tokio::test]
async fn f17_a_link_that_was_made_while_the_clock_was_ahead_is_dead_when_it_is_set_right() {
    let app = TestApp::start("f17 link").await;
    app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() + DAY));
    let link = first_admin_path(&app).await;
    crate::browser::Browser::new(&app).open(&link).await.expect(200);
    app.set_clock(BEGIN);
    crate::browser::Browser::new(&app).open(&link).await.expect(404);
}

#[tokio::test]
async fn f17_a_tab_that_lost_a_race_is_not_accused_by_a_clock_that_is_set_forward_meanwhile() {
    for is_noticed in [false, true] {
        let app = TestApp::start(&format!("f17 race {is_noticed}")).await;
        let (_, mut program) = app.add_program("ada").await;
        app.pass(20);
        let mut behind = program.clone();
        program.renew().await.expect(200);
        program.sessions().await.expect(200);
        app.set_clock(app.now().plus(Duration::from_mins(2)));
        if is_noticed {
            assert_eq!(app.backend().watch_clock().await.expect("written down"), Some(120));
            app.pass(59);
        }
        let old = behind.refresh.clone();
        behind.present(&old).await.expect(409);
        program.sessions().await.expect(200);
        // Who still comes with it a minute later is somebody else.
        app.backend().watch_clock().await.expect("the database answers");
        app.pass(60);
        behind.present(&old).await.expect(401);
        assert_eq!(app.events("authn_token_reuse").await, 1);
    }
}

#[tokio::test]
async fn f17_a_clock_that_is_ahead_for_a_moment_makes_nothing_good_again() {
    let app = TestApp::start("f17 good again").await;
    let (person, program) = app.add_program("ada").await;
    let mut late = Program::signed_in(&app, &person).await;
    let service = crate::service::Service::with_key(&app, "reports", "read", crate::service::Key::es256()).await;
    let assertion = service.assertion("one");
    service.present(&assertion).await.expect(200);
    assert!(program.end(&program.session_id).await.status.is_success());
    let kept = async || {
        let sql = "SELECT (SELECT COUNT(*) FROM revocations) * 100 + (SELECT COUNT(*) FROM client_assertions)";
        app.number(sql).await
    };
    let clear_away = async || {
        app.backend().watch_clock().await.expect("the database answers");
        for past in Past::ALL {
            app.backend().forget(past).await.expect("answers");
        }
    };
    app.backend().catch_up_with_revocations().await.expect("answers");
    // Long enough after the start.
    app.pass(2 * 3600);
    service.present(&service.assertion("two")).await.expect(200);
    late.renew().await.expect(200);
    clear_away().await;
    assert_eq!(kept().await, 1, "only what is over is removed");
    let (_, other) = app.add_program("eva").await;
    assert!(other.end(&other.session_id).await.status.is_success());
    assert_eq!(kept().await, 101);

    let now = app.now();
    app.set_clock(Timestamp::from_seconds(now.as_seconds() + 60 * DAY));
    clear_away().await;
    assert_eq!(kept().await, 101, "nobody knows yet which clock is right");
    // Ended for its age by that clock, when its tokens were over.
    assert_eq!(late.renew().await.expect(401).json()["reason"], "expired");
    assert_eq!(kept().await, 101, "of which nobody has to be told then");
    app.set_clock(now);
    clear_away().await;
    assert_eq!(kept().await, 201, "and everybody now");
    assert_eq!(
        service.present(&service.assertion("two")).await.expect(401).code(),
        "invalid_client"
    );
    // Later it is removed all the same.
    app.pass(3 * 3600);
    clear_away().await;
    assert_eq!(kept().await, 0);
}

#[tokio::test]
async fn f17_a_clock_that_is_ahead_for_a_moment_removes_no_key() {
    let app = TestApp::start("f17 keys").await;
    app.pass(2 * 3600);
    for purpose in [KeyPurpose::Signing, KeyPurpose::Edge] {
        rotate(&app, purpose).await;
        assert_eq!(keep(&app).await, 1);
    }
    let retired = async || {
        app.backend().watch_clock().await.expect("the database answers");
        keep(&app).await;
        app.number("SELECT COUNT(*) FROM keys WHERE state = 'retired'").await
    };
    assert_eq!(retired().await, 2);
    let now = app.now();
    app.set_clock(Timestamp::from_seconds(now.as_seconds() + 400 * DAY));
    assert_eq!(retired().await, 2, "nobody knows yet which clock is right");
    app.set_clock(now);
    assert_eq!(retired().await, 2);
    // In time it goes all the same: the edge key when no session of before can live.
    app.pass(2 * 3600);
    assert_eq!(retired().await, 1);
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
