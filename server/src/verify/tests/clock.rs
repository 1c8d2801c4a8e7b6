//! A service whose clock is set.

use super::*;

#[tokio::test]
async fn f17_a_service_whose_clock_is_ahead_for_a_moment_forgets_nothing() {
    let world = World::new();
    let token = world.token(0);
    let sid = world.session.to_short();
    let until = NOW.plus(Duration::from_hours(1)).as_millis();
    let entry = json!({ "cursor": 1, "sid": sid, "at": NOW.as_millis(), "until": until });
    world.clock.set(NOW.plus(Duration::from_hours(24)));
    world.hear(&[entry]);
    world.clock.set(NOW);
    world.hear(&[]);
    assert_eq!(
        world.checker.check(&token).await,
        Err(Denied::Revoked),
        "heard while it was ahead"
    );
    world.clock.set(NOW.plus(Duration::from_hours(24)));
    world.hear(&[]);
    world.clock.set(NOW);
    world.hear(&[]);
    assert_eq!(world.checker.check(&token).await, Err(Denied::Revoked), "and kept");
    // After hours it has forgotten, and hears everything anew when the clock is put right.
    world.clock.set(NOW.plus(Duration::from_hours(24)));
    world.hear(&[]);
    world.clock.advance(Duration::from_hours(2));
    world.hear(&[]);
    world.clock.set(NOW);
    let watch = Watch::begin(world.clock.as_ref());
    assert_eq!(
        world.checker.received(b": anything\n\n", &watch),
        Err(Broken::ClockSetBack)
    );
    assert_eq!(locked(&world.checker.follower).cursor(), 0);
}

/// Otherwise all that is heard would be dated wrongly, or seem out of date, until the stream ends by itself.
#[test]
fn f17_a_service_whose_clock_is_set_by_seconds_opens_the_stream_again() {
    let world = World::new();
    for (milliseconds, expected) in [
        (900, Ok(())),
        (-900, Ok(())),
        (5000, Err(Broken::ClockStepped)),
        (-5000, Err(Broken::ClockStepped)),
    ] {
        let watch = Watch::begin(world.clock.as_ref());
        world.clock.advance(Duration::from_mins(1));
        world
            .clock
            .set(Timestamp::from_millis(world.clock.now().as_millis() + milliseconds));
        let received = world.checker.received(b": anything\n\n", &watch);
        assert_eq!(received, expected, "{milliseconds}");
    }
}
