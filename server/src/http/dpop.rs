//! Proofs of possession at the edge (RFC 9449): the one header of a request, and the answers to those that prove nothing.
//!
//! Must not know what is bound to which key.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::AppState;
use super::oauth::OAuthError;
use super::refusal::Refusal as Problem;
use crate::domain::audit::Circumstances;
use crate::domain::dpop::{ALGORITHMS, Proof, Refusal, check_binding};
use crate::domain::session::Client;
use crate::domain::sign_in::Flow;
use crate::http::client::ClientAddress;
use crate::services::ServiceError;
use crate::services::dpop::Unproven;
use crate::services::sign_in::Caller;
use crate::services::tokens::RefreshOutcome;

const DPOP: HeaderName = HeaderName::from_static("dpop");
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The one proof of a request, checked but not used up; none without the header (section 4.3, number 1).
///
/// # Errors
/// The first [`Refusal`] met.
pub fn read(
    state: &AppState,
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    token: Option<&str>,
) -> Result<Option<Proof>, Refusal> {
    let mut values = headers.get_all(DPOP).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::Doubled);
    }
    let proof = value.to_str().map_err(|_| Refusal::Form)?;
    state.backend.verify_dpop(proof, method.as_str(), path, token).map(Some)
}

/// The request tries to prove something.
#[must_use]
pub fn is_shown(headers: &HeaderMap) -> bool {
    headers.contains_key(DPOP)
}

/// Refreshes for a program.
///
/// # Errors
/// Infrastructure only; nothing was changed then, and the program may try again with another proof.
pub async fn refresh(
    state: &AppState,
    headers: &HeaderMap,
    path: &str,
    token: &str,
    from: &Circumstances,
) -> Result<RefreshOutcome, ServiceError> {
    match read(state, headers, &Method::POST, path, None) {
        Ok(None) => state.backend.refresh(token, Client::Native, true, from).await,
        Ok(Some(proof)) => state.backend.refresh_proven(token, &proof, from).await,
        Err(refusal) => Ok(state
            .backend
            .refused_to_refresh(RefreshOutcome::Unproven(refusal.into()))),
    }
}

/// The proof of a program that signs in. A browser's session is bound otherwise, after sign-in ([`super::dbsc`]).
///
/// # Errors
/// 400 for a proof that proves nothing, or that is not of the key that the sign-in in progress began with.
pub async fn read_at_sign_in(
    state: &AppState,
    headers: &HeaderMap,
    path: &str,
    flow: Option<&Flow>,
    caller: &Caller,
) -> Result<Option<Proof>, Problem> {
    if caller.client == Client::Browser {
        return Ok(None);
    }
    let read = read(state, headers, &Method::POST, path, None).and_then(|proof| {
        if let Some(flow) = flow {
            check_binding(flow.key, proof.as_ref().map(|proof| proof.key))?;
        }
        Ok(proof)
    });
    match read {
        Ok(proof) => Ok(proof),
        Err(refusal) => Err(refuse_caller(state, refusal, caller).await),
    }
}

/// Uses up the proof of a sign-in and has the session bound to its key.
///
/// # Errors
/// 400 if it was used before, and faults of ours.
pub async fn bind(state: &AppState, proof: Option<Proof>, caller: &mut Caller) -> Result<(), Problem> {
    let Some(proof) = proof else { return Ok(()) };
    if let Err(refusal) = state.backend.use_up_proof(&proof).await? {
        return Err(refuse_caller(state, refusal, caller).await);
    }
    caller.key = Some(proof.key);
    Ok(())
}

async fn refuse_caller(state: &AppState, refusal: Refusal, caller: &Caller) -> Problem {
    let address = ClientAddress(caller.address);
    refuse(state, refusal.into(), &caller.from, Some(address)).await.into()
}

/// The answer to a good proof says what the next one has to carry (section 8.2).
pub fn renew_nonce(state: &AppState, response: &mut Response) {
    response.headers_mut().insert(DPOP_NONCE, nonce(state));
}

fn nonce(state: &AppState) -> HeaderValue {
    let nonce = state.backend.dpop_nonce();
    // Letters of base64url only.
    HeaderValue::from_str(&nonce).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Somebody who proved nothing, ready to be answered.
#[derive(Debug)]
pub struct Refused {
    refusal: Refusal,
    nonce: HeaderValue,
}

/// Writes it down, unless this network has had its refusals written down often enough for now. That a nonce is missing or
/// too old is how every client begins, and no event.
pub async fn refuse(
    state: &AppState,
    unproven: Unproven,
    from: &Circumstances,
    address: Option<ClientAddress>,
) -> Refused {
    let refusal = unproven.refusal;
    let may_note = || address.is_none_or(|ClientAddress(address)| state.limits.may_note_refusal(address));
    if refusal != Refusal::Nonce && may_note() {
        // A refusal stays one even if it cannot be written down.
        if let Err(error) = state.backend.record_unproven(&unproven, from).await {
            tracing::error!(%error, %refusal, "a refusal could not be written down");
        }
    }
    Refused {
        refusal,
        nonce: nonce(state),
    }
}

impl Refused {
    const fn code(&self) -> &'static str {
        match self.refusal {
            Refusal::Nonce => "use_dpop_nonce",
            _ => "invalid_dpop_proof",
        }
    }

    const fn description(&self) -> &'static str {
        match self.refusal {
            Refusal::Nonce => "A proof of possession has to carry the nonce in DPoP-Nonce.",
            Refusal::Missing => "This is bound to a key: the header DPoP has to prove that the sender holds it.",
            Refusal::OtherKey => "This is bound to another key.",
            Refusal::NotBound => "This is bound to no key.",
            Refusal::Replayed => "This proof of possession was used before.",
            _ => "The proof of possession is not good for this request.",
        }
    }

    /// 401 with a challenge, for requests with an access token (section 7.1).
    #[must_use]
    pub fn challenge(self) -> Problem {
        let error = match self.refusal {
            // The token is not what the request takes it for, whatever the proof may be.
            Refusal::Missing | Refusal::OtherKey | Refusal::NotBound => "invalid_token",
            _ => self.code(),
        };
        let refused = Problem::new(StatusCode::UNAUTHORIZED, error, self.description())
            .with_header("www-authenticate", &challenge(error));
        self.with_nonce(refused)
    }

    fn with_nonce(&self, problem: Problem) -> Problem {
        match self.nonce.to_str() {
            Ok(nonce) if self.refusal == Refusal::Nonce => problem.with_header("dpop-nonce", nonce),
            _ => problem,
        }
    }
}

/// A challenge of the scheme.
#[must_use]
pub fn challenge(error: &str) -> String {
    format!("DPoP error=\"{error}\", algs=\"{}\"", ALGORITHMS.join(" "))
}

impl From<Refused> for Problem {
    /// 400, where tokens are given out.
    fn from(refused: Refused) -> Self {
        refused.with_nonce(Self::new(
            StatusCode::BAD_REQUEST,
            refused.code(),
            refused.description(),
        ))
    }
}

impl From<Refused> for OAuthError {
    /// 400, at the token endpoint (sections 5 and 8).
    fn from(refused: Refused) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, refused.code(), refused.description());
        if refused.refusal == Refusal::Nonce {
            error.with_header(DPOP_NONCE, refused.nonce)
        } else {
            error
        }
    }
}
