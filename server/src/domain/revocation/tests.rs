//! The registry against a model that keeps everything and looks at each entry.

use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn session(n: u8) -> SessionId {
    SessionId(Uuid::from_u128(u128::from(n)))
}

fn token_id(n: u8) -> TokenId {
    TokenId(Uuid::from_u128(1000 + u128::from(n)))
}

fn entry(cursor: u64, target: Target, until: i64) -> Entry {
    Entry {
        cursor,
        target,
        at: at(0),
        until: at(until),
    }
}

/// A token as the tests see it; it lives until `end`.
#[derive(Clone, Debug)]
struct Token {
    kid: String,
    sub: String,
    session: Option<SessionId>,
    generation: u64,
    id: TokenId,
    issued_at: Timestamp,
    end: Timestamp,
}

impl Token {
    fn presented(&self) -> Presented<'_> {
        Presented {
            kid: &self.kid,
            sub: &self.sub,
            session: self.session,
            generation: self.generation,
            token: self.id,
            issued_at: self.issued_at,
        }
    }

    fn is_hit(&self, target: &Target) -> bool {
        match target {
            Target::Session { id, below } => {
                self.session == Some(*id) && below.is_none_or(|below| self.generation < below)
            }
            Target::Subject { sub, before } => self.sub == *sub && self.issued_at < *before,
            Target::Key { id } => self.kid == *id,
            Target::Token { id } => self.id == *id,
        }
    }
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0u8..4, proptest::option::of(0u64..5)).prop_map(|(id, below)| Target::Session { id: session(id), below }),
        (0u8..4, 0i64..40).prop_map(|(sub, before)| Target::Subject {
            sub: sub.to_string(),
            before: at(before)
        }),
        (0u8..3).prop_map(|id| Target::Key { id: format!("k{id}") }),
        (0u8..4).prop_map(|id| Target::Token { id: token_id(id) }),
    ]
}

fn tokens() -> impl Strategy<Value = Token> {
    (0u8..3, 0u8..4, proptest::option::of(0u8..4), 0u64..5, 0u8..4, 0i64..40).prop_map(
        |(kid, sub, sid, generation, id, issued)| Token {
            kid: format!("k{kid}"),
            sub: sub.to_string(),
            session: sid.map(session),
            generation,
            id: token_id(id),
            issued_at: at(issued),
            end: at(issued + 20),
        },
    )
}

/// What happens: a revocation, time, or a token that is asked about.
#[derive(Clone, Debug)]
enum Step {
    Revoke(Target),
    Pass(i64),
    Ask(Token),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => targets().prop_map(Step::Revoke),
        1 => (0i64..15).prop_map(Step::Pass),
        4 => tokens().prop_map(Step::Ask),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Runs both; how often the registry knew, and how often it said that it did not.
fn compare(steps: Vec<Step>, capacity: usize) -> Result<(u32, u32), TestCaseError> {
    let (mut registry, mut all) = (Registry::new(capacity), Vec::new());
    let (mut now, mut cursor, mut known, mut unknown) = (at(0), 0, 0, 0);
    for step in steps {
        match step {
            Step::Pass(seconds) => now = now.plus(Duration::from_secs(u64::try_from(seconds).expect("positive"))),
            Step::Revoke(target) => {
                cursor += 1;
                // Tokens of the model live for 20 s, and none is issued after second 40.
                let until = now.max(at(40)).plus(Duration::from_secs(20));
                let entry = Entry {
                    cursor,
                    target,
                    at: now,
                    until,
                };
                registry.apply(std::slice::from_ref(&entry), now);
                all.push(entry);
            }
            Step::Ask(token) => {
                let hit = all.iter().any(|entry: &Entry| token.is_hit(&entry.target));
                match registry.verdict(&token.presented(), now) {
                    Verdict::Revoked => prop_assert!(hit, "refused without a reason: {token:?}"),
                    Verdict::NotRevoked => prop_assert!(!hit || now >= token.end, "accepted though revoked: {token:?}"),
                    Verdict::Unknown => unknown += 1,
                }
                known += 1;
            }
        }
        prop_assert!(registry.len() <= capacity);
        registry.forget(now);
    }
    Ok((known - unknown, unknown))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_registry_says_what_a_model_says_that_forgets_nothing(steps in steps()) {
        let (_, unknown) = compare(steps, 1000)?;
        prop_assert_eq!(unknown, 0, "there was room enough");
    }

    #[test]
    fn a_registry_that_is_too_small_says_so_and_never_accepts_what_was_revoked(steps in steps(), capacity in 0usize..4) {
        compare(steps, capacity)?;
    }

    #[test]
    fn an_entry_of_the_feed_reads_back_as_it_was_written(target in targets(), cursor in 1u64..u64::MAX, until in 1i64..1_000_000) {
        let entry = entry(cursor, target, until);
        let text = serde_json::to_string(&entry).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Entry>(&text).expect("reads"), entry);
    }
}

#[test]
fn what_did_not_fit_is_unknown_until_it_would_have_been_forgotten() {
    let mut registry = Registry::new(1);
    registry.apply(
        &[
            entry(1, Target::Token { id: token_id(1) }, 50),
            entry(2, Target::Token { id: token_id(2) }, 90),
        ],
        at(0),
    );
    let token = |n| Token {
        kid: "k".into(),
        sub: "s".into(),
        session: None,
        generation: 0,
        id: token_id(n),
        issued_at: at(0),
        end: at(90),
    };
    assert_eq!(registry.verdict(&token(1).presented(), at(1)), Verdict::Revoked);
    assert_eq!(registry.verdict(&token(2).presented(), at(1)), Verdict::Unknown);
    assert_eq!(registry.verdict(&token(3).presented(), at(89)), Verdict::Unknown);
    assert_eq!(registry.verdict(&token(3).presented(), at(90)), Verdict::NotRevoked);
    registry.forget(at(90));
    assert!(registry.is_empty());
}

#[test]
fn an_entry_that_is_not_understood_is_an_error_and_not_nothing() {
    for text in [
        r#"{"cursor":1,"until":5}"#,
        r#"{"cursor":1,"until":5,"address":"192.0.2.1"}"#,
        r#"{"cursor":1,"until":5,"kid":"a","jti":"AAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"cursor":1,"until":5,"sub":"a"}"#,
        r#"{"cursor":1,"until":5,"sid":"not an id"}"#,
        r#"{"cursor":1,"kid":"a"}"#,
        r#"{"until":5,"kid":"a"}"#,
    ] {
        assert!(serde_json::from_str::<Entry>(text).is_err(), "{text}");
    }
    let more = r#"{"cursor":1,"until":5,"kid":"a","note":"later versions may say more"}"#;
    assert!(serde_json::from_str::<Entry>(more).is_ok());
}

#[test]
fn the_moment_of_issue_is_exact_where_the_token_allows_it() {
    let millis = 1_795_251_600_250;
    let id = TokenId(uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid());
    let iat = 1_795_251_600;
    assert_eq!(issued_at(id, iat), Timestamp::from_millis(1_795_251_600_250));
    assert_eq!(
        issued_at(id, iat + 1),
        at(iat + 1),
        "it contradicts itself: the whole second"
    );
    assert_eq!(issued_at(token_id(1), iat), at(iat), "no UUIDv7");
}
