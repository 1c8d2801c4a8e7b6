//! A wall clock that jumps, forth and back: nobody is accused of theft, nothing panics, nothing lives longer.

use server::domain::clock::Timestamp;

use crate::app::{BEGIN, TestApp};
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
