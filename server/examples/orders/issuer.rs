//! How the service talks to Mayfly: with `reqwest`, and an access token of its own that it asks for in time
//! (RFC 6749, section 4.4).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use server::domain::clock::{Clock, Timestamp};
use server::verify::{Chunks, Transport, TransportError};
use tokio::sync::Mutex;

/// Far more than a token or the published keys.
const MOST_BYTES: usize = 1024 * 1024;
/// A token is renewed before it ends.
const MARGIN: Duration = Duration::from_secs(10);

/// Mayfly, as the service sees it.
pub struct Issuer {
    url: String,
    client_id: String,
    secret: SecretString,
    http: Client,
    clock: Arc<dyn Clock>,
    /// The service's own access token, and when to ask for the next.
    token: Mutex<Option<(SecretString, Timestamp)>>,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    expires_in: u64,
}

fn failed(error: &reqwest::Error) -> TransportError {
    TransportError::Failed(error.to_string())
}

fn ok(response: Response) -> Result<Response, TransportError> {
    if response.status() == StatusCode::OK {
        Ok(response)
    } else {
        Err(TransportError::Status(response.status().as_u16()))
    }
}

async fn whole(mut response: Response) -> Result<Vec<u8>, TransportError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(TransportError::Failed("the answer is too long".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl Issuer {
    /// `url`: without a slash at the end.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(
        url: String,
        client_id: String,
        secret: SecretString,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, reqwest::Error> {
        let http = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        // Without TLS the machine's certificate authorities need not be there.
        let http = if url.starts_with("http://") {
            http.tls_certs_only([])
        } else {
            http
        };
        let http = http.build()?;
        Ok(Self {
            url,
            client_id,
            secret,
            http,
            clock,
            token: Mutex::default(),
        })
    }

    async fn token(&self) -> Result<SecretString, TransportError> {
        let mut kept = self.token.lock().await;
        if let Some((token, renew_at)) = &*kept
            && self.clock.now() < *renew_at
        {
            return Ok(token.clone());
        }
        let asked_at = self.clock.now();
        let response = self
            .http
            .post(format!("{}/oauth/token", self.url))
            .basic_auth(&self.client_id, Some(self.secret.expose_secret()))
            .form(&[("grant_type", "client_credentials"), ("scope", "revocations")])
            .send()
            .await
            .map_err(|error| failed(&error))?;
        let body = whole(ok(response)?).await?;
        let answer: TokenResponse =
            serde_json::from_slice(&body).map_err(|error| TransportError::Failed(error.to_string()))?;
        let life = Duration::from_secs(answer.expires_in).saturating_sub(MARGIN);
        let token = SecretString::from(answer.access_token);
        *kept = Some((token.clone(), asked_at.plus(life)));
        Ok(token)
    }

    async fn send(&self, path: &str) -> Result<Response, TransportError> {
        let token = self.token().await?;
        let response = self
            .http
            .get(format!("{}{path}", self.url))
            .bearer_auth(token.expose_secret())
            .send()
            .await
            .map_err(|error| failed(&error))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // Ended before its time: the next try asks for another.
            *self.token.lock().await = None;
        }
        ok(response)
    }
}

#[async_trait]
impl Transport for Issuer {
    async fn get(&self, path: &str) -> Result<Vec<u8>, TransportError> {
        whole(self.send(path).await?).await
    }

    async fn open(&self, path: &str) -> Result<Box<dyn Chunks>, TransportError> {
        Ok(Box::new(Stream(self.send(path).await?)))
    }
}

/// An answer that goes on.
struct Stream(Response);

#[async_trait]
impl Chunks for Stream {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, TransportError> {
        let chunk = self.0.chunk().await.map_err(|error| failed(&error))?;
        Ok(chunk.map(|bytes| bytes.to_vec()))
    }
}
