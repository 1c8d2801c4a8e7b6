//! Bodies of requests on their way in: how much is taken, and whether it is the client that is being waited for.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::Request;
use http_body_util::{Full, LengthLimitError, Limited};

use super::error::Problem;

/// The whole body.
///
/// # Errors
/// 413 for one larger than `most` bytes, 400 for one that does not arrive as its framing says.
pub async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    to_bytes(body, most).await.map_err(|error| {
        let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
        if causes.any(<dyn Error>::is::<LengthLimitError>) {
            Problem::too_large()
        } else {
            Problem::bad_request()
        }
    })
}

/// Nobody waits for a body that is too large by its own word: whoever reads it finds that at once.
pub(super) fn refuse_declared_beyond(most: usize, request: &mut Request) {
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    if request.body().size_hint().lower() > most {
        *request.body_mut() = Body::new(Limited::new(Full::from("too large"), 0));
    }
}

/// Whether a handler waits for more of a body.
#[derive(Clone, Default)]
pub(super) struct Awaited(Arc<AtomicBool>);

impl Awaited {
    /// Watches the request's body. None if nothing of it is still to come.
    pub(super) fn watch(request: &mut Request) -> Option<Self> {
        if request.body().is_end_stream() {
            return None;
        }
        let awaited = Self::default();
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(Watched {
            body,
            awaited: awaited.clone(),
        });
        Some(awaited)
    }

    pub(super) fn is_true(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Watched {
    body: Body,
    awaited: Awaited,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.awaited.0.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
