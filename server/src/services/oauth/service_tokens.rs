//! Access tokens of services: issued to a client that proved itself (RFC 6749, section 4.4), checked at the doors that
//! only services may pass.

use secrecy::SecretString;

use super::{ClientProof, RefusedClient};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::client::{ClientId, ClientStatus, Scopes, ServiceClient};
use crate::domain::clock::Timestamp;
use crate::domain::id::TokenId;
use crate::domain::jwt::{Refusal, ServiceClaims, TokenKind, key_id, sign_service};
use crate::services::{Backend, ServiceError};
use crate::storage::{audit, clients};

/// A token for a service. There is no refresh token: the client can always ask again (RFC 6749, section 4.4.3).
#[derive(Debug)]
pub struct IssuedService {
    /// The token.
    pub access: SecretString,
    /// What it is for.
    pub scopes: Scopes,
    /// Its `exp`.
    pub expires_at: Timestamp,
}

/// What came of a client's request for a token.
#[derive(Debug)]
pub enum IssueOutcome {
    /// It got one.
    Issued(Box<IssuedService>),
    /// It did not prove who it is.
    NotAuthenticated(RefusedClient),
    /// It asked for what it may not have, or may have nothing; written down.
    ScopeRefused,
}

/// A client at a door of ours.
#[derive(Debug)]
pub struct Admitted {
    /// Who.
    pub client: ServiceClient,
    /// The token that it showed.
    pub token: TokenId,
    /// The `kid` of the key that signed it.
    pub key: String,
}

/// What came of a service's token at a door of ours.
#[derive(Debug)]
pub enum ServiceOutcome {
    /// The client may pass.
    Valid(Box<Admitted>),
    /// It is no service's token of ours, or not for now; a person's token is none.
    Refused(Refusal),
    /// The client was disabled, or this token was given back.
    Revoked,
    /// A good token, but not for this; written down.
    ScopeMissing,
}

impl Backend {
    /// Issues an access token to the client that proves itself: for these scopes, or for all it may have. `may_ask` is asked
    /// once its secret or signature is known to be right, so that nobody else can use up what it may ask for; what it says
    /// against it is inside.
    ///
    /// # Errors
    /// Infrastructure; the proof is not used up then. An event may be there of a token that nobody was given.
    pub async fn issue_service_token<E: Send>(
        &self,
        proof: &ClientProof,
        requested: Option<&Scopes>,
        from: &Circumstances,
        may_ask: impl FnOnce(&ClientId) -> Result<(), E> + Send,
    ) -> Result<Result<IssueOutcome, E>, ServiceError> {
        let claimant = match self.check_proof(proof).await? {
            Ok(claimant) => claimant,
            Err(refused) => return Ok(Ok(IssueOutcome::NotAuthenticated(refused))),
        };
        let client = &claimant.client;
        if let Err(refused) = may_ask(&client.id) {
            return Ok(Err(refused));
        }
        let scopes = requested.unwrap_or(&client.scopes).clone();
        let granted = !scopes.is_empty() && scopes.is_within(&client.scopes);
        // Signed before it is this act's turn to write: writers stand in line.
        let (event, issued) = if granted {
            let now = self.now();
            let claims = ServiceClaims {
                iss: self.issuer.clone(),
                aud: self.audience.clone(),
                client_id: client.id.clone(),
                scope: scopes.clone(),
                jti: TokenId::new(now, self.random()),
                iat: now.as_seconds(),
                nbf: now.as_seconds(),
                exp: now.plus(client.access).as_seconds(),
            };
            let event = self
                .event(Kind::ServiceTokenIssued, from)
                .fact("client_id", client.id.as_str())
                .fact("scope", scopes.to_string())
                .fact("jti", claims.jti.to_string())
                .fact("lifetime_s", client.access.as_secs());
            let issued = IssuedService {
                access: sign_service(&self.keys(), &claims)?,
                scopes,
                expires_at: Timestamp::from_seconds(claims.exp),
            };
            (event, Some(issued))
        } else {
            let event = self
                .event(Kind::AccessDenied, from)
                .outcome(Outcome::Denied)
                .reason("scope_not_granted")
                .fact("client_id", client.id.as_str());
            (event, None)
        };
        if claimant.proven.is_none() {
            self.record(event).await?;
        } else {
            let mut tx = self.store.write().await?;
            if let Err(refused) = claimant.consume(&mut tx).await? {
                return Ok(Ok(IssueOutcome::NotAuthenticated(refused)));
            }
            audit::append_events(&mut tx, &[event]).await?;
            tx.commit().await?;
        }
        Ok(Ok(issued.map_or(IssueOutcome::ScopeRefused, |issued| {
            IssueOutcome::Issued(Box::new(issued))
        })))
    }

    /// Checks a service's token completely, the client's own state included, for a door that asks for this scope.
    ///
    /// # Errors
    /// When the state cannot be had: then nobody may accept the token.
    pub async fn authenticate_service(
        &self,
        token: &str,
        scope: &str,
        from: &Circumstances,
    ) -> Result<ServiceOutcome, ServiceError> {
        let moment = self.moment();
        let claims = match self
            .verify(|keys| self.verifier.verify_service(keys, token, moment))
            .await?
        {
            Ok(claims) => claims,
            Err(refusal) => return Ok(ServiceOutcome::Refused(refusal)),
        };
        let Some(client) = self.find_active_client(&claims).await? else {
            return Ok(ServiceOutcome::Revoked);
        };
        if !claims.scope.contains(scope) {
            let event = self
                .event(Kind::AccessDenied, from)
                .outcome(Outcome::Denied)
                .reason("scope_missing")
                .fact("client_id", client.id.as_str())
                .fact("scope", scope);
            self.record(event).await?;
            return Ok(ServiceOutcome::ScopeMissing);
        }
        let key = match key_id(token, TokenKind::Access) {
            Ok(key) => key,
            Err(refusal) => return Ok(ServiceOutcome::Refused(refusal)),
        };
        let token = claims.jti;
        Ok(ServiceOutcome::Valid(Box::new(Admitted { client, token, key })))
    }

    /// Writes down that a service's token, good as it is, was shown where only people may pass.
    pub(in crate::services) async fn record_service_at_persons_door(
        &self,
        token: &str,
        from: &Circumstances,
    ) -> Result<(), ServiceError> {
        let moment = self.moment();
        let Ok(claims) = self
            .verify(|keys| self.verifier.verify_service(keys, token, moment))
            .await?
        else {
            return Ok(());
        };
        let event = self
            .event(Kind::AccessDenied, from)
            .outcome(Outcome::Denied)
            .reason("service_token")
            .fact("client_id", claims.client_id.as_str());
        self.record(event).await
    }

    /// The client of a verified token, if it still gets tokens and this one was not revoked by itself.
    pub(super) async fn find_active_client(
        &self,
        claims: &ServiceClaims,
    ) -> Result<Option<ServiceClient>, ServiceError> {
        if self.is_token_revoked(claims.jti).await? {
            return Ok(None);
        }
        let client = clients::find_client(&self.store, claims.client_id.clone()).await?;
        Ok(client.filter(|client| client.status == ClientStatus::Active))
    }
}
