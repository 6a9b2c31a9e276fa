//! Opens websockets in the way that requests are sent: over the same proxy, with the same trusted certificates.
//!
//! Which proxy is used follows from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, read by the code that the HTTP
//! client uses. Over an HTTP proxy the socket uses a tunnel (`CONNECT`), also an unencrypted one: a proxy need not support
//! websockets (RFC 6455, section 4.1).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Sink, SinkExt as _, Stream, StreamExt as _};
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError, TlsError, UrlError};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};
use tower_service::Service;
use url::Url;

use crate::core::code::Code;
use crate::core::source::PlatformName;
use crate::traffic::format::Side;
use crate::traffic::{SocketTap, Tap};
use crate::{descriptors, http, secrets, tls};

/// The stream below a websocket: a direct connection, or one through a proxy.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// An open websocket, whose frames may be recorded.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<Box<dyn Duplex>>>,
    tap: Option<SocketTap>,
}

impl Socket {
    /// Starts the closing handshake.
    pub async fn close(&mut self, frame: Option<CloseFrame>) -> Result<(), Error> {
        if let Some(tap) = &mut self.tap {
            tap.closed(Some(Side::Client), frame.as_ref().map(|frame| frame.code.into()));
        }
        self.stream.close(frame).await
    }
}

impl Stream for Socket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = ready!(self.stream.poll_next_unpin(cx));
        if let Some(tap) = &mut self.tap {
            match &message {
                Some(Ok(Message::Text(text))) => tap.frame(Side::Platform, text.as_bytes()),
                Some(Ok(Message::Binary(bytes))) => tap.frame(Side::Platform, bytes),
                Some(Ok(Message::Close(frame))) => {
                    tap.closed(
                        Some(Side::Platform),
                        frame.as_ref().map(|frame| frame.code.into()),
                    );
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => tap.closed(None, None),
            }
        }
        Poll::Ready(message)
    }
}

impl Sink<Message> for Socket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.stream.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        if let (Some(tap), Message::Text(text)) = (&self.tap, &message) {
            tap.frame(Side::Client, text.as_bytes());
        }
        self.stream.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.stream.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.stream.poll_close_unpin(cx)
    }
}

/// Why a websocket could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenError {
    /// A code of the network, or the status of a refused upgrade.
    pub code: Code,
    /// For people, without the address, which may hold a session's secret.
    pub reason: String,
    /// Whether another attempt must fail until a person has acted.
    pub permanent: bool,
}

impl OpenError {
    fn new(code: Code, reason: impl Into<String>, permanent: bool) -> Self {
        Self {
            code,
            // A proxy's own message may repeat what it was sent.
            reason: secrets::quote(&reason.into()),
            permanent,
        }
    }
}

/// Opens a websocket, whose frames `tap` records. The caller has to limit the time.
pub async fn open(
    url: &str,
    config: Option<WebSocketConfig>,
    tap: Option<&Tap>,
) -> Result<Socket, OpenError> {
    let opened = connect(url, config).await;
    let tap = tap.map(|tap| {
        let parsed: Option<Url> = url.parse().ok();
        let failed = opened.as_ref().err().map(|error| error.code.text().into_owned());
        tap.opened(parsed.as_ref().map_or("/", Url::path), failed)
    });
    opened.map(|stream| Socket { stream, tap })
}

async fn connect(
    url: &str,
    config: Option<WebSocketConfig>,
) -> Result<WebSocketStream<MaybeTlsStream<Box<dyn Duplex>>>, OpenError> {
    let not_one = || OpenError::new(Code::NetworkAddress, "the websocket's address is not one", true);
    let parsed: Url = url.parse().map_err(|_| not_one())?;
    // The library converts only text to a request with the headers of a handshake.
    let request = url.into_client_request().map_err(|error| explain(&error))?;
    let host = parsed.host_str().ok_or_else(not_one)?;
    let port = parsed.port_or_known_default().ok_or_else(not_one)?;
    let connector = match parsed.scheme() {
        "ws" => Connector::Plain,
        "wss" => {
            let config =
                tls::client_config().map_err(|reason| OpenError::new(Code::NetworkTls, reason, true))?;
            Connector::Rustls(config)
        }
        _ => return Err(not_one()),
    };
    let stream: Box<dyn Duplex> = match http::proxy_of(&parsed) {
        Some(proxy) => through(&proxy, host, port).await?,
        None => {
            let stream = TcpStream::connect(format!("{host}:{port}")).await;
            let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
            Box::new(stream.map_err(|error| of_io(&error))?)
        }
    };
    tokio_tungstenite::client_async_tls_with_config(request, stream, config, Some(connector))
        .await
        .map(|(socket, _)| socket)
        .map_err(|error| explain(&error))
}

/// Connects to `host` through a proxy.
async fn through(proxy: &Intercept, host: &str, port: u16) -> Result<Box<dyn Duplex>, OpenError> {
    let at = proxy.uri().clone();
    let place = http::place_of(proxy);
    let failed = |reason: &str| {
        let reason = match reason.to_lowercase() {
            lower if lower.contains("auth") => {
                format!(
                    "the proxy {place} requires a user and a password, or refuses the given ones ({reason})"
                )
            }
            _ => format!("the proxy {place} does not let us through ({reason})"),
        };
        OpenError::new(Code::NetworkProxy, reason, false)
    };
    let mut target: Uri = format!("https://{host}:{port}")
        .parse()
        .map_err(|_| failed("bad address"))?;
    let stream = match at.scheme_str() {
        Some("http" | "https") => {
            let mut tunnel = Tunnel::new(at.clone(), ToProxy);
            if let Some(credentials) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            tunnel
                .call(target)
                .await
                .map_err(|error| failed(&causes(&error)))?
        }
        Some(scheme @ ("socks4" | "socks4a" | "socks5" | "socks5h")) => {
            // As in curl: without the letter at the end, we resolve the name and the proxy gets an address.
            if matches!(scheme, "socks4" | "socks5") {
                let mut found = tokio::net::lookup_host(format!("{host}:{port}"))
                    .await
                    .map_err(|error| of_io(&error))?;
                if let Some(address) = found.next() {
                    target = format!("https://{address}")
                        .parse()
                        .map_err(|_| failed("bad address"))?;
                }
            }
            if scheme.starts_with("socks4") {
                let mut socks = SocksV4::new(at.clone(), ToProxy);
                socks
                    .call(target)
                    .await
                    .map_err(|error| failed(&error.to_string()))?
            } else {
                let mut socks = SocksV5::new(at.clone(), ToProxy);
                if let Some((user, password)) = proxy.raw_auth() {
                    socks = socks.with_auth(user.to_owned(), password.to_owned());
                }
                socks
                    .call(target)
                    .await
                    .map_err(|error| failed(&error.to_string()))?
            }
        }
        _ => return Err(failed("its kind is not supported")),
    };
    Ok(stream.into_inner())
}

/// Connects to a proxy, with TLS where its address requires it.
#[derive(Debug, Clone, Copy)]
struct ToProxy;

impl Service<Uri> for ToProxy {
    type Response = TokioIo<Box<dyn Duplex>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        async move {
            let host = proxy.host().unwrap_or_default();
            let (encrypted, usual) = match proxy.scheme_str() {
                Some("https") => (true, 443),
                Some("http") => (false, 80),
                _ => (false, 1080),
            };
            let stream = TcpStream::connect(format!("{host}:{}", proxy.port_u16().unwrap_or(usual))).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Duplex> = if encrypted {
                let config = tls::client_config().map_err(io::Error::other)?;
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
                Box::new(
                    tokio_rustls::TlsConnector::from(config)
                        .connect(name, stream)
                        .await?,
                )
            } else {
                Box::new(stream)
            };
            Ok(TokioIo::new(stream))
        }
        .boxed()
    }
}

/// Joins the messages of an error and its causes.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}

/// Returns why a handshake failed.
fn explain(error: &Error) -> OpenError {
    match error {
        Error::Http(response) => {
            let status = response.status().as_u16();
            let reason = format!("the websocket was refused with status {status}");
            // No upgrade request contains an authorization, so a gateway or an edge rejects it, and that may be over at any
            // moment.
            OpenError::new(Code::Http(status), reason, false)
        }
        Error::Tls(TlsError::InvalidDnsName) => OpenError::new(
            Code::NetworkTls,
            "no secure connection (the host's name cannot have a certificate)",
            true,
        ),
        Error::Tls(error) => {
            OpenError::new(Code::NetworkTls, format!("no secure connection ({error})"), true)
        }
        Error::Url(UrlError::UnableToConnect(_)) => {
            OpenError::new(Code::NetworkConnect, "no connection", false)
        }
        Error::Url(_) => OpenError::new(Code::NetworkAddress, "the websocket's address is not one", true),
        Error::Io(error) => of_io(error),
        _ => OpenError::new(Code::NetworkReset, "the websocket did not open", false),
    }
}

fn of_io(error: &io::Error) -> OpenError {
    if let Some(reason) = http::tls_reason(error) {
        return OpenError::new(Code::NetworkTls, reason, true);
    }
    let (code, reason) = match error.kind() {
        _ if descriptors::is_exhaustion(error) || descriptors::are_exhausted() => {
            (Code::NetworkTooManyFiles, descriptors::REASON)
        }
        io::ErrorKind::ConnectionRefused => (Code::NetworkConnect, "no connection (connection refused)"),
        io::ErrorKind::TimedOut => (Code::NetworkTimeout, "no connection in time"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            (Code::NetworkConnect, "no connection (no route to the host)")
        }
        _ if error.to_string().contains("lookup") => (Code::NetworkDns, "the host name cannot be resolved"),
        _ => (Code::NetworkReset, "no connection"),
    };
    OpenError::new(code, reason, false)
}

/// Returns why our own side ended a websocket to `platform`: a message that is not read. `None` where the connection itself
/// failed.
pub fn local_error(platform: PlatformName, error: &Error) -> Option<(Code, String)> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => Some((
            Code::MessageTooLarge(platform),
            format!("a message of {size} bytes is larger than the {max_size} bytes that are read"),
        )),
        Error::Utf8(_) => Some((
            Code::InvalidUtf8(platform),
            "a text or the reason of a close is not valid UTF-8".to_owned(),
        )),
        // The library also returns this for each end of the connection without a close.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(error) => Some((
            Code::ProtocolError(platform),
            format!("the websocket protocol was violated: {error}"),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::http::Response;

    use super::*;

    #[test]
    fn refused_upgrade_may_be_over_at_any_moment() {
        for status in [400, 401, 403, 404, 429, 502] {
            let response = Response::builder().status(status).body(None).unwrap();
            let error = explain(&Error::Http(Box::new(response)));
            assert!(!error.permanent, "{status}");
            assert_eq!(error.code, Code::Http(status));
            assert!(error.reason.contains(&status.to_string()), "{}", error.reason);
        }
    }

    #[test]
    fn message_that_is_not_read_is_no_broken_connection() {
        let too_long = Error::Capacity(CapacityError::MessageTooLong {
            size: 2_000_000,
            max_size: 1_048_576,
        });
        let (code, reason) = local_error(PlatformName::Twitch, &too_long).unwrap();
        assert!(
            code == Code::MessageTooLarge(PlatformName::Twitch) && reason.contains("1048576"),
            "{reason}"
        );
        assert_eq!(
            local_error(PlatformName::Discord, &Error::Utf8(String::new()))
                .unwrap()
                .0,
            Code::InvalidUtf8(PlatformName::Discord)
        );
        let reset = Error::Protocol(ProtocolError::ResetWithoutClosingHandshake);
        assert_eq!(local_error(PlatformName::Twitch, &reset), None);
        assert_eq!(
            local_error(
                PlatformName::Twitch,
                &Error::Io(io::ErrorKind::ConnectionReset.into())
            ),
            None
        );
    }
}
