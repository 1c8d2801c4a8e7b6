//! The one way in which this server asks others anything: a form, over TLS or on this machine.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret as _, SecretString};

use crate::domain::backchannel_logout::{Answer, LogoutUri};

/// The longest wait for an answer, of it for the connection.
const PATIENCE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(3)];
/// A connection that nothing was said on is closed after so long.
const QUIET: Duration = Duration::from_secs(30);
/// Of an answer's body so much is read, so that its connection can be used again.
const MOST_BYTES: usize = 4096;

/// Delivers logout tokens. Made when first used: a server without services to tell needs no list of certificate
/// authorities.
#[derive(Debug, Default)]
pub(in crate::services) struct Messenger(Mutex<Option<Client>>);

impl Messenger {
    /// The machine's own certificate authorities (`SSL_CERT_FILE` names others); no proxy, no redirects.
    fn client(&self) -> Result<Client, reqwest::Error> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*kept {
            return Ok(client.clone());
        }
        let client = Client::builder()
            .user_agent("mayfly")
            .no_proxy()
            .redirect(Policy::none())
            .timeout(PATIENCE[0])
            .connect_timeout(PATIENCE[1])
            .pool_idle_timeout(QUIET)
            .build()?;
        Ok(kept.insert(client).clone())
    }

    /// Delivers one (OpenID Connect Back-Channel Logout 1.0, section 2.5).
    pub(super) async fn tell(&self, uri: &LogoutUri, token: &SecretString) -> Answer {
        self.post(uri, token)
            .await
            .unwrap_or_else(|error| Answer::Away(in_words(&error)))
    }

    async fn post(&self, uri: &LogoutUri, token: &SecretString) -> Result<Answer, reqwest::Error> {
        let form = [("logout_token", token.expose_secret())];
        let mut response = self.client()?.post(uri.as_str()).form(&form).send().await?;
        let answer = Answer::of(response.status().as_u16());
        let mut read = 0;
        // The status says it all; what cannot be read of the rest changes nothing.
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > MOST_BYTES {
                break;
            }
        }
        Ok(answer)
    }
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
