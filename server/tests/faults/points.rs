//! Fail points (F3): the server fails or panics between reading and answering, at the step that is named. They exist in
//! builds for tests only, so the server runs in this process, where they can be set for one request.
//!
//! A rotation signs before it writes, a re-issue writes before it signs: the same two points lie before the UPDATE of
//! the one and after that of the other. The usual rotation is one statement; one that also revokes what came before it,
//! because the person's roles have changed, is a transaction of several.

use std::net::SocketAddr;
use std::sync::Arc;

use fail::FailGuard;
use server::domain::clock::SystemClock;
use server::domain::random::SystemRandom;
use server::startup::Application;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::MACHINE;
use crate::clients::check;
use crate::kills::{PAUSES, last_life};
use crate::place::Place;
use crate::serving::{Serving, Way};

/// A server in this process.
struct Here {
    way: Way,
    task: JoinHandle<()>,
    application: Application,
    /// Events in the log before its start.
    events: i64,
}

async fn events(place: &Place) -> i64 {
    let counted = place.rows("SELECT '', '', count(*) FROM audit_events").await;
    counted.first().expect("a row").2
}

impl Here {
    async fn start(place: &Place) -> Self {
        let random = Arc::new(SystemRandom::default());
        let events = events(place).await;
        let application = Application::build(place.settings(), Arc::new(SystemClock), random)
            .await
            .expect("it starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let service = application.router().into_make_service_with_connect_info::<SocketAddr>();
        Self {
            way: Serving::through(address),
            task: tokio::spawn(async move { axum::serve(listener, service).await.expect("serves") }),
            application,
            events,
        }
    }

    /// Whatever failed, its metrics have counted what the log has of it, no more and no less.
    async fn stop(self, place: &Place) {
        self.task.abort();
        let backend = &self.application.state().backend;
        let metrics = backend.show_metrics(&[]).expect("text");
        let counted = metrics
            .lines()
            .filter(|line| line.starts_with("mayfly_events_total{"))
            .map(|line| {
                line.rsplit_once(' ')
                    .expect("a value")
                    .1
                    .parse::<i64>()
                    .expect("a count")
            });
        assert_eq!(counted.sum::<i64>(), events(place).await - self.events);
        backend.store().close().await;
    }
}

/// The request at whose point it happens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Refresh {
    Rotation,
    /// The person's roles have changed since the last one.
    RotationWithNewRoles,
    /// The answer to a rotation was lost, and the same token comes again.
    Reissue,
}

/// Where, in which request, the status that an error becomes there, and whether it is committed by then.
const POINTS: [(&str, Refresh, u16, bool); 17] = [
    ("tokens::before_sign", Refresh::Rotation, 500, false),
    ("tokens::signed", Refresh::Rotation, 503, false),
    ("rotation::before", Refresh::Rotation, 503, false),
    ("rotation::after", Refresh::Rotation, 503, true),
    ("refresh::before_reply", Refresh::Rotation, 503, true),
    ("rotate::before", Refresh::RotationWithNewRoles, 503, false),
    ("rotate::after", Refresh::RotationWithNewRoles, 503, false),
    ("tokens::before_sign", Refresh::RotationWithNewRoles, 500, false),
    ("tokens::signed", Refresh::RotationWithNewRoles, 503, false),
    ("commit::before", Refresh::RotationWithNewRoles, 503, false),
    ("commit::after", Refresh::RotationWithNewRoles, 503, true),
    ("refresh::before_reply", Refresh::RotationWithNewRoles, 503, true),
    ("tokens::before_sign", Refresh::Reissue, 500, false),
    ("tokens::signed", Refresh::Reissue, 503, false),
    ("commit::before", Refresh::Reissue, 503, false),
    ("commit::after", Refresh::Reissue, 503, true),
    ("refresh::before_reply", Refresh::Reissue, 503, true),
];

/// The roles of the one person change, and all sessions but this one have gone on with the new ones.
async fn change_roles(place: &Place, all_but: &str) {
    place.execute("UPDATE users SET grant_epoch = grant_epoch + 1").await;
    let id = place.hex("id");
    let renewed = format!("UPDATE sessions SET grant_epoch = grant_epoch + 1 WHERE {id} <> '{all_but}'");
    place.execute(&renewed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_a_request_that_fails_or_panics_at_any_step_is_answered_and_harms_nobody() {
    let _turn = MACHINE.lock().await;
    let place = Place::make().await;
    let cases = POINTS.len() * 2 * PAUSES.len();
    let mut clients = place.people(2 * cases).await;
    place.let_pass(11).await;
    let mut reissues_lost = 0;
    for case in 0..cases {
        let (point, refresh, status, committed) = POINTS[case % POINTS.len()];
        let panics = case / POINTS.len() % 2 == 1;
        let pause = PAUSES[case / POINTS.len() / 2];
        let what = format!("{point}, {refresh:?}, panic: {panics}, again after {pause} s");
        let (victims, others) = clients.split_at_mut(cases);
        let (victim, other) = (&mut victims[case], &mut others[case]);
        if refresh == Refresh::RotationWithNewRoles {
            change_roles(&place, &victim.session).await;
        }
        let here = Here::start(&place).await;
        if refresh == Refresh::Reissue {
            let lost = here.way.refresh(&victim.token).await.expect("an answer");
            assert_eq!((lost.status, &*lost.outcome), (200, "rotated"), "{what}");
        }
        let fails = FailGuard::new(point, if panics { "1*panic" } else { "1*return" }).expect("an action");
        let answer = here
            .way
            .refresh(&victim.token)
            .await
            .expect("an answer, whatever happens");
        assert_eq!(answer.status, if panics { 500 } else { status }, "{what}: {answer:?}");
        assert!(
            !answer.body.to_string().contains("mfr_"),
            "{what}: no tokens: {answer:?}"
        );
        drop(fails);
        // The others never noticed.
        let fine = here.way.refresh(&other.token).await.expect("an answer");
        assert_eq!(fine.status, 200, "{what}: {fine:?}");
        other.take(&fine);
        let here = if pause == 0 {
            here
        } else {
            here.stop(&place).await;
            place.let_pass(pause).await;
            Here::start(&place).await
        };
        let again = here.way.refresh(&victim.token).await.expect("an answer");
        let is_reissue = committed || refresh == Refresh::Reissue;
        let expected = if is_reissue { "reissued" } else { "rotated" };
        assert_eq!((again.status, &*again.outcome), (200, expected), "{what}: {again:?}");
        victim.take(&again);
        reissues_lost += usize::from(committed && refresh == Refresh::Reissue);
        here.stop(&place).await;
    }
    check(&place, &clients).await;
    place.let_pass(11).await;
    last_life(&place, &mut clients).await;
    println!(
        "{cases} requests failed or panicked at {} points; {reissues_lost} re-issues were lost and forgiven",
        POINTS.len()
    );
}

#[test]
fn f3_what_is_delivered_has_no_fail_points() {
    let features = |edges: &str| {
        let tree = std::process::Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "--package", "server", "--edges", edges])
            .args(["--prefix", "none", "--format", "{p} {f}"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo is there");
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let tree = String::from_utf8(tree.stdout).expect("text");
        let line = tree
            .lines()
            .find(|line| line.starts_with("fail v"))
            .expect("it is there");
        line.contains("failpoints")
    };
    assert!(!features("normal,build"), "fail points in the delivered program");
    assert!(features("normal,build,dev"), "and the tests have them");
}
