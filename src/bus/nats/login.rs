//! Authentication of a NATS connection: users, tokens, credentials files, `NKeys`, and TLS.

use std::path::{Path, PathBuf};

use async_nats::{ConnectOptions, ServerAddr};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret, SecretString};

use crate::blocking::blocking;
use crate::{files, secrets};

/// Credentials in addition to those in the addresses. The first given one has precedence: credentials file, `NKey`, token,
/// user.
#[derive(Debug, Clone, Default)]
pub struct NatsLogin {
    /// User name and password.
    pub user: Option<(String, SecretString)>,
    /// Token, for servers that use one instead of users.
    pub token: Option<SecretString>,
    /// File with a JWT and its seed.
    pub creds_file: Option<PathBuf>,
    /// `NKey` seed; signs the challenge of the server.
    pub nkey_seed: Option<SecretString>,
    /// Certificates of trusted authorities, replacing the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and its private key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

/// Splits a list of addresses into the servers without credentials, and the credentials.
///
/// The client uses the same credentials for all servers and ignores those in an address, so they must be passed separately.
pub(super) fn addresses(list: &str) -> Result<(Vec<ServerAddr>, NatsLogin), String> {
    let mut login = NatsLogin::default();
    let mut servers = Vec::new();
    for server in list.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        let full = if server.contains("://") {
            server.to_owned()
        } else {
            format!("nats://{server}")
        };
        // The text may contain a password, so no error quotes it.
        let unreadable = || "one of its addresses cannot be read".to_owned();
        let mut url: url::Url = full.parse().map_err(|_| unreadable())?;
        let (user, password) = (decoded(url.username())?, url.password().map(decoded).transpose()?);
        match (user, password) {
            (user, Some(password)) => login.user = Some((user, secrets::secret(password))),
            // As in every other NATS client, a name without a password is a token.
            (user, None) if !user.is_empty() => login.token = Some(secrets::secret(user)),
            _ => {}
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(unreadable());
        }
        url.set_username("").map_err(|()| unreadable())?;
        url.set_password(None).map_err(|()| unreadable())?;
        servers.push(ServerAddr::from_url(url).map_err(|_| unreadable())?);
    }
    if servers.is_empty() {
        return Err("no address is given".to_owned());
    }
    Ok((servers, login))
}

fn decoded(text: &str) -> Result<String, String> {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| "the user or password in its address is not percent-encoded UTF-8".to_owned())
}

impl NatsLogin {
    /// Fills missing values from `other`.
    pub(super) fn or(self, other: Self) -> Self {
        // Explicit credentials replace those of the address as a whole.
        let own = self.creds_file.is_some()
            || self.nkey_seed.is_some()
            || self.token.is_some()
            || self.user.is_some();
        if own {
            return self;
        }
        Self {
            user: other.user,
            token: other.token,
            ..self
        }
    }

    /// Applies the credentials to the client's options. The error names the file that cannot be used, and the reason.
    pub(super) async fn apply(&self, options: ConnectOptions) -> Result<ConnectOptions, String> {
        let mut options = options;
        if let Some(path) = &self.creds_file {
            let text = read(path, "credentials file", "NATS_CREDS").await?;
            secrets::register_lines(&text);
            options = options.credentials(&text).map_err(|error| {
                format!(
                    "the credentials file {} (NATS_CREDS) is not one ({error})",
                    path.display()
                )
            })?;
        } else if let Some(seed) = &self.nkey_seed {
            let seed = seed.expose_secret();
            if seed.len() != 58 || !seed.starts_with("SU") {
                return Err(
                    "the NKey seed (NATS_NKEY_SEED) is not one; it begins with SU and has 58 characters"
                        .to_owned(),
                );
            }
            options = options.nkey(seed.to_owned());
        } else if let Some(token) = &self.token {
            options = options.token(token.expose_secret().to_owned());
        } else if let Some((user, password)) = &self.user {
            options = options.user_and_password(user.clone(), password.expose_secret().to_owned());
        }
        if let Some(path) = &self.ca_file {
            certificates(path, "CA file", "NATS_CA").await?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = &self.client_cert {
            let chain = certificates(certificate, "client certificate", "NATS_CERT").await?;
            let text = read(key, "private key", "NATS_KEY").await?;
            secrets::register_lines(&text);
            let private = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
                format!(
                    "the private key {} (NATS_KEY) holds none ({error})",
                    key.display()
                )
            })?;
            // The client library does not say why it cannot use a pair.
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            CertifiedKey::from_der(chain, private, &provider).map_err(|error| unusable_pair(&error))?;
            options = options
                .add_client_certificate(certificate.clone(), key.clone())
                .require_tls(true);
        }
        Ok(options)
    }
}

/// Reads an `NKey` seed from a file, which may contain comments as written by `nk`.
pub async fn nkey_file(path: &Path) -> Result<SecretString, String> {
    let text = read(path, "NKey file", "NATS_NKEY").await?;
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    seed.map(secrets::secret).ok_or_else(|| {
        format!(
            "the NKey file {} (NATS_NKEY) holds no seed of a user (SU…)",
            path.display()
        )
    })
}

/// Reads a file. The error names it, and the variable that names it.
async fn read(path: &Path, what: &str, key: &str) -> Result<String, String> {
    let file = path.to_owned();
    let text = blocking(move || files::read_input_text(&file, files::SMALL)).await;
    text.map_err(|error| format!("the {what} {} ({key}) cannot be read ({error})", path.display()))
}

async fn certificates(path: &Path, what: &str, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path, what, key).await?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!(
            "the {what} {} ({key}) holds no certificate (PEM)",
            path.display()
        )),
        Err(error) => Err(format!(
            "the {what} {} ({key}) is damaged ({error})",
            path.display()
        )),
    }
}

/// Describes why a client certificate and a private key cannot be used together.
fn unusable_pair(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            "the client certificate and the private key do not belong together; correct NATS_CERT and NATS_KEY".to_owned()
        }
        other => format!("the client certificate and the private key cannot be used ({other}); correct NATS_CERT and NATS_KEY"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::BusError;

    /// Returns the hint for a login that is refused for `reason`.
    fn hint(reason: &str) -> &'static str {
        let refused = BusError::Refused {
            location: "nats://here".to_owned(),
            reason: reason.to_owned(),
        };
        refused.hint().unwrap()
    }

    #[tokio::test]
    async fn mismatched_client_certificate_and_key_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let pair = |name: &str| {
            let pair = rcgen::generate_simple_self_signed(["bot".to_owned()]).unwrap();
            let (certificate, key) = (
                directory.path().join(name),
                directory.path().join(format!("{name}.key")),
            );
            std::fs::write(&certificate, pair.cert.pem()).unwrap();
            std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
            (certificate, key)
        };
        let (one, other) = (pair("one"), pair("other"));
        let options = async |certificate: &Path, key: &Path| {
            let login = NatsLogin {
                client_cert: Some((certificate.to_owned(), key.to_owned())),
                ..NatsLogin::default()
            };
            login.apply(async_nats::ConnectOptions::new()).await
        };
        assert!(options(&one.0, &one.1).await.is_ok());
        let reason = options(&one.0, &other.1).await.err().unwrap();
        assert!(reason.contains("do not belong together"), "{reason}");
        assert!(hint(&reason).contains("bus.nats_key_file"), "{reason}");
    }

    #[tokio::test]
    async fn hint_for_a_bad_nkey_seed_names_its_key() {
        let login = NatsLogin {
            nkey_seed: Some("not a seed".into()),
            ..NatsLogin::default()
        };
        let reason = login
            .apply(async_nats::ConnectOptions::new())
            .await
            .err()
            .unwrap();
        assert_eq!(hint(&reason), "correct bus.nats_nkey_seed (NATS_NKEY_SEED)");
    }

    #[test]
    fn credentials_in_a_nats_address_are_decoded_and_cut() {
        for (list, user, token) in [
            ("nats://bot:hunter2@a:4222", Some(("bot", "hunter2")), None),
            ("nats://b%40t:p%3Aw%2F%23@a:4222", Some(("b@t", "p:w/#")), None),
            ("tls://s3cr3t@a:4222,nats://b:4222", None, Some("s3cr3t")),
            ("bot:hunter2@a", Some(("bot", "hunter2")), None),
            ("nats://:pw@a", Some(("", "pw")), None),
            ("a:4222, b", None, None),
        ] {
            let (servers, login) = addresses(list).unwrap();
            let found = login
                .user
                .as_ref()
                .map(|(user, password)| (user.as_str(), password.expose_secret()));
            assert_eq!(
                (found, login.token.as_ref().map(ExposeSecret::expose_secret)),
                (user, token),
                "{list}"
            );
            for server in servers {
                assert!(!format!("{server:?}").contains('@'), "{server:?}");
            }
        }
        for list in ["", "nats://", "nats://b:p#w@a:4222", "nats://%ff:x@a"] {
            let error = addresses(list).unwrap_err();
            assert!(!error.contains("p#w"), "{error}");
        }
    }
}
