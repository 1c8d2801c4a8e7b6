//! Lost answers, hurried tabs and hurried thieves: ways through the table of refresh outcomes that the exploration in
//! `tests/properties` found, taken at the door.

use std::net::SocketAddr;

use axum::http::Method;
use serde_json::json;
use server::domain::policy::presets;
use server::services::keys::RevokeOutcome;
use server::storage::users;

use crate::app::TestApp;
use crate::browser::{ACCESS, Browser, REFRESH};
use crate::keys::revoke;
use crate::people::Member;
use crate::program::Program;
use crate::reply::Reply;

fn outcome(reply: &Reply) -> &str {
    reply.header("mayfly-refresh").expect("the outcome is named")
}

/// The name of what comes of this jar's refresh token alone; the jar keeps the cookies of the answer.
async fn renew(tab: &mut Browser) -> String {
    tab.jar.remove(ACCESS);
    let reply = tab.fetch(Method::POST, "/auth/refresh", &json!({})).await;
    outcome(&reply).to_owned()
}

/// A browser whose rotation was committed and whose answer never came, two hours ago.
async fn with_a_lost_answer(name: &str) -> (TestApp, Browser) {
    let app = TestApp::start(name).await;
    let browser = Member::sign_in(&app, "max").await.browser;
    app.pass(60);
    assert_eq!(renew(&mut browser.clone()).await, "rotated");
    app.pass(7200);
    (app, browser)
}

#[tokio::test]
async fn r1_a_tab_that_is_a_moment_late_after_a_lost_answer_is_no_thief() {
    let (app, mut browser) = with_a_lost_answer("r1 late tab").await;
    let mut late = browser.clone();
    assert_eq!(renew(&mut browser).await, "reissued");
    // The child is shown before the other tab's request arrives, hours after the rotation.
    assert_eq!(renew(&mut browser).await, "fresh");
    assert_eq!(renew(&mut late).await, "superseded");
    assert_eq!(app.events("authn_token_reuse").await, 0);
    browser.open("/").await.expect(200);
}

#[tokio::test]
async fn r1_of_ten_restored_tabs_after_a_lost_answer_none_is_a_thief() {
    let (app, browser) = with_a_lost_answer("r1 ten tabs").await;
    let mut said = Vec::new();
    for _ in 0..10 {
        said.push(renew(&mut browser.clone()).await);
    }
    assert!(said[..5].iter().all(|word| word == "reissued"), "{said:?}");
    assert!(said[5..].iter().all(|word| word == "superseded"), "{said:?}");
    assert_eq!(app.events("authn_token_reuse").await, 0);
}

#[tokio::test]
async fn r1_no_answer_of_a_moment_ago_puts_an_older_token_over_a_newer_one() {
    let (app, mut browser) = with_a_lost_answer("r1 overtaken").await;
    let mut slow = browser.clone();
    assert_eq!(renew(&mut browser).await, "reissued");
    assert_eq!(renew(&mut slow).await, "reissued");
    // The access token that came along has long expired; the page is shown all the same, and nothing rotates while
    // the second answer is still under way.
    browser.open("/").await.expect(200);
    assert_eq!(app.events("token_rotated").await, 1);
    assert_eq!(browser.cookie(REFRESH), slow.cookie(REFRESH));
    app.pass(10);
    browser.open("/").await.expect(200);
    assert_eq!(app.events("token_rotated").await, 2);
    // A program holds its tokens itself and gets a usable pair at once.
    let person = app.add_person("ada", &["member"], false).await;
    let mut program = Program::signed_in(&app, &person).await;
    app.pass(60);
    program.present(&program.refresh.clone()).await.expect(200);
    app.pass(7200);
    assert_eq!(outcome(&program.renew().await.expect(200)), "reissued");
    program.sessions().await.expect(401);
    assert_eq!(outcome(&program.renew().await.expect(200)), "rotated");
    program.sessions().await.expect(200);
}

/// Two rotations within a moment, and an answer to the first that is slow: it would put the older token over the newer one.
#[tokio::test]
async fn r1_when_roles_change_or_a_key_goes_in_the_first_ten_seconds_no_browser_rotates_before_they_are_over() {
    for what in ["roles", "key"] {
        let (app, mut browser) = with_a_lost_answer(&format!("r1 {what} changed")).await;
        let mut slow = browser.clone();
        assert_eq!(renew(&mut browser).await, "reissued");
        assert_eq!(renew(&mut slow).await, "reissued");
        // The child is shown, and what the access token says is good no longer.
        assert_eq!(renew(&mut browser).await, "fresh");
        if what == "roles" {
            app.add_role("extra", presets()[0].lifetimes.clone()).await;
            let mut tx = app.backend().store().write().await.expect("the database answers");
            let person = users::find_user_by_identifier(&mut tx, "max").await.expect("answers");
            let id = person.expect("is there").id;
            let roles = ["extra".to_owned(), "member".to_owned()];
            assert!(users::set_roles(&mut tx, id, &roles, app.now()).await.expect("sets"));
            tx.commit().await.expect("commits");
        } else {
            let key = app.rows("SELECT id FROM keys WHERE purpose = 'signing'").await[0][0].clone();
            assert_eq!(
                revoke(&app, &key.expect("an id")).await,
                RevokeOutcome::Revoked { replaced: true }
            );
        }
        app.pass(1);
        browser.open("/").await.expect(200);
        let reply = browser.fetch(Method::POST, "/auth/refresh", &json!({})).await;
        assert_eq!(outcome(&reply), "fresh");
        assert_eq!(app.events("token_rotated").await, 1, "{what}");
        assert_eq!(browser.cookie(REFRESH), slow.cookie(REFRESH));
        // Now the slow answer is there, and a minute later everything goes on.
        app.pass(61);
        slow.open("/").await.expect(200);
        assert_eq!(app.events("token_rotated").await, 2, "{what}");
        assert_eq!(app.events("authn_token_reuse").await, 0, "{what}");
    }
}

#[tokio::test]
async fn r1_a_thief_who_rotates_again_and_again_is_found_out_when_the_victim_comes_back() {
    let app = TestApp::start("r1 hurried thief").await;
    let (_, mut victim) = app.add_program("max").await;
    let mut thief = victim.clone();
    app.pass(60);
    let mut said = Vec::new();
    for _ in 0..10 {
        assert_eq!(outcome(&thief.renew().await), "rotated", "{said:?}");
        thief.sessions().await.expect(200);
        app.pass(10);
        let reply = victim.renew().await;
        said.push(outcome(&reply).to_owned());
        if reply.status == 401 {
            break;
        }
    }
    assert_eq!(said.last().map(String::as_str), Some("reused"), "{said:?}");
    thief.sessions().await.expect(401);
    assert_eq!(app.events("authn_token_reuse").await, 1);
}

/// Neither of the two is told from the other: who comes second gets the same tokens, and nobody shows them before the next time.
#[tokio::test]
async fn f50_who_rides_along_on_a_copy_time_and_again_is_an_alert_and_lost_answers_are_none() {
    let app = TestApp::start("f50 shared").await;
    let (_, mut program) = app.add_program("max").await;
    let mut thief = program.clone();
    thief.peer = SocketAddr::from(([198, 51, 100, 7], 44_000));
    let again = program.clone();
    let alerts = async || {
        app.backend().draw_consequences().await.expect("the database answers");
        let alerts = "SELECT COUNT(*) FROM audit_events WHERE kind = 'alert_raised' AND reason = 'tokens_shared'";
        app.number(alerts).await
    };
    for (second, expected) in [
        (&again, 0),
        (&again, 0),
        (&again, 0),
        (&thief, 0),
        (&thief, 0),
        // An answer that was lost at home says that it is no habit.
        (&again, 0),
        (&thief, 0),
        (&thief, 0),
        (&thief, 1),
    ] {
        app.pass(600);
        let parent = program.refresh.clone();
        assert_eq!(outcome(&program.renew().await), "rotated");
        for _ in 0..2 {
            let reply = second.clone().present(&parent).await.expect(200);
            assert_eq!(outcome(&reply), "reissued");
        }
        assert_eq!(alerts().await, expected);
    }
    program.sessions().await.expect(200);
}
