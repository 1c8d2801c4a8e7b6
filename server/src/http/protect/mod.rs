//! What stands between the network and every handler: methods, cookies, origins, form tokens, headers, redirects.
//!
//! Owns: refusing a request before anything looks at what it asks for (SECURITY.md C3–C10, L12). Must not know who
//! is signed in, nor what the routes do; what was refused goes to a [`RefusalSink`].
//!
//! The gates that every request passes are plain functions that say [`Refused`]; the order of everything stands in
//! `http`.

mod cookies;
mod form;
mod headers;
mod methods;
mod origin;
#[cfg(test)]
pub(crate) mod recorder;
mod redirect;
mod report;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};

pub use crate::domain::return_path::{safe_return_path, same_origin_path};
pub use cookies::refuse_doubled_cookie;
pub use form::{FORM_TOKEN_FIELD, FORM_TOKEN_HEADER, check_form_token, header_form_token_matches, is_form};
pub use headers::{HeaderPolicy, page_csp};
pub use methods::{MOST_HEAD_BYTES, refuse_long_head, refuse_odd_method};
pub use origin::{ACTIONS, refuse_foreign_origin};
pub use redirect::keep_redirects_here;
pub use report::{REPORT_PATH, csp_report};

use crate::config::PublicUrl;
use crate::domain::audit::{Circumstances, Kind};
use crate::http::client::ClientAddress;
use crate::http::error::Problem;
use crate::http::limits::Limits;

/// Hears of every refusal, so that it can be audited.
#[async_trait]
pub trait RefusalSink: Send + Sync {
    /// A request was refused. `reason` is a closed code.
    ///
    /// Must not fail the request: a refusal stays a refusal even if it cannot be written down; the implementer
    /// logs that.
    async fn refused(&self, kind: Kind, circumstances: &Circumstances, reason: &'static str);
}

/// Why a request does not get in.
#[derive(Debug)]
pub struct Refused {
    /// What it tried.
    pub kind: Kind,
    /// A closed code.
    pub reason: &'static str,
    /// The answer.
    pub problem: Problem,
}

/// What the gates and layers of this module share.
#[derive(Clone)]
pub struct Protection {
    /// Our one origin.
    pub public_url: Arc<PublicUrl>,
    /// Hears of refusals.
    pub sink: Arc<dyn RefusalSink>,
    /// Largest form.
    pub max_body_bytes: usize,
    /// For the report endpoint.
    pub limits: Arc<Limits>,
}

impl Protection {
    /// Tells the sink and answers. The request is let go of before anything is awaited: its body belongs to one thread.
    pub fn refuse<'a>(
        &'a self,
        request: &Request,
        refused: Refused,
    ) -> impl Future<Output = Response> + Send + use<'a> {
        let told = self.tell(refused.kind, request, refused.reason);
        async move {
            told.await;
            refused.problem.into_response()
        }
    }

    /// Tells the sink, unless this network has had its refusals written down often enough for now.
    fn tell<'a>(
        &'a self,
        kind: Kind,
        request: &Request,
        reason: &'static str,
    ) -> impl Future<Output = ()> + Send + use<'a> {
        let circumstances = request.extensions().get::<Circumstances>().cloned().unwrap_or_default();
        let address = request.extensions().get::<ClientAddress>();
        let may_note = address.is_none_or(|ClientAddress(address)| self.limits.may_note_refusal(*address));
        async move {
            if may_note {
                self.sink.refused(kind, &circumstances, reason).await;
            } else {
                tracing::debug!(kind = kind.as_str(), reason, "refused, and written down often enough");
            }
        }
    }
}
