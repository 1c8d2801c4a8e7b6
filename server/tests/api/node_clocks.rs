//! Nodes whose clocks are minutes apart: the wrong one does no harm and gets no requests, and the right ones go on (F18).

use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use server::domain::client::REVOCATIONS;
use server::domain::clock::{Clock as _, SystemClock, Timestamp};
use server::services::forgetting::Past;
use server::services::node_clocks::RED_AFTER;

use crate::access_tokens::claims;
use crate::app::TestApp;
use crate::binding::{BoundBrowser, RENEW, SESSION_ID};
use crate::browser::Browser;
use crate::people::Person;
use crate::program::Program;
use crate::service::{Service, post_form};

/// Whether its clock seems right to it.
pub async fn seems_right(app: &TestApp) -> bool {
    app.backend().compare_clocks().await.expect("the database answers")
}

async fn ready(app: &TestApp, expected: u16) {
    let reply = Browser::new(app).get("/readyz").await.expect(expected).json();
    assert_eq!(reply["clock"], expected == 200);
    assert_eq!(reply["database"], true);
}

/// Nodes on one database by clocks so many seconds from the real one, which is the database's. The first is the first.
pub async fn nodes(name: &str, seconds: &[i64]) -> Vec<TestApp> {
    let real = SystemClock.now().as_seconds();
    let at = |away: &i64| Timestamp::from_seconds(real + away);
    let mut apps = vec![TestApp::start_at(name, at(&seconds[0])).await];
    for away in &seconds[1..] {
        apps.push(apps[0].beside_at(at(away)).await);
    }
    apps
}

/// Lets time pass for all of them.
pub fn pass(apps: &[TestApp], seconds: u64) {
    for app in apps {
        app.pass(seconds);
    }
}

#[tokio::test]
async fn f18_of_nodes_whose_clocks_are_minutes_apart_the_wrong_one_is_not_ready() {
    for (away, expected) in [(60, 200), (-60, 200), (300, 503), (-300, 503)] {
        let apps = nodes(&format!("f18 apart {away}"), &[0, away]).await;
        let [here, there] = &apps[..] else { unreachable!() };
        // Before any comparison, and alone, each is fit.
        ready(there, 200).await;
        assert!(seems_right(there).await && seems_right(here).await);
        for _ in 0..3 {
            assert_eq!(seems_right(there).await, expected == 200, "{away}");
            // A single comparison may have met a node that is gone.
            ready(there, 200).await;
            there.pass(RED_AFTER.as_secs() / 3);
            here.pass(RED_AFTER.as_secs() / 3);
            assert!(seems_right(here).await);
        }
        ready(there, expected).await;
        ready(here, 200).await;
        // The other one stops, and nobody disagrees any more.
        here.backend().leave_nodes().await.expect("the database answers");
        assert!(seems_right(there).await);
        ready(there, 200).await;
    }
}

#[tokio::test]
async fn f18_the_wrong_clock_of_the_databases_own_machine_takes_nobody_else_out() {
    let apps = nodes("f18 majority", &[600, 600, 0]).await;
    for app in &apps {
        seems_right(app).await;
    }
    for _ in 0..4 {
        for (app, right) in apps.iter().zip([true, true, false]) {
            assert_eq!(seems_right(app).await, right);
            app.pass(15);
        }
    }
    for (app, expected) in apps.iter().zip([200, 200, 503]) {
        ready(app, expected).await;
    }
}

#[tokio::test]
async fn f18_reports_of_another_time_of_the_databases_clock_count_for_nothing() {
    let apps = nodes("f18 other time", &[0, 400]).await;
    assert!(seems_right(&apps[0]).await && !seems_right(&apps[1]).await);
    // As after a standby took over whose clock is behind, or ahead; and a node that died.
    for shift in [7 * 60_000, -7 * 60_000, -36_000] {
        assert!(seems_right(&apps[0]).await && !seems_right(&apps[1]).await);
        apps[0]
            .execute(&format!("UPDATE nodes SET seen_at = seen_at + {shift}"))
            .await;
        assert!(seems_right(&apps[1]).await, "{shift}");
    }
}

#[tokio::test]
async fn f18_a_serving_node_compares_its_clock_by_itself_and_takes_its_report_back() {
    let here = TestApp::start_at("f18 by itself", SystemClock.now().minus(Duration::from_hours(1))).await;
    if !here.backend().store().is_postgres() {
        // An embedded database has one node.
        return;
    }
    let reports = async || here.rows("SELECT id, seen_at FROM nodes").await;
    let program = here.spawn_beside().await;
    let first = reports().await;
    assert_eq!(first.len(), 1, "before it serves");
    assert!(!seems_right(&here).await);
    ready(&program, 200).await;
    let again = async {
        while reports().await.iter().any(|report| first.contains(report)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .expect("it reports again and again");
    ready(&program, 200).await;
    // The wrong node clears nothing away: what it takes for old is another's present.
    assert!(!here.backend().may_clear_away());
    program.process().terminate();
    let ended = async {
        while program.process().ended().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .expect("it stops");
    assert_eq!(reports().await.len(), 1, "only the other one's");
}

#[tokio::test]
async fn f18_a_command_beside_serving_nodes_goes_by_a_clock_that_one_of_them_has() {
    let apps = nodes("f18 command", &[0, 300, -60, 100]).await;
    let off = async |app: &TestApp| app.backend().clock_is_off().await.expect("the database answers");
    for app in &apps {
        assert_eq!(off(app).await, None, "nobody serves");
    }
    assert!(seems_right(&apps[0]).await);
    let ahead = off(&apps[1]).await.expect("it is off");
    // The clocks of these nodes stand still, and the database's does not.
    assert!((240_000..=301_000).contains(&ahead), "{ahead}");
    assert_eq!((off(&apps[2]).await, off(&apps[3]).await), (None, None));
    apps[0].backend().leave_nodes().await.expect("the database answers");
    assert_eq!(off(&apps[1]).await, None);

    // The program itself has the right time, and the node that serves now has not.
    assert!(seems_right(&apps[1]).await, "nobody else serves");
    let command = async || apps[1].command(&["sessions", "end", "--all"], &[]).await;
    let refused = command().await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("not carried out"), "{said}");
    apps[1].backend().leave_nodes().await.expect("the database answers");
    let done = command().await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn f18_a_cookie_of_a_node_whose_clock_is_behind_is_not_taken_for_a_copy_at_one_that_is_ahead() {
    let apps = nodes("f18 bound cookie", &[-30, 70]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    let person = behind.add_person("max", &["member"], false).await;
    let owner = BoundBrowser::signed_in(behind, &person).await;
    // Its sign-in took a minute.
    ahead.pass(60);
    assert!(seems_right(behind).await && seems_right(ahead).await);
    let left = owner.until.since(behind.now()).as_secs();
    assert!(left > 300, "{left}");
    pass(&apps, left - 10);
    let mut there = owner.browser.clone();
    there.app = ahead.clone();
    // By this clock it was over 90 s ago.
    there.open("/").await.expect(200);
    assert_eq!(ahead.events("bound_cookie_copied").await, 0);
    pass(&apps, 10 + 60);
    assert_ne!(there.get("/").await.status, 200);
    assert_eq!(
        ahead.events("bound_cookie_copied").await,
        1,
        "its browser has deleted it by now"
    );
}

/// Every session that there was is dead by its id; only what is issued later may not be from before.
#[tokio::test]
async fn f18_a_new_password_at_a_node_that_is_ahead_revokes_nothing_that_one_that_is_behind_issues_then() {
    let apps = nodes("f18 new password", &[-30, 30]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    assert!(seems_right(behind).await && seems_right(ahead).await);
    let person = ahead.add_person("max", &["member"], false).await;
    let mut browser = Browser::new(ahead);
    browser.sign_in(&person).await;
    browser.open("/security").await.expect(200);
    let new = "another quiet evening in May";
    let fields = [("current_password", person.password.as_str()), ("new_password", new)];
    browser.submit_and_follow("change_password", &fields).await.expect(200);
    let person = Person {
        password: new.to_owned(),
        ..person
    };
    let program = Program::signed_in(behind, &person).await;
    let before = "SELECT MAX(issued_before) FROM revocations WHERE kind = 'subject'";
    let issued_at = claims(&program.access)["iat"].as_i64().expect("a number");
    assert!(behind.number(before).await <= issued_at * 1000, "{issued_at}");

    // A clock that is hours ahead, all of a sudden, lets nothing of before pass.
    ahead.set_clock(ahead.now().plus(Duration::from_hours(2)));
    assert!(!seems_right(ahead).await);
    let mut browser = Browser::new(ahead);
    browser.sign_in(&person).await;
    browser.open("/security").await.expect(200);
    let fields = [("current_password", new), ("new_password", "a louder morning in June")];
    browser.submit_and_follow("change_password", &fields).await.expect(200);
    let now = behind.now().as_millis();
    assert!(behind.number(before).await > now, "{now}");
}

#[tokio::test]
async fn f18_what_a_node_that_is_ahead_has_just_issued_is_good_at_one_that_is_behind() {
    let apps = nodes("f18 issued ahead", &[-30, 30]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    assert!(seems_right(ahead).await && seems_right(behind).await);
    let (_, mut program) = ahead.add_program("max").await;
    program.app = behind.clone();
    for _ in 0..2 {
        // Looked at, and remembered.
        program.sessions().await.expect(200);
    }
    let asker = Service::resource_server(behind).await;
    assert_eq!(asker.introspect(&program.access).await["active"], true);
    let service = Service::add(ahead, "reader", REVOCATIONS).await.token().await;
    assert_eq!(asker.introspect(&service).await["active"], true);
    // So is it handed in to be revoked: done is only said when it is.
    let token = program.access.clone();
    post_form(behind, "/oauth/revoke", &[], &[("token", &token)])
        .await
        .expect(200);
    program.app = ahead.clone();
    program.sessions().await.expect(401);

    // Nodes that agree take nothing from the future.
    let apps = nodes("f18 from the future", &[0, 1]).await;
    let [here, there] = &apps[..] else { unreachable!() };
    assert!(seems_right(there).await && seems_right(here).await);
    there.pass(40);
    let (_, mut program) = there.add_program("max").await;
    program.app = here.clone();
    program.sessions().await.expect(401);
}

/// Nothing counts as older, or as of another time, than by the clocks of the nodes.
#[tokio::test]
async fn f18_a_pair_that_another_node_has_just_handed_out_is_fresh_whichever_clock_is_ahead() {
    let apps = nodes("f18 fresh", &[-30, 30]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    assert!(seems_right(ahead).await && seems_right(behind).await);
    let (_, mut program) = ahead.add_program("max").await;
    // Time passes for them and not for the database: whoever reports first meets a report of before.
    let pass_and_compare = async |seconds| {
        pass(&apps, seconds);
        assert!(seems_right(behind).await && seems_right(ahead).await);
    };
    for (here, there) in [(ahead, behind), (behind, ahead)] {
        for _ in 0..2 {
            pass_and_compare(36).await;
        }
        program.app = here.clone();
        program.renew().await.expect(200);
        program.app = there.clone();
        let reply = program.present(&program.refresh.clone()).await.expect(409);
        assert_eq!(reply.header("mayfly-refresh"), Some("fresh"));
    }
}

/// Neither at once, nor at the next refresh, nor by housekeeping.
#[tokio::test]
async fn f18_no_idle_limit_ends_a_session_early_because_the_nodes_clocks_differ() {
    let apps = nodes("f18 limits", &[-30, 30]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    let (_, mut program) = behind.add_program("max").await;
    assert!(seems_right(behind).await && seems_right(ahead).await);
    // Shorter than an access token lives: that is refused for this limit alone.
    let idle = 120;
    behind
        .execute("UPDATE sessions SET idle_ms = 120000, look_at = last_active_at + 120000")
        .await;
    // Time passes for them and not for the database: whoever reports first meets a report of before.
    let pass_and_compare = async |seconds: u64| {
        pass(&apps, seconds);
        seems_right(behind).await;
        assert!(seems_right(ahead).await);
    };
    for refreshes_first in [false, true] {
        // By the clock that is ahead it was over 50 s ago.
        pass_and_compare(idle - 10).await;
        assert_eq!(ahead.backend().sweep_expired().await.expect("the database answers"), 0);
        program.app = ahead.clone();
        if refreshes_first {
            program.renew().await.expect(200);
        }
        program.sessions().await.expect(200);
        program.app = behind.clone();
        // The leap of the database's clock in the eyes of the node that reports first is forgotten by then.
        for _ in 0..4 {
            pass_and_compare(36).await;
        }
        program.renew().await.expect(200);
        program.sessions().await.expect(200);
    }
    // It ends all the same, by the slowest clock.
    pass_and_compare(idle - 1).await;
    assert_eq!(ahead.backend().sweep_expired().await.expect("the database answers"), 0);
    pass_and_compare(1).await;
    assert_eq!(ahead.backend().sweep_expired().await.expect("the database answers"), 1);
    let reply = program.renew().await.expect(401);
    assert_eq!(reply.json()["reason"], "idle", "{}", reply.body);
}

/// Tokens keep it, too: what is handed out after it would be over at once.
#[tokio::test]
async fn f18_the_absolute_limit_is_over_at_every_node_by_its_own_clock() {
    let apps = nodes("f18 absolute", &[-30, 30]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    let (_, mut program) = behind.add_program("max").await;
    assert!(seems_right(behind).await && seems_right(ahead).await);
    behind
        .execute("UPDATE sessions SET absolute_expires_at = started_at + 90000")
        .await;
    pass(&apps, 29);
    program.app = ahead.clone();
    program.sessions().await.expect(200);
    pass(&apps, 1);
    let reply = program.renew().await.expect(401);
    assert_eq!(reply.json()["reason"], "expired", "{}", reply.body);
}

/// A clock that is a day ahead is nobody's measure for whoever was last there.
#[tokio::test]
async fn f18_at_a_node_whose_clock_is_wrong_idle_limits_are_no_later_than_right_clocks_may_differ() {
    let apps = nodes("f18 wrong and idle", &[0, 24 * 60 * 60]).await;
    let [here, wrong] = &apps[..] else { unreachable!() };
    let (_, mut program) = here.add_program("max").await;
    assert!(seems_right(here).await && !seems_right(wrong).await);
    here.execute("UPDATE sessions SET idle_ms = 3600000").await;
    program.app = wrong.clone();
    let reply = program.renew().await.expect(401);
    assert_eq!(reply.json()["reason"], "idle", "{}", reply.body);
}

/// Its exp was reckoned by the clock that is ahead.
#[tokio::test]
async fn f18_what_is_handed_out_again_at_a_node_that_is_behind_lives_no_longer_than_the_rule() {
    let apps = nodes("f18 handed out again", &[-30, 30]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    assert!(seems_right(ahead).await && seems_right(behind).await);
    let (_, mut program) = ahead.add_program("max").await;
    let life = |access: &str| {
        let claims = claims(access);
        claims["exp"].as_i64().expect("a number") - claims["iat"].as_i64().expect("a number")
    };
    let rule = life(&program.access);
    let parent = program.refresh.clone();
    ahead.pass(61);
    behind.pass(61);
    program.renew().await.expect(200);
    program.app = behind.clone();
    let again = program.present(&parent).await.expect(200);
    assert_eq!(again.header("mayfly-refresh"), Some("reissued"));
    let access = again.json()["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(life(&access), rule);
    program.access = access;
    program.sessions().await.expect(200);
}

#[tokio::test]
async fn f18_what_is_revoked_is_remembered_for_as_long_as_the_slowest_clock_lets_a_token_pass() {
    let apps = nodes("f18 remembered", &[-60, 55]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    // Long after the start nothing is kept out of caution.
    pass(&apps, 2 * 60 * 60);
    let reader = Service::add_for(behind, "reader", REVOCATIONS, 10).await;
    let asker = Service::resource_server(behind).await;
    let (gone, kept) = (reader.token().await, reader.token().await);
    post_form(ahead, "/oauth/revoke", &[], &[("token", &gone)])
        .await
        .expect(200);
    // Time passes for them and not for the database: whoever reports first meets a report of before.
    let compare = async || {
        seems_right(behind).await;
        assert!(seems_right(ahead).await);
    };
    pass(&apps, 10 * 60 + 25);
    compare().await;
    ahead
        .backend()
        .forget(Past::Revocations)
        .await
        .expect("the database answers");
    assert_eq!(asker.introspect(&kept).await["active"], true, "by the slow clock");
    assert_eq!(asker.introspect(&gone).await["active"], false);
    pass(&apps, 5 * 60);
    compare().await;
    let forgotten = ahead.backend().forget(Past::Revocations).await;
    assert_eq!(forgotten.expect("the database answers"), 1);
}

/// The node that is ahead clears away what nobody takes any more by its clock.
#[tokio::test]
async fn f18_what_a_bound_browser_signed_is_good_once_by_the_slowest_clock_too() {
    let apps = nodes("f18 signed once", &[-60, 55]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    // Long after the start nothing is kept out of caution.
    pass(&apps, 2 * 60 * 60);
    assert!(seems_right(behind).await && seems_right(ahead).await);
    let person = behind.add_person("max", &["member"], false).await;
    let mut owner = BoundBrowser::signed_in(behind, &person).await;
    // Its sign-in took a minute.
    ahead.pass(60);
    let id = owner.session_id.clone();
    let challenge = async || {
        let mut asking = owner.clone();
        asking.post(RENEW, &[(SESSION_ID, &id)]).await.expect(403);
        asking.challenge
    };
    let used = challenge().await;
    pass(&apps, 1);
    let unused = challenge().await;
    owner.prove(&used).await.expect(200);
    pass(&apps, 100);
    ahead
        .backend()
        .forget(Past::Proofs)
        .await
        .expect("the database answers");
    owner.prove(&used).await.expect(403);
    owner.prove(&unused).await.expect(200);
}

#[tokio::test]
async fn f18_a_node_whose_clock_is_wrong_leaves_nothing_out_of_the_feed() {
    let apps = nodes("f18 feed", &[0, 300]).await;
    let [right, wrong] = &apps[..] else { unreachable!() };
    if !right.backend().store().is_postgres() {
        // An embedded database has one node.
        return;
    }
    // Long after the start nothing is told out of caution.
    pass(&apps, 2 * 60 * 60);
    assert!(seems_right(right).await && !seems_right(wrong).await);
    let (_, program) = right.add_program("max").await;
    program.end(&program.session_id).await.expect(200);
    // It is told for as long as a token may live, which is an hour, and four minutes.
    pass(&apps, 60 * 60);
    let reader = Service::add(right, "reader", REVOCATIONS).await.token().await;
    let told = async |app: &TestApp| {
        let feed = Program::new(app)
            .ask_with(&reader, Method::GET, "/oauth/revocations")
            .await;
        feed.expect(200).json()["revocations"].as_array().expect("a list").len()
    };
    assert_eq!((told(right).await, told(wrong).await), (1, 1));
    // Alone it is right, and takes it for past.
    right.backend().leave_nodes().await.expect("the database answers");
    assert!(seems_right(wrong).await);
    assert_eq!((told(right).await, told(wrong).await), (1, 0));
}

#[tokio::test]
async fn f18_a_serving_node_whose_clock_is_wrong_removes_nothing() {
    let hour_ago = -60 * 60;
    let apps = nodes("f18 removes", &[hour_ago, hour_ago]).await;
    let here = &apps[0];
    if !here.backend().store().is_postgres() {
        // An embedded database has one node.
        return;
    }
    let person = here.add_person("max", &["member"], true).await;
    let mut half_way = Program::new(here);
    let login = json!({ "identifier": person.username, "password": person.password });
    let reply = half_way.post("/auth/login", &login).await.expect(200);
    assert_eq!(reply.json()["status"], "mfa_required");
    let flows = async || here.number("SELECT count(*) FROM flows").await;
    assert_eq!(flows().await, 1);
    for app in &apps {
        assert!(seems_right(app).await);
    }

    let program = here.spawn_beside().await;
    let reports = async || here.rows("SELECT id, seen_at FROM nodes").await;
    let first = reports().await;
    assert_eq!(first.len(), 3);
    // By its second report it has cleared away twice, if ever.
    let again = async {
        loop {
            for app in &apps {
                assert!(seems_right(app).await);
            }
            let old = reports()
                .await
                .into_iter()
                .filter(|report| first.contains(report))
                .count();
            if old == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .expect("it reports again");
    assert_eq!(flows().await, 1);

    // The others are gone, and nobody disagrees any more.
    for app in &apps {
        app.backend().leave_nodes().await.expect("the database answers");
    }
    let removed = async {
        while flows().await > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), removed)
        .await
        .expect("it clears away");
    ready(&program, 200).await;
}
