//! Services that are told when a session ends (R16, F11): away, slow, in trouble or refusing, none of them misses an ending, and
//! nobody waits for it.

use std::time::Duration;

use futures_util::future::join_all;
use server::domain::clock::{Clock as _, SystemClock};
use server::services::backchannel_logout::TellOutcome;

use crate::app::TestApp;
use crate::program::Program;
use crate::told::{Arrived, Manner, Told, add, end_one, receivers, tell};

#[tokio::test]
async fn f11_a_service_that_was_away_for_an_hour_is_told_everything_once_and_nobody_waited_for_it() {
    let app = TestApp::start("r16 away").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let (mut ended, mut tries) = (Vec::new(), 0);
    let begun = app.now();
    shop.will_answer(vec![Manner::Status(503); 10_000]);
    while app.now().since(begun) < Duration::from_hours(1) {
        if ended.len() < 30 {
            ended.push(end_one(&app, &person, &owner).await);
        }
        assert!(!matches!(shop.turn().await, TellOutcome::Told(_)));
        tries += shop.heard().len();
        app.pass(10);
    }
    // After 1, 2, 4 … 60 seconds, all that waits each time.
    assert!((60..=64 * 30).contains(&tries), "{tries} requests");
    let receiver = shop.receiver().await;
    let outage = receiver.outage.expect("it is away");
    assert_eq!((outage.failure.as_str(), outage.since), ("status 503", begun));
    assert!(outage.tries > 50, "{outage:?}");
    let kept = app.rows("SELECT client_id FROM logout_receivers").await;
    assert_eq!(kept.len(), 1, "what waits is the log itself");
    assert_eq!(app.events("backchannel_logouts_delayed").await, 1, "noted once");

    shop.is_well_again();
    app.pass(60);
    while matches!(shop.turn().await, TellOutcome::Told(_)) {}
    let heard = shop.heard();
    let mut sessions: Vec<String> = heard.iter().map(Arrived::session).collect();
    assert_eq!(sessions[0], ended[0], "in their order");
    sessions.sort();
    ended.sort();
    assert_eq!(sessions, ended, "every one, once");
    let exp = heard[0].claims()["exp"].as_i64();
    assert!(exp > Some(app.now().as_seconds()), "signed anew: {exp:?}");
    assert_eq!(app.events("backchannel_logouts_resumed").await, 1);
    assert_eq!(shop.receiver().await.outage, None);
}

#[tokio::test]
async fn f11_a_service_whose_port_is_closed_is_away_and_others_are_told() {
    let app = TestApp::start("r16 closed").await;
    let (shop, other) = (Told::begin(&app, "shop").await, Told::begin(&app, "other").await);
    let (person, owner) = app.add_program("ann").await;
    let ended = end_one(&app, &person, &owner).await;
    shop.close().await;
    assert!(matches!(shop.turn().await, TellOutcome::Away));
    let failure = shop.receiver().await.outage.expect("away").failure;
    assert!(failure.to_lowercase().contains("refused"), "{failure}");
    assert_eq!(Told::told(other.turn().await), 1);
    assert_eq!(other.sessions(), [ended]);
}

#[tokio::test]
async fn r16_an_end_that_a_service_never_takes_holds_up_no_other_for_long_and_is_noted() {
    let app = TestApp::start("r16 refused").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, _) = app.add_program("ann").await;
    for status in [400, 404, 500] {
        let owner = Program::signed_in(&app, &person).await;
        let mut ended = Vec::new();
        for _ in 0..4 {
            ended.push(end_one(&app, &person, &owner).await);
            app.pass(1);
        }
        shop.will_never_take(&ended[1], status);
        let mut tries = 0;
        while !matches!(shop.turn().await, TellOutcome::Told(_)) {
            tries += 1;
            app.pass(60);
            assert!(tries < 15, "{status}: it goes on");
            let told = shop.sessions();
            for session in [&ended[2], &ended[3]] {
                assert!(told.contains(session), "{status}: the others are told meanwhile");
            }
            assert_eq!(
                told.contains(&ended[0]),
                tries == 1,
                "{status}: what is done is not told again"
            );
        }
        assert_eq!(tries, 9, "{status}: it is passed over in the tenth try");
        shop.heard();
        assert!(
            matches!(shop.turn().await, TellOutcome::Nothing(_)),
            "{status}: never again"
        );
    }
    let noted = app
        .rows("SELECT outcome, facts FROM audit_events WHERE kind = 'backchannel_logout_refused'")
        .await;
    assert_eq!(noted.len(), 3, "{noted:?}");
    let shown = format!("{noted:?}");
    assert!(shown.contains("failure") && shown.contains(shop.id.as_str()), "{shown}");
}

#[tokio::test]
async fn r16_a_service_that_refuses_everything_for_a_while_loses_nothing() {
    let app = TestApp::start("r16 keys").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let mut ended = Vec::new();
    for _ in 0..3 {
        ended.push(end_one(&app, &person, &owner).await);
        app.pass(1);
    }
    // Such as one that keeps old keys for five minutes.
    let begun = app.now();
    shop.will_answer(vec![Manner::Status(400); 1000]);
    while app.now().since(begun) < Duration::from_mins(5) {
        assert!(!matches!(shop.turn().await, TellOutcome::Told(_)));
        app.pass(5);
    }
    shop.heard();
    shop.is_well_again();
    app.pass(60);
    assert_eq!(Told::told(shop.turn().await), 3);
    assert_eq!(shop.sessions(), ended);
    assert_eq!(app.events("backchannel_logout_refused").await, 0);
    // One that never learns is not waited for for ever, and each is noted.
    let last = end_one(&app, &person, &owner).await;
    shop.will_never_take(&last, 400);
    let mut turns = 0;
    while app.events("backchannel_logout_refused").await == 0 {
        shop.turn().await;
        app.pass(60);
        turns += 1;
        assert!(turns < 20);
    }
    assert!(turns >= 10, "{turns}");
}

#[tokio::test]
async fn f18_nodes_whose_clocks_differ_leave_a_service_to_the_one_that_tells_it() {
    let app = TestApp::start("r16 clocks").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    end_one(&app, &person, &owner).await;
    app.seal().await;
    let (behind, ahead) = (
        app.beside_at(app.now().minus(Duration::from_mins(1))).await,
        app.beside_at(app.now().plus(Duration::from_mins(1))).await,
    );
    shop.will_answer([Manner::Never]);
    let turn = app.backend().tell_logouts_to(shop.receiver().await);
    let others = async {
        while shop.heard().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for node in [&behind, &ahead] {
            let receiver = shop.receiver().await;
            let outcome = tell(node, receiver).await;
            assert!(matches!(outcome, TellOutcome::NotNow), "{outcome:?}");
        }
    };
    let (outcome, ()) = tokio::join!(turn, others);
    assert!(matches!(outcome, Ok(TellOutcome::Away)), "{outcome:?}");
    assert!(shop.heard().is_empty());
}

#[tokio::test]
async fn r16_a_turn_that_breaks_off_goes_on_with_the_first_that_was_not_told() {
    let app = TestApp::start("r16 broken off").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let mut ended = Vec::new();
    for _ in 0..5 {
        ended.push(end_one(&app, &person, &owner).await);
        // In the order of the log, which is that of time.
        app.pass(1);
    }
    // The first goes alone, so the manners come in this order.
    shop.will_answer([
        Manner::Status(200),
        Manner::Status(502),
        Manner::Status(502),
        Manner::Status(502),
        Manner::Status(502),
    ]);
    assert!(matches!(shop.turn().await, TellOutcome::Away));
    assert_eq!(shop.heard().len(), 5);
    assert_eq!(shop.receiver().await.outage.expect("in trouble").tries, 1);
    app.pass(1);
    assert_eq!(Told::told(shop.turn().await), 4);
    let mut rest = shop.sessions();
    rest.sort();
    ended.remove(0);
    ended.sort();
    assert_eq!(rest, ended);
}

#[tokio::test]
async fn r16_of_several_that_would_tell_at_the_same_moment_one_does() {
    let app = TestApp::start("r16 nodes").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let mut ended = Vec::new();
    for _ in 0..5 {
        ended.push(end_one(&app, &person, &owner).await);
    }
    app.seal().await;
    let receiver = shop.receiver().await;
    let turns = (0..8).map(|_| app.backend().tell_logouts_to(receiver.clone()));
    let outcomes = join_all(turns).await;
    let told = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(TellOutcome::Told(_))))
        .count();
    assert_eq!(told, 1, "{outcomes:?}");
    let mut heard = shop.sessions();
    heard.sort();
    ended.sort();
    assert_eq!(heard, ended);
}

#[tokio::test]
async fn f11_what_was_told_by_a_node_that_died_is_told_again_under_the_same_id() {
    let app = TestApp::start("r16 died").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let ended = end_one(&app, &person, &owner).await;
    app.seal().await;
    shop.will_answer([Manner::Never]);
    let receiver = shop.receiver().await;
    let dying = app.backend().tell_logouts_to(receiver);
    let first = tokio::select! {
        outcome = dying => panic!("{outcome:?}"),
        first = async {
            loop {
                if let Some(first) = shop.heard().pop() {
                    break first;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => first,
    };
    // Others leave it to that node for a while, which has a while to come to an end.
    assert!(matches!(shop.turn().await, TellOutcome::NotNow));
    assert!(shop.heard().is_empty());
    app.pass(133);
    assert_eq!(Told::told(shop.turn().await), 1);
    let heard = shop.heard();
    let again = heard.first().expect("told again").claims();
    assert_eq!(heard[0].session(), ended);
    assert_eq!(again["jti"], first.claims()["jti"], "the service knows it");
    assert_ne!(again["exp"], first.claims()["exp"]);
}

#[tokio::test]
async fn r16_a_service_that_does_not_answer_or_points_elsewhere_is_away() {
    let app = TestApp::start("r16 elsewhere").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    end_one(&app, &person, &owner).await;
    shop.will_answer([Manner::Redirect("/elsewhere"), Manner::Never, Manner::Status(404)]);
    for failure in ["status 307", "no answer in time", "status 404"] {
        assert!(matches!(shop.turn().await, TellOutcome::Away), "{failure}");
        assert_eq!(shop.receiver().await.outage.expect("away").failure, failure);
        assert_eq!(shop.heard().len(), 1, "{failure}: asked once, and nowhere else");
        app.pass(60);
    }
    assert_eq!(Told::told(shop.turn().await), 1);
}

#[tokio::test]
async fn r16_an_outage_of_the_database_loses_no_logout() {
    let app = TestApp::start("r16 database").await;
    let shop = Told::begin(&app, "shop").await;
    let (person, owner) = app.add_program("ann").await;
    let ended = end_one(&app, &person, &owner).await;
    app.seal().await;
    let receiver = shop.receiver().await;
    app.backend().store().close().await;
    assert!(app.backend().tell_logouts_to(receiver).await.is_err());
    let app = app.restart().await;
    let receivers = receivers(&app).await;
    let receiver = receivers.into_iter().next().expect("one");
    let outcome = tell(&app, receiver).await;
    assert_eq!(Told::told(outcome), 1);
    assert_eq!(shop.sessions(), [ended]);
}

/// Some keep a key in the query.
#[tokio::test]
async fn l5_why_a_service_is_away_does_not_repeat_its_address() {
    let app = TestApp::start("r16 words").await;
    let id = add(&app, "gone", "http://127.0.0.1:9/logout?key=abracadabra").await;
    let (person, owner) = app.add_program("ann").await;
    end_one(&app, &person, &owner).await;
    app.seal().await;
    for _ in 0..4 {
        let receivers = receivers(&app).await;
        let receiver = receivers
            .into_iter()
            .find(|receiver| receiver.client == id)
            .expect("one");
        tell(&app, receiver).await;
        app.pass(60);
    }
    let rows = app.rows("SELECT failure FROM logout_receivers").await;
    assert!(!format!("{rows:?}").contains("abracadabra"), "{rows:?}");
    let facts = app
        .rows("SELECT facts FROM audit_events WHERE kind = 'backchannel_logouts_delayed'")
        .await;
    assert!(
        facts.len() == 1 && !format!("{facts:?}").contains("abracadabra"),
        "{facts:?}"
    );
}

#[tokio::test]
async fn r16_a_service_that_moves_while_it_is_told_goes_on_at_its_new_address() {
    let app = TestApp::start("r16 moves meanwhile").await;
    let (old, new) = (Told::begin(&app, "old").await, Told::begin(&app, "new").await);
    let (person, owner) = app.add_program("ann").await;
    let ended = end_one(&app, &person, &owner).await;
    app.seal().await;
    old.will_answer([Manner::Never]);
    let turn = app.backend().tell_logouts_to(old.receiver().await);
    let moves = async {
        while old.heard().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let uri = new.receiver().await.uri;
        let moved = app.backend().set_logout_uri(&old.id, Some(&uri)).await;
        assert!(moved.expect("the database answers"));
        assert_eq!(Told::told(old.turn().await), 1, "at once");
        assert_eq!(new.sessions(), [ended]);
    };
    let (outcome, ()) = tokio::join!(turn, moves);
    // The turn that was under way has nothing to say any more.
    assert!(matches!(outcome, Ok(TellOutcome::NotNow)), "{outcome:?}");
    assert_eq!(old.receiver().await.outage, None);
}

#[tokio::test]
async fn f18_a_node_whose_clock_is_wrong_tells_nobody_and_a_right_one_does() {
    let now = SystemClock.now();
    let right = TestApp::start_at("r16 wrong clock", now).await;
    let wrong = right.beside_at(now.plus(Duration::from_mins(10))).await;
    let shop = Told::begin(&right, "shop").await;
    let (person, owner) = right.add_program("ann").await;
    let ended = end_one(&right, &person, &owner).await;
    right.seal().await;
    let telling = |app: &TestApp, end| app.state_of_handlers().backend.clone().tell_logouts(end);
    let a_while = || tokio::time::sleep(Duration::from_millis(2500));
    // An embedded database has one node.
    if right.backend().store().is_postgres() {
        assert!(right.backend().compare_clocks().await.expect("the database answers"));
        assert!(!wrong.backend().compare_clocks().await.expect("the database answers"));
        telling(&wrong, a_while()).await;
        assert!(shop.heard().is_empty());
    }
    telling(&right, a_while()).await;
    assert_eq!(shop.sessions(), [ended]);
}
