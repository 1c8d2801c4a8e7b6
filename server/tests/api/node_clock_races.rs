//! Nodes whose clocks differ, and refreshes that lost a race between them: nobody is accused of theft by a clock (F18).

use std::time::Duration;

use crate::node_clocks::{nodes, pass, seems_right};

/// Half a minute behind and half a minute ahead: together as much as makes the difference between a lost race and a theft.
#[tokio::test]
async fn f18_a_tab_that_lost_a_race_at_a_node_whose_clock_is_behind_is_not_accused_at_one_that_is_ahead() {
    let apps = nodes("f18 race", &[-30, 30]).await;
    let [behind, ahead] = &apps[..] else { unreachable!() };
    let (_, mut program) = behind.add_program("max").await;
    assert!(seems_right(behind).await && seems_right(ahead).await);
    let parent = program.refresh.clone();
    behind.pass(61);
    ahead.pass(61);
    program.renew().await.expect(200);
    program.sessions().await.expect(200);
    let mut elsewhere = program.clone();
    elsewhere.app = ahead.clone();
    let at_once = elsewhere.present(&parent).await.expect(409);
    assert_eq!(at_once.header("mayfly-refresh"), Some("superseded"));

    // The slow node is gone, and forgotten with its clock, but what it wrote is not.
    behind.backend().leave_nodes().await.expect("the database answers");
    ahead.pass(50);
    assert!(seems_right(ahead).await);
    elsewhere.present(&parent).await.expect(409);
    // A thief is found all the same, a minute later by the slower clock.
    ahead.pass(20);
    let reply = elsewhere.present(&parent).await.expect(401);
    assert_eq!(reply.header("mayfly-refresh"), Some("reused"));

    // Two minutes after the slow clock was last seen the minute is a minute.
    let (_, mut other) = ahead.add_program("moritz").await;
    ahead.pass(120);
    assert!(seems_right(ahead).await);
    let parent = other.refresh.clone();
    other.renew().await.expect(200);
    other.sessions().await.expect(200);
    ahead.pass(60);
    let reply = other.present(&parent).await.expect(401);
    assert_eq!(reply.header("mayfly-refresh"), Some("reused"));
}

/// A minute and a half behind, and not yet compared with; or set since; or minutes behind.
#[tokio::test]
async fn f18_whoever_lost_a_race_at_a_node_that_nobody_has_compared_clocks_with_is_not_accused() {
    for (what, away) in [("joined", -90), ("set", -90), ("wrong", -400)] {
        let begins = if what == "set" { 0 } else { away };
        // Minutes pass below, and none for the database, whose clock says which of two is right.
        let apps = nodes(&format!("f18 {what}"), &[-300, -300 + begins]).await;
        let [here, behind] = &apps[..] else { unreachable!() };
        let (_, mut program) = here.add_program("max").await;
        let parent = program.refresh.clone();
        pass(&apps, 110);
        assert!(seems_right(here).await);
        assert_eq!(seems_right(behind).await, what != "wrong");
        if what == "set" {
            assert!(seems_right(here).await);
            behind.set_clock(behind.now().minus(Duration::from_secs(90)));
        }
        program.app = behind.clone();
        program.renew().await.expect(200);
        program.sessions().await.expect(200);
        let mut late = program.clone();
        late.app = here.clone();
        let reply = late.present(&parent).await.expect(409);
        assert_eq!(reply.header("mayfly-refresh"), Some("superseded"), "{what}");
        assert_eq!(here.events("authn_token_reuse").await, 0);

        // Who is minutes off gets no requests any more after a while, and hides no theft then.
        behind.backend().leave_nodes().await.expect("the database answers");
        let (_, mut other) = here.add_program("moritz").await;
        let parent = other.refresh.clone();
        for _ in 0..5 {
            if what == "wrong" {
                seems_right(behind).await;
            }
            seems_right(here).await;
            pass(&apps, 60);
        }
        seems_right(here).await;
        other.renew().await.expect(200);
        other.sessions().await.expect(200);
        here.pass(60);
        let reply = other.present(&parent).await.expect(401);
        assert_eq!(reply.header("mayfly-refresh"), Some("reused"), "{what}");
    }
}
