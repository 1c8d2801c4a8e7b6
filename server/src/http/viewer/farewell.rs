//! What somebody is told who is not signed in any more, or not here: a program by 401, a person by the sign-in page.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_sessions::Session as WebSession;

use super::{
    Channel, Kind, MAX_RETRIES, Viewer, append, bounce, deliver, fault, form_expired, is_api, retries, retry_cookie,
    see_other, with_clearing,
};
use crate::domain::audit::Circumstances;
use crate::domain::dbsc::Refusal as NotBound;
use crate::domain::session::{EndReason, Ending};
use crate::http::client::ClientAddress;
use crate::http::protect::safe_return_path;
use crate::http::refusal::Refusal;
use crate::http::{AppState, cookies, dbsc};
use crate::services::dbsc::OtherBrowser;
use crate::services::ports::{Deliveries, ending_view, slot};

/// What a token of the usual scheme is answered that is no longer good (RFC 6750, section 3.1).
pub const BEARER: &str = "Bearer error=\"invalid_token\"";

/// Not the browser that the session is bound to, as far as this request shows. The session goes on as it is.
pub(super) async fn other_browser(
    state: &AppState,
    request: Parts,
    body: Body,
    next: Next,
    (kind, channel): (Kind, Channel),
    other: &OtherBrowser,
    from: &Circumstances,
) -> Response {
    let is_missing = other.refusal == NotBound::CookieMissing;
    let was_skipped = dbsc::was_skipped(&request.headers);
    let is_page = channel == Channel::Cookie && kind.navigation && request.method == Method::GET;
    // What another site opens comes again as our own, and only that may be the last time.
    let may_come_again = is_page && (kind.from_elsewhere || retries(&request.headers) < MAX_RETRIES);
    let is_usual = was_skipped || !kind.may_renew || (kind.from_elsewhere && may_come_again);
    if !(is_missing && is_usual) {
        let address = request.extensions.get::<ClientAddress>().copied();
        dbsc::note(state, other, from, address).await;
    }
    let path = request.uri.path();
    let signs_in = is_for_signing_in(path) && path != "/auth/logout" && !kind.from_elsewhere;
    let mut response = if channel == Channel::Bearer {
        dbsc::other_browser().into_response()
    } else if !kind.may_renew {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    } else if was_skipped && !(signs_in && request.method == Method::POST) {
        dbsc::refuse(&request.headers).into_response()
    } else if may_come_again {
        // Browsers sign for a new cookie before what our own page opens, not for another site's, nor while they have one.
        let mut response = bounce(&request);
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        if !kind.from_elsewhere {
            response.headers_mut().append(SET_COOKIE, retry_cookie(MAX_RETRIES));
        }
        response
    } else if is_page || signs_in {
        return over(state, request, body, next, Farewell::other_browser()).await;
    } else if kind.navigation && request.method == Method::POST && !kind.from_elsewhere && !is_api(path) {
        // Only a page takes the cookies away: the one it leads back to shows whether the browser can sign again.
        form_expired(&request).await
    } else {
        dbsc::refuse(&request.headers).into_response()
    };
    if channel == Channel::Cookie && !is_missing {
        append(&mut response, cookies::clear(cookies::BOUND));
    }
    response
}

/// What somebody is told who is signed in no longer.
pub(super) struct Farewell {
    /// A program, or a script of a page.
    refusal: Refusal,
    /// The person, by the sign-in page.
    note: Note,
    /// The browser's cookies are worth nothing any more.
    clears: bool,
}

enum Note {
    Nothing,
    Ending(app::types::Ending),
    OtherBrowser,
}

impl From<&Ending> for Farewell {
    fn from(ending: &Ending) -> Self {
        Self {
            refusal: session_over(ending, BEARER),
            note: match ending.reason {
                EndReason::SignedOut | EndReason::Replaced => Note::Nothing,
                _ => Note::Ending(ending_view(ending)),
            },
            // The new cookies of one that was replaced may be there already.
            clears: ending.reason != EndReason::Replaced,
        }
    }
}

impl Farewell {
    /// Of a program that sent its access token. Cookies beside it are not of this session.
    pub(super) fn by_token(ending: &Ending, challenge: &str) -> Self {
        Self {
            refusal: session_over(ending, challenge),
            note: Note::Nothing,
            clears: false,
        }
    }

    fn other_browser() -> Self {
        Self {
            refusal: dbsc::other_browser(),
            note: Note::OtherBrowser,
            clears: true,
        }
    }
}

/// Where nobody has to be signed in: signing in, and out.
fn is_for_signing_in(path: &str) -> bool {
    const PATHS: [&str; 11] = [
        "/auth/login",
        "/auth/mfa",
        "/auth/logout",
        "/sign-in",
        "/sign-in/code",
        "/sign-in/enrol",
        "/welcome",
        "/actions/sign_in",
        "/actions/verify_code",
        "/actions/confirm_sign_in_enrolment",
        "/actions/accept_invitation",
    ];
    PATHS.contains(&path) || path.starts_with("/welcome/")
}

/// Pages go to the sign-in page, which says why; the API says why itself.
pub(super) async fn over(state: &AppState, mut request: Parts, body: Body, next: Next, farewell: Farewell) -> Response {
    let path = request.uri.path().to_owned();
    let is_api = is_api(&path);
    let goes_on = is_for_signing_in(&path);
    let with_clearing = |response| {
        if farewell.clears {
            with_clearing(response)
        } else {
            response
        }
    };
    if is_api && !goes_on {
        return with_clearing(farewell.refusal.into_response());
    }
    if !is_api && let Some(web) = request.extensions.get::<WebSession>() {
        let noted = match &farewell.note {
            Note::Nothing => Ok(()),
            Note::Ending(ending) => web.insert(slot::ENDING, ending).await,
            Note::OtherBrowser => web.insert(slot::OTHER_BROWSER, true).await,
        };
        if let Err(error) = noted {
            return fault(&error.into());
        }
    }
    if goes_on {
        request.extensions.insert(Viewer::default());
        request.extensions.insert(Channel::Cookie);
        let deliveries = Deliveries::default();
        request.extensions.insert(deliveries.clone());
        let mut response = with_clearing(next.run(Request::from_parts(request, body)).await);
        deliver(&mut response, &deliveries, state);
        return response;
    }
    let target = request.uri.path_and_query().map(ToString::to_string);
    let back = target
        .filter(|_| request.method == Method::GET)
        .and_then(|path| safe_return_path(&path));
    with_clearing(see_other(&sign_in_path(back.as_deref())))
}

/// The sign-in page with a place to return to.
#[must_use]
pub fn sign_in_path(return_to: Option<&str>) -> String {
    match return_to {
        Some(path) if path != "/" => {
            let query = serde_urlencode(path);
            format!("/sign-in?return_to={query}")
        }
        _ => "/sign-in".to_owned(),
    }
}

/// Percent-encodes everything that is not unreserved (RFC 3986, section 2.3).
fn serde_urlencode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// 401 with the reason in plain words. `challenge`: in the scheme that the token came by (RFC 6750, section 3; RFC 9449,
/// section 7.1).
#[must_use]
pub fn session_over(ending: &Ending, challenge: &str) -> Refusal {
    let view = ending_view(ending);
    Refusal::new(StatusCode::UNAUTHORIZED, "session_over", "This session is over.")
        .detail(app::words::ending(&view))
        .with("reason", ending.reason.as_str())
        .with_header("www-authenticate", challenge)
}
