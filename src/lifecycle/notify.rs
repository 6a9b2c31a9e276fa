//! Messages to the service manager. The socket may have an abstract name (`NOTIFY_SOCKET=@…`), which is not a file: podman,
//! systemd's user instances and `systemd-notify --fork` use such names.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub(super) fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// Resets the watchdog.
pub(super) fn alive() {
    send(&[NotifyState::Watchdog]);
}

pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Returns after which time without [`alive`] the service manager restarts this process, if it does.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Sends `states` to the service manager; does nothing where there is none.
fn send(states: &[NotifyState<'_>]) {
    let manager = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
    if let Some(Err(error)) = manager.map(|name| send_to(&name, states)) {
        tracing::debug!(error = %error, "Cannot notify the service manager");
    }
}

fn send_to(name: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => in_abstract(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let reason = "NOTIFY_SOCKET is neither a path nor an abstract name";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
    };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    // A service manager that hangs must not block the daemon.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(target_os = "linux")]
fn in_abstract(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn in_abstract(_: &[u8]) -> io::Result<SocketAddr> {
    let reason = "abstract names exist on Linux only";
    Err(io::Error::new(io::ErrorKind::Unsupported, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [NotifyState<'static>; 2] = [NotifyState::Ready, NotifyState::Status("watching")];

    fn received(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(std::time::Duration::from_secs(30)))
            .unwrap();
        let mut room = [0; 200];
        let length = socket.recv(&mut room).unwrap();
        String::from_utf8(room[..length].to_vec()).unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_notify_socket_gets_our_state() {
        let name = format!("bitbrat-test-{}", uuid::Uuid::new_v4());
        let manager = UnixDatagram::bind_addr(&in_abstract(name.as_bytes()).unwrap()).unwrap();
        send_to(OsStr::new(&format!("@{name}")), &STATES).unwrap();
        assert_eq!(received(&manager), "READY=1\nSTATUS=watching\n");
    }

    #[test]
    fn a_notify_socket_in_the_file_system_gets_our_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send_to(path.as_os_str(), &STATES).unwrap();
        assert_eq!(received(&manager), "READY=1\nSTATUS=watching\n");
        assert!(send_to(OsStr::new("vsock:2:1234"), &STATES).is_err());
    }
}
