//! Nodes that do not see the same keys at the same moment, and how many keys are published at most.

use std::collections::BTreeSet;

use axum::http::Method;
use data_encoding::BASE64URL_NOPAD;
use server::domain::keys::lifecycle::{LEAD, SPREAD};
use server::domain::keys::{KeyPurpose, KeyRecord, KeyState};
use server::domain::policy::MAX_ACCESS;
use server::services::keys::{Order, RotateOutcome};
use tokio::task::JoinSet;

use crate::access_tokens::header;
use crate::app::TestApp;
use crate::browser::Browser;
use crate::holder::{Holder, TOKEN};
use crate::program::Program;
use crate::service::Key;

async fn published(app: &TestApp) -> BTreeSet<String> {
    let set = Browser::new(app).get("/.well-known/jwks.json").await.expect(200).json();
    let keys = set["keys"].as_array().expect("keys").iter();
    keys.map(|key| key["kid"].as_str().expect("an id").to_owned()).collect()
}

async fn rotate(app: &TestApp) {
    let order = Order {
        by: "command_line",
        ..Order::default()
    };
    let outcome = app.backend().rotate_keys(KeyPurpose::Signing, &order).await;
    let outcome = outcome.expect("the database answers");
    assert!(matches!(outcome, RotateOutcome::Begun(_)), "{outcome:?}");
    app.pass(LEAD.as_secs());
}

async fn keep(app: &TestApp) -> usize {
    app.backend().keep_keys().await.expect("the database answers")
}

#[tokio::test]
async fn f15_two_nodes_with_different_active_keys_refuse_nobody() {
    let here = TestApp::start("f15 nodes").await;
    let there = here.restart().await;
    let person = here.add_person("max", &["member"], false).await;
    rotate(&here).await;
    // The clock stands still from here on: the other node looked a moment ago, and has no reason to look again.
    published(&there).await;
    assert_eq!(keep(&here).await, 1);
    let by_new = Program::signed_in(&here, &person).await;
    let by_old = Program::signed_in(&there, &person).await;
    let kid = |program: &Program| header(&program.access)["kid"].clone();
    assert_ne!(kid(&by_new), kid(&by_old), "each node signs with another key");
    for node in [&here, &there] {
        for program in [&by_new, &by_old] {
            let mut asking = program.clone();
            asking.app = node.clone();
            let path = "/api/v1/me/sessions";
            asking.ask_with(&program.access, Method::GET, path).await.expect(200);
        }
        assert_eq!(published(node).await.len(), 2, "each publishes both");
    }
    // They go on by refreshing at the other node.
    here.pass(60);
    for (mut program, node) in [(by_new, &there), (by_old, &here)] {
        program.app = node.clone();
        program.renew().await.expect(200);
        program.sessions().await.expect(200);
    }
    for wrong in ["access_token_refused", "refresh_refused", "authn_token_reuse"] {
        assert_eq!(here.events(wrong).await, 0, "{wrong}");
    }
}

/// Three keys on schedule: the next one, the active one and the one before. Somebody who orders rotations in a row gets
/// more: each retired key has to stay until the last token that it signed is over, or honest people would be refused.
#[tokio::test]
async fn f13_ten_ordered_rotations_publish_only_keys_that_a_living_token_may_need() {
    let app = TestApp::start("f13 published").await;
    let longest = MAX_ACCESS + SPREAD + std::time::Duration::from_secs(30);
    let mut most = 0;
    for _ in 0..10 {
        rotate(&app).await;
        keep(&app).await;
        app.pass(1);
        let keys: Vec<KeyRecord> = app
            .backend()
            .list_keys()
            .await
            .expect("keys")
            .into_iter()
            .map(|one| one.key)
            .collect();
        let needed = keys.iter().filter(|key| {
            key.purpose == KeyPurpose::Signing
                && match key.state {
                    KeyState::Next | KeyState::Active => true,
                    KeyState::Retired => app.now().since(key.retired_at.expect("a date")) < longest,
                    KeyState::Removed => false,
                }
        });
        let needed: BTreeSet<String> = needed.map(|key| key.id.clone()).collect();
        assert_eq!(published(&app).await, needed);
        most = most.max(needed.len());
    }
    println!("{most} keys at most");
    // As many as can retire, one every `LEAD`, within the life of the longest token; the active and the next one.
    let bound = longest.as_secs().div_ceil(LEAD.as_secs()) + 2;
    assert!(most > 3 && most as u64 <= bound, "{most} of {bound}");
    app.pass(longest.as_secs());
    keep(&app).await;
    assert_eq!(published(&app).await.len(), 1, "the others went");
}

/// The same token, as if another key had signed it.
fn by_another_key(access: &str) -> String {
    let (_, rest) = access.split_once('.').expect("three parts");
    let mut named = header(access);
    let kid = named["kid"].as_str().expect("an id").to_owned();
    let first = if kid.starts_with('a') { "b" } else { "a" };
    named["kid"] = format!("{first}{}", &kid[1..]).into();
    format!("{}.{rest}", BASE64URL_NOPAD.encode(named.to_string().as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j15_nobody_in_line_behind_a_look_that_failed_is_told_that_the_key_is_unknown() {
    let app = TestApp::start("j15 in line").await;
    let (_, program) = app.add_program("max").await;
    let token = by_another_key(&program.access);
    program
        .ask_with(&token, Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);
    app.backend().store().close().await;
    // A key that this node does not know may be one that another made a moment ago.
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let (program, token) = (program.clone(), token.clone());
        asking.spawn(async move { program.ask_with(&token, Method::GET, "/api/v1/me/sessions").await });
    }
    for reply in asking.join_all().await {
        reply.expect(503);
    }
}

#[tokio::test]
async fn j12_a_key_set_that_may_be_out_of_date_is_not_handed_out() {
    let app = TestApp::start("j12 old").await;
    let (_, mut program) = app.add_program("max").await;
    app.pass(20);
    app.backend().store().close().await;
    let mut anybody = Browser::new(&app);
    anybody.get("/.well-known/jwks.json").await.expect(200);
    app.pass(280);
    anybody.get("/.well-known/jwks.json").await.expect(503);
    // A node that was away does not know what is no token: keys may have been made meanwhile.
    let mut bytes = BASE64URL_NOPAD
        .decode(&program.refresh.as_bytes()[4..])
        .expect("base64url");
    bytes[1] = 255;
    let of_a_newer_key = format!("mfr_{}", BASE64URL_NOPAD.encode(&bytes));
    for token in [program.refresh.clone(), of_a_newer_key] {
        program.present(&token).await.expect(503);
        // Nor is whoever proves to hold a key told that its session is over.
        let holder = Holder {
            program: program.clone(),
            key: Key::es256(),
        };
        let proof = holder.proof("POST", TOKEN, None);
        holder.present(&token, &[&proof]).await.expect(503);
    }
}
