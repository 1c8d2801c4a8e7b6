//! How a client proves itself in a request: by `Authorization: Basic`, by a secret in the form, or by a signed
//! assertion; by one of them only (RFC 6749, section 2.3).

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use data_encoding::BASE64;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::error::OAuthError;
use super::form::Form;
use crate::domain::audit::Circumstances;
use crate::domain::client::ServiceClient;
use crate::http::AppState;
use crate::http::client::ClientAddress;
use crate::http::limits::LimitKind;
use crate::services::oauth::{ClientProof, RefusedClient};

/// Names of the methods (RFC 8414, `token_endpoint_auth_methods_supported`).
pub(super) const METHODS: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
/// RFC 7523, section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What the request shows; nothing, if it does not try.
pub(super) fn client_proof(headers: &HeaderMap, form: &Form) -> Result<Option<ClientProof>, OAuthError> {
    let mut shown = Vec::new();
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    if let Some(value) = authorizations.next() {
        if authorizations.next().is_some() {
            return Err(OAuthError::invalid_request("There are two Authorization headers."));
        }
        let proof = basic(value).ok_or_else(|| OAuthError::invalid_client("Authorization must be Basic here."))?;
        if let ClientProof::Secret { client_id, .. } = &proof
            && form.get("client_id").is_some_and(|name| name != client_id)
        {
            return Err(OAuthError::invalid_request("Header and form name different clients."));
        }
        shown.push(proof);
    }
    if let Some(secret) = form.get("client_secret") {
        let client_id = form
            .get("client_id")
            .ok_or_else(|| OAuthError::invalid_request("A client_secret needs a client_id."))?;
        shown.push(ClientProof::Secret {
            client_id: client_id.to_owned(),
            secret: SecretString::from(secret),
        });
    }
    match (form.get("client_assertion_type"), form.get("client_assertion")) {
        (None, None) => {}
        (Some(ASSERTION_TYPE), Some(assertion)) => shown.push(ClientProof::Assertion {
            client_id: form.get("client_id").map(str::to_owned),
            assertion: SecretString::from(assertion),
        }),
        _ => {
            return Err(OAuthError::invalid_request(
                "An assertion is client_assertion with client_assertion_type jwt-bearer.",
            ));
        }
    }
    let proof = shown.pop();
    if shown.is_empty() {
        Ok(proof)
    } else {
        Err(OAuthError::invalid_request("A client proves itself in one way only."))
    }
}

/// RFC 7617, with both parts encoded as in a form (RFC 6749, section 2.3.1).
fn basic(value: &HeaderValue) -> Option<ClientProof> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let text = Zeroizing::new(BASE64.decode(encoded.as_bytes()).ok()?);
    let (client_id, secret) = std::str::from_utf8(&text).ok()?.split_once(':')?;
    Some(ClientProof::Secret {
        client_id: decode(client_id)?,
        secret: SecretString::from(decode(secret)?),
    })
}

fn decode(text: &str) -> Option<String> {
    if text.contains(['&', '=']) {
        return None;
    }
    let mut decoded = form_urlencoded::parse(text.as_bytes());
    Some(decoded.next().map(|(text, _)| text.into_owned()).unwrap_or_default())
}

/// The client that the request proves to come from.
///
/// # Errors
/// 401 or, from a network that failed too often, 429; and faults of ours.
pub(super) async fn authenticate(
    state: &AppState,
    proof: Option<ClientProof>,
    from: &Circumstances,
    address: ClientAddress,
) -> Result<ServiceClient, OAuthError> {
    let Some(proof) = proof else {
        return Err(OAuthError::invalid_client("This needs a client that proves itself."));
    };
    match state.backend.authenticate_client(&proof).await? {
        Ok(client) => Ok(client),
        Err(refused) => Err(refuse(state, &refused, from, address).await?),
    }
}

/// Counts a failed proof, writes it down and answers; from a network that fails too often nothing is written any more
/// (F71). All reasons look alike from outside.
pub(super) async fn refuse(
    state: &AppState,
    refused: &RefusedClient,
    from: &Circumstances,
    ClientAddress(address): ClientAddress,
) -> Result<OAuthError, OAuthError> {
    if let Err(wait) = state.limits.check(LimitKind::Client, address, None, false) {
        tracing::debug!(
            reason = refused.reason,
            "a client was refused, and written down often enough"
        );
        return Ok(OAuthError::too_many(wait));
    }
    state.backend.record_refused_client(refused, from).await?;
    Ok(OAuthError::invalid_client(
        "The client is unknown or did not prove itself.",
    ))
}
