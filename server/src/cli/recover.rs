//! `mayfly recover`: what to run after a backup was restored, before anybody is served again.

use std::fmt::Write as _;
use std::path::Path;

use super::CliError;
use super::keys::shown;
use crate::services::Backend;
use crate::services::recovery::Recovery;

/// What to print.
pub(super) async fn execute(backend: &Backend, checkpoint: &Path) -> Result<String, CliError> {
    Ok(said(&backend.recover(checkpoint).await?))
}

fn said(done: &Recovery) -> String {
    let last = done
        .last_written
        .map_or_else(|| "never".to_owned(), |at| format!("at {}", shown(at)));
    let mut text = format!("Recovered. This database was last written {last}; what happened later is lost.\n");
    // Writing to a String cannot fail.
    if let Some(events) = done.lost_events {
        let _ = writeln!(
            text,
            "  {events} sealed events are missing at the end of the audit log; it says so now"
        );
    }
    for (count, what) in [
        (
            done.sessions,
            "sessions ended; whoever was signed in signs in again and is told why",
        ),
        (
            done.keys,
            "signing keys removed; every access token there is will be refused",
        ),
        (done.flows, "sign-ins under way and form tokens forgotten"),
        (done.links, "unused links made void; invite again"),
        (
            done.devices,
            "devices no longer trusted; they are asked for the second factor",
        ),
    ] {
        let _ = writeln!(text, "  {count} {what}");
    }
    text.push_str(
        "Nobody can know what was changed since. Do these again: passwords that were changed, people and clients that \
         were\ndisabled, roles that were taken away, limits that were tightened, recovery codes that were used or \
         renewed.\nIf a server was running on this database, restart it.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_database_is_recovered_in_words_too() {
        let nothing = Recovery {
            last_written: None,
            lost_events: None,
            sessions: 0,
            people: 0,
            flows: 0,
            links: 0,
            devices: 0,
            keys: 1,
        };
        let text = said(&nothing);
        assert!(
            text.starts_with("Recovered. This database was last written never;"),
            "{text}"
        );
        assert!(
            !text.contains("missing") && text.contains("  0 sessions ended"),
            "{text}"
        );
        assert!(
            said(&Recovery {
                lost_events: Some(3),
                ..nothing
            })
            .contains("3 sealed events are missing")
        );
    }
}
