//! A relay in front of a server that can be interrupted, as a network partition does: connections stay open, nothing passes, and
//! what was sent arrives when it is over.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a stopped direction checks whether it may continue.
const STEP: Duration = Duration::from_millis(20);

/// The relay. Its threads end with the test's process.
pub struct Relay {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Relay {
    /// Starts one to `server`.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = Arc::<AtomicBool>::default();
        let state = Arc::clone(&is_cut);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    while state.load(Ordering::SeqCst) {
                        std::thread::sleep(STEP);
                    }
                    let Ok(server) = TcpStream::connect(server) else {
                        return;
                    };
                    let (back, forth) = (
                        (server.try_clone().unwrap(), client.try_clone().unwrap()),
                        (client, server),
                    );
                    let answers = Arc::clone(&state);
                    std::thread::spawn(move || copy(back.0, back.1, &answers));
                    copy(forth.0, forth.1, &state);
                });
            }
        });
        Self { address, is_cut }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing pass until [`Relay::heal`].
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    from.set_read_timeout(Some(STEP)).unwrap();
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        while is_cut.load(Ordering::SeqCst) {
            std::thread::sleep(STEP);
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
