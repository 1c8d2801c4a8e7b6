//! `mayfly mail`: whether mails arrive, and what waits.

use std::fmt::Write as _;

use clap::Subcommand;
use lettre::Address;

use super::CliError;
use super::keys::shown;
use crate::domain::outage::Outage;
use crate::services::Backend;

#[derive(Debug, Subcommand)]
pub(super) enum MailCommand {
    /// Send a mail right now that says only that mails arrive.
    Test {
        /// To whom.
        address: Address,
    },
    /// How many mails wait, since when, and how the mail server is doing.
    Status,
}

/// What it says.
pub(super) async fn execute(command: MailCommand, backend: &Backend) -> Result<String, CliError> {
    match command {
        MailCommand::Test { address } => match backend.send_test_mail(&address).await {
            Ok(()) => Ok(format!("The mail server took a mail to {address}.\n")),
            Err(failure) => Err(format!("not sent: {failure}").into()),
        },
        MailCommand::Status => {
            let status = backend.mail_status().await?;
            let mut said = String::new();
            match (status.waiting, status.oldest) {
                (0, _) | (_, None) => writeln!(said, "No mail waits.")?,
                (waiting, Some(oldest)) => writeln!(said, "{waiting} mails wait, the oldest since {}.", shown(oldest))?,
            }
            if let Some(Outage { since, failure, .. }) = status.outage {
                writeln!(said, "The mail server takes none since {}: {failure}.", shown(since))?;
            }
            if !backend.sends_mails() {
                writeln!(said, "mail.server is not set: no mail is sent.")?;
            }
            Ok(said)
        }
    }
}
