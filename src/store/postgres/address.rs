//! The address of a database in PostgreSQL, as libpq writes it. Pure.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};

use crate::secrets;

/// How the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// The server's certificate is verified, its name included.
    Verify,
    /// Encrypted, but the certificate is not verified.
    Insecure,
    /// Not encrypted.
    Off,
}

impl std::str::FromStr for TlsMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "verify" => Ok(Self::Verify),
            "insecure" => Ok(Self::Insecure),
            "off" => Ok(Self::Off),
            _ => Err(()),
        }
    }
}

/// A database, and how to log in there. Printed without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    config: Config,
    /// How the connection is encrypted.
    pub tls: TlsMode,
    /// Certificates of the authorities that are trusted instead of the system's.
    pub root_cert: Option<PathBuf>,
}

/// Options that libpq has and this program does not.
const UNSUPPORTED: &[&str] = &[
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "passfile",
    "service",
    "krbsrvname",
    "gssencmode",
    "replication",
];

impl PostgresAddress {
    /// Parses `postgres://[USER[:PASSWORD]@]HOST[:PORT][,…]/DATABASE[?OPTION=VALUE&…]`. The error is for people, and shows no password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut sslmode = None;
        let mut root_cert = None;
        let mut kept: Vec<&str> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "sslmode" => sslmode = Some(value()),
                // The word for what happens without a file.
                "sslrootcert" if value() == "system" => {}
                "sslrootcert" => root_cert = Some(PathBuf::from(value())),
                "channel_binding" if value() == "require" => {
                    return Err("channel_binding=require is not supported; leave it out".to_owned());
                }
                name if UNSUPPORTED.contains(&name) => {
                    return Err(format!("its option {name} is not supported"));
                }
                _ => kept.push(pair),
            }
        }
        let mut text = base.to_owned();
        if !kept.is_empty() {
            text = format!("{base}?{}", kept.join("&"));
        }
        let mut config: Config = text.parse().map_err(|error| unreadable(&error))?;
        secrets::register_addresses(url);
        if has_part_of_password(&config) {
            return Err("its user or password contains `@`; write it as %40".to_owned());
        }
        require_parts(&config)?;
        let tls = tls_mode(sslmode.as_deref(), &config)?;
        // With several servers, the one that accepts writes is meant.
        if config.get_hosts().len() > 1 && !query.contains("target_session_attrs") {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let address = Self {
            config,
            tls,
            root_cert,
        };
        Ok(match address.config.get_password().map(<[u8]>::to_vec) {
            Some(password) => address.with_password(&String::from_utf8_lossy(&password)),
            None => address,
        })
    }

    /// Sets the password.
    pub fn with_password(mut self, password: &str) -> Self {
        secrets::register_password(self.config.get_user().unwrap_or_default(), password);
        self.config.password(password);
        self
    }

    /// Whether it contains a password.
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// Returns what the client connects with.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the user's name.
    pub(crate) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// Returns the database's name.
    pub(crate) fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_else(|| self.user())
    }
}

/// Whether a host begins with the rest of a password in which `@` is not encoded.
fn has_part_of_password(config: &Config) -> bool {
    let mut hosts = config.get_hosts().iter();
    hosts.any(|host| matches!(host, Host::Tcp(name) if name.contains('@')))
}

impl fmt::Display for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        let servers = self.config.get_hosts().iter().enumerate().map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
                Host::Tcp(name) => format!("{name}:{port}"),
                #[cfg(unix)]
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        });
        let servers = servers.collect::<Vec<_>>().join(",");
        write!(f, "postgres:{servers}/{}", self.database())
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn require_parts(config: &Config) -> Result<(), String> {
    let is_empty = |text: Option<&str>| text.is_none_or(str::is_empty);
    if config.get_hosts().is_empty() {
        return Err("it names no server".to_owned());
    }
    if is_empty(config.get_user()) {
        return Err("it names no user: write the name and an @ before the host".to_owned());
    }
    Ok(())
}

/// The parser's message names the option; its cause says what is wrong with the value, and never quotes a password.
fn unreadable(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let text = cause.unwrap_or_else(|| error.to_string());
    format!(
        "it is not an address of PostgreSQL ({}); characters such as # / ? @ in a password are written as %23 %2F %3F %40",
        secrets::quote(&text)
    )
}

/// Interprets libpq's `sslmode`. Its weaker modes accept any certificate; here they verify it, unless `store.tls` says otherwise.
fn tls_mode(sslmode: Option<&str>, config: &Config) -> Result<TlsMode, String> {
    match sslmode {
        Some("disable") => Ok(TlsMode::Off),
        Some("allow" | "prefer" | "require" | "verify-ca" | "verify-full") => Ok(TlsMode::Verify),
        // The form of node-postgres.
        Some("no-verify") => Ok(TlsMode::Insecure),
        Some(other) => Err(format!(
            "its sslmode `{}` is not disable, require, verify-ca or verify-full",
            secrets::repeated(other)
        )),
        // What does not leave the machine needs no encryption, and servers of Debian have no certificate that could be verified.
        None if config.get_hosts().iter().all(is_local) => Ok(TlsMode::Off),
        None => Ok(TlsMode::Verify),
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) if name == "localhost" => true,
        Host::Tcp(name) => name
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> PostgresAddress {
        PostgresAddress::parse(url).unwrap()
    }

    #[test]
    fn unescaped_at_sign_shows_no_part_of_the_password() {
        let error = PostgresAddress::parse("postgres://bb:p@SECRET@127.0.0.1:5432/bb").unwrap_err();
        assert!(error.contains("%40") && !error.contains("SECRET"), "{error}");
    }

    #[test]
    fn address_is_shown_without_its_password() {
        for (url, shown) in [
            (
                "postgres://rat:s3cr3t@db.example/brat",
                "postgres:db.example:5432/brat",
            ),
            ("postgresql://rat:s3cr3t@db:6432", "postgres:db:6432/rat"),
            ("postgres://rat@[::1]:6/x?password=s3cr3t", "postgres:[::1]:6/x"),
            ("postgres://rat:s3cr3t@a:1,b:2/x", "postgres:a:1,b:2/x"),
        ] {
            let address = parse(url);
            assert_eq!(
                (address.to_string(), format!("{address:?}")),
                (shown.into(), shown.into())
            );
        }
    }

    #[test]
    fn sslmode_of_libpq_is_understood() {
        for (url, tls) in [
            ("postgres://rat@db/x", TlsMode::Verify),
            ("postgres://rat@db/x?sslmode=verify-full", TlsMode::Verify),
            ("postgres://rat@db/x?sslmode=require", TlsMode::Verify),
            ("postgres://rat@db/x?sslmode=disable", TlsMode::Off),
            ("postgres://rat@db/x?sslmode=no-verify", TlsMode::Insecure),
            ("postgres://rat@127.0.0.1/x", TlsMode::Off),
            ("postgres://rat@localhost/x?sslmode=verify-full", TlsMode::Verify),
            ("postgres://rat@localhost,db/x", TlsMode::Verify),
            ("postgres://rat@%2Frun%2Fpostgresql/x", TlsMode::Off),
        ] {
            assert_eq!(parse(url).tls, tls, "{url}");
        }
    }

    #[test]
    fn sslrootcert_is_the_file_of_trusted_authorities() {
        let address =
            parse("postgres://rat@db/x?sslrootcert=%2Fetc%2Fca.pem&connect_timeout=3&sslmode=verify-full");
        assert_eq!(address.root_cert, Some("/etc/ca.pem".into()));
        assert_eq!(parse("postgres://rat@db/x?sslrootcert=system").root_cert, None);
    }

    #[test]
    fn address_that_cannot_be_used_is_refused_without_its_password() {
        for (url, reason) in [
            ("postgres://", "names no server"),
            ("postgres://db/x", "names no user"),
            ("postgres://rat:s3cr3t@db:port/x", "not an address"),
            ("postgres://rat:s3cr3t@db/x?sslmode=perhaps", "sslmode"),
            (
                "postgres://rat:s3cr3t@db/x?sslcert=me.pem",
                "sslcert is not supported",
            ),
            ("postgres://rat:s3cr3t@db/x?wings=2", "wings"),
            (
                "postgres://rat:s3cr3t@db/x?channel_binding=require",
                "channel_binding",
            ),
        ] {
            let refused = PostgresAddress::parse(url).unwrap_err();
            assert!(
                refused.contains(reason) && !refused.contains("s3cr3t"),
                "{url}: {refused}"
            );
        }
    }

    #[test]
    fn of_several_servers_the_writable_one_is_used() {
        let several = parse("postgres://rat@a,b/x");
        let attributes = several.config().get_target_session_attrs();
        assert_eq!(attributes, TargetSessionAttrs::ReadWrite);
        let any = parse("postgres://rat@a,b/x?target_session_attrs=any");
        assert_eq!(any.config().get_target_session_attrs(), TargetSessionAttrs::Any);
    }
}
