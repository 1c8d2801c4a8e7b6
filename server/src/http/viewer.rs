//! Who is asking: reads the token cookies or the bearer token of a request, renews silently *before* any handler
//! or rendering runs (TOKENS.md §5), and writes the cookies that the answer has to carry. What is handed out after that
//! is a fault: the headers are gone (F66).

mod farewell;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, LOCATION, REFERER, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use secrecy::ExposeSecret;
use tower_sessions::Session as WebSession;

use super::client::ClientAddress;
use super::error::Problem;
use super::protect::{ACTIONS, RefusalSink as _, safe_return_path};
use super::refusal::Refusal;
use super::{AppState, cookies, dbsc, dpop};
use crate::domain::audit::{Circumstances, Kind as Audited};
use crate::domain::clock::Timestamp;
use crate::domain::dpop::Refusal as Unproved;
use crate::domain::jwt;
use crate::domain::session::{Client, EndReason, Ending, Session};
use crate::services::ServiceError;
use crate::services::dbsc::OtherBrowser;
use crate::services::dpop::Unproven;
use crate::services::ports::{Deliveries, Delivery, slot};
use crate::services::sessions::Live;
use crate::services::tokens::{AccessOutcome, Beside, RefreshOutcome};
pub use farewell::{BEARER, session_over, sign_in_path};
use farewell::{Farewell, other_browser, over};

/// Redirects to the same path while another tab's fresh cookies are on their way.
const MAX_RETRIES: u32 = 3;

/// Who is signed in with this request, for handlers.
#[derive(Clone, Debug, Default)]
pub struct Viewer(pub Option<Arc<Live>>);

/// Whether the proof of this request came by cookie (then a browser's rules apply) or by `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Cookies, or nothing.
    Cookie,
    /// `Authorization: Bearer`, or `DPoP` with a proof of possession.
    Bearer,
}

/// What a request is, by its fetch metadata (W3C Fetch Metadata Request Headers).
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts about one request")]
struct Kind {
    /// A page is being opened.
    navigation: bool,
    /// It may carry renewed cookies home.
    may_renew: bool,
    /// Started by another site.
    from_elsewhere: bool,
    /// The person's own doing (M20).
    is_activity: bool,
}

impl Kind {
    fn of(request: &Parts) -> Self {
        let headers = &request.headers;
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let speculative = headers.contains_key("sec-purpose") || value("purpose") == Some("prefetch");
        let dest = value("sec-fetch-dest");
        let navigation =
            value("sec-fetch-mode") == Some("navigate") || (value("sec-fetch-mode").is_none() && is_page(request));
        let subresource = dest.is_some_and(|dest| !matches!(dest, "document" | "empty"));
        // A script's own POST (renewal, for one) is background traffic; a form is sent by a person.
        let form = request.method == Method::POST
            && request.uri.path().starts_with(ACTIONS)
            && !request.uri.path().ends_with("/stay_signed_in");
        let program = value("sec-fetch-mode").is_none();
        Self {
            navigation,
            may_renew: !speculative && !subresource,
            from_elsewhere: matches!(value("sec-fetch-site"), Some("cross-site" | "same-site")),
            is_activity: !speculative && !subresource && (navigation || form || program),
        }
    }
}

fn is_page(request: &Parts) -> bool {
    !is_api(request.uri.path()) && matches!(request.method, Method::GET | Method::HEAD)
}

fn is_api(path: &str) -> bool {
    path.starts_with("/api/") || path.starts_with("/auth/")
}

/// A browser that does not say what its requests are sends forms for a person.
fn is_of_a_script(headers: &HeaderMap) -> bool {
    let mode = headers.get("sec-fetch-mode");
    mode.is_some_and(|mode| mode != "navigate")
}

fn is_sign_out(path: &str) -> bool {
    matches!(path, "/auth/logout" | "/actions/sign_out")
}

enum Resolution {
    Anonymous {
        clear: bool,
    },
    Live(Arc<Live>, Option<Delivery>),
    Over(Ending),
    /// It is not proved that the sender holds the key that the token is bound to.
    Unproven(Unproven),
    /// The session is bound to another browser than the sender's.
    OtherBrowser(OtherBrowser),
    /// A token that came with a good proof and is not good itself.
    NotGood,
    /// Another tab holds the fresh pair; this much was verified.
    Elsewhere(Arc<Live>),
    /// The same, but the session was replaced under this request.
    Moved(Ending),
    /// Renewal needs a request of our own site.
    Bounce,
    /// A speculative request gets nothing.
    NotNow,
}

/// The layer. Runs inside the tower-sessions layer and outside every handler that asks who is there.
pub async fn identify(State(state): State<AppState>, request: Request, next: Next) -> Response {
    // Without the body, which cannot be shared between threads, the request can be looked at across awaits.
    let (mut parts, body) = request.into_parts();
    let kind = Kind::of(&parts);
    let mut from = parts.extensions.get::<Circumstances>().cloned().unwrap_or_default();
    let (channel, resolved) = match resolve(&state, &parts, kind, &from).await {
        Ok(resolved) => resolved,
        Err(error) => return fault(&error),
    };
    let retries = retries(&parts.headers);
    let deliveries = Deliveries::default();
    let api = is_api(parts.uri.path());
    let live = match resolved {
        Resolution::Anonymous { clear } => {
            if clear {
                parts.extensions.insert(Viewer::default());
                parts.extensions.insert(channel);
                parts.extensions.insert(deliveries.clone());
                let mut response = with_clearing(next.run(Request::from_parts(parts, body)).await);
                deliver(&mut response, &deliveries, &state);
                return response;
            }
            None
        }
        Resolution::Live(live, delivery) => {
            if let Some(delivery) = delivery {
                deliveries.push(delivery);
            }
            Some(live)
        }
        Resolution::Over(ending) => {
            let farewell = farewell(&parts.headers, &ending);
            return Box::pin(over(&state, parts, body, next, farewell)).await;
        }
        Resolution::OtherBrowser(other) => {
            return Box::pin(other_browser(&state, parts, body, next, (kind, channel), &other, &from)).await;
        }
        Resolution::Unproven(unproven) => {
            let address = parts.extensions.get::<ClientAddress>().copied();
            let refused = Box::pin(dpop::refuse(&state, unproven, &from, address)).await;
            return refused.challenge().into_response();
        }
        Resolution::NotGood => {
            return bad_token()
                .with_header("www-authenticate", &Scheme::Dpop.challenge())
                .into_response();
        }
        Resolution::Moved(ending) => {
            if kind.navigation && parts.method == Method::GET && retries < MAX_RETRIES {
                return retry(&parts, retries);
            }
            return Box::pin(over(&state, parts, body, next, (&ending).into())).await;
        }
        Resolution::Elsewhere(live) => {
            if kind.navigation && parts.method == Method::GET && retries < MAX_RETRIES {
                return retry(&parts, retries);
            }
            // Another tab is further: nothing is done on the strength of a token that should be gone, or that was good for
            // new ones a moment ago (TOKENS.md §5). Any of a session's tokens is good for ending it, as in RFC 7009.
            if !parts.method.is_safe() && !is_sign_out(parts.uri.path()) {
                if api || is_of_a_script(&parts.headers) {
                    let said = "Another tab was quicker: do it again with its cookies.";
                    return Refusal::new(StatusCode::CONFLICT, "superseded", said).into_response();
                }
                return Box::pin(form_expired(&parts)).await;
            }
            Some(live)
        }
        Resolution::Bounce => return bounce(&parts),
        Resolution::NotNow => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    if let Some(live) = &live {
        from.actor_id = Some(live.user.id);
        from.session_id = Some(live.session.id);
        from.device_id = live.session.device_id;
    }
    let is_bad_bearer = channel == Channel::Bearer && live.is_none();
    // Nobody gets here with a token that is bound without a good proof.
    let proven = live.as_ref().is_some_and(|live| live.session.jkt.is_some());
    let extensions = &mut parts.extensions;
    extensions.insert(from);
    extensions.insert(channel);
    extensions.insert(Viewer(live));
    extensions.insert(deliveries.clone());
    let mut response = next.run(Request::from_parts(parts, body)).await;
    deliver(&mut response, &deliveries, &state);
    if is_bad_bearer
        && response
            .headers()
            .get(WWW_AUTHENTICATE)
            .is_some_and(|value| value == "Bearer")
    {
        // RFC 6750, section 3.1: otherwise a client could not tell that its token is over from that it sent none.
        let challenge = HeaderValue::from_static(BEARER);
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    if proven {
        dpop::renew_nonce(&state, &mut response);
    }
    if retries > 0 {
        response.headers_mut().append(SET_COOKIE, retry_cookie(0));
    }
    response
}

async fn resolve(
    state: &AppState,
    request: &Parts,
    kind: Kind,
    from: &Circumstances,
) -> Result<(Channel, Resolution), ServiceError> {
    let headers = &request.headers;
    if let Some((scheme, token)) = authorization(headers) {
        let outcome = match scheme {
            Scheme::Bearer => state.backend.authenticate(token, kind.is_activity, from).await?,
            Scheme::Dpop => match dpop::read(state, headers, &request.method, request.uri.path(), Some(token)) {
                Ok(Some(proof)) => {
                    let beside = Beside {
                        proof: Some(&proof),
                        bound_cookie: None,
                    };
                    let backend = &state.backend;
                    Box::pin(backend.authenticate_with(token, beside, kind.is_activity, from)).await?
                }
                Ok(None) => AccessOutcome::Unproven(Unproven::from(Unproved::Missing)),
                Err(refusal) => AccessOutcome::Unproven(refusal.into()),
            },
        };
        let resolution = match outcome {
            AccessOutcome::Valid(live) => Resolution::Live(live, None),
            AccessOutcome::Over(ending) => Resolution::Over(ending),
            AccessOutcome::Unproven(unproven) => Resolution::Unproven(unproven),
            AccessOutcome::OtherBrowser(other) => Resolution::OtherBrowser(other),
            AccessOutcome::Refused(refusal) => {
                note_forgery(state, request, refusal, from).await;
                not_good(scheme)
            }
            AccessOutcome::Forged | AccessOutcome::Stale => not_good(scheme),
        };
        return Ok((Channel::Bearer, resolution));
    }
    let bound_cookie = cookies::read(headers, cookies::BOUND);
    if let Some(token) = cookies::read(headers, cookies::ACCESS) {
        let beside = Beside {
            proof: None,
            bound_cookie,
        };
        let authenticate = state.backend.authenticate_with(token, beside, kind.is_activity, from);
        match authenticate.await? {
            AccessOutcome::Valid(live) => return Ok((Channel::Cookie, Resolution::Live(live, None))),
            AccessOutcome::Over(ending) => return Ok((Channel::Cookie, ended(ending))),
            AccessOutcome::OtherBrowser(other) => return Ok((Channel::Cookie, Resolution::OtherBrowser(other))),
            AccessOutcome::Refused(refusal) => note_forgery(state, request, refusal, from).await,
            // A program's token, which needs a proof, is nobody's cookie.
            AccessOutcome::Forged | AccessOutcome::Stale | AccessOutcome::Unproven(_) => {}
        }
    }
    // `/auth/refresh` looks at the refresh cookie itself.
    let path = request.uri.path();
    let Some(token) = cookies::read(headers, cookies::REFRESH).filter(|_| path != "/auth/refresh") else {
        let clear = headers.contains_key("cookie")
            && cookies::read(headers, cookies::ACCESS).is_some()
            && cookies::read(headers, cookies::REFRESH).is_none();
        return Ok((Channel::Cookie, Resolution::Anonymous { clear }));
    };
    if !kind.may_renew {
        return Ok((Channel::Cookie, Resolution::NotNow));
    }
    if kind.from_elsewhere {
        let resolution = if kind.navigation && request.method == Method::GET {
            Resolution::Bounce
        } else {
            Resolution::Anonymous { clear: false }
        };
        return Ok((Channel::Cookie, resolution));
    }
    // In a place of its own, so that requests without it stay small.
    let backend = &state.backend;
    let refresh = backend.refresh_in_browser(token, bound_cookie, kind.is_activity, from);
    let outcome = Box::pin(refresh).await?;
    let resolution = match outcome {
        RefreshOutcome::Rotated(issued) | RefreshOutcome::Reissued(issued) => {
            Resolution::Live(Arc::new(issued.live.clone()), Some(Delivery::Tokens(issued)))
        }
        RefreshOutcome::Fresh(live) | RefreshOutcome::Superseded(live) => Resolution::Elsewhere(live.into()),
        RefreshOutcome::Over(ending) | RefreshOutcome::Reused(ending) | RefreshOutcome::Ahead(ending) => ended(ending),
        RefreshOutcome::OtherBrowser(other) => Resolution::OtherBrowser(other),
        RefreshOutcome::Malformed | RefreshOutcome::Forged | RefreshOutcome::Unproven(_) => {
            Resolution::Anonymous { clear: true }
        }
    };
    Ok((Channel::Cookie, resolution))
}

/// A token that somebody made or changed is written down, unless this network has had its refusals written down often
/// enough for now: what anybody can send must not fill the log.
async fn note_forgery(state: &AppState, request: &Parts, refusal: jwt::Refusal, from: &Circumstances) {
    let Some(ClientAddress(address)) = request.extensions.get::<ClientAddress>() else {
        return;
    };
    if refusal.is_forgery() && state.limits.may_note_refusal(*address) {
        state
            .backend
            .refused(Audited::AccessTokenRefused, from, refusal.as_str())
            .await;
    }
}

/// An access token that lets nobody in.
pub(super) fn bad_token() -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "invalid_token",
        "This access token is not good.",
    )
}

/// A replaced session is not over for the browser: the new cookies are on their way.
fn ended(ending: Ending) -> Resolution {
    if ending.reason == EndReason::Replaced {
        Resolution::Moved(ending)
    } else {
        Resolution::Over(ending)
    }
}

/// How a token is presented (RFC 6750, RFC 9449).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Bearer,
    Dpop,
}

impl Scheme {
    /// What a token is answered that is no longer good.
    fn challenge(self) -> String {
        match self {
            Self::Bearer => BEARER.to_owned(),
            Self::Dpop => dpop::challenge("invalid_token"),
        }
    }
}

/// A token that is not good: beside a good proof it is refused here, because whoever proves something wants to be known.
const fn not_good(scheme: Scheme) -> Resolution {
    match scheme {
        Scheme::Bearer => Resolution::Anonymous { clear: false },
        Scheme::Dpop => Resolution::NotGood,
    }
}

fn farewell(headers: &HeaderMap, ending: &Ending) -> Farewell {
    match authorization(headers) {
        Some((scheme, _)) => Farewell::by_token(ending, &scheme.challenge()),
        None => ending.into(),
    }
}

fn authorization(headers: &HeaderMap) -> Option<(Scheme, &str)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let named = |name: &str| scheme.eq_ignore_ascii_case(name);
    let scheme = match () {
        () if named("bearer") => Scheme::Bearer,
        () if named("dpop") => Scheme::Dpop,
        () => return None,
    };
    Some((scheme, token.trim()))
}

fn see_other(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or_else(|_| HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response()
}

fn retry(request: &Parts, retries: u32) -> Response {
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut response = see_other(&safe_return_path(path).unwrap_or_else(|| "/".to_owned()));
    response.headers_mut().append(SET_COOKIE, retry_cookie(retries + 1));
    response
}

/// A form sent with cookies that another tab had just replaced: back to the page, to be sent again.
async fn form_expired(request: &Parts) -> Response {
    if let Some(web) = request.extensions.get::<WebSession>()
        && let Err(error) = web.insert(slot::NOTICE, app::types::Notice::FormExpired).await
    {
        return fault(&error.into());
    }
    let referer = request.headers.get(REFERER).and_then(|value| value.to_str().ok());
    let path = referer.and_then(|text| text.parse::<axum::http::Uri>().ok());
    let path = path.and_then(|uri| uri.path_and_query().map(ToString::to_string));
    see_other(
        &path
            .and_then(|path| safe_return_path(&path))
            .unwrap_or_else(|| "/".to_owned()),
    )
}

/// A page opened from elsewhere with an expired access token: the browser is asked to open it again as our own.
fn bounce(request: &Parts) -> Response {
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let safe = safe_return_path(path).unwrap_or_else(|| "/".to_owned());
    let escaped = safe
        .replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>One moment</title>\
         <meta http-equiv=\"refresh\" content=\"0;url={escaped}\"></head>\
         <body><p><a href=\"{escaped}\">Continue</a></p></body></html>"
    ))
    .into_response()
}

fn with_clearing(mut response: Response) -> Response {
    for name in [cookies::ACCESS, cookies::REFRESH, cookies::BOUND] {
        append(&mut response, cookies::clear(name));
    }
    response
}

/// A cookie that does not fit is a fault of ours: the browser would be left with half of what it needs.
fn append(response: &mut Response, cookie: Result<HeaderValue, cookies::Unfit>) {
    match cookie {
        Ok(cookie) => drop(response.headers_mut().append(SET_COOKIE, cookie)),
        Err(error) => {
            tracing::error!(%error, "a cookie could not be written");
            *response = Problem::internal().into_response();
        }
    }
}

/// Writes the cookies, and closes what they are written from. Of several pairs the last one counts.
pub fn deliver(response: &mut Response, deliveries: &Deliveries, state: &AppState) {
    deliver_at(response, deliveries, state.backend.now(), |session, response| {
        dbsc::offer(state, session, response);
    });
}

fn deliver_at(
    response: &mut Response,
    deliveries: &Deliveries,
    now: Timestamp,
    offer_binding: impl Fn(&Session, &mut Response),
) {
    let all = deliveries.close();
    let last = all
        .iter()
        .rposition(|delivery| !matches!(delivery, Delivery::Device(_)));
    for (index, delivery) in all.into_iter().enumerate() {
        match delivery {
            Delivery::Device(device) => append(response, cookies::device_cookie(device.value().expose_secret())),
            _ if Some(index) != last => {}
            // Native programs get their tokens in the body, never as cookies.
            Delivery::Tokens(issued) if issued.live.session.client == Client::Native => {}
            Delivery::Tokens(issued) => {
                let end = issued.live.session.absolute_expires_at;
                append(
                    response,
                    cookies::access_cookie(issued.access.expose_secret(), issued.access_expires_at, now),
                );
                append(
                    response,
                    cookies::refresh_cookie(issued.refresh.expose_secret(), end, now),
                );
                offer_binding(&issued.live.session, response);
            }
            Delivery::SignedOut => {
                for name in [cookies::ACCESS, cookies::REFRESH, cookies::BOUND] {
                    append(response, cookies::clear(name));
                }
                // Cookies are deleted by name above: "cookies" would take the device and the next flow along.
                let value = HeaderValue::from_static("\"cache\", \"storage\"");
                response.headers_mut().insert("clear-site-data", value);
            }
        }
    }
}

/// How often this navigation was sent back to the same path; a plain cookie, worth nothing to anybody.
const RETRY: &str = "__Host-Http-mayfly-retry";

fn retries(headers: &HeaderMap) -> u32 {
    cookies::read(headers, RETRY)
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

fn retry_cookie(count: u32) -> HeaderValue {
    let age = if count == 0 { 0 } else { 10 };
    let text = format!("{RETRY}={count}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn fault(error: &ServiceError) -> Response {
    Refusal::fault(error).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::http::caught;

    #[tokio::test]
    async fn f66_nothing_is_handed_out_after_the_headers_of_its_answer() {
        let deliveries = Deliveries::default();
        deliveries.push(Delivery::SignedOut);
        // A page that hands something out while it is being sent.
        let late = deliveries.clone();
        let page = Body::from("page").map_frame(move |frame| {
            late.push(Delivery::SignedOut);
            frame
        });
        let mut response = Response::new(Body::new(page));
        deliver_at(&mut response, &deliveries, Timestamp::from_seconds(0), |_, _| {});
        assert_eq!(response.headers().get_all(SET_COOKIE).iter().count(), 3, "in time");
        let sent = caught(to_bytes(response.into_body(), 100)).await;
        assert_eq!(sent.is_err(), cfg!(debug_assertions), "too late");
    }
}
