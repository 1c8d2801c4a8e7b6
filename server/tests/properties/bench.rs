//! Asks a rule about a row: fills in everything the worlds leave alone. Must not know what happens in a world.

use std::time::Duration;

use server::domain::clock::Timestamp;
use server::domain::id::{SessionId, UserId};
use server::domain::policy::{Lifetimes, Limits, Mfa, Rule as PolicyRule};
use server::domain::refresh::Decision;
use server::domain::session::{Client, Session};
use server::domain::user::{User, UserStatus};
use uuid::Uuid;

use crate::world::{Rule, Verdict};

/// Lifetime of an access token in these worlds, in seconds: between the pauses of a minute and of two hours.
pub const ACCESS: u16 = 900;

const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
const GENERATION: u64 = 1_000;

/// What a rule reads of a session's row, as ages in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Of `rotated_at`.
    pub age: u8,
    /// Of `superseded_at`.
    pub superseded: u8,
    /// `child_confirmed`.
    pub confirmed: bool,
    /// `reissues`.
    pub reissues: u8,
    /// The access token of this generation has not expired.
    pub access_lives: bool,
    /// It has the roles of now.
    pub has_grants: bool,
}

impl Row {
    /// The access token of this generation is good.
    pub const fn is_accepted(self) -> bool {
        self.access_lives && self.has_grants
    }
}

/// A row, its owner and limits that never matter: filled in for each question to the rule.
pub struct Bench {
    session: Session,
    user: User,
    limits: Limits,
}

impl Bench {
    /// For this kind of client.
    pub fn new(client: Client) -> Self {
        let long = Duration::from_hours(24 * 30);
        let rule = PolicyRule {
            role: "member".to_owned(),
            version: 1,
        };
        let lifetimes = Lifetimes {
            access: Duration::from_secs(ACCESS.into()),
            idle: long,
            absolute: long,
            idle_warning: Duration::ZERO,
            remember_device: Duration::ZERO,
            mfa: Mfa::Optional,
            step_up: long,
            max_sessions: 10,
        };
        let user = User {
            id: UserId(Uuid::from_u128(1)),
            username: "max".to_owned(),
            email: None,
            display_name: "Max".to_owned(),
            status: UserStatus::Active,
            password_changed_at: None,
            auth_epoch: 0,
            grant_epoch: 0,
            created_at: NOW,
            roles: vec!["member".to_owned()],
        };
        let session = Session {
            id: SessionId(Uuid::from_u128(2)),
            user_id: user.id,
            device_id: None,
            client,
            secret_sealed: Vec::new(),
            generation: GENERATION,
            rotated_at: NOW,
            handed_out_at: NOW,
            superseded_at: NOW,
            child_confirmed: true,
            reissues: 0,
            access_expires_at: NOW,
            min_generation: 0,
            auth_epoch: 0,
            grant_epoch: 0,
            started_at: NOW,
            authenticated_at: NOW,
            last_active_at: NOW,
            access: lifetimes.access,
            idle: lifetimes.idle,
            idle_rule: rule.clone(),
            absolute_expires_at: NOW.plus(long),
            absolute_rule: rule.clone(),
            amr: "pwd".to_owned(),
            address: String::new(),
            user_agent: String::new(),
            jkt: None,
            browser_key: None,
            ending: None,
        };
        let limits = Limits {
            lifetimes,
            idle_rule: rule.clone(),
            absolute_rule: rule.clone(),
            mfa_rule: rule,
        };
        Self { session, user, limits }
    }

    /// What the rule decides about the token so many generations back.
    pub fn ask(&mut self, rule: Rule, row: Row, token: u8) -> Verdict {
        let session = &mut self.session;
        session.handed_out_at = NOW.minus(Duration::from_secs(row.age.into()));
        session.superseded_at = NOW.minus(Duration::from_secs(row.superseded.into()));
        session.child_confirmed = row.confirmed;
        session.reissues = row.reissues.into();
        session.access_expires_at = NOW.plus(Duration::from_secs(row.access_lives.into()));
        self.user.grant_epoch = session.grant_epoch + i64::from(!row.has_grants);
        match rule(
            session,
            &self.user,
            Some(&self.limits),
            GENERATION - u64::from(token),
            NOW,
        ) {
            Decision::Over(ending) => panic!("no limit passes in these worlds: {ending:?}"),
            Decision::Rotate(_) => Verdict::Rotate,
            Decision::Fresh(_) => Verdict::Fresh,
            Decision::Reissue(_) => Verdict::Reissue,
            Decision::Superseded(_) => Verdict::Superseded,
            Decision::Reuse => Verdict::Reuse,
            Decision::Ahead => Verdict::Ahead,
        }
    }
}
