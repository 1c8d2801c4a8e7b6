//! Lifetimes per role: what a policy may say, and how several roles become one set of limits (TOKENS.md §6).

use std::time::Duration;

use super::clock::Timestamp;
use super::id::UserId;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Longest lifetime of an access token that a policy may allow (M1). A signing key is kept this long after its use.
pub const MAX_ACCESS: Duration = Duration::from_hours(1);
/// Longest life of a session that a policy may allow. An edge key is kept this long after its use.
pub const MAX_ABSOLUTE: Duration = Duration::from_hours(400 * 24);

/// Whether a second factor is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mfa {
    /// Cannot be used.
    Off,
    /// Asked for if the person set one up.
    Optional,
    /// No sign-in without it.
    Required,
}

impl Mfa {
    /// The text in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// The values of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Lifetime of an access token.
    pub access: Duration,
    /// Longest time without the person's own activity.
    pub idle: Duration,
    /// Longest time since sign-in.
    pub absolute: Duration,
    /// How long before the idle end a warning comes; zero = none.
    pub idle_warning: Duration,
    /// How long a device may be remembered; zero = never.
    pub remember_device: Duration,
    /// Second factor.
    pub mfa: Mfa,
    /// Age of the last factor above which a sensitive act asks again.
    pub step_up: Duration,
    /// Most sessions at once.
    pub max_sessions: u32,
}

/// One version of a role's policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The role.
    pub role: String,
    /// Counts up from 1.
    pub version: u32,
    /// The values.
    pub lifetimes: Lifetimes,
    /// When somebody should look at it again.
    pub review_at: Option<Timestamp>,
    /// Why it was changed.
    pub reason: String,
    /// Written reason to go beyond NIST SP 800-63B-4.
    pub justification: Option<String>,
    /// Who saved it; none for those made with the server.
    pub author_id: Option<UserId>,
    /// When.
    pub created_at: Timestamp,
}

/// The policy that set a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The role.
    pub role: String,
    /// Version of its policy.
    pub version: u32,
}

/// The strictest value of each field over all roles, with the rule behind the ones a session records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The strictest values.
    pub lifetimes: Lifetimes,
    /// Set the idle limit.
    pub idle_rule: Rule,
    /// Set the absolute limit.
    pub absolute_rule: Rule,
    /// Says whether a second factor is asked for.
    pub mfa_rule: Rule,
}

/// The strictest of each field. `None` if there is no policy at all (a person without roles cannot sign in).
#[must_use]
pub fn strictest(policies: &[Policy]) -> Option<Limits> {
    let rule = |policy: &Policy| Rule {
        role: policy.role.clone(),
        version: policy.version,
    };
    let values = || policies.iter().map(|policy| &policy.lifetimes);
    let idle = policies.iter().min_by_key(|policy| policy.lifetimes.idle)?;
    let absolute = policies.iter().min_by_key(|policy| policy.lifetimes.absolute)?;
    let mfa = policies.iter().max_by_key(|policy| policy.lifetimes.mfa)?;
    Some(Limits {
        lifetimes: Lifetimes {
            access: values().map(|v| v.access).min()?,
            idle: idle.lifetimes.idle,
            absolute: absolute.lifetimes.absolute,
            idle_warning: values().map(|v| v.idle_warning).max()?,
            remember_device: values().map(|v| v.remember_device).min()?,
            mfa: mfa.lifetimes.mfa,
            step_up: values().map(|v| v.step_up).min()?,
            max_sessions: values().map(|v| v.max_sessions).min()?,
        },
        idle_rule: rule(idle),
        absolute_rule: rule(absolute),
        mfa_rule: rule(mfa),
    })
}

/// Field of a policy, to say which one is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of `Lifetimes`")]
pub enum PolicyField {
    Access,
    Idle,
    Absolute,
    IdleWarning,
    RememberDevice,
    StepUp,
    MaxSessions,
    Mfa,
}

/// Why a policy is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyProblem {
    /// Outside `min..=max` seconds (sessions for [`PolicyField::MaxSessions`]).
    OutOfRange {
        /// The field.
        field: PolicyField,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// Must not be longer than the other field.
    Exceeds {
        /// The field.
        field: PolicyField,
        /// The other one.
        of: PolicyField,
    },
    /// Beyond NIST SP 800-63B-4, sections 2.1.3 and 2.2.3, and nobody wrote down why.
    NeedsJustification {
        /// The field.
        field: PolicyField,
    },
    /// Administrators always show a second factor.
    AdminNeedsMfa,
}

/// Checks bounds and their relations.
///
/// # Errors
/// The first problem found, in the order of the form.
pub fn validate(role: &str, values: &Lifetimes, justified: bool) -> Result<(), PolicyProblem> {
    use PolicyField as F;
    let within = |field, value: Duration, min: u64, max: u64| {
        let fits = value >= Duration::from_secs(min) && value <= Duration::from_secs(max) && value.subsec_nanos() == 0;
        if fits {
            Ok(())
        } else {
            Err(PolicyProblem::OutOfRange { field, min, max })
        }
    };
    let not_above = |field, value: Duration, of, limit: Duration| {
        if value <= limit {
            Ok(())
        } else {
            Err(PolicyProblem::Exceeds { field, of })
        }
    };
    // M1: 5–60 minutes; 1 minute is the least that service clients may have (M16).
    within(F::Access, values.access, MINUTE, MAX_ACCESS.as_secs())?;
    within(F::Idle, values.idle, MINUTE, 90 * DAY)?;
    within(F::Absolute, values.absolute, 5 * MINUTE, MAX_ABSOLUTE.as_secs())?;
    within(F::IdleWarning, values.idle_warning, 0, HOUR)?;
    // Remembering devices is not built yet: a policy that asks for it would promise what does not happen.
    within(F::RememberDevice, values.remember_device, 0, 0)?;
    within(F::StepUp, values.step_up, MINUTE, DAY)?;
    if !(1..=1000).contains(&values.max_sessions) {
        return Err(PolicyProblem::OutOfRange {
            field: F::MaxSessions,
            min: 1,
            max: 1000,
        });
    }
    not_above(F::Idle, values.idle, F::Absolute, values.absolute)?;
    not_above(F::Access, values.access, F::Idle, values.idle)?;
    if values.idle_warning >= values.idle {
        return Err(PolicyProblem::Exceeds {
            field: F::IdleWarning,
            of: F::Idle,
        });
    }
    if role == super::user::ADMIN && values.mfa != Mfa::Required {
        return Err(PolicyProblem::AdminNeedsMfa);
    }
    let (most_absolute, most_idle) = if values.mfa == Mfa::Required {
        (DAY, HOUR)
    } else {
        (30 * DAY, 30 * DAY)
    };
    if !justified && values.absolute > Duration::from_secs(most_absolute) {
        return Err(PolicyProblem::NeedsJustification { field: F::Absolute });
    }
    if !justified && values.idle > Duration::from_secs(most_idle) {
        return Err(PolicyProblem::NeedsJustification { field: F::Idle });
    }
    Ok(())
}

/// A use case of M16 to start from.
#[derive(Clone, Debug)]
pub struct Preset {
    /// Stable key.
    pub key: &'static str,
    /// For people.
    pub name: &'static str,
    /// The ranges, in words.
    pub describes: &'static str,
    /// Values filled in.
    pub lifetimes: Lifetimes,
}

/// The six use cases of M16.
#[must_use]
pub fn presets() -> [Preset; 6] {
    let values = |access_min: u64, idle: u64, absolute: u64, mfa, step_up_min: u64, max_sessions| Lifetimes {
        access: Duration::from_secs(access_min * MINUTE),
        idle: Duration::from_secs(idle),
        absolute: Duration::from_secs(absolute),
        idle_warning: Duration::from_secs(if idle > 10 * MINUTE { 2 * MINUTE } else { 30 }),
        remember_device: Duration::ZERO,
        mfa,
        step_up: Duration::from_secs(step_up_min * MINUTE),
        max_sessions,
    };
    [
        Preset {
            key: "consumer_web",
            name: "Consumer web",
            describes: "Access 15–60 minutes, idle and absolute 7–30 days",
            lifetimes: values(15, 7 * DAY, 30 * DAY, Mfa::Optional, 15, 20),
        },
        Preset {
            key: "banking",
            name: "Banking and payments",
            describes: "Access 5–15 minutes, at most 1–7 days, second factor",
            lifetimes: values(5, 15 * MINUTE, DAY, Mfa::Required, 5, 5),
        },
        Preset {
            key: "admin",
            name: "Admins and privileged roles",
            describes: "Access 5–15 minutes, short idle limit, second factor",
            lifetimes: values(5, 15 * MINUTE, 12 * HOUR, Mfa::Required, 10, 5),
        },
        Preset {
            key: "mobile",
            name: "Mobile app with secure storage",
            describes: "Access 15–60 minutes, idle 14–90 days",
            lifetimes: values(15, 14 * DAY, 30 * DAY, Mfa::Optional, 15, 10),
        },
        Preset {
            key: "service",
            name: "Service to service",
            describes: "Access 1–10 minutes; people should not hold such a role",
            lifetimes: values(5, 10 * MINUTE, HOUR, Mfa::Optional, 5, 5),
        },
        Preset {
            key: "single_use",
            name: "Single use",
            describes: "5–30 minutes, one sitting",
            lifetimes: values(5, 15 * MINUTE, 30 * MINUTE, Mfa::Optional, 5, 1),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(role: &str, version: u32, lifetimes: Lifetimes) -> Policy {
        Policy {
            role: role.to_owned(),
            version,
            lifetimes,
            review_at: None,
            reason: String::new(),
            justification: None,
            author_id: None,
            created_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn every_preset_is_valid_without_a_justification() {
        for preset in presets() {
            assert_eq!(validate("member", &preset.lifetimes, false), Ok(()), "{}", preset.key);
        }
    }

    #[test]
    fn m17_the_strictest_rule_wins_field_by_field_and_is_named() {
        let [consumer, banking, ..] = presets();
        let limits = strictest(&[
            policy("member", 3, consumer.lifetimes),
            policy("finance", 7, banking.lifetimes),
        ])
        .expect("two policies");
        assert_eq!(limits.lifetimes.idle, Duration::from_mins(15));
        assert_eq!(
            limits.idle_rule,
            Rule {
                role: "finance".into(),
                version: 7
            }
        );
        assert_eq!(limits.lifetimes.mfa, Mfa::Required);
        assert!(strictest(&[]).is_none());
    }

    #[test]
    fn s3_longer_than_nist_needs_a_written_justification() {
        let [_, mut banking, ..] = presets();
        banking.lifetimes.absolute = Duration::from_secs(2 * DAY);
        let refused = validate("finance", &banking.lifetimes, false);
        assert_eq!(
            refused,
            Err(PolicyProblem::NeedsJustification {
                field: PolicyField::Absolute
            })
        );
        assert_eq!(validate("finance", &banking.lifetimes, true), Ok(()));
    }

    #[test]
    fn f16_zero_and_infinity_are_refused_by_field() {
        let [good, ..] = presets();
        for (change, field) in [
            (
                (|v: &mut Lifetimes| v.access = Duration::ZERO) as fn(&mut Lifetimes),
                PolicyField::Access,
            ),
            (|v| v.idle = Duration::ZERO, PolicyField::Idle),
            (
                |v| v.absolute = Duration::from_secs(1_000_000_000_000),
                PolicyField::Absolute,
            ),
            (|v| v.max_sessions = 0, PolicyField::MaxSessions),
            (|v| v.step_up = Duration::ZERO, PolicyField::StepUp),
        ] {
            let mut values = good.lifetimes.clone();
            change(&mut values);
            match validate("member", &values, true) {
                Err(PolicyProblem::OutOfRange { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn f16_a_limit_longer_than_the_one_around_it_is_refused_with_both_names() {
        let [_, good, ..] = presets();
        for (change, field, of) in [
            (
                (|v: &mut Lifetimes, more: Duration| v.idle = v.absolute + more) as fn(&mut Lifetimes, Duration),
                PolicyField::Idle,
                PolicyField::Absolute,
            ),
            (
                |v, more| v.access = v.idle + more,
                PolicyField::Access,
                PolicyField::Idle,
            ),
            (
                // A warning at the very beginning would be none.
                |v, more| v.idle_warning = v.idle.saturating_sub(Duration::from_secs(1)) + more,
                PolicyField::IdleWarning,
                PolicyField::Idle,
            ),
        ] {
            let with = |more| {
                let mut values = good.lifetimes.clone();
                change(&mut values, more);
                validate("finance", &values, true)
            };
            assert_eq!(with(Duration::ZERO), Ok(()), "{field:?}");
            assert_eq!(with(Duration::from_secs(1)), Err(PolicyProblem::Exceeds { field, of }));
        }
    }
}
