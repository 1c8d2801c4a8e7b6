//! The one way in which this server asks others anything: a form, over TLS or on this machine.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::OnceCell;

use crate::domain::backchannel_logout::{Answer, LogoutUri};

/// The longest wait for an answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
/// Of it, for the connection.
const LONGEST_CONNECT: Duration = Duration::from_secs(3);
/// A connection is used again within a turn only: many servers close theirs after some seconds, and what is sent into
/// one that closes looks like a service that is away.
const QUIET: Duration = Duration::from_secs(1);
/// Of an answer's body so much is read, and for so long, so that its connection can be used again.
const MOST_BYTES: usize = 4096;
const LONGEST_BODY: Duration = Duration::from_millis(200);

/// Delivers logout tokens. Made when first used: only TLS needs the machine's certificate authorities, and a server
/// without services to tell needs nothing.
#[derive(Debug, Default)]
pub(super) struct Messenger {
    /// On this machine.
    plain: OnceCell<Client>,
    over_tls: OnceCell<Client>,
}

impl Messenger {
    /// What to tell a service with. Otherwise what is missing, in a few words.
    pub(super) async fn client(&self, uri: &LogoutUri) -> Result<Client, String> {
        let client = if uri.is_plain() {
            self.plain.get_or_try_init(|| build(for_this_machine)).await
        } else {
            // The machine's own authorities; `SSL_CERT_FILE` names others.
            self.over_tls.get_or_try_init(|| build(|builder| builder)).await
        };
        client.cloned()
    }
}

/// Whatever a resolver thinks of the name, nothing leaves the machine in the clear.
fn for_this_machine(builder: ClientBuilder) -> ClientBuilder {
    let here = [
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    ];
    builder.tls_certs_only([]).resolve_to_addrs("localhost", &here)
}

/// Without proxies and redirects. Reading the authorities takes a while, so not among other work.
async fn build(change: fn(ClientBuilder) -> ClientBuilder) -> Result<Client, String> {
    let building = tokio::task::spawn_blocking(move || {
        let builder = Client::builder()
            .user_agent("mayfly")
            .no_proxy()
            .redirect(Policy::none())
            .timeout(LONGEST_ANSWER)
            .connect_timeout(LONGEST_CONNECT)
            .pool_idle_timeout(QUIET);
        change(builder).build().map_err(|error| in_words(&error))
    });
    building.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Delivers one (OpenID Connect Back-Channel Logout 1.0, section 2.5).
pub(super) async fn tell(client: &Client, uri: &LogoutUri, token: &SecretString) -> Answer {
    let form = [("logout_token", token.expose_secret())];
    let mut response = match client.post(uri.as_str()).form(&form).send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Answer::Away(in_words(&error)),
        Err(error) => return Answer::NotTaken(in_words(&error)),
    };
    let answer = Answer::of(response.status().as_u16());
    // The status says it all; what cannot be read of the rest changes nothing.
    let rest = async {
        let mut read = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > MOST_BYTES {
                break;
            }
        }
    };
    drop(tokio::time::timeout(LONGEST_BODY, rest).await);
    answer
}

/// What went wrong, down to its cause, without the address.
fn in_words(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    let text = cause.map_or_else(|| "no answer".to_owned(), ToString::to_string);
    text.chars().filter(|char| !char.is_control()).take(200).collect()
}
