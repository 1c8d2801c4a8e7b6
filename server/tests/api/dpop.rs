//! Proof of possession (DPoP, RFC 9449): what is bound to a program's key is worth nothing to whoever copied it.

use axum::http::Method;
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use server::services::forgetting::Past;

use crate::access_tokens::claims;
use crate::app::TestApp;
use crate::browser::{ACCESS, Browser};
use crate::holder::{Holder, ME, TOKEN};
use crate::program::Program;
use crate::reply::Reply;
use crate::service::{Key, Service, post_form};

fn challenge(reply: &Reply) -> &str {
    reply.header("www-authenticate").expect("a challenge")
}

const INVALID_TOKEN: &str = "DPoP error=\"invalid_token\", algs=\"ES256 EdDSA Ed25519\"";

async fn reasons(app: &TestApp) -> Vec<String> {
    let sql = "SELECT reason FROM audit_events WHERE kind = 'proof_refused' ORDER BY 1";
    let rows = app.rows(sql).await;
    rows.into_iter()
        .map(|mut row| row.remove(0).expect("a reason"))
        .collect()
}

#[tokio::test]
async fn r6_a_sign_in_with_a_proof_binds_the_session_and_its_tokens_to_the_key() {
    let app = TestApp::start("r6 binds").await;
    let asking = Service::resource_server(&app).await;
    for (name, key, second) in [("max", Key::es256(), false), ("eva", Key::ed_dsa(), true)] {
        let person = app.add_person(name, &["member"], second).await;
        let mut holder = Holder::new(&app, key);
        let said = holder.sign_in(&person).await.expect(200).json();
        assert_eq!(said["tokens"]["token_type"], "DPoP");
        let cnf = json!({ "jkt": holder.thumbprint() });
        assert_eq!(claims(&holder.program.access)["cnf"], cnf);
        let me = holder.me().await.expect(200);
        assert_eq!(me.json()["username"], name);
        let renewed = holder.renew().await.expect(200);
        assert_eq!(
            (renewed.header("mayfly-refresh"), &renewed.json()["token_type"]),
            (Some("rotated"), &json!("DPoP"))
        );
        assert_eq!(claims(&holder.program.access)["cnf"], cnf);
        for reply in [&me, &renewed] {
            assert!(
                reply.header("dpop-nonce").is_some(),
                "the next proof can be made at once"
            );
        }
        // The other door.
        app.pass(10);
        let body = json!({ "refresh_token": holder.program.refresh });
        let renewed = holder.post_proven("/auth/refresh", &body).await.expect(200).json();
        assert_eq!(renewed["token_type"], "DPoP");
        let access = renewed["access_token"].as_str().expect("a token").to_owned();
        let heard = asking.introspect(&access).await;
        assert_eq!(
            (&heard["active"], &heard["token_type"], &heard["cnf"]),
            (&json!(true), &json!("DPoP"), &cnf)
        );
        let path = "/api/v1/me/sessions";
        let proof = holder.proof("GET", path, Some(&access));
        holder.program.headers = vec![("dpop", proof), ("authorization", format!("DPoP {access}"))];
        let request = holder.program.request(Method::GET, path);
        let request = request.body(axum::body::Body::empty()).expect("a request");
        let list = app.send(holder.program.peer, request).await.expect(200).json();
        assert_eq!(list[0]["bound_to_key"], true);
        let mut browser = Browser::new(&app);
        browser.sign_in(&person).await;
        let page = browser.open("/").await.expect(200).page();
        assert_eq!(page.matches("bound to a key of the app").count(), 1, "{page}");
        let created = "SELECT facts FROM audit_events WHERE kind = 'session_created' ORDER BY at";
        let facts = app.rows(created).await;
        let bound = facts.iter().filter(|row| {
            let text = row[0].as_deref().unwrap_or_default();
            text.contains("bound_to_key") && text.contains(&holder.thumbprint())
        });
        assert_eq!(bound.count(), 1, "{facts:?}");
    }
    assert_eq!(reasons(&app).await, Vec::<String>::new());
}

#[tokio::test]
async fn r6_password_and_second_factor_come_from_the_holder_of_one_key() {
    let app = TestApp::start("r6 one key").await;
    let person = app.add_person("max", &["member"], true).await;
    let password = json!({ "identifier": person.username, "password": person.password });
    let mut holder = Holder::new(&app, Key::es256());
    let said = holder.post_proven("/auth/login", &password).await.expect(200);
    assert!(said.header("dpop-nonce").is_some());
    let code = json!({ "code": person.code(&app) });
    let other = Holder::new(&app, Key::es256());
    let foreign = other.proof("POST", "/auth/mfa", None);
    for proofs in [&[][..], &[foreign.as_str()][..]] {
        let refused = holder.post("/auth/mfa", &code, proofs).await.expect(400);
        assert_eq!(refused.code(), "invalid_dpop_proof");
    }
    // The same cookies in a browser, which proves nothing.
    let jar = holder.program.jar.clone();
    holder.program.headers = vec![("origin", "http://localhost:3000".to_owned())];
    let refused = holder.program.post("/auth/mfa", &code).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (401, "flow_expired".to_owned())
    );
    assert_eq!(app.number("SELECT count(*) FROM sessions").await, 0);
    // That ended the flow, and used no code up.
    holder.program.jar = jar;
    holder.program.headers.clear();
    holder.post_proven("/auth/login", &password).await.expect(200);
    let said = holder.post_proven("/auth/mfa", &code).await.expect(200).json();
    assert_eq!(said["tokens"]["token_type"], "DPoP");

    let mut later = Holder::new(&app, Key::es256());
    later.post("/auth/login", &password, &[]).await.expect(200);
    let code = json!({ "code": person.code(&app) });
    let refused = later.post_proven("/auth/mfa", &code).await.expect(400);
    assert_eq!(refused.code(), "invalid_dpop_proof");
    let said = later.post("/auth/mfa", &code, &[]).await.expect(200).json();
    assert_eq!(said["tokens"]["token_type"], "Bearer");
    assert_eq!(
        reasons(&app).await,
        ["proof_beside_unbound", "proof_missing", "proof_of_other_key"]
    );
    let proof = Holder::new(&app, Key::es256()).proof("GET", "/auth/login", None);
    let mut holder = Holder::new(&app, Key::es256());
    assert_eq!(
        holder
            .post("/auth/login", &password, &[&proof])
            .await
            .expect(400)
            .code(),
        "invalid_dpop_proof"
    );
}

#[tokio::test]
async fn r6_a_stolen_refresh_token_without_the_key_changes_nothing_and_the_owner_goes_on() {
    let app = TestApp::start("r6 stolen").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut owner = Holder::signed_in(&app, &person, Key::es256()).await;
    let mut thief = Holder::new(&app, Key::es256());
    let parent = owner.program.refresh.clone();
    owner.renew().await.expect(200);
    app.pass(10);
    let caught = owner.proof("POST", TOKEN, None);
    owner
        .present(&owner.program.refresh.clone(), &[&caught])
        .await
        .expect(200);
    owner.renew().await.expect(200);
    // Long enough for a used token to be an alarm.
    app.pass(120);
    let before = app.state().await;
    let mut refused = 0;
    for token in [parent, owner.program.refresh.clone()] {
        let (own, own_again) = (
            thief.proof("POST", TOKEN, None),
            thief.proof("POST", "/auth/refresh", None),
        );
        let made_for_him = owner.proof("POST", "/auth/refresh", Some(&token));
        for proofs in [&[][..], &[own.as_str()], &[caught.as_str()], &[made_for_him.as_str()]] {
            let reply = thief.present(&token, proofs).await.expect(400);
            assert_eq!(reply.code(), "invalid_dpop_proof", "{}", reply.body);
            assert_eq!(reply.header("mayfly-refresh"), Some("unproven"));
            assert!(!reply.body.contains("mfr_"));
            refused += 1;
        }
        for proofs in [&[][..], &[own_again.as_str()], &[caught.as_str()]] {
            let body = json!({ "refresh_token": token });
            let reply = thief.post("/auth/refresh", &body, proofs).await.expect(400);
            assert_eq!(reply.code(), "invalid_dpop_proof", "{}", reply.body);
            refused += 1;
        }
    }
    assert_eq!(app.state().await, before, "nothing happened to the session");
    assert_eq!(app.events("proof_refused").await, refused, "each is written down");
    let known = format!(
        "SELECT count(*) FROM audit_events WHERE kind = 'proof_refused' AND subject_id IS NOT NULL AND reason IN \
         ('{}', '{}')",
        "proof_missing", "proof_of_other_key"
    );
    assert_eq!(app.number(&known).await, 8, "with the session it is about");
    assert_eq!(app.events("authn_token_reuse").await, 0, "and nobody is suspected");
    owner.renew().await.expect(200);
    owner.me().await.expect(200);
}

#[tokio::test]
async fn r6_a_bound_access_token_is_accepted_with_a_proof_alone() {
    let app = TestApp::start("r6 bound").await;
    let person = app.add_person("max", &["member"], false).await;
    let holder = Holder::signed_in(&app, &person, Key::es256()).await;
    let thief = Holder::new(&app, Key::es256());
    let token = &holder.program.access;
    let proof = || holder.proof("GET", ME, Some(token));
    // So that what was checked a moment ago comes from memory.
    app.backend()
        .catch_up_with_revocations()
        .await
        .expect("the database answers");
    let last_active = "SELECT max(last_active_at) AS at FROM sessions";
    for round in 0..3 {
        app.pass(u64::from(round == 2));
        let active = app.number(last_active).await;
        for (scheme, proofs) in [
            ("Bearer", vec![]),
            ("Bearer", vec![proof()]),
            ("DPoP", vec![]),
            ("DPoP", vec![thief.proof("GET", ME, Some(token))]),
        ] {
            let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
            let refused = holder.ask(scheme, token, &proofs).await.expect(401);
            assert_eq!(challenge(&refused), INVALID_TOKEN, "{scheme}, round {round}");
        }
        assert_eq!(app.number(last_active).await, active, "that was nobody's activity");
        let once = proof();
        holder.ask("dpop", token, &[&once]).await.expect(200);
        let again = holder.ask("DPoP", token, &[&once]).await.expect(401);
        assert!(challenge(&again).contains("error=\"invalid_dpop_proof\""));
        holder.me().await.expect(200);
    }
    // As a cookie it is nobody's.
    let mut browser = Browser::new(&app);
    browser.jar.insert(ACCESS.to_owned(), token.clone());
    let page = browser.get("/").await.expect(303);
    assert_eq!(page.location(), "/sign-in");
    // A token that is bound to nothing does not come with a proof.
    let unbound = Program::signed_in(&app, &person).await;
    let proof = holder.proof("GET", ME, Some(&unbound.access));
    let refused = holder.ask("DPoP", &unbound.access, &[&proof]).await.expect(401);
    assert_eq!(challenge(&refused), INVALID_TOKEN);
    unbound.sessions().await.expect(200);
    // Of a session that is over it is not good either, and cookies of whatever session beside it are left alone.
    let ended = Holder::signed_in(&app, &person, Key::es256()).await;
    unbound.end(&ended.program.session_id).await.expect(200);
    let over = ended.me().await.expect(401);
    assert_eq!(over.code(), "session_over");
    assert_eq!(challenge(&over), INVALID_TOKEN);
    assert!(over.cookies().is_empty());
    // Nor does what is no token.
    let proof = holder.proof("GET", ME, Some("x.y.z"));
    let refused = holder.ask("DPoP", "x.y.z", &[&proof]).await.expect(401);
    assert_eq!(challenge(&refused), INVALID_TOKEN);
    assert_eq!(app.number("SELECT count(*) FROM dpop_proofs").await, 1 + 3 * 2 + 2);
}

#[tokio::test]
async fn r6_a_session_that_began_without_a_key_stays_so() {
    let app = TestApp::start("r6 unbound").await;
    let (_, program) = app.add_program("max").await;
    let mut holder = Holder::new(&app, Key::es256());
    holder.program = program;
    let renewed = holder.renew().await.expect(200).json();
    assert_eq!(renewed["token_type"], "Bearer");
    assert!(claims(&holder.program.access).get("cnf").is_none());
    holder.program.sessions().await.expect(200);
    app.pass(10);
    let wrong = holder.proof("GET", TOKEN, None);
    let refused = holder.present(&holder.program.refresh, &[&wrong]).await.expect(400);
    assert_eq!(
        refused.code(),
        "invalid_dpop_proof",
        "a proof that is there has to hold"
    );
    holder.program.renew().await.expect(200);
    // Tokens of services are not bound, and nobody is left in doubt.
    let service = Service::add(&app, "reports", "read").await;
    let (basic, proof) = (
        Service::basic(&service.client_id, &service.secret),
        holder.proof("POST", TOKEN, None),
    );
    let headers = [("authorization", basic.as_str()), ("dpop", &proof)];
    let refused = post_form(&app, TOKEN, &headers, &[("grant_type", "client_credentials")]).await;
    assert_eq!(refused.expect(400).code(), "invalid_request");
}

#[tokio::test]
async fn r6_of_50_uses_of_one_proof_at_once_exactly_one_succeeds() {
    let app = TestApp::start("r6 at once").await;
    // Nothing is cleared away so soon after the start.
    app.pass(3600);
    let person = app.add_person("max", &["member"], false).await;
    let holder = Holder::signed_in(&app, &person, Key::es256()).await;
    app.pass(10);
    let (resource, token) = (
        holder.proof("GET", ME, Some(&holder.program.access)),
        holder.proof("POST", TOKEN, None),
    );
    for at_resource in [true, false] {
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (holder, resource, token) = (holder.clone(), resource.clone(), token.clone());
            asking.spawn(async move {
                let reply = if at_resource {
                    holder.ask("DPoP", &holder.program.access, &[&resource]).await
                } else {
                    holder.present(&holder.program.refresh, &[&token]).await
                };
                reply.status.as_u16()
            });
        }
        let mut statuses = asking.join_all().await;
        statuses.sort_unstable();
        let refused = if at_resource { 401 } else { 400 };
        assert_eq!(statuses[0], 200);
        assert!(statuses[1..].iter().all(|status| *status == refused), "{statuses:?}");
    }
    assert_eq!(app.events("token_rotated").await, 1);
    // Not even after the program was started again.
    let again = Holder {
        program: Program {
            app: app.restart().await,
            ..holder.program.clone()
        },
        key: holder.key.clone(),
    };
    again
        .ask("DPoP", &holder.program.access, &[&resource])
        .await
        .expect(401);
    again.me().await.expect(200);
    // Proofs are forgotten when they are too old for any node.
    let kept = "SELECT count(*) FROM dpop_proofs";
    app.pass(200);
    app.backend().forget(Past::Proofs).await.expect("the database answers");
    assert_eq!(
        app.number(kept).await,
        3,
        "all but that of the sign-in, ten seconds older"
    );
    app.pass(10);
    app.backend().forget(Past::Proofs).await.expect("the database answers");
    assert_eq!(app.number(kept).await, 0);
    again
        .ask("DPoP", &holder.program.access, &[&resource])
        .await
        .expect(401);
}

#[tokio::test]
async fn r6_every_door_asks_for_a_nonce_of_its_own_and_tells_it() {
    let app = TestApp::start("r6 nonce").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut holder = Holder::signed_in(&app, &person, Key::ed_dsa()).await;
    let password = json!({ "identifier": person.username, "password": person.password });
    let old = app.backend().dpop_nonce();
    app.pass(300);
    let current = app.backend().dpop_nonce();
    let made_up = BASE64URL_NOPAD.encode(&[7; 16]);
    let cut = &current[1..];
    let token = holder.program.access.clone();
    for nonce in [None, Some(""), Some(&*old), Some(&*made_up), Some(cut)] {
        let proof = |method: &str, path: &str, token: Option<&str>| {
            let mut claims = holder.claims(method, path, token);
            let members = claims.as_object_mut().expect("an object");
            members.remove("nonce");
            members.extend(nonce.map(|nonce| ("nonce".to_owned(), json!(nonce))));
            holder.key.sign(&holder.header(), &claims)
        };
        let [login, body, form, resource] = [
            proof("POST", "/auth/login", None),
            proof("POST", "/auth/refresh", None),
            proof("POST", TOKEN, None),
            proof("GET", ME, Some(&token)),
        ];
        let mut other = holder.clone();
        let refresh = json!({ "refresh_token": holder.program.refresh });
        let replies = [
            (400, other.post("/auth/login", &password, &[&login]).await),
            (400, other.post("/auth/refresh", &refresh, &[&body]).await),
            (400, holder.present(&holder.program.refresh, &[&form]).await),
            (401, holder.ask("DPoP", &token, &[&resource]).await),
        ];
        for (status, reply) in replies {
            let reply = reply.expect(status);
            assert_eq!(reply.code(), "use_dpop_nonce", "{nonce:?}");
            assert_eq!(reply.header("dpop-nonce"), Some(&*current), "{nonce:?}");
            if status == 401 {
                assert!(challenge(&reply).starts_with("DPoP error=\"use_dpop_nonce\""));
            }
        }
    }
    assert_eq!(
        reasons(&app).await,
        Vec::<String>::new(),
        "that is how every client begins"
    );
    assert_eq!(app.number("SELECT count(*) FROM dpop_proofs").await, 1);
    holder.me().await.expect(200);
    holder.renew().await.expect(200);
}
