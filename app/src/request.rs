//! One page request: who asks, for what, and whether they may.
//!
//! Owns: reading the request's context, guards, and what a [`PageError`] looks like.
//! Must not know: what any single page shows.

use std::future::Future;

use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use leptos::prelude::*;
use leptos::server_fn::error::ServerFnUrlError;
use leptos_axum::ResponseOptions;
use leptos_router::hooks::{use_params_map, use_query_map};
use leptos_router::params::ParamsMap;

use crate::components::frame::{Console, Steps};
use crate::error::{ActionError, PageError};
use crate::pages::errors;
use crate::services::Services;
use crate::types::{Notice, PageContext, Viewer};

/// Who may open a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Anyone,
    /// People who are signed in.
    SignedIn,
    /// Administrators and auditors.
    Auditors,
    /// Administrators.
    Admins,
}

/// Everything a page knows about the request it answers.
#[derive(Clone)]
pub struct Visit {
    /// Time, request id, form token.
    pub page: PageContext,
    /// Who asks; `None` for anonymous visitors.
    pub viewer: Option<Viewer>,
    /// What may be asked.
    pub services: Services,
    /// Path and query of this request, to come back to.
    pub here: String,
    /// Query of the address.
    pub query: ParamsMap,
    /// Parameters of the path.
    pub params: ParamsMap,
}

impl Visit {
    /// `None` while the routes are listed: no request exists then. `params` are there on a route only.
    fn read(params: impl FnOnce() -> ParamsMap) -> Option<Self> {
        let parts = use_context::<Parts>()?;
        let here = parts
            .uri
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string);
        Some(Self {
            page: use_context()?,
            viewer: use_context::<Option<Viewer>>().flatten(),
            services: use_context()?,
            here,
            query: use_query_map().get_untracked(),
            params: params(),
        })
    }

    /// A value of the query, empty if absent.
    pub fn query(&self, name: &str) -> String {
        self.query.get(name).unwrap_or_default()
    }

    /// A parameter of the path.
    pub fn param(&self, name: &str) -> String {
        self.params.get(name).unwrap_or_default()
    }

    /// The error that the form `action` brought back in the query string, if it did.
    ///
    /// `server_fn` encodes it there (`__path`, `__err`); only our closed enum can come out of it.
    pub fn failure(&self, action: &str) -> Option<ActionError> {
        let path = self.query.get("__path")?;
        (path.rsplit('/').next() == Some(action))
            .then(|| ServerFnUrlError::<ActionError>::decode_err(&self.query.get("__err").unwrap_or_default()))
    }

    fn failed(&self) -> bool {
        self.query.get("__err").is_some()
    }

    fn check(&self, access: Access) -> Result<(), PageError> {
        let Some(viewer) = &self.viewer else {
            return if access == Access::Anyone {
                Ok(())
            } else {
                Err(PageError::NotSignedIn)
            };
        };
        let allowed = match access {
            Access::Anyone | Access::SignedIn => true,
            Access::Auditors => viewer.may_read_audit,
            Access::Admins => viewer.is_admin,
        };
        if allowed { Ok(()) } else { Err(PageError::Forbidden) }
    }
}

/// Where a page stands: beside the navigation, or alone as a step of signing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A step of signing in: one narrow card, no navigation.
    Steps,
    /// A page beside the navigation, under this entry.
    Console(Entry),
}

/// Entries of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Devices,
    Security,
    Roles,
    People,
    Audit,
    /// None of them.
    Elsewhere,
}

/// A finished page before its frame is drawn around it.
pub struct Sheet {
    /// Title of the document; the heading is the page's own.
    pub title: String,
    /// Frame.
    pub frame: Frame,
    /// News from the page's data; that of the context is shown where this is `None`.
    pub notice: Option<Notice>,
    /// Content of `<main>`.
    pub body: AnyView,
}

impl Sheet {
    /// A page in this frame.
    pub fn new(title: impl Into<String>, frame: Frame, body: impl IntoView + 'static) -> Self {
        Self {
            title: title.into(),
            frame,
            notice: None,
            body: body.into_any(),
        }
    }

    /// With news at the top.
    pub fn with_notice(mut self, notice: Option<Notice>) -> Self {
        self.notice = notice;
        self
    }
}

/// Guards, loads and frames a page. Every page is made with this, so none can forget its guard.
pub fn page<Load, Loading>(access: Access, load: Load) -> AnyView
where
    Load: FnOnce(Visit) -> Loading + Send + 'static,
    Loading: Future<Output = Result<Sheet, PageError>> + Send + 'static,
{
    let Some(visit) = Visit::read(|| use_params_map().get_untracked()) else {
        return ().into_any();
    };
    Suspend::new(async move {
        let outcome = match visit.check(access) {
            Ok(()) => load(visit.clone()).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(sheet) => framed(&visit, sheet),
            Err(PageError::NotSignedIn) => {
                // A step of signing in is nothing to come back to.
                let sign_in = if access == Access::Anyone {
                    "/sign-in".to_owned()
                } else {
                    sign_in_path(&visit.here)
                };
                see_other(&sign_in);
                ().into_any()
            }
            Err(PageError::StepUpRequired) => {
                see_other(&format!("/step-up?return_to={}", encode(&visit.here)));
                ().into_any()
            }
            Err(error) => {
                let status = errors::status(error);
                set_status(status);
                framed(&visit, errors::sheet(error, &visit.page.request_id))
            }
        }
    })
    .into_any()
}

/// The page for an address that does not exist.
pub fn missing_page() -> AnyView {
    let Some(visit) = Visit::read(ParamsMap::new) else {
        return ().into_any();
    };
    set_status(StatusCode::NOT_FOUND);
    framed(&visit, errors::sheet(PageError::NotFound, &visit.page.request_id))
}

fn framed(visit: &Visit, sheet: Sheet) -> AnyView {
    // People who listen to a page hear its title first.
    let title = if visit.failed() {
        format!("Error: {} – Mayfly", sheet.title)
    } else {
        format!("{} – Mayfly", sheet.title)
    };
    let notice = sheet.notice.or(visit.page.notice);
    match sheet.frame {
        Frame::Steps => view! { <Steps title notice body=sheet.body/> }.into_any(),
        Frame::Console(entry) => match visit.viewer.clone() {
            Some(viewer) => {
                view! { <Console title entry viewer now=visit.page.now notice body=sheet.body/> }.into_any()
            }
            None => view! { <Steps title notice body=sheet.body/> }.into_any(),
        },
    }
}

fn sign_in_path(here: &str) -> String {
    if here == "/" {
        "/sign-in".to_owned()
    } else {
        format!("/sign-in?return_to={}", encode(here))
    }
}

/// Percent-encodes a value for a query string (RFC 3986 unreserved characters and `/` stay).
pub fn encode(value: &str) -> String {
    use std::fmt::Write as _;
    value.bytes().fold(String::with_capacity(value.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Sets the status of this answer.
pub fn set_status(status: StatusCode) {
    if let Some(response) = use_context::<ResponseOptions>() {
        response.set_status(status);
    }
}

/// Answers 303 (RFC 9110, 15.4.4) to a path of our own; anything that is not one becomes `/`.
///
/// `leptos_axum`'s own redirect answers 302 and panics on a path that is not a header value.
pub fn see_other(path: &str) {
    let Some(response) = use_context::<ResponseOptions>() else {
        return;
    };
    let location = same_origin_path(path).and_then(|path| HeaderValue::from_str(path).ok());
    response.insert_header(header::LOCATION, location.unwrap_or(HeaderValue::from_static("/")));
    response.set_status(StatusCode::SEE_OTHER);
}

/// `path` if a browser cannot read it as another origin's address.
fn same_origin_path(path: &str) -> Option<&str> {
    let second = path.as_bytes().get(1);
    let own = path.starts_with('/')
        && !matches!(second, Some(b'/' | b'\\'))
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    own.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_paths_are_redirect_targets() {
        for path in ["/", "/devices/end?session=1", "/sign-in?return_to=%2Fa", "/a//b"] {
            assert_eq!(same_origin_path(path), Some(path));
        }
        for path in [
            "",
            "//evil",
            "/\\evil",
            "https://evil",
            "/a\r\nb: c",
            "/ä",
            "javascript:1",
            "/\t/evil",
            " /a",
            "/a\\b",
        ] {
            assert_eq!(same_origin_path(path), None, "{path:?}");
        }
    }

    #[test]
    fn a_path_survives_the_query_string() {
        assert_eq!(
            encode("/admin/audit?person=a b&x=ü"),
            "/admin/audit%3Fperson%3Da%20b%26x%3D%C3%BC"
        );
    }
}
