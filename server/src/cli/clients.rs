//! `mayfly clients`: other software that gets tokens in its own name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use secrecy::ExposeSecret;

use super::CliError;
use super::keys::shown;
use crate::domain::backchannel_logout::{LogoutReceiver, LogoutUri};
use crate::domain::client::{ClientId, ClientName, PublicKey, Scopes, check_access, parse_public_keys};
use crate::services::Backend;
use crate::services::oauth::{AddClientOutcome, NewClient};

#[derive(Debug, Subcommand)]
pub(super) enum ClientsCommand {
    /// Add one; prints its id and, without a public key, its secret, once.
    Add {
        /// What people call it.
        #[arg(long)]
        name: String,
        /// What its tokens may be for; may be given several times.
        #[arg(long = "scope")]
        scopes: Vec<String>,
        /// Its public keys for `private_key_jwt`: a JWK, a JWK set or a PEM file, P-256 or Ed25519.
        #[arg(long)]
        public_key: Option<PathBuf>,
        /// Life of its access tokens, 60 to 600.
        #[arg(long, default_value_t = 300)]
        lifetime_seconds: u64,
        /// It may ask whether other tokens are good (RFC 7662).
        #[arg(long)]
        may_introspect: bool,
        /// Where it is told of every ended session (OpenID Connect Back-Channel Logout 1.0).
        #[arg(long)]
        backchannel_logout_uri: Option<String>,
    },
    /// Have one be told of ended sessions at another address, from where it was left off.
    LogoutUri {
        /// Its id, as `list` shows it.
        client_id: String,
        /// The address, or `none`: it is told nothing any more.
        uri: String,
    },
    /// List them.
    List,
    /// Disable one for good: its tokens are refused from now on.
    Disable {
        /// Its id, as `list` shows it.
        client_id: String,
    },
}

pub(super) async fn execute(command: ClientsCommand, backend: &Backend) -> Result<(), CliError> {
    match command {
        ClientsCommand::Add {
            name,
            scopes,
            public_key,
            lifetime_seconds,
            may_introspect,
            backchannel_logout_uri,
        } => {
            let new = NewClient {
                name: ClientName::parse(&name)?,
                scopes: Scopes::parse(&scopes.join(" "))?,
                keys: public_key.as_deref().map(read_keys).transpose()?,
                access: check_access(Duration::from_secs(lifetime_seconds))?,
                may_introspect,
                logout_uri: backchannel_logout_uri.as_deref().map(LogoutUri::parse).transpose()?,
            };
            if new.scopes.is_empty() && !may_introspect && new.logout_uri.is_none() {
                return Err(
                    "a client without --scope, --may-introspect and --backchannel-logout-uri could do nothing".into(),
                );
            }
            match backend.add_client(new).await? {
                AddClientOutcome::Added(added) => {
                    println!("client_id: {}", added.id);
                    if let Some(secret) = added.secret {
                        println!("client_secret: {}", secret.expose_secret());
                        println!("Keep the secret now: it is not stored and is never shown again.");
                    }
                }
                AddClientOutcome::NameTaken => return Err("another client has that name".into()),
            }
        }
        ClientsCommand::List => {
            let receivers = backend.list_logout_receivers().await?;
            for client in backend.list_clients().await? {
                println!(
                    "{}  {:8}  {:15}  {:3} s  {}  {:?}  scopes: {}",
                    client.id,
                    client.status.as_str(),
                    client.authentication.as_str(),
                    client.access.as_secs(),
                    if client.may_introspect { "may introspect" } else { "-" },
                    client.name.as_str(),
                    client.scopes,
                );
                if let Some(receiver) = receivers.iter().find(|receiver| receiver.client == client.id) {
                    println!("    {}", told(receiver));
                }
            }
        }
        ClientsCommand::LogoutUri { client_id, uri } => {
            let id = parsed(&client_id)?;
            let uri = (uri != "none").then(|| LogoutUri::parse(&uri)).transpose()?;
            if !backend.set_logout_uri(&id, uri.as_ref()).await? {
                return Err("there is no active client of that id".into());
            }
            match uri {
                Some(uri) => println!("{id} is told of ended sessions at {uri}."),
                None => println!("{id} is told of no ended sessions any more."),
            }
        }
        ClientsCommand::Disable { client_id } => {
            let id = parsed(&client_id)?;
            if !backend.disable_client(&id).await? {
                return Err("there is no active client of that id".into());
            }
            println!("{id} gets no more tokens, and those it has are refused.");
        }
    }
    Ok(())
}

fn parsed(id: &str) -> Result<ClientId, &'static str> {
    ClientId::parse(id).ok_or("this is no client id; `mayfly clients list` shows them")
}

/// Where a service is told of ended sessions, and how it is doing.
fn told(receiver: &LogoutReceiver) -> String {
    match &receiver.outage {
        None => format!("logouts to {}", receiver.uri.as_str()),
        Some(outage) => format!(
            "logouts to {}: away since {}, {} tries, the last: {}",
            receiver.uri.as_str(),
            shown(outage.since),
            outage.tries,
            outage.failure
        ),
    }
}

fn read_keys(path: &Path) -> Result<Vec<PublicKey>, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the public key {} cannot be read: {error}", path.display()))?;
    Ok(parse_public_keys(&text)?)
}
