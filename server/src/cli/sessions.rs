//! `mayfly sessions`: ending many at once. Serving nodes hear of it by themselves.

use std::net::IpAddr;
use std::sync::mpsc;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::CliError;
use super::keys::reason;
use crate::domain::audit::Circumstances;
use crate::domain::cohort::Cohort;
use crate::services::Backend;
use crate::services::keys::Order;

#[derive(Debug, Subcommand)]
pub(super) enum SessionsCommand {
    /// End many at once. If it is interrupted, the same command ends the rest; who signs in meanwhile stays signed in.
    ///
    /// For a signing key that somebody may have there is `mayfly keys revoke`: it refuses what the key signed, and
    /// sessions go on.
    End {
        #[command(flatten)]
        which: Which,
        /// Why, for the audit log.
        #[arg(long, value_parser = reason)]
        reason: Option<String>,
    },
}

/// Exactly one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// Those of one person: sign-in name or e-mail address.
    #[arg(long)]
    user: Option<String>,
    /// Those that began from an address in this network, such as 192.0.2.0/24.
    #[arg(long, value_parser = network)]
    network: Option<IpNet>,
    /// Everybody's.
    #[arg(long)]
    all: bool,
}

fn network(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| one())
        .map_err(|_| "an address or a network in CIDR notation is wanted, such as 192.0.2.0/24".to_owned())
}

/// Says how it goes on.
pub(super) async fn execute(command: SessionsCommand, backend: &Backend) -> Result<(), CliError> {
    let SessionsCommand::End { which, reason } = command;
    let cohort = match (which.user, which.network) {
        (Some(name), _) => match backend.find_user_by_name(&name).await? {
            Some(user) => Cohort::Person(user.id),
            None => return Err(format!("there is nobody called {name}").into()),
        },
        (None, Some(network)) => Cohort::Network(network),
        (None, None) => Cohort::Everybody,
    };
    let order = Order {
        from: Circumstances::default(),
        by: "command_line",
        note: reason.as_deref(),
    };
    // Said by a thread of its own: a terminal that is held up must not hold up a transaction.
    let (tell, told) = mpsc::channel();
    let saying = std::thread::spawn(move || {
        for (ended, found) in told {
            println!("{ended} of {found} sessions ended");
        }
    });
    let mut said = 0;
    let progress = |ended: usize, found: usize| {
        // Twenty lines are enough for any number.
        if ended - said >= found / 20 {
            said = ended;
            tell.send((ended, found)).ok();
        }
    };
    let ended = backend.end_cohort(&cohort, &order, progress).await;
    drop(tell);
    drop(saying.join());
    let ended = ended?;
    println!("Done: {ended} sessions ended; nobody can use their tokens any more.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f59_a_network_is_one_or_a_single_address() {
        assert_eq!(network("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        for wrong in ["", "192.0.2", "192.0.2.0/33", "example.org", "0"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }
}
