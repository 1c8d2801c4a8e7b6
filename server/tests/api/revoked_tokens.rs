//! After an emergency the log says how many tokens of a revoked key were still good, and every one of them counts (F14).

use serde_json::{Value, json};
use server::domain::keys::KeyPurpose;
use server::services::keys::RevokeOutcome;
use server::services::revoked_tokens::RevokedTokens;

use crate::access_tokens::claims;
use crate::app::TestApp;
use crate::keys::{NOBODY, keep, kid, revoke, rotate};
use crate::program::Program;
use crate::service::Service;

/// Every token that was handed out, to whom it may have been: what the count is held against.
#[derive(Default)]
struct Issued {
    sessions: Vec<String>,
    services: Vec<String>,
}

impl Issued {
    fn good(&self, key: &str, now: i64) -> RevokedTokens {
        let count = |tokens: &[String]| {
            let of_key = tokens.iter().filter(|token| kid(token) == key);
            of_key.filter(|token| claims(token)["exp"].as_i64() > Some(now)).count() as u64
        };
        RevokedTokens {
            sessions: count(&self.sessions),
            services: count(&self.services),
        }
    }
}

/// Revokes it, and what was counted.
async fn counted(app: &TestApp, key: &str) -> RevokedTokens {
    assert!(matches!(revoke(app, key).await, RevokeOutcome::Revoked { .. }), "{key}");
    let counted = app.backend().count_revoked_tokens(key, &NOBODY).await;
    counted.expect("the database answers")
}

#[tokio::test]
async fn f14_the_log_says_how_many_unexpired_tokens_a_revoked_key_had_signed() {
    let app = TestApp::start("f14 count").await;
    let services = [
        Service::add_for(&app, "short", "orders", 1).await,
        Service::add_for(&app, "long", "orders", 10).await,
    ];
    let (person, first) = app.add_program("max").await;
    let mut issued = Issued::default();
    let mut programs = vec![first];
    issued.sessions.push(programs[0].access.clone());
    for round in 0..12_usize {
        // Some refresh, some sign in, one ends another's session; services ask again and again.
        for program in programs.iter_mut().skip(round % 2).step_by(2) {
            if program.renew().await.status == 200 {
                issued.sessions.push(program.access.clone());
            }
        }
        let new = Program::signed_in(&app, &person).await;
        issued.sessions.push(new.access.clone());
        if round % 5 == 4 {
            assert!(new.end(&programs.remove(0).session_id).await.status.is_success());
        }
        programs.push(new);
        for service in services.iter().skip(round % 2) {
            issued.services.push(service.token().await);
        }
        app.pass(100);
        if round % 4 == 3 {
            rotate(&app, KeyPurpose::Signing).await;
            assert_eq!(keep(&app).await, 1);
        }
    }
    // One in use, one retired a while ago, one that was published and never signed.
    let active = Program::signed_in(&app, &person).await;
    issued.sessions.push(active.access.clone());
    issued.services.push(services[1].token().await);
    let retired = kid(&issued.sessions[issued.sessions.len() - 4]);
    let active = kid(&active.access);
    assert_ne!(retired, active);
    app.pass(1);
    let now = app.now().as_seconds();
    let expected = issued.good(&retired, now);
    assert!(expected.sessions > 3 && expected.services > 0, "{expected:?}");
    assert_eq!(counted(&app, &retired).await, expected);
    let expected = issued.good(&active, now);
    assert_eq!((expected.sessions, expected.services), (1, 1));
    assert_eq!(counted(&app, &active).await, expected);
    rotate(&app, KeyPurpose::Signing).await;
    let next = app.rows("SELECT id FROM keys WHERE state = 'next'").await;
    let next = next[0][0].as_deref().expect("an id");
    assert_eq!(counted(&app, next).await, RevokedTokens::default());

    let said = app
        .rows("SELECT facts FROM audit_events WHERE kind = 'revoked_tokens_counted'")
        .await;
    let said: Vec<Value> = said
        .iter()
        .map(|row| serde_json::from_str(row[0].as_deref().expect("facts")).expect("JSON"))
        .collect();
    assert_eq!(said.len(), 3);
    let of_active = json!({ "key": active, "sessions": 1, "services": 1, "by": "command_line" });
    assert!(said.contains(&of_active), "{said:?}");
}

#[tokio::test]
async fn f14_what_another_key_signs_during_the_count_and_what_is_handed_out_again_too_late_do_not_count() {
    let app = TestApp::start("f14 others").await;
    let (person, mut program) = app.add_program("max").await;
    let key = kid(&program.access);
    let life = claims(&program.access);
    let life = life["exp"].as_i64().expect("exp") - life["iat"].as_i64().expect("iat");
    app.pass(60);
    // Its answer is lost, and the next one comes when the tokens are over.
    let parent = program.refresh.clone();
    program.renew().await.expect(200);
    app.pass(u64::try_from(life).expect("positive"));
    let late = program.present(&parent).await.expect(200);
    assert_eq!(late.header("mayfly-refresh"), Some("reissued"));
    let good = Program::signed_in(&app, &person).await;
    assert_eq!(kid(&good.access), key);
    app.pass(1);
    assert!(matches!(revoke(&app, &key).await, RevokeOutcome::Revoked { .. }));
    app.pass(1);
    // Before anybody has counted.
    for _ in 0..3 {
        assert_ne!(kid(&Program::signed_in(&app, &person).await.access), key);
    }
    let counted = app
        .backend()
        .count_revoked_tokens(&key, &NOBODY)
        .await
        .expect("answers");
    assert_eq!((counted.sessions, counted.services), (1, 0));
}
