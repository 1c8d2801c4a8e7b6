//! Pages and their forms: hands every request's visit to `app` through the leptos context.

use std::sync::Arc;

use app::error::ActionError;
use app::types::{Assets, Notice, PageContext};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, LOCATION};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use leptos::nonce::use_nonce;
use leptos::prelude::{provide_context, use_context};
use leptos_axum::{ResponseOptions, generate_route_list};
use tower_sessions::Session as WebSession;

use super::error::Problem;
use super::limits::LimitKind;
use super::refusal::Refusal;
use super::viewer::Viewer;
use super::{AppState, caller, cookies, protect, web_session};
use crate::domain::audit::Circumstances;
use crate::http::client::ClientAddress;
use crate::services::ServiceError;
use crate::services::ports::{Deliveries, Visit, slot, take};

/// Pages, and the opening of one-time links.
pub fn routes() -> Router<AppState> {
    let mut routes = Router::new()
        .route("/welcome/open/{secret}", get(open_link))
        .fallback(page);
    for listing in generate_route_list(app::App) {
        routes = routes.route(listing.path(), get(page));
    }
    routes
}

/// Forms: the server functions of `app`.
pub fn actions() -> Router<AppState> {
    Router::new().route("/actions/{action}", post(action))
}

#[derive(Clone)]
struct Opened {
    visit: Arc<Visit>,
    context: PageContext,
}

async fn open(state: &AppState, request: &Parts, takes_notice: bool) -> Result<Opened, Refusal> {
    let extensions = &request.extensions;
    let from = extensions.get::<Circumstances>().cloned().unwrap_or_default();
    let fault = |error: ServiceError| Refusal::fault(&error);
    let web = extensions
        .get::<WebSession>()
        .cloned()
        .ok_or_else(|| fault(ServiceError::Contradiction("the flow layer is missing")))?;
    let address = extensions
        .get::<ClientAddress>()
        .copied()
        .ok_or_else(|| fault(ServiceError::Contradiction("the client layer is missing")))?;
    let live = extensions
        .get::<Viewer>()
        .and_then(|viewer| viewer.0.as_deref().cloned());
    let form_token = if let Some(kept) = web_session::kept_form_token(&web).await? {
        kept
    } else {
        // A browser that was not here before costs a row; whoever throws the cookie away may not fill the disk.
        state
            .limits
            .check(LimitKind::Form, address.0, None, false)
            .map_err(|wait| Refusal::too_many(wait.seconds))?;
        web_session::new_form_token(&web, state.backend.random()).await?
    };
    // Pages whose own data carries the news take it themselves.
    let notice: Option<Notice> = if takes_notice && !carries_notice(request.uri.path()) {
        take(&web, slot::NOTICE).await?
    } else {
        None
    };
    let context = PageContext {
        now: state.backend.now().as_millis(),
        request_id: from.request_id.as_deref().unwrap_or_default().to_owned(),
        form_token,
        assets: Assets::clone(&state.assets),
        theme: cookies::theme(&request.headers).map(str::to_owned),
        notice,
    };
    let deliveries = extensions
        .get::<Deliveries>()
        .cloned()
        .ok_or_else(|| fault(ServiceError::Contradiction("the viewer layer is missing")))?;
    let visit = Visit {
        backend: state.backend.clone(),
        caller: caller(&request.headers, from.clone(), address),
        live,
        web,
        throttle: state.limits.clone(),
        deliveries,
    };
    Ok(Opened {
        visit: Arc::new(visit),
        context,
    })
}

fn carries_notice(path: &str) -> bool {
    matches!(path, "/" | "/security") || path.starts_with("/admin/people")
}

fn provide(opened: &Opened) {
    provide_context(opened.context.clone());
    provide_context(opened.visit.viewer());
    provide_context(opened.visit.clone().services());
}

/// Renders a page; every navigation comes here, so guards and revocation act on the next click.
async fn page(State(state): State<AppState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let opened = match open(&state, &parts, true).await {
        Ok(opened) => opened,
        Err(problem) => return problem.into_response(),
    };
    let additional = move || {
        provide(&opened);
        if let (Some(nonce), Some(response)) = (use_nonce(), use_context::<ResponseOptions>()) {
            response.insert_header(CONTENT_SECURITY_POLICY, protect::page_csp(&nonce));
        }
    };
    let from = parts.extensions.get::<Circumstances>().cloned().unwrap_or_default();
    let area = if parts.uri.path().starts_with("/admin/audit") {
        "audit"
    } else {
        "admin"
    };
    let render = leptos_axum::render_app_async_with_context(additional, app::shell);
    let response = render(Request::from_parts(parts, body)).await.into_response();
    // The page's own guard refused, before any service was asked that would have told (L4).
    if response.status() == StatusCode::FORBIDDEN
        && let Err(error) = state.backend.deny(area, &from).await
    {
        return Refusal::fault(&error).into_response();
    }
    response
}

/// Carries out a form.
async fn action(State(state): State<AppState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let opened = match open(&state, &parts, false).await {
        Ok(opened) => opened,
        Err(problem) => return problem.into_response(),
    };
    let additional = move || provide(&opened);
    let answer = leptos_axum::handle_server_fns_with_context(additional, Request::from_parts(parts, body)).await;
    with_own_status(answer.into_response()).await
}

/// A form that cannot be read never reaches its function: the library answers 500 for it, with our error in the body.
/// The status is the error's own.
async fn with_own_status(response: Response) -> Response {
    if response.status() != StatusCode::INTERNAL_SERVER_ERROR {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // An error is one word or a small object.
    let Ok(bytes) = to_bytes(body, 4096).await else {
        return Problem::internal().into_response();
    };
    let Ok(error) = serde_json::from_slice::<ActionError>(&bytes) else {
        return Problem::internal().into_response();
    };
    parts.status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Response::from_parts(parts, Body::from(bytes))
}

/// Opening a one-time link moves its secret out of the address into the flow. Nothing is consumed (C11).
async fn open_link(
    State(state): State<AppState>,
    Extension(address): Extension<ClientAddress>,
    web: WebSession,
    Path(secret): Path<String>,
) -> Result<Response, Refusal> {
    // Nobody guesses 256 bits; what is limited is the rows that strangers can cause.
    state
        .limits
        .check(LimitKind::Form, address.0, None, false)
        .map_err(|wait| Refusal::too_many(wait.seconds))?;
    let well_formed = secret.len() == 43 && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if well_formed {
        web.insert(slot::INVITATION, secret)
            .await
            .map_err(|error| Refusal::fault(&error.into()))?;
    }
    Ok((StatusCode::SEE_OTHER, [(LOCATION, "/welcome")]).into_response())
}
