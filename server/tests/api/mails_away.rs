//! Mails while the mail server is away, slow or picky (F11): nobody waits for them, none is lost, none comes without end.

use server::domain::audit::Kind;
use server::domain::mail::CLAIM;

use crate::app::TestApp;
use crate::mail_server::{AfterMail, MailServer};
use crate::mails::{DESK, add, draw, happen, ids, recipients, send, start, steal, waiting};
use crate::people::Member;

#[tokio::test]
async fn f11_while_the_mail_server_is_away_nobody_waits_and_later_everything_arrives_once() {
    let mut server = MailServer::begin().await;
    let app = start("f11 away", &server).await;
    server.go_away();
    for username in ["ada", "bea", "cem"] {
        steal(&app, username).await;
    }
    let mut honest = Member::sign_in(&app, "dora").await;
    // An hour, looked at every ten seconds.
    for _ in 0..360 {
        draw(&app).await;
        send(&app).await;
        app.pass(10);
    }
    honest.browser.open("/").await.expect(200);
    assert_eq!(app.events("mails_delayed").await, 1, "noted once");
    let status = app.backend().mail_status().await.expect("the database answers");
    // One alert for the first, one for the other two, and a mail for each of the three.
    assert_eq!((status.waiting, status.outage.is_some()), (5, true));
    let said = app.command(&["mail", "status"], &[]).await;
    let said = String::from_utf8(said.stdout).expect("text");
    assert!(
        said.starts_with("5 mails wait, the oldest since 2026-11-21T09:"),
        "{said}"
    );
    assert!(said.contains("The mail server takes none since"), "{said}");
    server.come_back().await;
    app.pass(60);
    send(&app).await;
    let mails = server.arrived();
    assert_eq!((mails.len(), ids(&mails).len()), (5, 5));
    assert_eq!(recipients(&mails)[..2], [DESK; 2], "alerts first");
    assert_eq!(
        (app.events("mails_resumed").await, app.events("mail_sent").await),
        (1, 5)
    );
    app.pass(3600);
    send(&app).await;
    assert_eq!(server.arrived().len(), 0);
    assert!(app.backend().mail_status().await.expect("an answer").outage.is_none());
}

#[tokio::test]
async fn f11_a_mail_taken_as_the_process_ended_comes_again_under_the_same_id() {
    let server = MailServer::begin().await;
    let app = start("f11 twice", &server).await;
    steal(&app, "ada").await;
    draw(&app).await;
    server.after_mails(AfterMail::Mute);
    // The process ends before the mail server has said that it took the mail.
    let first = tokio::select! {
        _ = app.backend().send_mails() => panic!("nobody answers"),
        first = server.wait_for(1) => first,
    };
    server.after_mails(AfterMail::Takes);
    let app = app.restart().await;
    send(&app).await;
    assert_eq!(server.arrived().len(), 1, "the other mail");
    app.pass(CLAIM.as_secs() - 1);
    send(&app).await;
    assert_eq!(server.arrived().len(), 0, "another node might be at it");
    app.pass(1);
    send(&app).await;
    let again = server.arrived();
    assert_eq!(ids(&first), ids(&again));
    assert_eq!((waiting(&app).await, app.events("mail_sent").await), (0, 2));
}

#[tokio::test]
async fn f11_a_mail_server_that_never_says_whether_it_took_a_mail_gets_it_four_times() {
    let server = MailServer::begin().await;
    let app = start("f11 unsure", &server).await;
    steal(&app, "ada").await;
    draw(&app).await;
    server.after_mails(AfterMail::HangsUp);
    for minutes in [0, 1, 5, 15, 60, 60, 60] {
        app.pass(minutes * 60);
        send(&app).await;
    }
    let mails = server.arrived();
    let to_desk = mails.iter().filter(|mail| mail.recipient == DESK).count();
    assert_eq!(
        (to_desk, mails.len() - to_desk, ids(&mails).len()),
        (7, 4, 2),
        "an alert rather twice than never"
    );
    assert_eq!(app.events("mails_delayed").await, 1);
    let given_up = app
        .rows("SELECT reason FROM audit_events WHERE kind = 'mail_given_up'")
        .await;
    assert_eq!(given_up, [[Some("unsure".to_owned())]]);
}

#[tokio::test]
async fn f11_a_mail_server_that_wants_a_connection_for_each_mail_gets_it() {
    let server = MailServer::begin().await;
    let app = start("f11 one each", &server).await;
    for number in 0..3 {
        steal(&app, &format!("member{number}")).await;
    }
    draw(&app).await;
    server.after_mails(AfterMail::TakesOne);
    send(&app).await;
    assert_eq!((server.arrived().len(), waiting(&app).await), (4, 0));
    assert_eq!(
        app.number("SELECT tries FROM mail_server").await,
        0,
        "nothing was amiss"
    );
}

#[tokio::test]
async fn f11_a_mail_server_that_refuses_the_sender_loses_no_mail() {
    let server = MailServer::begin().await;
    let app = start("f11 sender", &server).await;
    steal(&app, "ada").await;
    draw(&app).await;
    let a_day = async |app: &TestApp| {
        for _ in 0..24 * 30 {
            send(app).await;
            app.pass(120);
        }
        assert_eq!((waiting(app).await, app.events("mail_given_up").await), (2, 0));
        assert_eq!(app.events("mails_delayed").await, 1);
        let outage = app.backend().mail_status().await.expect("an answer").outage;
        assert!(outage.expect("one").failure.contains("not allowed to send as"));
    };
    server.answers_senders(Some("550 5.7.60 not allowed to send as this sender"));
    a_day(&app).await;
    assert_eq!(
        app.number("SELECT MAX(tries) FROM mails").await,
        0,
        "it was no try of theirs"
    );
    // Others say so only when they hear a recipient.
    server.answers_senders(None);
    server.will_answer(std::iter::repeat_n(
        "553 5.7.1 not allowed to send as this sender",
        1000,
    ));
    a_day(&app).await;
    server.will_answer([]);
    app.pass(3600);
    send(&app).await;
    assert_eq!((server.arrived().len(), app.events("mails_resumed").await), (2, 1));
}

#[tokio::test]
async fn f11_what_waited_for_three_days_is_given_up_also_without_a_mail_server() {
    let mut server = MailServer::begin().await;
    let app = start("f11 old", &server).await;
    server.go_away();
    steal(&app, "ada").await;
    draw(&app).await;
    let app = app
        .restart_with(&[("MAIL__SERVER", ""), ("MAIL__FROM", ""), ("MAIL__SECURITY_DESK", "")])
        .await;
    app.pass(3 * 24 * 3600 - 1);
    app.backend().give_up_old_mails().await.expect("an answer");
    assert_eq!(waiting(&app).await, 2);
    app.pass(1);
    app.backend().give_up_old_mails().await.expect("an answer");
    assert_eq!((waiting(&app).await, app.events("mail_given_up").await), (0, 2));
}

#[tokio::test]
async fn f11_a_clock_that_is_set_back_holds_up_no_mail_for_long() {
    let mut server = MailServer::begin().await;
    let app = start("f11 set back", &server).await;
    steal(&app, "ada").await;
    draw(&app).await;
    server.go_away();
    send(&app).await;
    server.come_back().await;
    // It was a year ahead.
    app.set_clock(app.now().minus(std::time::Duration::from_hours(24 * 365)));
    send(&app).await;
    assert_eq!(server.arrived().len(), 2);
}

#[tokio::test]
async fn f11_a_mail_that_is_refused_is_given_up_in_the_log_and_holds_up_no_other() {
    let server = MailServer::begin().await;
    let app = start("f11 refused", &server).await;
    steal(&app, "ada").await;
    draw(&app).await;
    let nobody = "550 5.1.1 <ada@example.org>: nobody of that name";
    server.will_answer(["250 ok", nobody]);
    send(&app).await;
    assert_eq!(recipients(&server.arrived()), [DESK]);
    for (minutes, is_over) in [(1, false), (5, false), (15, true)] {
        app.pass(minutes * 60 - 1);
        send(&app).await;
        assert_eq!(app.events("mail_given_up").await, 0, "not before");
        app.pass(1);
        server.will_answer([nobody]);
        send(&app).await;
        assert_eq!(app.events("mail_given_up").await, i64::from(is_over), "{minutes}");
    }
    assert_eq!((waiting(&app).await, app.events("mails_delayed").await), (0, 0));
    let rows = app
        .rows("SELECT reason, facts FROM audit_events WHERE kind = 'mail_given_up'")
        .await;
    assert_eq!(rows[0][0].as_deref(), Some("refused"));
    let facts = rows[0][1].as_deref().expect("facts");
    assert!(
        facts.contains("<the recipient>: nobody of that name") && !facts.contains("ada@"),
        "{facts}"
    );
}

#[tokio::test]
async fn f11_a_mail_that_is_not_taken_now_comes_later() {
    let server = MailServer::begin().await;
    let app = start("f11 later", &server).await;
    steal(&app, "ada").await;
    draw(&app).await;
    server.will_answer(["450 4.2.0 greylisted"; 2]);
    send(&app).await;
    assert_eq!((server.arrived().len(), app.events("mails_delayed").await), (0, 0));
    app.pass(60);
    send(&app).await;
    assert_eq!(ids(&server.arrived()).len(), 2);
}

#[tokio::test]
async fn f11_mails_that_wait_for_people_are_bounded_and_alerts_still_come() {
    let server = MailServer::begin().await;
    let app = start("f11 bounded", &server).await;
    steal(&app, "ada").await;
    draw(&app).await;
    let copy = "INSERT INTO mails (id, event_id, audience, recipient, count, created_at, retry_at, tries) ";
    // Ten thousand more, not due for a long time.
    let ten_thousand = if std::env::var("MAYFLY_TEST_DATABASE").is_ok_and(|database| database == "postgres") {
        "SELECT gen_random_uuid(), event_id, 'person', recipient, 1, created_at, 9e15, 0 FROM mails, \
         generate_series(1, 10000) WHERE audience = 'person'"
    } else {
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000) \
         SELECT randomblob(16), event_id, 'person', recipient, 1, created_at, 9000000000000000, 0 FROM mails, n \
         WHERE audience = 'person'"
    };
    app.execute(&format!("{copy}{ten_thousand}")).await;
    app.pass(600);
    steal(&app, "bea").await;
    draw(&app).await;
    assert_eq!(waiting(&app).await, 10_003, "one more alert, and no mail to bea");
    assert_eq!(
        (app.events("alert_raised").await, app.events("mail_given_up").await),
        (2, 1)
    );
}

#[tokio::test]
async fn f11_twenty_mails_wait_for_one_address_and_the_rest_is_given_up_in_the_log() {
    let mut server = MailServer::begin().await;
    let app = start("f11 one address", &server).await;
    server.go_away();
    let (ada, bea) = (add(&app, "ada").await, add(&app, "bea").await);
    for _ in 0..25 {
        happen(&app, Kind::PasswordChanged, &ada).await;
    }
    happen(&app, Kind::PasswordChanged, &bea).await;
    draw(&app).await;
    assert_eq!((waiting(&app).await, app.events("mail_given_up").await), (21, 5));
}

#[tokio::test]
async fn f11_what_waits_for_somebody_who_left_the_security_desk_is_given_up() {
    let mut server = MailServer::begin().await;
    let app = start("f11 desk", &server).await;
    steal(&app, "ada").await;
    draw(&app).await;
    server.go_away();
    send(&app).await;
    server.come_back().await;
    let app = app.restart_with(&[("MAIL__SECURITY_DESK", "others@example.com")]).await;
    app.pass(60);
    send(&app).await;
    assert_eq!(recipients(&server.arrived()), ["ada@example.org"]);
    let given_up = app
        .rows("SELECT reason FROM audit_events WHERE kind = 'mail_given_up'")
        .await;
    assert_eq!(given_up, [[Some("no_longer_at_the_desk".to_owned())]]);
}
