//! Alerts and mails: what follows from events, and how it reaches people while the mail server is well, slow, picky or away.

use std::collections::{BTreeSet, HashSet};

use secrecy::ExposeSecret as _;
use server::domain::audit::{Circumstances, Event, Kind};
use server::domain::id::{EventId, SessionId};
use server::domain::refresh::{SessionSecret, derive};
use zeroize::Zeroizing;

use crate::app::TestApp;
use crate::browser::Browser;
use crate::mail_server::{AfterMail, Arrived, MailServer};
use crate::people::{Admin, Member, Person};
use crate::program::Program;

/// Who is alerted.
pub const DESK: &str = "desk@example.com";

/// An application with this mail server.
pub async fn start(name: &str, server: &MailServer) -> TestApp {
    let url = server.url();
    let changes = [
        ("MAIL__SERVER", url.as_str()),
        ("MAIL__FROM", "Mayfly <mayfly@id.example.com>"),
        ("MAIL__SECURITY_DESK", DESK),
    ];
    TestApp::start_with(name, &changes).await
}

/// Something happened to somebody.
pub async fn happen(app: &TestApp, kind: Kind, person: &Person) {
    let id = EventId::new(app.now(), app.backend().random());
    let event = Event::new(id, app.now(), kind, &Circumstances::default()).subject(person.id);
    app.backend().record(event).await.expect("written");
}

/// Draws everything that follows.
pub async fn draw(app: &TestApp) {
    while app.backend().draw_consequences().await.expect("drawn") > 0 {}
}

/// Sends everything that it is time for.
pub async fn send(app: &TestApp) {
    while app.backend().send_mails().await.expect("the database answers") {}
}

/// Somebody's refresh token comes back after it was used.
pub async fn steal(app: &TestApp, username: &str) -> Program {
    let (_, mut program) = app.add_program(username).await;
    steal_from(app, &mut program).await;
    program
}

async fn steal_from(app: &TestApp, program: &mut Program) {
    let copy = program.refresh.clone();
    app.pass(60);
    program.renew().await.expect(200);
    program.sessions().await.expect(200);
    app.pass(61);
    program.present(&copy).await.expect(401);
}

/// Somebody with an account.
pub async fn add(app: &TestApp, username: &str) -> Person {
    app.add_person(username, &["member"], false).await
}

/// How many mails wait.
pub async fn waiting(app: &TestApp) -> i64 {
    app.number("SELECT COUNT(*) FROM mails").await
}

/// To whom they are.
pub fn recipients(mails: &[Arrived]) -> Vec<&str> {
    mails.iter().map(|mail| mail.recipient.as_str()).collect()
}

/// What they are called.
pub fn ids(mails: &[Arrived]) -> HashSet<&str> {
    mails.iter().map(|mail| mail.header("message-id")).collect()
}

#[tokio::test]
async fn p10_whose_token_was_used_twice_and_the_security_desk_are_told_by_mail() {
    let server = MailServer::begin().await;
    let app = start("p10 reuse", &server).await;
    let (_, mut program) = app.add_program("ada").await;
    let mut copy = program.clone();
    app.pass(60);
    program.renew().await.expect(200);
    program.sessions().await.expect(200);
    app.pass(61);
    copy.peer = "203.0.113.9:40000".parse().expect("an address");
    copy.present(&copy.refresh.clone()).await.expect(401);
    // What is to follow stands there as soon as the answer does.
    assert_eq!(app.number("SELECT COUNT(*) FROM notices").await, 1);
    draw(&app).await;
    assert_eq!((app.events("alert_raised").await, waiting(&app).await), (1, 2));
    assert_eq!(app.number("SELECT COUNT(*) FROM notices").await, 0);
    send(&app).await;
    let mut mails = server.arrived();
    mails.sort_by_key(|mail| mail.recipient.clone());
    assert_eq!(recipients(&mails), ["ada@example.org", DESK]);
    let [person, desk] = &mails[..] else {
        panic!("{mails:?}")
    };
    assert_eq!(person.header("subject"), "localhost:3000: a session of yours was ended");
    assert!(person.text.starts_with("Hello ada Example,\n"), "{}", person.text);
    for told in [
        "Account: ada at http://localhost:3000",
        "21 November 2026",
        "Session: signed in with a program from 192.0.2.33",
        "Then:    used with a program from 192.0.2.33",
        "At last: used with a program from 203.0.113.9",
        "\nYour devices:  http://localhost:3000/\n",
    ] {
        assert!(person.text.contains(told), "{told}: {}", person.text);
    }
    assert_eq!(
        desk.header("subject"),
        "localhost:3000: alert: a used refresh token came back"
    );
    let event = &app
        .rows("SELECT facts FROM audit_events WHERE kind = 'alert_raised'")
        .await[0][0];
    let facts: serde_json::Value = serde_json::from_str(event.as_deref().expect("facts")).expect("JSON");
    let link = format!(
        "http://localhost:3000/admin/audit/{}",
        facts["about_event"].as_str().expect("an id")
    );
    for told in [
        link.as_str(),
        program.session_id.as_str(),
        "Person:  ada",
        "From:    with a program from 203.0.113.9",
    ] {
        assert!(desk.text.contains(told), "{told:?}: {}", desk.text);
    }
    for mail in &mails {
        assert_eq!(mail.header("from"), "Mayfly <mayfly@id.example.com>");
        assert_eq!(mail.header("auto-submitted"), "auto-generated");
        assert!(mail.header("message-id").ends_with("@id.example.com>"));
        assert!(
            mail.header("date").starts_with("Sat, 21 Nov 2026 09:0"),
            "the application's clock"
        );
        assert!(!mail.text.contains("mfr_") && !mail.text.contains("eyJ"), "no token");
        assert!(mail.text.lines().all(|line| line.len() <= 100), "{}", mail.text);
    }
    assert_eq!((app.events("mail_sent").await, waiting(&app).await), (2, 0));
    draw(&app).await;
    send(&app).await;
    assert_eq!(server.arrived().len(), 0, "once");
    assert_eq!(app.events("alert_raised").await, 1);
}

#[tokio::test]
async fn p10_each_change_of_a_credential_is_told_to_its_owner_and_not_to_the_desk() {
    let server = MailServer::begin().await;
    let app = start("p10 credentials", &server).await;
    let person = app.add_person("ada", &["member"], true).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    let fields = [
        ("current_password", person.password.as_str()),
        ("new_password", "an entirely other password of hers"),
    ];
    browser.open("/security").await.expect(200);
    browser.submit_and_follow("change_password", &fields).await.expect(200);
    browser.open("/security").await.expect(200);
    browser.submit_and_follow("renew_recovery_codes", &[]).await.expect(200);
    let kinds = ["authn_password_change", "recovery_codes_renewed"];
    for kind in kinds {
        assert_eq!(app.events(kind).await, 1, "{kind}");
    }
    draw(&app).await;
    send(&app).await;
    let mails = server.arrived();
    assert_eq!(recipients(&mails), ["ada@example.org"; 2]);
    let subjects: BTreeSet<_> = mails.iter().map(|mail| mail.header("subject")).collect();
    assert_eq!(
        Vec::from_iter(subjects),
        [
            "localhost:3000: your password was changed",
            "localhost:3000: your recovery codes were replaced"
        ]
    );
    assert_eq!(app.events("alert_raised").await, 0);
}

#[tokio::test]
async fn l6_nothing_a_stranger_wrote_stands_in_a_mail() {
    let server = MailServer::begin().await;
    let app = start("l6 mails", &server).await;
    let person = app.add_person("ada", &["member"], false).await;
    let mut program = Program::new(&app);
    for called in [
        "Call +1-555-0100 or open https://evil.example/ to keep your account",
        "help.evil.example/1.0",
    ] {
        program.headers.retain(|(name, _)| *name != "user-agent");
        program.headers.push(("user-agent", called.to_owned()));
        app.pass(600);
        program.sign_in(&person).await.expect(200);
        steal_from(&app, &mut program).await;
        draw(&app).await;
    }
    send(&app).await;
    let mails = server.arrived();
    assert_eq!(mails.len(), 4);
    for mail in mails {
        assert!(
            !mail.text.contains("evil") && !mail.text.contains("555"),
            "{}",
            mail.text
        );
        assert!(mail.text.contains("with a program from 192.0.2.33"), "{}", mail.text);
    }
}

#[tokio::test]
async fn p10_whoever_uses_a_copy_again_and_again_floods_no_mailbox() {
    let server = MailServer::begin().await;
    let app = start("p10 flood", &server).await;
    let (ada, bea) = (add(&app, "ada").await, add(&app, "bea").await);
    for _ in 0..2 {
        for _ in 0..150 {
            happen(&app, Kind::BoundCookieCopied, &ada).await;
        }
        happen(&app, Kind::BoundCookieCopied, &bea).await;
        draw(&app).await;
        send(&app).await;
        let mails = server.arrived();
        let to = |name: &str| mails.iter().filter(|mail| mail.recipient.starts_with(name)).count();
        assert_eq!((to("ada"), to("bea")), (1, 1));
        app.pass(600);
    }
}

#[tokio::test]
async fn f77_a_rule_of_a_newer_version_holds_up_nothing() {
    let server = MailServer::begin().await;
    let app = start("f77 rule", &server).await;
    steal(&app, "ada").await;
    let event = "(SELECT event_id FROM notices)";
    app.execute(&format!(
        "INSERT INTO alert_windows (rule, began_at, seen, told, last_event) VALUES ('of_tomorrow', 0, 1, 1, {event})"
    ))
    .await;
    draw(&app).await;
    send(&app).await;
    assert_eq!(server.arrived().len(), 2);
    assert_eq!(
        app.number("SELECT COUNT(*) FROM alert_windows").await,
        2,
        "its next node goes on with it"
    );
}

#[tokio::test]
async fn l9_a_storm_is_two_alerts_and_its_rest_is_told_when_it_is_over() {
    let server = MailServer::begin().await;
    let app = start("l9 storm", &server).await;
    for number in 0..4 {
        steal(&app, &format!("member{number}")).await;
        draw(&app).await;
    }
    assert_eq!(app.events("alert_raised").await, 1);
    app.pass(600);
    draw(&app).await;
    assert_eq!(app.events("alert_raised").await, 2);
    send(&app).await;
    let mails = server.arrived();
    let alerts: Vec<_> = mails.iter().filter(|mail| mail.recipient == DESK).collect();
    let subjects: Vec<_> = alerts.iter().map(|mail| mail.header("subject")).collect();
    let title = "localhost:3000: alert: a used refresh token came back";
    assert_eq!(subjects, [title.to_owned(), format!("{title} (3)")]);
    assert_eq!(mails.len() - alerts.len(), 4, "everybody is told");
}

/// A token as somebody makes it who has the edge keys and not the session's secret.
fn forged(app: &TestApp, session: &str) -> String {
    let session: SessionId = session.parse().expect("an id");
    let secret = SessionSecret::new(Zeroizing::new([7; 32]));
    derive(&app.backend().keys(), &secret, session, 0, app.now())
        .expose_secret()
        .to_owned()
}

#[tokio::test]
async fn r1_many_forged_refresh_tokens_are_an_alert_and_a_few_are_not() {
    let server = MailServer::begin().await;
    let app = start("r1 forged", &server).await;
    let (_, mut program) = app.add_program("ada").await;
    let forged = forged(&app, &program.session_id);
    for _ in 0..9 {
        program.present(&forged).await.expect(400);
    }
    draw(&app).await;
    assert_eq!(app.events("alert_raised").await, 0);
    program.present(&forged).await.expect(400);
    draw(&app).await;
    assert_eq!((app.events("alert_raised").await, waiting(&app).await), (1, 1));
    send(&app).await;
    let mails = server.arrived();
    assert_eq!(recipients(&mails), [DESK], "her session goes on, she need not know");
    assert_eq!(
        mails[0].header("subject"),
        "localhost:3000: alert: forged refresh tokens (10)"
    );
    app.pass(10);
    program.renew().await.expect(200);
}

#[tokio::test]
async fn l9_of_two_nodes_one_alerts() {
    let server = MailServer::begin().await;
    let app = start("l9 nodes", &server).await;
    server.after_mails(AfterMail::TakesSlowly);
    let other = app.beside_at(app.now()).await;
    for number in 0..4 {
        let username = format!("member{number}");
        steal(&app, &username).await;
        // Nodes need not agree about the time.
        other.set_clock(app.now().plus(std::time::Duration::from_mins(1)));
        let (here, there) = tokio::join!(app.backend().draw_consequences(), other.backend().draw_consequences());
        assert_eq!(here.expect("drawn") + there.expect("drawn"), 1);
        tokio::join!(draw(&app), draw(&other));
        tokio::join!(send(&app), send(&other));
    }
    assert_eq!(
        (app.events("alert_raised").await, app.events("mail_sent").await),
        (1, 5)
    );
    let mails = server.arrived();
    assert_eq!((mails.len(), ids(&mails).len()), (5, 5));
}

#[tokio::test]
async fn l9_from_an_alert_it_is_one_click_to_what_it_is_about() {
    let app = TestApp::start("l9 page").await;
    steal(&app, "ada").await;
    draw(&app).await;
    let mut admin = Admin::sign_in(&app).await;
    let mut first = async |kind: &str| {
        let list = admin
            .browser
            .open(&format!("/admin/audit?kind={kind}"))
            .await
            .expect(200);
        let link = list.between("<th scope=\"row\"><a href=\"", "\"");
        (admin.browser.open(&link).await.expect(200).body, link)
    };
    let (_, theft) = first("authn_token_reuse").await;
    let (alert, _) = first("alert_raised").await;
    assert!(
        alert.contains(&format!("<a href=\"{theft}\" class=\"exact\">")),
        "{alert}"
    );
}

#[tokio::test]
async fn l9_without_a_mail_server_alerts_stand_in_the_log() {
    let app = TestApp::start("l9 no mail").await;
    steal(&app, "ada").await;
    draw(&app).await;
    assert_eq!((app.events("alert_raised").await, waiting(&app).await), (1, 0));
    send(&app).await;
}

#[tokio::test]
async fn l9_a_log_that_lost_its_end_is_an_alert() {
    let server = MailServer::begin().await;
    let app = start("l9 log", &server).await;
    let app = app.back_up_and_restart().await;
    Member::sign_in(&app, "ada").await;
    app.seal().await;
    let app = app.restore_and_restart().await;
    app.seal().await;
    app.seal().await;
    draw(&app).await;
    assert_eq!(
        (
            app.events("audit_log_contradicted").await,
            app.events("alert_raised").await
        ),
        (1, 1)
    );
    send(&app).await;
    let mails = server.arrived();
    assert_eq!(recipients(&mails), [DESK]);
    assert!(mails[0].header("subject").ends_with("the audit log is not what it was"));
}

#[tokio::test]
async fn l9_the_program_alerts_by_itself_within_five_seconds_and_sends_a_mail_to_try() {
    let server = MailServer::begin().await;
    let url = server.url();
    let changes = [
        ("MAIL__SERVER", url.as_str()),
        ("MAIL__FROM", "mayfly@id.example.com"),
        ("MAIL__SECURITY_DESK", DESK),
    ];
    let app = start("l9 program", &server).await;
    let program = app.spawn_beside().await;
    let (_, owner) = app.add_program("ada").await;
    let forged = forged(&app, &owner.session_id);
    let mut stranger = Program::new(&program);
    for _ in 0..10 {
        stranger.present(&forged).await.expect(400);
    }
    let mails = tokio::time::timeout(std::time::Duration::from_secs(5), server.wait_for(1)).await;
    assert_eq!(recipients(&mails.expect("within five seconds")), [DESK]);
    let sent = app.command(&["mail", "test", "ops@example.com"], &changes).await;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert_eq!(recipients(&server.arrived()), ["ops@example.com"]);
}
