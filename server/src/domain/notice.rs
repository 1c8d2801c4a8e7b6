//! What follows from an event beyond its row in the audit log: whether the person is told by mail, and whether it becomes
//! an alert for the security desk.
//!
//! Pure: must not know how anybody is told, nor where it is kept what was told.

use std::time::Duration;

use super::audit::{Event, Kind};
use super::clock::{APART, Timestamp};
use super::id::EventId;

/// So long one alert stands for everything of its rule; what came after it is told once at the end.
pub const WINDOW: Duration = Duration::from_mins(10);
/// Fewer forged refresh tokens in a window are somebody who tries, or a session that an old backup does not know.
const MANY_FORGED: u64 = 10;

/// So many generations in a row handed out again elsewhere are nobody's lost answers.
pub const MANY_IN_A_ROW: u32 = 3;
/// The fact that says how many they are.
pub const ELSEWHERE_IN_A_ROW: &str = "elsewhere_in_a_row";

/// Why an access token with a good signature is refused that this server never signed.
pub const FORGED_ACCESS: [&str; 5] = [
    "other_person",
    "other_client",
    "other_key",
    "generation_ahead",
    "unknown_session",
];
/// Why a refresh token with a good outer tag is refused that this server never made.
pub const FORGED_REFRESH: [&str; 2] = ["unknown_session", "forged"];

/// What the security desk is alerted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A used refresh token came back: somebody has a copy.
    TokenReused,
    /// The same tokens went to two places time and again: somebody may ride along on a copy.
    TokensShared,
    /// A client, or a node, was further than the database: that went back in time.
    DatabaseRolledBack,
    /// A bound cookie came that its browser had deleted: somebody has a copy.
    BoundCookieCopied,
    /// Refresh tokens with the server's own outer tag that it never made: somebody may have an edge key.
    RefreshTokensForged,
    /// An access token with the server's own signature that it never signed: somebody may have a signing key.
    AccessTokenForged,
    /// The audit log is not what it was.
    AuditLogContradicted,
    /// The key file is not where it was.
    KeyFileMissing,
    /// The stored keys are not what they were.
    KeysDamaged,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::TokenReused,
        Self::TokensShared,
        Self::DatabaseRolledBack,
        Self::BoundCookieCopied,
        Self::RefreshTokensForged,
        Self::AccessTokenForged,
        Self::AuditLogContradicted,
        Self::KeyFileMissing,
        Self::KeysDamaged,
    ];

    /// The word in the database and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenReused => "token_reused",
            Self::TokensShared => "tokens_shared",
            Self::DatabaseRolledBack => "database_rolled_back",
            Self::BoundCookieCopied => "bound_cookie_copied",
            Self::RefreshTokensForged => "refresh_tokens_forged",
            Self::AccessTokenForged => "access_token_forged",
            Self::AuditLogContradicted => "audit_log_contradicted",
            Self::KeyFileMissing => "key_file_missing",
            Self::KeysDamaged => "keys_damaged",
        }
    }

    /// The one an event falls under.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        let is_one_of = |reasons: &[&str]| event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason));
        match event.kind {
            Kind::TokenReused => Some(Self::TokenReused),
            Kind::TokenReissued if in_a_row(event) >= u64::from(MANY_IN_A_ROW) => Some(Self::TokensShared),
            Kind::DatabaseRolledBack | Kind::RevocationsLost => Some(Self::DatabaseRolledBack),
            Kind::BoundCookieCopied => Some(Self::BoundCookieCopied),
            Kind::RefreshRefused if is_one_of(&FORGED_REFRESH) => Some(Self::RefreshTokensForged),
            Kind::AccessTokenRefused if is_one_of(&FORGED_ACCESS) => Some(Self::AccessTokenForged),
            Kind::AuditLogContradicted => Some(Self::AuditLogContradicted),
            Kind::KeyFileMissing => Some(Self::KeyFileMissing),
            Kind::KeysDamaged => Some(Self::KeysDamaged),
            _ => None,
        }
    }

    /// So many events within a window are an alert.
    const fn threshold(self) -> u64 {
        match self {
            Self::RefreshTokensForged => MANY_FORGED,
            _ => 1,
        }
    }
}

fn in_a_row(event: &Event) -> u64 {
    let number = event.facts.get(ELSEWHERE_IN_A_ROW);
    number.and_then(serde_json::Value::as_u64).unwrap_or(0)
}

/// Whether the person an event concerns is told of it by mail: somebody else may be using the account, or its credentials
/// changed (OWASP ASVS 5.0, 6.3.7).
#[must_use]
pub const fn is_for_the_person(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::TokenReused
            | Kind::BoundCookieCopied
            | Kind::PasswordChanged
            | Kind::AuthenticatorAdded
            | Kind::AuthenticatorRemoved
            | Kind::RecoveryCodeUsed
            | Kind::RecoveryCodesRenewed
    )
}

/// Whether anything follows from an event.
#[must_use]
pub fn is_noticed(event: &Event) -> bool {
    is_for_the_person(event.kind) || Rule::of(event).is_some()
}

/// The minutes in which one alert stands for all of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What it counts.
    pub rule: Rule,
    /// When its first event was counted.
    pub began_at: Timestamp,
    /// Events.
    pub seen: u64,
    /// Of these so many are part of an alert.
    pub told: u64,
    /// The last one.
    pub last_event: EventId,
}

/// The security desk is to hear of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Why.
    pub rule: Rule,
    /// So many events.
    pub count: u64,
    /// When its window began.
    pub since: Timestamp,
    /// The last of them.
    pub event: EventId,
}

/// So long ago that it counts as over; so does what lies further ahead than the clock of another node could be.
fn is_past(began_at: Timestamp, now: Timestamp) -> bool {
    now.since(began_at) >= WINDOW || began_at.since(now) > APART
}

impl Window {
    /// One that counts this event as its first.
    #[must_use]
    pub const fn begin(rule: Rule, event: EventId, now: Timestamp) -> Self {
        Self {
            rule,
            began_at: now,
            seen: 1,
            told: 0,
            last_event: event,
        }
    }

    /// Counts one more.
    pub const fn count(&mut self, event: EventId) {
        self.seen = self.seen.saturating_add(1);
        self.last_event = event;
    }

    /// Its minutes are over, or the clock was set back to before them.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        is_past(self.began_at, now)
    }

    /// What is to be told now, once: the first time as soon as there are enough, the rest when it is over.
    pub fn tell(&mut self, now: Timestamp) -> Option<Alert> {
        let is_time = if self.told == 0 {
            self.seen >= self.rule.threshold()
        } else {
            self.seen > self.told && self.is_over(now)
        };
        is_time.then(|| {
            let count = self.seen - self.told;
            self.told = self.seen;
            Alert {
                rule: self.rule,
                count,
                since: self.began_at,
                event: self.last_event,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Circumstances;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + seconds)
    }

    fn id(number: u128) -> EventId {
        EventId(uuid::Uuid::from_u128(number))
    }

    /// Counts of the alerts of events at these seconds, each looked at as it comes, and once more at the end.
    fn counts(rule: Rule, events: impl Iterator<Item = i64>) -> Vec<(i64, u64)> {
        let (mut window, mut told): (Option<Window>, _) = (None, Vec::new());
        for (number, second) in (1..).zip(events) {
            if let Some(mut past) = window.take_if(|window| window.is_over(at(second))) {
                told.extend(past.tell(at(second)).map(|alert| (second, alert.count)));
            }
            match &mut window {
                Some(window) => window.count(id(number)),
                none => *none = Some(Window::begin(rule, id(number), at(second))),
            }
            let alert = window.as_mut().and_then(|window| window.tell(at(second)));
            told.extend(alert.map(|alert| (second, alert.count)));
        }
        told
    }

    #[test]
    fn l9_a_storm_of_one_kind_is_two_alerts_in_ten_minutes_and_none_of_it_is_lost() {
        // Ten a second for twenty minutes.
        let told = counts(Rule::TokenReused, (0..12_000).map(|number| number / 10));
        assert_eq!(told, [(0, 1), (600, 5999), (600, 1)]);
        assert_eq!(
            counts(Rule::TokenReused, [0, 700, 1400].into_iter()),
            [(0, 1), (700, 1), (1400, 1)]
        );
        assert_eq!(
            counts(Rule::TokenReused, [0, 599, 600].into_iter()),
            [(0, 1), (600, 1), (600, 1)]
        );
    }

    #[test]
    fn l9_a_few_forged_refresh_tokens_are_no_alert_and_many_are() {
        assert_eq!(counts(Rule::RefreshTokensForged, 0..9), []);
        assert_eq!(counts(Rule::RefreshTokensForged, 0..10), [(9, 10)]);
        assert_eq!(
            counts(Rule::RefreshTokensForged, (0..20).map(|n| n * 100)),
            [],
            "not within ten minutes"
        );
    }

    #[test]
    fn l9_a_clock_that_is_set_back_holds_up_no_alert() {
        assert_eq!(
            counts(Rule::TokenReused, [0, 10, -86_400].into_iter()),
            [(0, 1), (-86_400, 1), (-86_400, 1)]
        );
    }

    #[test]
    fn l9_the_alert_of_a_node_whose_clock_is_ahead_stands_for_the_events_of_the_others() {
        assert_eq!(counts(Rule::TokenReused, [0, -120, -60, 30].into_iter()), [(0, 1)]);
        assert_eq!(
            counts(Rule::RefreshTokensForged, (0..10).map(|n| n % 2 * -60)),
            [(-60, 10)]
        );
    }

    #[test]
    fn l9_every_rule_has_its_event_and_ordinary_refusals_have_none() {
        let event = |kind, reason: &str| Event::new(id(1), at(0), kind, &Circumstances::default()).reason(reason);
        let found: Vec<_> = [
            event(Kind::TokenReused, "token_reused"),
            event(Kind::TokenReissued, "").fact(ELSEWHERE_IN_A_ROW, 3),
            event(Kind::DatabaseRolledBack, "database_rolled_back"),
            event(Kind::BoundCookieCopied, ""),
            event(Kind::RefreshRefused, "unknown_session"),
            event(Kind::AccessTokenRefused, "generation_ahead"),
            event(Kind::AuditLogContradicted, ""),
            event(Kind::KeyFileMissing, ""),
            event(Kind::KeysDamaged, ""),
        ]
        .iter()
        .map(Rule::of)
        .collect();
        assert_eq!(found, Rule::ALL.map(Some));
        for ordinary in [
            event(Kind::TokenReissued, "").fact(ELSEWHERE_IN_A_ROW, 2),
            event(Kind::RefreshRefused, "removed_session"),
            event(Kind::RefreshRefused, "other_client"),
            event(Kind::AccessTokenRefused, "expired"),
            event(Kind::SignedIn, "forged"),
        ] {
            assert!(!is_noticed(&ordinary), "{ordinary:?}");
        }
    }
}
