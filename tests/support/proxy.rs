//! A proxy that is the only way to reach the hosts of a test: plain requests, tunnels (`CONNECT`) and SOCKS 5.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

/// The proxy. Its threads end with the test's process.
pub struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

struct Shared {
    /// The real address of each host.
    hosts: BTreeMap<String, SocketAddr>,
    /// `user:password`, where it requires credentials.
    login: Option<String>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one that resolves these hosts, and requires `login` where it is given.
    pub fn start(hosts: &[(&str, SocketAddr)], login: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let shared = Arc::new(Shared {
            hosts: hosts
                .iter()
                .map(|(name, address)| ((*name).to_owned(), *address))
                .collect(),
            login: login.map(str::to_owned),
            seen: Arc::clone(&seen),
        });
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(client, &shared));
            }
        });
        Self { address, seen }
    }

    /// `HOST:PORT` of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests that it received, in order: `CONNECT host:port`, `GET http://…`, `SOCKS host:port`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

fn serve(mut client: TcpStream, shared: &Shared) -> Option<()> {
    let mut first = [0];
    client.read_exact(&mut first).ok()?;
    if first[0] == 5 {
        return socks(client, shared);
    }
    let mut head = first.to_vec();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let (line, fields) = head.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    shared.seen.lock().push(format!("{method} {target}"));
    if let Some(login) = &shared.login {
        use base64::Engine as _;
        let wanted = base64::engine::general_purpose::STANDARD.encode(login);
        let shown = fields.lines().any(|field| {
            field.to_ascii_lowercase().starts_with("proxy-authorization:") && field.ends_with(&wanted)
        });
        if !shown {
            let _ =
                client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
            return None;
        }
    }
    let authority = target.split("://").last()?.split('/').next()?;
    let host = authority.split(':').next()?;
    let Some(address) = shared.hosts.get(host) else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
        return None;
    };
    let mut server = TcpStream::connect(address).ok()?;
    if method == "CONNECT" {
        client
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .ok()?;
    } else {
        // One request per connection, so that each one is recorded here.
        let path = target
            .split_once("://")?
            .1
            .split_once('/')
            .map_or("", |(_, path)| path);
        let fields: String = fields
            .split_inclusive("\r\n")
            .filter(|field| !field.to_ascii_lowercase().starts_with("proxy-"))
            .collect();
        let request = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n{fields}");
        server.write_all(request.as_bytes()).ok()?;
    }
    join(client, server)
}

fn socks(mut client: TcpStream, shared: &Shared) -> Option<()> {
    let mut count = [0];
    client.read_exact(&mut count).ok()?;
    client.read_exact(&mut vec![0; usize::from(count[0])]).ok()?;
    client.write_all(&[5, 0]).ok()?;
    let mut request = [0; 5];
    client.read_exact(&mut request).ok()?;
    // Only names are accepted: only the proxy can resolve the host.
    if request[..4] != [5, 1, 0, 3] {
        let _ = client.write_all(&[5, 8, 0, 1, 0, 0, 0, 0, 0, 0]);
        return None;
    }
    let mut name = vec![0; usize::from(request[4])];
    client.read_exact(&mut name).ok()?;
    let mut port = [0; 2];
    client.read_exact(&mut port).ok()?;
    let name = String::from_utf8(name).ok()?;
    shared
        .seen
        .lock()
        .push(format!("SOCKS {name}:{}", u16::from_be_bytes(port)));
    let Some(address) = shared.hosts.get(&name) else {
        let _ = client.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]);
        return None;
    };
    let server = TcpStream::connect(address).ok()?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    join(client, server)
}

fn join(client: TcpStream, server: TcpStream) -> Option<()> {
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (server, client);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Both);
    Some(())
}

/// Accepts TLS connections with a certificate of the test, and forwards the data to `server`.
pub fn tls_in_front_of(server: SocketAddr, certificates: &super::certificates::Certificates) -> SocketAddr {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_file(certificates.path("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.path("server.key")).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut open = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    let mut client = acceptor.accept(client).await.ok()?;
                    let mut server = tokio::net::TcpStream::connect(server).await.ok()?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()
                });
            }
        });
    });
    address
}
