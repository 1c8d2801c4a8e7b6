//! `mayfly keys`: what the keys are doing, and the two things somebody may want them to do. Serving nodes hear of it
//! by themselves.

use std::fmt::Write as _;

use clap::Subcommand;
use time::OffsetDateTime;
use time::macros::format_description;

use super::CliError;
use crate::domain::audit::Circumstances;
use crate::domain::clock::Timestamp;
use crate::domain::keys::KeyPurpose;
use crate::domain::keys::lifecycle::NotRevoked;
use crate::services::Backend;
use crate::services::keys::{KeyStanding, Order, RevokeOutcome, RotateOutcome};
use crate::services::revoked_tokens::RevokedTokens;

/// Longest reason that is kept.
const LONGEST_REASON: usize = 500;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Every key with the dates behind and ahead of it, oldest first.
    List,
    /// Replace the signing key without waiting for its date. Nobody notices.
    Rotate {
        /// The edge key instead: the one that refresh tokens are tagged with.
        #[arg(long)]
        edge: bool,
    },
    /// Emergency: refuse everything a signing key signed, at once. Sessions go on by refreshing.
    Revoke {
        /// Its id, as `list` shows it.
        kid: String,
        /// Why, for the audit log.
        #[arg(long, value_parser = reason)]
        reason: Option<String>,
    },
}

pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > LONGEST_REASON || text.chars().any(char::is_control) {
        return Err(format!("1 to {LONGEST_REASON} characters in one line are allowed"));
    }
    Ok(text.to_owned())
}

/// What to print.
pub(super) async fn execute(command: KeysCommand, backend: &Backend) -> Result<String, CliError> {
    let order = |note| Order {
        from: Circumstances::default(),
        by: "command_line",
        note,
    };
    match command {
        KeysCommand::List => Ok(table(&backend.list_keys().await?)),
        KeysCommand::Rotate { edge } => {
            let purpose = if edge { KeyPurpose::Edge } else { KeyPurpose::Signing };
            let (begun, next) = match backend.rotate_keys(purpose, &order(None)).await? {
                RotateOutcome::Begun(next) => ("is published", next),
                RotateOutcome::UnderWay(next) => ("was published before", next),
            };
            let from = next.used_from.map(shown).unwrap_or_default();
            Ok(format!("{} {begun} and comes into use at {from}.\n", next.key.id))
        }
        KeysCommand::Revoke { kid, reason } => match backend.revoke_key(&kid, &order(reason.as_deref())).await? {
            RevokeOutcome::Revoked { replaced } => {
                let instead = if replaced {
                    format!("; {} signs in its place", backend.keys().active_signing().kid())
                } else {
                    String::new()
                };
                // At once: whoever waits for this is in a hurry.
                println!("{kid} is revoked{instead}.");
                let counted = backend.count_revoked_tokens(&kid, &order(reason.as_deref())).await;
                let RevokedTokens { sessions, services } = counted
                    .map_err(|error| format!("the key is revoked, but its tokens could not be counted: {error}"))?;
                Ok(format!(
                    "Access tokens that were still good and are refused now: {sessions} of people's sessions, {services} of \
                     services.\n"
                ))
            }
            RevokeOutcome::Not(NotRevoked::Unknown) => Err(format!("there is no key {kid}").into()),
            RevokeOutcome::Not(NotRevoked::Gone) => Err(format!("{kid} is removed already").into()),
            RevokeOutcome::Not(NotRevoked::Edge) => Err(format!(
                "{kid} is an edge key: nobody can forge a token with it, and without it everybody whose token it \
                 tagged would have to sign in again; run: mayfly keys rotate --edge"
            )
            .into()),
        },
    }
}

fn table(keys: &[KeyStanding]) -> String {
    let mut text = format!(
        "{:<43}  {:<7}  {:<5}  {:<7}  {:<20}  dates\n",
        "key", "purpose", "alg", "state", "made"
    );
    for standing in keys {
        let key = &standing.key;
        let dates = [
            ("used from", standing.used_from),
            ("used since", key.activated_at),
            ("retired", key.retired_at),
            ("goes", standing.goes_at),
            ("removed", key.removed_at),
        ];
        let dates: Vec<String> = dates
            .into_iter()
            .filter_map(|(name, at)| Some(format!("{name} {}", shown(at?))))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<43}  {:<7}  {:<5}  {:<7}  {:<20}  {}",
            key.id,
            key.purpose.as_str(),
            key.algorithm.as_str(),
            key.state.as_str(),
            shown(key.created_at),
            dates.join(", ")
        );
    }
    text
}

/// In UTC, to the second.
pub(super) fn shown(at: Timestamp) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    OffsetDateTime::from_unix_timestamp(at.as_seconds())
        .ok()
        .and_then(|at| at.format(&format).ok())
        .unwrap_or_else(|| format!("{} s", at.as_seconds()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(reason(" laptop lost "), Ok("laptop lost".to_owned()));
        for wrong in ["", "  ", "a\nb", "a\u{1b}[2Jb", &"x".repeat(LONGEST_REASON + 1)] {
            assert!(reason(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn dates_are_shown_in_utc_and_impossible_ones_as_they_are() {
        assert_eq!(shown(Timestamp::from_seconds(1_795_251_600)), "2026-11-21T09:00:00Z");
        assert_eq!(
            shown(Timestamp::from_millis(i64::MAX)),
            format!("{} s", i64::MAX / 1000)
        );
    }
}
