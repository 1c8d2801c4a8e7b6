//! Passwords at the doors: length, wholeness, storage, change, and what a wrong one gives away.

use serde_json::json;

use crate::app::TestApp;
use crate::browser::{Browser, CHROME};
use crate::people::{Admin, Member};
use crate::program::Program;

/// Opens an invitation and tries passwords until one is taken; which ones were refused.
async fn tries(app: &TestApp, link: &str, username: &str, passwords: &[String]) -> Vec<bool> {
    let mut browser = Browser::new(app);
    browser
        .open(link.strip_prefix(crate::app::ORIGIN).expect("ours"))
        .await
        .expect(200);
    let mut taken = Vec::new();
    for password in passwords {
        let fields = [
            ("username", username),
            ("email", ""),
            ("display_name", ""),
            ("password", password.as_str()),
        ];
        let reply = browser.submit("accept_invitation", &fields).await;
        taken.push(!reply.location().contains("__err"));
        if !browser.is_signed_in() && reply.location().contains("__err") {
            browser.open("/welcome").await.expect(200);
        }
    }
    taken
}

/// A password of so many code points that no list knows.
fn of_length(length: usize) -> String {
    "Übel riecht 7 der Flieder, 🦋 wenn es im Mai regnet, und zwar "
        .chars()
        .cycle()
        .take(length)
        .collect()
}

#[tokio::test]
async fn p1_the_least_length_depends_on_the_second_factor_and_counts_code_points() {
    let app = TestApp::start("p1").await;
    let mut admin = Admin::sign_in(&app).await;
    let link = admin.invite("alone", &["member"]).await;
    let lengths = [0, 7, 8, 14, 257, 15].map(of_length);
    assert_eq!(
        tries(&app, &link, "alone", &lengths).await,
        [false, false, false, false, false, true]
    );
    let link = admin.invite("withfactor", &["auditor"]).await;
    let lengths = [0, 7, 257, 8].map(of_length);
    assert_eq!(
        tries(&app, &link, "withfactor", &lengths).await,
        [false, false, false, true]
    );
    // Butterflies are one character each, whatever they weigh.
    let link = admin.invite("emoji", &["member"]).await;
    let passwords = ["🦋🐝🌸🌿🍀🌻🐞".to_owned(), "🦋🐝🌸🌿🍀🌻🐞🐛🐜🕷🦗🦟🌼🌷🌹".to_owned()];
    assert_eq!(tries(&app, &link, "emoji", &passwords).await, [false, true]);
    let link = admin.invite("long", &["member"]).await;
    assert_eq!(tries(&app, &link, "long", &[of_length(256)]).await, [true]);
    let mut program = Program::new(&app);
    let right = json!({"identifier": "long", "password": of_length(256)});
    program.post("/auth/login", &right).await.expect(200);
    let cut = json!({"identifier": "long", "password": of_length(255)});
    program.post("/auth/login", &cut).await.expect(401);
}

#[tokio::test]
async fn p4_what_everybody_tries_first_is_refused_with_the_reason() {
    let app = TestApp::start("p4").await;
    let mut member = Member::sign_in(&app, "maximiliane").await;
    let own_name = "maximiliane@example.org";
    for bad in [
        "passwordpassword",
        "aaaaaaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabc",
        own_name,
    ] {
        member.browser.open("/security").await.expect(200);
        let fields = [
            ("current_password", member.person.password.as_str()),
            ("new_password", bad),
        ];
        let page = member
            .browser
            .submit_and_follow("change_password", &fields)
            .await
            .expect(200)
            .page();
        assert!(
            page.contains("class=\"problem\""),
            "{bad}: the reason stands at the field"
        );
    }
    assert_eq!(app.events("authn_password_change").await, 0);
}

#[tokio::test]
async fn p3_the_whole_password_counts_as_it_was_typed() {
    let app = TestApp::start("p3").await;
    let mut member = Member::sign_in(&app, "max").await;
    // Composed letters, a NUL, more than 72 bytes, a space at the end.
    let chosen = "Caf\u{e9} au lait \0 und dann noch eine ganze Menge mehr, damit es 72 Bytes werden. ";
    assert!(chosen.len() > 72);
    member.browser.open("/security").await.expect(200);
    let fields = [
        ("current_password", member.person.password.as_str()),
        ("new_password", chosen),
    ];
    let reply = member.browser.submit("change_password", &fields).await;
    assert!(!reply.location().contains("__err"), "{}", reply.location());
    let mut program = Program::new(&app);
    let mut login = async |password: &str| {
        let reply = program
            .post("/auth/login", &json!({"identifier": "max", "password": password}))
            .await;
        reply.status.as_u16()
    };
    assert_eq!(login(chosen).await, 200);
    // Unicode's two ways to write é are one password: NFC, and nothing else, is applied.
    assert_eq!(login(&chosen.replace('\u{e9}', "e\u{301}")).await, 200);
    let cut_at_72: String = chosen.chars().take(71).collect();
    let cut_at_nul = chosen.split('\0').next().expect("a part before it");
    for other in [
        &cut_at_72,
        cut_at_nul,
        chosen.trim_end(),
        &chosen.to_lowercase(),
        &chosen.replace('\u{e9}', "e"),
    ] {
        assert_eq!(login(other).await, 401, "{other:?}");
    }
}

#[tokio::test]
async fn p5_hashes_are_argon2id_at_full_cost_and_follow_when_the_cost_rises() {
    let app = TestApp::start("p5").await;
    let person = app.add_person("max", &["member"], false).await;
    let hash = async |app: &TestApp| {
        app.rows("SELECT password_hash FROM users").await[0][0]
            .clone()
            .expect("a hash")
    };
    let before = hash(&app).await;
    let parts: Vec<&str> = before.split('$').collect();
    assert_eq!(parts[1..4], ["argon2id", "v=19", "m=19456,t=2,p=1"]);
    assert!(
        data_encoding::BASE64_NOPAD
            .decode(parts[4].as_bytes())
            .expect("base64")
            .len()
            >= 16,
        "the salt"
    );
    assert_eq!(
        data_encoding::BASE64_NOPAD
            .decode(parts[5].as_bytes())
            .expect("base64")
            .len(),
        32
    );

    Program::signed_in(&app, &person).await;
    assert_eq!(hash(&app).await, before, "at the same cost nothing is written");
    let dearer = app.restart_with(&[("PASSWORD__ITERATIONS", "3")]).await;
    Program::new(&dearer)
        .post(
            "/auth/login",
            &json!({"identifier": "max", "password": "not this one at all"}),
        )
        .await
        .expect(401);
    assert_eq!(hash(&dearer).await, before);
    Program::signed_in(&dearer, &person).await;
    let after = hash(&dearer).await;
    assert!(after.starts_with("$argon2id$v=19$m=19456,t=3,p=1$"), "{after}");
    assert_ne!(after.split('$').nth(4), before.split('$').nth(4), "with a fresh salt");
    assert_eq!(dearer.events("password_rehashed").await, 1);
    Program::signed_in(&dearer, &person).await;
}

#[tokio::test]
async fn p6_changing_the_password_needs_the_current_one_and_ends_other_sessions() {
    let app = TestApp::start("p6").await;
    let mut member = Member::sign_in(&app, "max").await;
    let mut program = Program::signed_in(&app, &member.person).await;
    let new = "a much better password than before";
    for wrong in [
        "",
        "wrong",
        "seven quiet mayflies at dusk ",
        "SEVEN QUIET MAYFLIES AT DUSK",
    ] {
        member.browser.open("/security").await.expect(200);
        let fields = [("current_password", wrong), ("new_password", new)];
        let reply = member.browser.submit("change_password", &fields).await;
        assert!(reply.location().contains("__err"), "{wrong:?}: {}", reply.location());
        assert!(
            !reply.location().contains("better") && !reply.location().contains("quiet"),
            "{}",
            reply.location()
        );
    }
    assert_eq!(app.events("authn_password_change").await, 0);
    member.browser.open("/security").await.expect(200);
    let fields = [
        ("current_password", member.person.password.as_str()),
        ("new_password", new),
    ];
    let page = member
        .browser
        .submit_and_follow("change_password", &fields)
        .await
        .expect(200)
        .page();
    assert!(
        page.contains("password") && member.browser.is_signed_in(),
        "this browser goes on"
    );
    assert_eq!(app.events("authn_password_change").await, 1);
    program.sessions().await.expect(401);
    app.pass(60);
    program.renew().await.expect(401);
    Program::new(&app).sign_in(&member.person).await.expect(401);
}

#[tokio::test]
async fn p9_wrong_name_and_wrong_password_look_the_same() {
    let app = TestApp::start("p9").await;
    let mut admin = Admin::sign_in(&app).await;
    app.add_person("known", &["member"], false).await;
    app.add_person("factor", &["member"], true).await;
    app.add_person("gone", &["member"], false).await;
    app.execute("UPDATE users SET status = 'disabled' WHERE username = 'gone'")
        .await;
    admin.invite("invited", &["member"]).await;
    let names = [
        "known",
        "known@example.org",
        "factor",
        "gone",
        "invited",
        "nobody",
        "nobody@example.org",
        "\u{fb01}sh",
        "",
    ];
    let mut seen: Option<(String, Vec<String>)> = None;
    for name in names {
        let mut program = Program::new(&app);
        let reply = program
            .post(
                "/auth/login",
                &json!({"identifier": name, "password": "wrong but long enough"}),
            )
            .await;
        let (status, instance) = (
            reply.status,
            reply.json()["instance"].as_str().unwrap_or_default().to_owned(),
        );
        let body = reply.body.replace(&instance, "");
        let mut headers: Vec<String> = reply
            .headers
            .iter()
            .filter(|(name, _)| *name != "x-request-id" && *name != "date")
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        headers.sort();
        assert_eq!(status, 401, "{name}: {body}");
        let first = seen.get_or_insert_with(|| (body.clone(), headers.clone()));
        assert_eq!((&first.0, &first.1), (&body, &headers), "{name}");
    }
    // The same on the page, in another browser: where the form leads, and which cookies come.
    let mut seen: Option<(String, Vec<String>)> = None;
    for name in &names[..8] {
        let mut browser = Browser {
            user_agent: CHROME.to_owned(),
            ..Browser::new(&app)
        };
        let reply = browser.give_password(name, "wrong but long enough").await;
        let cookies: Vec<String> = reply
            .cookies()
            .iter()
            .map(|line| line.split('=').next().unwrap_or_default().to_owned())
            .collect();
        let found = (reply.location().to_owned(), cookies);
        let first = seen.get_or_insert_with(|| found.clone());
        assert_eq!(*first, found, "{name}");
        assert!(!browser.is_signed_in());
    }
}

#[tokio::test]
async fn f39_an_unknown_name_takes_as_long_as_a_known_one() {
    let app = TestApp::start("f39").await;
    app.add_person("known", &["member"], false).await;
    app.add_person("gone", &["member"], false).await;
    app.execute("UPDATE users SET status = 'disabled' WHERE username = 'gone'")
        .await;
    let mut times: [Vec<u128>; 3] = Default::default();
    for _ in 0..5 {
        for (index, name) in ["known", "gone", "nobody"].into_iter().enumerate() {
            let mut program = Program::new(&app);
            #[expect(clippy::disallowed_methods, reason = "what an attacker would measure")]
            let began = std::time::Instant::now();
            program
                .post(
                    "/auth/login",
                    &json!({"identifier": name, "password": "wrong but long enough"}),
                )
                .await
                .expect(401);
            #[expect(clippy::disallowed_methods, reason = "what an attacker would measure")]
            times[index].push(began.elapsed().as_micros());
        }
    }
    let medians = times.map(|mut all| {
        all.sort_unstable();
        all[2]
    });
    // Wide on purpose: without the dummy hash an unknown name would be answered fifty times faster.
    let (least, most) = (
        medians.iter().min().expect("three"),
        medians.iter().max().expect("three"),
    );
    assert!(most / least.max(&1) < 4, "{medians:?}");
}
