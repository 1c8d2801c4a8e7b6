//! The people of the demo realm, their roles, devices and factors.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use secrecy::{ExposeSecret, SecretString};

use crate::cli::CliError;
use crate::domain::audit::Circumstances;
use crate::domain::clock::{Clock, ManualClock};
use crate::domain::id::UserId;
use crate::domain::mfa::TotpSecret;
use crate::domain::policy::{Lifetimes, Mfa, presets};
use crate::domain::session::Client;
use crate::domain::sign_in::Step;
use crate::domain::user::{ADMIN, AUDITOR, MEMBER};
use crate::services::Backend;
use crate::services::admin::NewPerson;
use crate::services::invitations::{AcceptOutcome, Acceptance};
use crate::services::sign_in::{Caller, EnrolOutcome, PasswordOutcome};

const FIRST_NAMES: [&str; 30] = [
    "Ada", "Ben", "Chloe", "David", "Elena", "Femi", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mara", "Noor",
    "Oscar", "Priya", "Quinn", "Rosa", "Samir", "Tessa", "Uma", "Viktor", "Wanda", "Xavier", "Yuki", "Zoe", "Amir",
    "Bianca", "Carlos", "Dana",
];
const LAST_NAMES: [&str; 20] = [
    "Lindqvist",
    "Okafor",
    "Moreau",
    "Tanaka",
    "Novak",
    "Silva",
    "Haddad",
    "Berg",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Horvat",
    "Ivanova",
    "Jensen",
    "Kowalski",
    "Larsen",
    "Meyer",
    "Nakamura",
];
const AGENTS: [&str; 8] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
];

/// One person of the realm.
pub struct Actor {
    /// Account.
    pub id: UserId,
    /// Sign-in name.
    pub username: String,
    /// Role beside `member`.
    pub role: &'static str,
    /// Secret of the authenticator app, if there is one.
    pub totp: Option<TotpSecret>,
    /// Browsers and addresses they use.
    pub devices: Vec<(&'static str, String)>,
}

/// Everybody.
pub struct Cast {
    /// Administrators first.
    pub people: Vec<Actor>,
    password: SecretString,
}

impl Cast {
    /// What the operator of the demo needs to sign in.
    pub fn who_can_sign_in(&self) -> String {
        let mut text = format!(
            "Demo realm. Everybody's password: {}\nFor the authenticator app (or any TOTP tool):\n",
            self.password.expose_secret()
        );
        for role in [ADMIN, AUDITOR, "finance", "support", MEMBER] {
            if let Some(actor) = self.people.iter().find(|actor| actor.role == role) {
                let codes = actor
                    .totp
                    .as_ref()
                    .map_or_else(|| "no code asked".to_owned(), TotpSecret::to_base32);
                let line = format!("  {:<10} {:<22} {codes}\n", actor.role, actor.username);
                text.push_str(&line);
            }
        }
        text
    }
}

/// Makes the roles and the sixty people, each through an invitation.
pub async fn make(backend: &Arc<Backend>, clock: &Arc<ManualClock>) -> Result<Cast, CliError> {
    let [_, banking, admin, ..] = presets().map(|preset| preset.lifetimes);
    let support = Lifetimes {
        idle: Duration::from_mins(30),
        mfa: Mfa::Required,
        ..admin
    };
    let finance = Lifetimes {
        absolute: Duration::from_hours(12),
        ..banking
    };
    backend.add_role("finance", "Approves payments", finance).await?;
    backend.add_role("support", "Helps customers", support).await?;
    let mut bytes = [0; 10];
    backend.random().fill(&mut bytes);
    let password = SecretString::from(format!("demo-{}", BASE32_NOPAD.encode(&bytes).to_lowercase()));
    let mut people = Vec::new();
    for index in 0..60_usize {
        let role = match index {
            0..3 => ADMIN,
            3..5 => AUDITOR,
            5..10 => "finance",
            10..15 => "support",
            _ => MEMBER,
        };
        clock.advance(Duration::from_secs(45));
        people.push(invite(backend, clock, index, role, &password).await?);
    }
    Ok(Cast { people, password })
}

async fn invite(
    backend: &Arc<Backend>,
    clock: &ManualClock,
    index: usize,
    role: &'static str,
    password: &SecretString,
) -> Result<Actor, CliError> {
    let (first, last) = (FIRST_NAMES[index % 30], LAST_NAMES[(index * 7 + index / 30) % 20]);
    let username = format!("{first}.{last}").to_lowercase();
    let new = NewPerson {
        email: format!("{username}@example.com"),
        display_name: format!("{first} {last}"),
        roles: vec![role.to_owned()],
        username: username.clone(),
    };
    let link = backend
        .add_person(new)
        .await?
        .map_err(|why| format!("demo person {username}: {why:?}"))?;
    let secret = link.expose_secret().rsplit('/').next().unwrap_or_default().to_owned();
    let devices: Vec<(&'static str, String)> = (0..3)
        .map(|n| {
            (
                AGENTS[(index + n * 3) % AGENTS.len()],
                format!("198.51.{}.{}", 100 + index % 40, 10 + n * 7),
            )
        })
        .collect();
    let caller = caller(devices[0].0, &devices[0].1);
    let with = Acceptance {
        username: String::new(),
        email: String::new(),
        display_name: String::new(),
        password: password.clone(),
    };
    let accepted = backend
        .accept_invitation(&SecretString::from(secret), with, &caller)
        .await?;
    let AcceptOutcome::Accepted(outcome) = accepted else {
        return Err(format!("demo person {username}: {accepted:?}").into());
    };
    let user = backend
        .find_user_by_name(&username)
        .await?
        .ok_or("a demo person vanished")?;
    let totp = match outcome {
        PasswordOutcome::Continue(mut flow) => {
            let totp = TotpSecret::generate(backend.random());
            flow.step = Step::Enrol {
                secret: Some(totp.to_base32()),
            };
            let code = totp.code_at(clock.now());
            let enrolled = backend.enrol_in_flow(&flow, &code, &caller).await?;
            let EnrolOutcome::SignedIn(..) = enrolled else {
                return Err(format!("demo person {username}: not enrolled").into());
            };
            Some(totp)
        }
        PasswordOutcome::SignedIn(_) => None,
        PasswordOutcome::Wrong => return Err(format!("demo person {username}: not signed in").into()),
    };
    Ok(Actor {
        id: user.id,
        username,
        role,
        totp,
        devices,
    })
}

/// A browser at an address, as the services see it.
pub fn caller(user_agent: &str, address: &str) -> Caller {
    let from = Circumstances {
        address: Some(address.into()),
        user_agent: Some(user_agent.into()),
        ..Circumstances::default()
    };
    Caller {
        from,
        address: address
            .parse()
            .unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
        client: Client::Browser,
        device: None,
        key: None,
    }
}
