//! `mayfly recover`: what to run after a backup was restored, before anybody is served again.

use std::fmt::Write as _;
use std::path::Path;

use super::CliError;
use super::keys::shown;
use crate::services::Backend;
use crate::services::audit_checkpoint::LogEnd;
use crate::services::recovery::Recovery;
use crate::storage::Tx;

/// What to print.
pub(super) async fn execute(backend: &Backend, tx: Tx, checkpoint: &Path) -> Result<String, CliError> {
    Ok(said(&backend.recover(tx, checkpoint).await?))
}

fn said(done: &Recovery) -> String {
    let last = done
        .last_written
        .map_or_else(|| "never".to_owned(), |at| format!("at {}", shown(at)));
    let mut text = format!("Recovered. This database was last written {last}; what happened later is lost.\n");
    // Writing to a String cannot fail.
    let log = match done.log {
        LogEnd::Unknown => "no checkpoint was found: nobody can say what the audit log has lost".to_owned(),
        LogEnd::Whole => "the audit log has all that its checkpoint shows".to_owned(),
        LogEnd::Missing(events) => {
            format!("at least {events} sealed events are missing at the end of the audit log; it says so now")
        }
        LogEnd::Replaced => {
            "events are missing in the audit log, nobody can say how many: others were written since the older copy was \
             put back; it says so now"
                .to_owned()
        }
        LogEnd::CheckpointForged => {
            "the checkpoint of the audit log was altered or belongs to another key; the log says so now".to_owned()
        }
    };
    let _ = writeln!(text, "  {log}");
    if let Some(aside) = &done.put_aside {
        let _ = writeln!(text, "  the old checkpoint is kept as {}", aside.display());
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
         renewed.\nServices that keep sessions of their own have to drop those that are younger than the copy: their ends \
         cannot be told.\nMove `audit-checkpoint` away in the data folders of further nodes, or each goes on speaking against the log.\n\
         If a server was running on this database, restart it.\n",
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
            log: LogEnd::Unknown,
            put_aside: None,
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
                log: LogEnd::Missing(3),
                ..nothing
            })
            .contains("3 sealed events are missing")
        );
    }
}
