//! One TCP connection that can be made to fail: reset like a crashed host, or frozen like a cable pulled out.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::host::SwitchedListener;

const OPEN: u8 = 0;
const FROZEN: u8 = 1;
const RESET: u8 = 2;

/// The handle by which a handler spoils the connection that its request came on.
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

    /// Makes the connection half-open: what the peer sends is not read, what we send vanishes, nobody is told.
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

impl Connected<IncomingStream<'_, SwitchedListener>> for Wire {
    fn connect_info(stream: IncomingStream<'_, SwitchedListener>) -> Self {
        stream.io().wire.clone()
    }
}

/// All open connections of one server.
#[derive(Clone, Default)]
pub(super) struct Wires(Arc<Mutex<Vec<Weak<State>>>>);

impl Wires {
    /// Takes a fresh connection under control.
    pub(super) fn adopt(&self, stream: TcpStream) -> WiredStream {
        let state = Arc::new(State {
            mode: AtomicU8::new(OPEN),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&state));
        WiredStream {
            stream,
            wire: Wire(state),
        }
    }

    /// Resets every connection except `spared`, over which the order to do so may have come.
    pub(super) fn reset_all(&self, spared: Option<&Wire>) {
        let all: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for state in all.iter().filter_map(Weak::upgrade) {
            if spared.is_none_or(|spared| !Arc::ptr_eq(&spared.0, &state)) {
                Wire(state).reset();
            }
        }
    }
}

/// A TCP stream that obeys its [`Wire`].
pub struct WiredStream {
    stream: TcpStream,
    wire: Wire,
}

impl WiredStream {
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
            // A FIN would tell the peer; the next mode change (the server's end) lets go of the connection.
            self.wire.0.writer.register(cx.waker());
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
