//! Refreshes that meet each other, and refreshes that meet the end of their session.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use server::domain::audit::Circumstances;
use server::domain::random::Random as _;
use server::domain::session::Client;
use server::domain::sign_in::{Flow, Step};
use server::services::sign_in::{Caller, CodeOutcome};

use crate::app::{SeededRandom, TestApp};
use crate::people::Person;
use crate::program::Program;

/// A program that signed in with a code, the password step passed over: the races need many sessions, not many
/// password hashes.
async fn quickly(app: &TestApp, person: &Person) -> Program {
    let code = person.code(app);
    let caller = Caller {
        from: Circumstances::default(),
        address: IpAddr::from([192, 0, 2, 33]),
        client: Client::Native,
        device: None,
        key: None,
    };
    let flow = Flow {
        user_id: person.id,
        auth_epoch: 0,
        password_at: app.now(),
        return_to: "/".to_owned(),
        step: Step::Code { wrong: 0 },
        key: None,
    };
    let outcome = app
        .backend()
        .check_code(flow, &code, &caller)
        .await
        .expect("the database answers");
    let CodeOutcome::SignedIn(signed_in) = outcome else {
        panic!("{outcome:?}")
    };
    let mut program = Program::new(app);
    signed_in.issued.access.expose_secret().clone_into(&mut program.access);
    signed_in
        .issued
        .refresh
        .expose_secret()
        .clone_into(&mut program.refresh);
    program.session_id = signed_in.issued.live.session.id.to_string();
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_of_64_refreshes_at_once_exactly_one_rotates() {
    let app = TestApp::start("f51").await;
    let person = app.add_person("max", &["member"], true).await;
    let mut program = quickly(&app, &person).await;
    for round in 1..=6 {
        app.pass(60);
        let mut tries = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let mut program = program.clone();
            tries.spawn(async move { program.present(&program.refresh.clone()).await });
        }
        let (mut by_name, mut children) = (BTreeMap::<String, u32>::new(), Vec::new());
        for reply in tries.join_all().await {
            let name = reply
                .header("mayfly-refresh")
                .unwrap_or_else(|| panic!("{} {}", reply.status, reply.body));
            *by_name.entry(name.to_owned()).or_default() += 1;
            if reply.status == 200 {
                children.push(reply.json());
            }
        }
        assert_eq!(by_name.get("rotated"), Some(&1), "round {round}: {by_name:?}");
        let allowed = ["rotated", "reissued", "superseded"];
        assert!(
            by_name.keys().all(|name| allowed.contains(&name.as_str())),
            "round {round}: {by_name:?}"
        );
        assert!(
            by_name.get("reissued").copied().unwrap_or(0) <= 5,
            "round {round}: {by_name:?}"
        );
        assert!(
            children
                .iter()
                .all(|child| child["refresh_token"] == children[0]["refresh_token"]),
            "one child"
        );
        assert_eq!(app.events("token_rotated").await, round);
        program.refresh = children[0]["refresh_token"].as_str().expect("a token").to_owned();
        program.access = children[0]["access_token"].as_str().expect("a token").to_owned();
        program.sessions().await.expect(200);
    }
    assert_eq!(app.events("authn_token_reuse").await, 0, "nobody was taken for a thief");
    let generations = app
        .rows("SELECT facts FROM audit_events WHERE kind = 'token_rotated' ORDER BY at")
        .await
        .into_iter()
        .map(|row| row[0].clone().expect("facts"))
        .collect::<Vec<_>>();
    for (index, facts) in generations.iter().enumerate() {
        assert!(
            facts
                .replace(' ', "")
                .contains(&format!("\"generation\":{}", index + 1)),
            "without gaps: {facts}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f52_no_refresh_outlives_a_revocation_it_meets() {
    let app = TestApp::start("f52").await;
    let person = app.add_person("max", &["member"], true).await;
    let mut keeper = quickly(&app, &person).await;
    let random = SeededRandom::new("f52 offsets");
    for round in 0..100 {
        // Ending another session needs a factor that is not too old.
        if round % 20 == 19 {
            keeper = quickly(&app, &person).await;
        }
        let program = quickly(&app, &person).await;
        app.pass(20);
        let mut offsets = [0; 2];
        random.fill(&mut offsets);
        let wait = |byte: u8| Duration::from_micros(u64::from(byte) * 20);
        let (mut refreshing, ending) = (program.clone(), keeper.clone());
        let session = program.session_id.clone();
        let refreshed = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[0])).await;
            refreshing.renew().await;
            refreshing
        });
        let ended = tokio::spawn(async move {
            tokio::time::sleep(wait(offsets[1])).await;
            ending.end(&session).await
        });
        let (after, ended) = (refreshed.await.expect("no panic"), ended.await.expect("no panic"));
        assert_eq!(ended.status, 200, "round {round}: {}", ended.body);
        for token in [&program.access, &after.access] {
            let reply = after
                .ask_with(token, axum::http::Method::GET, "/api/v1/me/sessions")
                .await;
            assert_eq!(reply.status, 401, "round {round}");
        }
        for token in [&program.refresh, &after.refresh] {
            assert_eq!(after.clone().present(token).await.status, 401, "round {round}");
        }
    }
    assert_eq!(app.events("authn_token_reuse").await, 0);
}
