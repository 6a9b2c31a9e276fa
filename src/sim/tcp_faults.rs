//! One TCP connection that can be made to fail: reset as by a crashed host, or frozen as by an unplugged cable.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const OPEN: u8 = 0;
const FROZEN: u8 = 1;
const RESET: u8 = 2;

/// The handle by which a handler breaks the connection of its request.
#[derive(Clone)]
pub struct Wire(Arc<State>);

struct State {
    mode: AtomicU8,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wire {
    /// Cuts the connection with a TCP RST; nothing more is sent or received.
    pub fn reset(&self) {
        self.set(RESET);
    }

    /// Makes the connection half-open: data from the peer is not read, data to the peer is discarded, without any notification.
    pub fn freeze(&self) {
        self.set(FROZEN);
    }

    fn set(&self, mode: u8) {
        self.0.mode.store(mode, Ordering::SeqCst);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    fn mode(&self) -> u8 {
        self.0.mode.load(Ordering::SeqCst)
    }
}

/// All open connections of one server.
#[derive(Clone, Default)]
pub(super) struct Wires(Arc<Mutex<Vec<Weak<State>>>>);

impl Wires {
    /// Makes a new connection controllable.
    pub(super) fn adopt(&self, stream: TcpStream) -> WiredStream {
        let state = Arc::new(State {
            mode: AtomicU8::new(OPEN),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        });
        let mut all = self.0.lock();
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&state));
        WiredStream {
            stream,
            wire: Wire(state),
        }
    }

    /// Resets every connection except `spared`, over which the control request may have been received.
    pub(super) fn reset_all(&self, spared: Option<&Wire>) {
        let all: Vec<_> = self.0.lock().clone();
        for state in all.iter().filter_map(Weak::upgrade) {
            if spared.is_none_or(|spared| !Arc::ptr_eq(&spared.0, &state)) {
                Wire(state).reset();
            }
        }
    }
}

/// A TCP stream that is controlled by its [`Wire`].
pub struct WiredStream {
    stream: TcpStream,
    wire: Wire,
}

impl WiredStream {
    /// Returns the handle that breaks this connection.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Returns the peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Fails for a connection that was reset, arranging that closing it sends RST instead of FIN.
    fn check(&self) -> io::Result<()> {
        if self.wire.mode() == RESET {
            self.stream.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for WiredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire.0.reader.register(cx.waker());
        self.check()?;
        if self.wire.mode() == FROZEN {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for WiredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.0.writer.register(cx.waker());
        self.check()?;
        if self.wire.mode() == FROZEN {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.wire.mode() == FROZEN {
            // A FIN would notify the peer; the next mode change (the server's shutdown) releases the connection.
            self.wire.0.writer.register(cx.waker());
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
