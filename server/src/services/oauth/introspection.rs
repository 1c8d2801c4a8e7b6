//! Whether a token is good right now (RFC 7662), for services that cannot or would not verify it themselves.

use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::client::ServiceClient;
use crate::domain::jwt::{AccessClaims, EitherClaims, ServiceClaims};
use crate::services::dbsc::Sender;
use crate::services::tokens::AccessOutcome;
use crate::services::{Backend, ServiceError};

/// What a service hears about a token.
#[derive(Debug)]
pub enum Introspection {
    /// A person's access token, fully valid: its session lives.
    Person(Box<AccessClaims>),
    /// A service's access token, fully valid: its client is active.
    Service(Box<ServiceClaims>),
    /// Everything else: refresh tokens, too, which are nobody's business but their holder's.
    Inactive,
    /// The caller may not ask; written down.
    NotAllowed,
}

impl Backend {
    /// Looks at an access token as it would be looked at on any request, the session's state included.
    ///
    /// The service shows what the person's client sent it, so the generation counts as arrived; it is no activity of
    /// the person's, and no idle limit begins anew.
    ///
    /// # Errors
    /// When the state cannot be had: then nobody may accept the token.
    pub async fn introspect(
        &self,
        caller: &ServiceClient,
        token: &str,
        from: &Circumstances,
    ) -> Result<Introspection, ServiceError> {
        if !caller.may_introspect {
            let event = self
                .event(Kind::AccessDenied, from)
                .outcome(Outcome::Denied)
                .reason("introspection_not_granted")
                .fact("client_id", caller.id.as_str());
            self.record(event).await?;
            return Ok(Introspection::NotAllowed);
        }
        let moment = self.moment();
        let verified = self.verify(|keys| self.verifier.verify_either(keys, token, moment));
        match verified.await? {
            Ok(EitherClaims::Person(claims)) => {
                if let AccessOutcome::Valid(_) = self.authenticate_claims(&claims, Sender::Service, false, from).await?
                {
                    return Ok(Introspection::Person(Box::new(claims)));
                }
            }
            Ok(EitherClaims::Service(claims)) => {
                if self.find_active_client(&claims).await?.is_some() {
                    return Ok(Introspection::Service(Box::new(claims)));
                }
            }
            Err(_) => {}
        }
        Ok(Introspection::Inactive)
    }
}
