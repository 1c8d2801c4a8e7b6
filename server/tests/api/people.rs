//! The people of the tests: made through the pages where a test is about that, else written straight to the store.

use std::sync::OnceLock;

use secrecy::ExposeSecret as _;
use server::domain::id::UserId;
use server::domain::mfa::{TotpSecret, generate_recovery_codes, hash_recovery_code, normalise_recovery_code};
use server::domain::password::{self, HashParams, Password};
use server::domain::policy::Lifetimes;
use server::domain::user::{User, UserStatus};
use server::storage::{authenticators, users};

use crate::app::{ORIGIN, SeededRandom, TestApp, key_encryption_key};
use crate::browser::Browser;
use crate::program::Program;

/// Everybody's password: hashed once for all tests of a run.
pub const PASSWORD: &str = "seven quiet mayflies at dusk";

/// Somebody with an account.
#[derive(Clone, Debug)]
pub struct Person {
    /// Account.
    pub id: UserId,
    /// Sign-in name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Secret of the authenticator app, if there is one.
    pub totp: Option<TotpSecret>,
    /// Recovery codes that were shown.
    pub recovery_codes: Vec<String>,
}

impl Person {
    /// A code that the app shows and that was not used before; time passes if it must.
    pub fn code(&self, app: &TestApp) -> String {
        let secret = self.totp.as_ref().expect("has an authenticator");
        secret.code_at(app.next_code_time(&self.username))
    }
}

/// A browser of somebody who holds the role `member` and has no second factor.
pub struct Member {
    /// Account.
    pub person: Person,
    /// Signed-in browser.
    pub browser: Browser,
}

/// A browser of an administrator.
pub struct Admin {
    /// Account.
    pub person: Person,
    /// Signed-in browser.
    pub browser: Browser,
}

/// A browser of an auditor.
pub struct Auditor {
    /// Signed-in browser.
    pub browser: Browser,
}

impl Member {
    /// A new member, signed in.
    pub async fn sign_in(app: &TestApp, username: &str) -> Self {
        let person = app.add_person(username, &["member"], false).await;
        let mut browser = Browser::new(app);
        browser.sign_in(&person).await;
        Self { person, browser }
    }
}

impl Admin {
    /// A new administrator, signed in with a code.
    pub async fn sign_in(app: &TestApp) -> Self {
        let person = app.add_person("root", &["admin"], true).await;
        let mut browser = Browser::new(app);
        browser.sign_in(&person).await;
        Self { person, browser }
    }

    /// Opens the form and disables an account.
    pub async fn disable(&mut self, person: &Person) {
        let id = person.id.to_string();
        self.browser
            .open(&format!("/admin/people/{id}/disable"))
            .await
            .expect(200);
        let fields = [("person_id", id.as_str()), ("reason", "left the company")];
        let disabled = self.browser.submit_and_follow("disable_person", &fields);
        disabled.await.expect(200);
    }

    /// Opens the form and invites; the link that the page shows once.
    pub async fn invite(&mut self, username: &str, roles: &[&str]) -> String {
        self.browser.open("/admin/people/new").await.expect(200);
        let email = format!("{username}@example.org");
        let mut fields = vec![
            ("username", username),
            ("email", &email),
            ("display_name", "Somebody New"),
        ];
        fields.extend(roles.iter().map(|role| ("roles[]", *role)));
        let page = self
            .browser
            .submit_and_follow("invite_person", &fields)
            .await
            .expect(200);
        page.between("class=\"secret\"><code>", "</code>")
    }

    /// Saves new limits of a role through the form. Values of the form by name; the others stay.
    pub async fn save_policy(&mut self, role: &str, changes: &[(&str, &str)]) -> crate::reply::Reply {
        let path = format!("/admin/roles/{role}");
        let page = self.browser.open(&path).await.expect(200);
        let version = page.between("policy ", "<").trim().to_owned();
        let mut fields: Vec<(String, String)> =
            vec![("role".to_owned(), role.to_owned()), ("based_on".to_owned(), version)];
        for name in [
            "access_minutes",
            "idle_minutes",
            "absolute_hours",
            "absolute_minutes",
            "idle_warning_seconds",
            "remember_device_days",
            "mfa",
            "step_up_minutes",
            "max_sessions",
        ] {
            let now = || current_value(&page.page(), name);
            let value = changes
                .iter()
                .find(|(changed, _)| *changed == name)
                .map(|(_, value)| (*value).to_owned());
            fields.push((name.to_owned(), value.unwrap_or_else(now)));
        }
        let proposed: Vec<(&str, &str)> = fields[2..]
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.browser
            .open(&format!("{path}?{}", crate::browser::encode(&proposed)))
            .await
            .expect(200);
        for name in ["reason", "justification"] {
            let default = if name == "reason" { "a test asks for it" } else { "" };
            let value = changes
                .iter()
                .find(|(changed, _)| *changed == name)
                .map_or(default, |(_, value)| value);
            fields.push((name.to_owned(), value.to_owned()));
        }
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.browser.submit("save_policy", &fields).await
    }
}

/// The value of a field of the form as the page shows it.
fn current_value(page: &str, name: &str) -> String {
    let at = page
        .find(&format!("name=\"{name}\""))
        .unwrap_or_else(|| panic!("no field {name} in {page}"));
    let start = page[..at].rfind('<').expect("a tag begins");
    if page[start..].starts_with("<select") {
        let select = &page[start..start + page[start..].find("</select>").expect("the list ends")];
        let chosen = select
            .split("<option")
            .find(|option| option.contains("selected"))
            .expect("one is chosen");
        return attribute(chosen, "value");
    }
    attribute(
        &page[start..start + page[start..].find('>').expect("the tag ends")],
        "value",
    )
}

fn attribute(tag: &str, name: &str) -> String {
    let from = tag
        .find(&format!("{name}=\""))
        .unwrap_or_else(|| panic!("no {name} in {tag}"))
        + name.len()
        + 2;
    tag[from..from + tag[from..].find('"').expect("the attribute ends")].to_owned()
}

impl Auditor {
    /// A new auditor, signed in with a code.
    pub async fn sign_in(app: &TestApp) -> Self {
        let person = app.add_person("watcher", &["auditor"], true).await;
        let mut browser = Browser::new(app);
        browser.sign_in(&person).await;
        Self { browser }
    }
}

/// Path of a new link for the first administrator.
pub async fn first_admin_path(app: &TestApp) -> String {
    let link = app.backend().first_admin_link().await;
    let link = link.expect("the database answers").expect("nobody is there yet");
    link.expose_secret()
        .strip_prefix(ORIGIN)
        .expect("a link of ours")
        .to_owned()
}

/// Opens the first administrator's link and goes through to the devices page, as on a fresh server.
pub async fn make_first_admin(app: &TestApp) -> Admin {
    let link = app
        .backend()
        .first_admin_link()
        .await
        .expect("the database answers")
        .expect("nobody is there yet");
    let mut browser = Browser::new(app);
    let mut person = accept(&mut browser, link.expose_secret(), "ada").await;
    enrol(&mut browser, &mut person).await;
    Admin { person, browser }
}

/// Opens an invitation and sets the password; the page that follows is shown.
pub async fn accept(browser: &mut Browser, link: &str, username: &str) -> Person {
    let path = link.strip_prefix(ORIGIN).expect("a link of ours");
    browser.open(path).await.expect(200);
    let email = format!("{username}@example.org");
    let fields = [
        ("username", username),
        ("email", email.as_str()),
        ("display_name", "Ada Example"),
        ("password", PASSWORD),
    ];
    browser
        .submit_and_follow("accept_invitation", &fields)
        .await
        .expect(200);
    let mut tx = browser
        .app
        .backend()
        .store()
        .read()
        .await
        .expect("the database answers");
    let user = users::find_user_by_identifier(&mut tx, username)
        .await
        .expect("the database answers");
    let id = user.expect("the account was made").id;
    Person {
        id,
        username: username.to_owned(),
        password: PASSWORD.to_owned(),
        totp: None,
        recovery_codes: Vec::new(),
    }
}

/// Sets up the authenticator that the page shown asks for, and acknowledges the recovery codes.
pub async fn enrol(browser: &mut Browser, person: &mut Person) {
    let page = browser.open("/sign-in/enrol").await.expect(200);
    let key: String = page
        .between("class=\"secret\"><code>", "</code>")
        .chars()
        .filter(|c| *c != ' ')
        .collect();
    person.totp = Some(TotpSecret::from_base32(&key).expect("the key on the page is one"));
    let code = person.code(&browser.app);
    let page = browser
        .submit_and_follow("confirm_sign_in_enrolment", &[("code", &code)])
        .await
        .expect(200);
    person.recovery_codes = page.all_between("<li><code>", "</code>");
    assert_eq!(person.recovery_codes.len(), 10);
    browser
        .submit_and_follow("acknowledge_recovery_codes", &[])
        .await
        .expect(200);
}

impl TestApp {
    /// An active account with [`PASSWORD`], written straight to the store; with an authenticator and ten recovery
    /// codes if asked for.
    pub async fn add_person(&self, username: &str, roles: &[&str], with_factor: bool) -> Person {
        let random = SeededRandom::new(&format!("person {username}"));
        let (kek, now) = (key_encryption_key(), self.now());
        let mut held: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        held.sort();
        let user = User {
            id: UserId::new(now, &random),
            username: username.to_owned(),
            email: Some(format!("{username}@example.org")),
            display_name: format!("{username} Example"),
            status: UserStatus::Active,
            password_changed_at: Some(now),
            auth_epoch: 0,
            grant_epoch: 0,
            created_at: now,
            roles: held,
        };
        let mut tx = self.backend().store().write().await.expect("the database answers");
        users::insert_user(&mut tx, &user, Some(password_hash()))
            .await
            .expect("a new account");
        let mut person = Person {
            id: user.id,
            username: username.to_owned(),
            password: PASSWORD.to_owned(),
            totp: None,
            recovery_codes: Vec::new(),
        };
        if with_factor {
            let secret = TotpSecret::generate(&random);
            let sealed = kek.seal("totp", user.id.0.as_bytes(), secret.as_bytes(), &random);
            authenticators::put_authenticator(&mut tx, user.id, &sealed, 0, now)
                .await
                .expect("stored");
            let codes = generate_recovery_codes(&random);
            person.recovery_codes = codes.iter().map(|code| code.expose_secret().to_owned()).collect();
            let key = kek.derive("recovery codes");
            let hashes: Vec<[u8; 32]> = person
                .recovery_codes
                .iter()
                .map(|code| normalise_recovery_code(code).expect("a code"))
                .map(|code| hash_recovery_code(&key, user.id, &code))
                .collect();
            authenticators::replace_recovery_codes(&mut tx, user.id, &hashes, now)
                .await
                .expect("stored");
            person.totp = Some(secret);
        }
        tx.commit().await.expect("committed");
        person
    }

    /// A member with a program that is signed in.
    pub async fn add_program(&self, username: &str) -> (Person, Program) {
        let person = self.add_person(username, &["member"], false).await;
        let program = Program::signed_in(self, &person).await;
        (person, program)
    }

    /// A role of the test's own.
    pub async fn add_role(&self, name: &str, lifetimes: Lifetimes) {
        self.backend()
            .add_role(name, "A role of the tests", lifetimes)
            .await
            .expect("a new role");
    }
}

fn password_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let parsed = Password::parse(PASSWORD).expect("short enough");
        let pepper = key_encryption_key().derive("password pepper");
        password::hash(&parsed, &HashParams::LEAST, &pepper, &SeededRandom::new("salt")).expect("hashed")
    })
}
