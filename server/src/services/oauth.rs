//! Other software and its tokens: who a client is, what it gets, what it may ask about (OAuth 2.0).
//!
//! Must not know how parameters arrive, nor in which words a refusal is answered.

mod introspection;
mod registry;
mod revocation;
mod service_tokens;

use secrecy::{ExposeSecret, SecretString};

use super::{Backend, ServiceError, sha256};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::client::{Authentication, ClientId, ClientStatus, ServiceClient};
use crate::domain::jwt::{Assertion, ExpectedAssertion, Proven};
use crate::storage::clients;

pub use introspection::Introspection;
pub use registry::{AddClientOutcome, AddedClient, NewClient};
pub use revocation::RevokeOutcome;
pub use service_tokens::{IssueOutcome, IssuedService, ServiceOutcome};

/// Path of the token endpoint, below the issuer: what assertions may name as their audience.
pub const TOKEN_PATH: &str = "/oauth/token";

/// What a client shows to prove who it is.
pub enum ClientProof {
    /// Its id and secret.
    Secret {
        /// Who it says it is.
        client_id: String,
        /// Secret, still in clear.
        secret: SecretString,
    },
    /// A signed assertion (RFC 7523).
    Assertion {
        /// The parameter `client_id`, if it was sent: has to be the assertion's own.
        client_id: Option<String>,
        /// The token.
        assertion: SecretString,
    },
}

/// A client that has proved itself, or would have if its assertion is used for the first time.
pub(super) struct Claimant {
    client: ServiceClient,
    proven: Option<Proven>,
}

impl Backend {
    /// Who proves itself here. `None`: nobody; that was written down.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn authenticate_client(
        &self,
        proof: &ClientProof,
        from: &Circumstances,
    ) -> Result<Option<ServiceClient>, ServiceError> {
        let Some(Claimant { client, proven }) = self.check_proof(proof, from).await? else {
            return Ok(None);
        };
        if let Some(proven) = proven {
            let mut tx = self.store.write().await?;
            if !clients::consume_assertion(&mut tx, &client.id, &proven).await? {
                drop(tx);
                self.refuse_client::<()>(Some(&client.id), "assertion_replayed", from)
                    .await?;
                return Ok(None);
            }
            tx.commit().await?;
        }
        Ok(Some(client))
    }

    /// Checks a proof but for the one use of its assertion, which belongs into the transaction of the act itself.
    async fn check_proof(&self, proof: &ClientProof, from: &Circumstances) -> Result<Option<Claimant>, ServiceError> {
        let assertion = match proof {
            ClientProof::Secret { .. } => None,
            ClientProof::Assertion { assertion, .. } => match Assertion::parse(assertion.expose_secret()) {
                Ok(assertion) => Some(assertion),
                Err(refusal) => return self.refuse_client(None, refusal.as_str(), from).await,
            },
        };
        let claimed = match (proof, &assertion) {
            (ClientProof::Assertion { client_id, .. }, Some(assertion)) => assertion
                .claimed_client()
                .filter(|id| client_id.as_ref().is_none_or(|name| name == id.as_str())),
            (ClientProof::Secret { client_id, .. }, _) => ClientId::parse(client_id),
            (ClientProof::Assertion { .. }, None) => None,
        };
        let Some(id) = claimed else {
            return self.refuse_client(None, "client_unknown", from).await;
        };
        let mut tx = self.store.read().await?;
        let found = clients::find_client(&mut tx, &id).await?;
        drop(tx);
        let Some(client) = found else {
            return self.refuse_client(Some(&id), "client_unknown", from).await;
        };
        let checked = match (proof, assertion, &client.authentication) {
            (ClientProof::Secret { secret, .. }, _, authentication @ Authentication::Secret(_)) => {
                let hash = sha256(secret.expose_secret().as_bytes());
                if authentication.is_secret(&hash) {
                    Ok(None)
                } else {
                    Err("wrong_secret")
                }
            }
            (_, Some(assertion), Authentication::Keys(keys)) => {
                let token_endpoint = format!("{}{TOKEN_PATH}", self.issuer);
                let expected = ExpectedAssertion {
                    audiences: [&self.issuer, &token_endpoint],
                    tolerance: self.verifier.tolerance,
                };
                match assertion.verify(&client.id, keys, expected, self.now()) {
                    Ok(proven) => Ok(Some(proven)),
                    Err(refusal) => Err(refusal.as_str()),
                }
            }
            // Only the method it was registered with (RFC 9700, section 2.5).
            _ => Err("other_method"),
        };
        match checked {
            Ok(_) if client.status != ClientStatus::Active => {
                self.refuse_client(Some(&id), "client_disabled", from).await
            }
            Ok(proven) => Ok(Some(Claimant { client, proven })),
            Err(reason) => self.refuse_client(Some(&id), reason, from).await,
        }
    }

    /// Writes down that somebody did not prove to be a client. The name is one of ours or left out: what strangers
    /// send does not get into the log.
    async fn refuse_client<T>(
        &self,
        client: Option<&ClientId>,
        reason: &'static str,
        from: &Circumstances,
    ) -> Result<Option<T>, ServiceError> {
        let mut event = self
            .event(Kind::ClientAuthenticationFailed, from)
            .outcome(Outcome::Denied)
            .reason(reason);
        if let Some(id) = client {
            event = event.fact("client_id", id.as_str());
        }
        self.record(event).await?;
        Ok(None)
    }

    /// Forgets assertions that nobody accepts any more. How many.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn forget_old_assertions(&self) -> Result<u64, ServiceError> {
        let mut tx = self.store.write().await?;
        let gone = clients::delete_expired_assertions(&mut tx, self.now(), 1000).await?;
        tx.commit().await?;
        Ok(gone)
    }
}
