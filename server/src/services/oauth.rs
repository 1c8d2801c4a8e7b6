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
use crate::storage::{Tx, clients};

pub use introspection::Introspection;
pub use registry::{AddClientOutcome, AddedClient, NewClient};
pub use revocation::RevokeOutcome;
pub use service_tokens::{Admitted, IssueOutcome, IssuedService, ServiceOutcome};

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

impl ClientProof {
    /// Who it says it is, which proves nothing.
    #[must_use]
    pub fn claimed_client(&self) -> Option<ClientId> {
        match self {
            Self::Secret { client_id, .. } => ClientId::parse(client_id),
            Self::Assertion { client_id, assertion } => Assertion::parse(assertion.expose_secret())
                .ok()?
                .claimed_client()
                .filter(|id| client_id.as_ref().is_none_or(|name| name == id.as_str())),
        }
    }
}

/// Somebody who did not prove to be a client; to be written down with [`Backend::record_refused_client`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedClient {
    /// Who it said it was, in our own form of an id: whatever else strangers send does not get into the log.
    pub claimed: Option<ClientId>,
    /// Closed reason code.
    pub reason: &'static str,
}

/// A client that has proved itself, if its assertion is used for the first time.
struct Claimant {
    client: ServiceClient,
    proven: Option<Proven>,
}

impl Claimant {
    /// Uses up the assertion, if it was one.
    async fn consume(self, tx: &mut Tx) -> Result<Result<ServiceClient, RefusedClient>, ServiceError> {
        let Self { client, proven } = self;
        if let Some(proven) = proven
            && !clients::consume_assertion(tx, &client.id, &proven).await?
        {
            return Ok(Err(RefusedClient {
                claimed: Some(client.id),
                reason: "assertion_replayed",
            }));
        }
        Ok(Ok(client))
    }
}

impl Backend {
    /// Who proves itself here, or why nobody does.
    ///
    /// # Errors
    /// Infrastructure; the proof is not used up then.
    pub async fn authenticate_client(
        &self,
        proof: &ClientProof,
    ) -> Result<Result<ServiceClient, RefusedClient>, ServiceError> {
        let claimant = match self.check_proof(proof).await? {
            Ok(claimant) => claimant,
            Err(refused) => return Ok(Err(refused)),
        };
        if claimant.proven.is_none() {
            return Ok(Ok(claimant.client));
        }
        let mut tx = self.store.write().await?;
        let used = claimant.consume(&mut tx).await?;
        tx.commit().await?;
        Ok(used)
    }

    /// Checks a proof but for the one use of its assertion, which belongs into the transaction of the act itself.
    async fn check_proof(&self, proof: &ClientProof) -> Result<Result<Claimant, RefusedClient>, ServiceError> {
        let claimed = proof.claimed_client();
        let refused = |reason| {
            Ok(Err(RefusedClient {
                claimed: claimed.clone(),
                reason,
            }))
        };
        let Some(id) = &claimed else {
            return refused("client_unknown");
        };
        let Some(client) = clients::find_client(&self.store, id.clone()).await? else {
            return refused("client_unknown");
        };
        let proven = match (proof, &client.authentication) {
            (ClientProof::Secret { secret, .. }, authentication @ Authentication::Secret(_)) => {
                if !authentication.is_secret(&sha256(secret.expose_secret().as_bytes())) {
                    return refused("wrong_secret");
                }
                None
            }
            (ClientProof::Assertion { assertion, .. }, Authentication::Keys(keys)) => {
                let token_endpoint = format!("{}{TOKEN_PATH}", self.issuer);
                let expected = ExpectedAssertion {
                    audiences: [&self.issuer, &token_endpoint],
                    tolerance: self.verifier.tolerance,
                };
                let assertion = Assertion::parse(assertion.expose_secret());
                match assertion.and_then(|assertion| assertion.verify(id, keys, expected, self.now())) {
                    Ok(proven) => Some(proven),
                    Err(refusal) => return refused(refusal.as_str()),
                }
            }
            // Only the method it was registered with (RFC 9700, section 2.5).
            _ => return refused("other_method"),
        };
        if client.status != ClientStatus::Active {
            return refused("client_disabled");
        }
        Ok(Ok(Claimant { client, proven }))
    }

    /// Writes down that somebody did not prove to be a client. Apart from the attempt, so that the edge can bound how
    /// many rows one network makes (F71).
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn record_refused_client(
        &self,
        refused: &RefusedClient,
        from: &Circumstances,
    ) -> Result<(), ServiceError> {
        let mut event = self
            .event(Kind::ClientAuthenticationFailed, from)
            .outcome(Outcome::Denied)
            .reason(refused.reason);
        if let Some(id) = &refused.claimed {
            event = event.fact("client_id", id.as_str());
        }
        self.record(event).await
    }
}
