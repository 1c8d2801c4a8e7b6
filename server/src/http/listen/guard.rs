//! What one connection may cost: a place among so many, and only as long as something moves on it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Said to whoever comes when every place is taken; over TLS the connection is just closed.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Accepts connections while there are places.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    places: Arc<Semaphore>,
    first: Duration,
    stall: Duration,
    tls: bool,
}

impl Guard {
    /// `first`: time until the first byte; `stall`: time without any byte in either direction after that.
    pub(super) fn new(places: usize, first: Duration, stall: Duration, tls: bool) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            first,
            stall,
            tls,
        }
    }
}

impl<S> Accept<TcpStream, S> for Guard {
    type Stream = Guarded;
    type Service = S;
    type Future = std::future::Ready<io::Result<(Guarded, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepted = if let Ok(place) = self.places.clone().try_acquire_owned() {
            stream.set_nodelay(true).map(|()| {
                let timer = Box::pin(tokio::time::sleep(self.first));
                (
                    Guarded {
                        stream,
                        timer,
                        stall: self.stall,
                        _place: place,
                    },
                    service,
                )
            })
        } else {
            if !self.tls {
                // Fits into the socket's empty buffer; if not, closing says enough.
                let _ = stream.try_write(FULL);
            }
            Err(io::Error::other("every place is taken"))
        };
        std::future::ready(accepted)
    }
}

/// A connection that fails when nothing has moved for too long.
pub(super) struct Guarded {
    stream: TcpStream,
    timer: Pin<Box<Sleep>>,
    stall: Duration,
    /// Given back on drop.
    _place: OwnedSemaphorePermit,
}

impl Guarded {
    /// Something moved: the time starts anew. Nothing can move: has it been too long?
    fn watch<T>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            #[expect(clippy::disallowed_methods, reason = "a socket's timeout, not a time of the product")]
            let now = tokio::time::Instant::now();
            self.timer.as_mut().reset(now + self.stall);
            return moved;
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watch(cx, moved)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, moved)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A TCP stream has nothing to flush, so neither moves anything.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
