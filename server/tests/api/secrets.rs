//! Canaries: secrets that went through every door, looked for in everything the program wrote and keeps.

use axum::body::Body;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use serde_json::json;

use crate::app::TestApp;
use crate::browser::{Browser, encode};
use crate::metrics::metrics_of_program;
use crate::people::{PASSWORD, Person};
use crate::program::Program;
use server::domain::id::UserId;

/// A secret by its name.
type Canary = (&'static str, String);

/// Goes through everything with secrets that are easy to find again. Returns all of them.
#[expect(clippy::too_many_lines, reason = "one day, from morning to evening")]
async fn a_day_with_canaries(app: &TestApp) -> Vec<Canary> {
    let mut canaries: Vec<Canary> = vec![
        ("password", PASSWORD.to_owned()),
        ("wrong password", "CANARY-wrong-password-51f0".to_owned()),
        ("new password", "CANARY-new-password-7be2-long".to_owned()),
        ("password typed as a name", "CANARY-typed-as-a-name-c933".to_owned()),
        ("wrong code", "CANARY-code-19aa".to_owned()),
        (
            "guessed link",
            "CANARYguessedlink00000000000000000000000abcd".to_owned(),
        ),
        ("guessed token", "mfr_CANARYguessedtoken77".to_owned()),
        ("unknown field", "CANARY-unknown-field-2201".to_owned()),
    ];
    let said = app.process().said();
    let link = said.split("/welcome/open/").nth(1).expect("the first link is printed");
    let link = format!("/welcome/open/{}", link.split_whitespace().next().expect("a secret"));
    let mut browser = Browser::new(app);
    browser.open(&link).await.expect(200);
    canaries.push(("form token", browser.form_token.clone()));
    let note = |browser: &Browser| {
        browser
            .jar
            .iter()
            .filter(|(_, value)| value.len() > 8)
            .map(|(_, value)| ("cookie", value.clone()))
            .collect::<Vec<_>>()
    };
    canaries.extend(note(&browser));
    let fields = |password: &'static str| {
        [
            ("username", "ada"),
            ("email", "ada@example.org"),
            ("display_name", "Ada"),
            ("password", password),
        ]
    };
    browser.submit_and_follow("accept_invitation", &fields("short")).await;
    browser
        .submit_and_follow("accept_invitation", &fields(PASSWORD))
        .await
        .expect(200);
    let page = browser.open("/sign-in/enrol").await.expect(200);
    let seed: String = page.between("class=\"secret\"><code>", "</code>").replace(' ', "");
    canaries.push(("authenticator seed", seed.clone()));
    let person = Person {
        id: UserId(uuid::Uuid::nil()),
        username: "ada".to_owned(),
        password: PASSWORD.to_owned(),
        totp: server::domain::mfa::TotpSecret::from_base32(&seed),
        recovery_codes: Vec::new(),
    };
    let code = person.code(app);
    let page = browser
        .submit_and_follow("confirm_sign_in_enrolment", &[("code", &code)])
        .await
        .expect(200);
    let codes = page.all_between("<li><code>", "</code>");
    canaries.extend(codes.iter().map(|code| ("recovery code", code.clone())));
    canaries.extend(codes.iter().map(|code| ("recovery code", code.replace('-', ""))));
    canaries.extend(note(&browser));
    browser
        .submit_and_follow("acknowledge_recovery_codes", &[])
        .await
        .expect(200);

    // An invitation, and what is typed into wrong places.
    browser.open("/admin/people/new").await.expect(200);
    let fields = [
        ("username", "max"),
        ("email", ""),
        ("display_name", ""),
        ("roles[]", "member"),
    ];
    let page = browser.submit_and_follow("invite_person", &fields).await.expect(200);
    let link = page.between("class=\"secret\"><code>", "</code>");
    canaries.push(("invitation", link.rsplit('/').next().expect("a secret").to_owned()));
    let mut guest = Browser::elsewhere(app);
    guest
        .open("/welcome/open/CANARYguessedlink00000000000000000000000abcd")
        .await;
    guest
        .open(link.strip_prefix(crate::app::ORIGIN).expect("ours"))
        .await
        .expect(200);
    let fields = [
        ("username", "max"),
        ("email", ""),
        ("display_name", ""),
        ("password", PASSWORD),
    ];
    guest.submit_and_follow("accept_invitation", &fields).await.expect(200);
    canaries.extend(note(&guest));
    guest.open("/security").await.expect(200);
    let fields = [
        ("current_password", "CANARY-wrong-password-51f0"),
        ("new_password", "CANARY-new-password-7be2-long"),
    ];
    guest.submit_and_follow("change_password", &fields).await;
    guest.open("/security").await.expect(200);
    let fields = [
        ("current_password", PASSWORD),
        ("new_password", "CANARY-new-password-7be2-long"),
    ];
    guest.submit_and_follow("change_password", &fields).await.expect(200);
    canaries.extend(note(&guest));
    guest
        .give_password("CANARY-typed-as-a-name-c933", "CANARY-wrong-password-51f0")
        .await;

    // Programs, right and wrong.
    let mut program = Program::new(app);
    let login = json!({"identifier": "max", "password": "CANARY-new-password-7be2-long"});
    let reply = program.post("/auth/login", &login).await.expect(200).json();
    for name in ["access_token", "refresh_token"] {
        canaries.push((name, reply["tokens"][name].as_str().expect("a token").to_owned()));
    }
    program.access = reply["tokens"]["access_token"].as_str().expect("a token").to_owned();
    program.sessions().await.expect(200);
    program
        .present(reply["tokens"]["refresh_token"].as_str().expect("a token"))
        .await;
    program.present("mfr_CANARYguessedtoken77").await.expect(400);
    program
        .ask_with("mfr_CANARYguessedtoken77", Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);
    program
        .post("/auth/mfa", &json!({"code": "CANARY-code-19aa"}))
        .await
        .expect(401);
    program
        .post(
            "/auth/login",
            &json!({"identifier": "max", "secret": "CANARY-unknown-field-2201"}),
        )
        .await
        .expect(400);
    program
        .post_text("/auth/login", "{\"password\": \"CANARY-wrong-password-51f0\", ")
        .await
        .expect(400);
    let mut second = Program::new(app);
    let login = json!({"identifier": "ada", "password": PASSWORD});
    second.post("/auth/login", &login).await.expect(200);
    second
        .post("/auth/mfa", &json!({"code": "CANARY-code-19aa"}))
        .await
        .expect(401);
    second.post("/auth/mfa", &json!({"code": codes[0]})).await.expect(200);
    second.post("/auth/login", &login).await.expect(200);
    second.post("/auth/mfa", &json!({"code": codes[0]})).await.expect(401);

    // In places where only mistakes put them.
    let query = encode(&[
        ("password", "CANARY-wrong-password-51f0"),
        ("token", "mfr_CANARYguessedtoken77"),
    ]);
    guest.get(&format!("/sign-in?{query}")).await;
    guest.get(&format!("/nowhere/CANARY-wrong-password-51f0?{query}")).await;
    let odd = guest
        .request(Method::POST, "/csp-report")
        .header(CONTENT_TYPE, "application/csp-report")
        .body(Body::from(
            json!({"csp-report": {"document-uri": "http://localhost:3000/sign-in?password=CANARY-wrong-password-51f0"}})
                .to_string(),
        ))
        .expect("a request");
    guest.send(odd).await;
    browser.step_up_with(&codes[1]).await;
    canaries.extend(note(&browser));
    browser.open("/").await;
    browser.submit("sign_out", &[]).await;
    canaries
}

impl Browser {
    /// Shows a recovery code again, where waiting for the next code of the app would take half a minute.
    async fn step_up_with(&mut self, code: &str) {
        self.open("/step-up").await.expect(200);
        self.submit_and_follow("step_up", &[("answer", code), ("return_to", "/")])
            .await
            .expect(200);
    }
}

fn found(canaries: &[Canary], in_what: &[u8]) -> Vec<String> {
    canaries
        .iter()
        .filter(|(_, secret)| in_what.windows(secret.len()).any(|window| window == secret.as_bytes()))
        .map(|(name, secret)| format!("{name}: {secret}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f69_no_secret_stands_in_the_log_at_its_loudest_nor_in_the_database() {
    let settings = [("LOG__FILTER", "trace"), ("METRICS__ADDRESS", "127.0.0.1:0")];
    let app = TestApp::spawn("f69", &settings).await;
    let canaries = a_day_with_canaries(&app).await;
    assert!(canaries.len() >= 40, "{}", canaries.len());
    // The link of the first administrator is printed for the operator, once, and used by now.
    let log: String = app
        .process()
        .said()
        .lines()
        .filter(|line| !line.contains("/welcome/open/"))
        .collect();
    assert!(log.len() > 10_000, "the log is loud: {log}");
    let in_log = found(&canaries, log.as_bytes());
    assert!(in_log.is_empty(), "in the log: {in_log:#?}");
    let in_database = found(&canaries, &app.everything_kept().await);
    assert!(in_database.is_empty(), "in the database: {in_database:#?}");
    let metrics = metrics_of_program(&app).await.0;
    assert!(metrics.contains("mayfly_refusals_total{"), "{metrics}");
    let in_metrics = found(&canaries, metrics.as_bytes());
    assert!(in_metrics.is_empty(), "in the metrics: {in_metrics:#?}");
    // Closed words: nobody's name, address, or id.
    for line in metrics
        .lines()
        .filter(|line| line.starts_with("mayfly_") && !line.starts_with("mayfly_build"))
    {
        let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        for value in labels.map_or("", |(labels, _)| labels).split('"').skip(1).step_by(2) {
            let is_word = value.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let is_number = value.parse::<f64>().is_ok() || ["+Inf", "2xx", "3xx", "4xx", "5xx"].contains(&value);
            assert!(is_word || is_number, "{line}");
        }
    }
}

#[tokio::test]
async fn l5_no_secret_stands_in_an_error_or_in_the_audit_log() {
    let app = TestApp::start("l5").await;
    let person = app.add_person("max", &["member"], true).await;
    let mut program = Program::new(&app);
    let canaries = [
        "CANARY-password-00f1",
        "CANARY-code-00f2",
        "mfr_CANARY00f3",
        "CANARY-name-00f4",
        "CANARY-field-00f5",
    ];
    let mut replies = vec![
        program
            .post(
                "/auth/login",
                &json!({"identifier": canaries[3], "password": canaries[0]}),
            )
            .await,
        program
            .post(
                "/auth/login",
                &json!({"identifier": "max", "password": canaries[0], "x": canaries[4]}),
            )
            .await,
        program
            .post_text("/auth/login", &format!("{{\"{}\"", canaries[4]))
            .await,
        program.present(canaries[2]).await,
        program.ask_with(canaries[2], Method::GET, "/api/v1/me/sessions").await,
    ];
    program
        .post(
            "/auth/login",
            &json!({"identifier": "max", "password": person.password}),
        )
        .await
        .expect(200);
    replies.push(program.post("/auth/mfa", &json!({"code": canaries[1]})).await);
    app.backend().store().close().await;
    replies.push(
        program
            .post(
                "/auth/login",
                &json!({"identifier": canaries[3], "password": canaries[0]}),
            )
            .await,
    );
    let restarted = app.restart().await;
    for reply in replies {
        assert!(
            reply.status.is_client_error() || reply.status.is_server_error(),
            "{}",
            reply.body
        );
        for canary in canaries {
            assert!(
                !reply.body.contains(canary) && !format!("{:?}", reply.headers).contains(canary),
                "{}",
                reply.body
            );
        }
        let lower = reply.body.to_lowercase();
        for word in ["sqlx", "sqlite", "postgres", "pool", "panicked", ".rs:"] {
            assert!(!lower.contains(word), "{}", reply.body);
        }
    }
    let kept = restarted.everything_kept().await;
    for canary in canaries {
        assert!(
            !kept.windows(canary.len()).any(|window| window == canary.as_bytes()),
            "{canary}"
        );
    }
}

#[tokio::test]
async fn l6_names_of_browsers_and_people_cannot_forge_a_line() {
    let app = TestApp::start("l6").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.user_agent = "Mozilla/5.0 <script>alert(1)</script> \u{1F98B}\t\"}],\"x\":\"".to_owned();
    browser.sign_in(&person).await;
    let page = browser.open("/").await.expect(200);
    assert!(!page.body.contains("<script>alert"));
    let agents = app
        .rows("SELECT user_agent FROM audit_events WHERE user_agent IS NOT NULL")
        .await;
    for row in agents {
        let agent = row[0].clone().expect("not null");
        assert!(!agent.chars().any(char::is_control), "{agent:?}");
    }
}
