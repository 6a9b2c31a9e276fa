//! Trusted certificates: those of the system, for HTTP and websockets alike.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::ConfigVerifierExt as _;

use crate::files;

/// Returns a TLS configuration with the system's certificates. They are read each time, so that corrected ones take effect at
/// once. The error is for people.
pub fn client_config() -> Result<Arc<ClientConfig>, String> {
    if has_special_file() {
        return Err(without_roots());
    }
    ClientConfig::with_platform_verifier()
        .map(Arc::new)
        .map_err(|_| without_roots())
}

/// Returns a TLS configuration that trusts nothing: every certificate is rejected, and plain HTTP needs none.
pub(crate) fn distrusting() -> ClientConfig {
    ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// Returns which of the variables for trusted certificates points to none that can be used, and why. A server whose certificate
/// is then rejected may be in order.
pub(crate) fn unusable_variable() -> Option<String> {
    let reasons = variables();
    let unusable: Vec<_> = reasons.into_iter().filter(|(_, usable)| !usable).collect();
    (!unusable.is_empty()).then(|| {
        let reasons: Vec<_> = unusable.into_iter().map(|(reason, _)| reason).collect();
        reasons.join(", ")
    })
}

/// Returns why no certificate of an authority could be loaded, and what to do.
pub(crate) fn without_roots() -> String {
    let reasons: Vec<String> = variables().into_iter().map(|(reason, _)| reason).collect();
    if reasons.is_empty() {
        "no CA certificates were found on this system, so no HTTPS connection can be trusted; install the package \
         ca-certificates, or set SSL_CERT_FILE"
            .to_owned()
    } else {
        format!(
            "no CA certificates could be loaded ({}), so no HTTPS connection can be trusted; correct or unset that variable",
            reasons.join(", ")
        )
    }
}

/// Whether reading `SSL_CERT_FILE` might never end, as with a FIFO or a device; libraries do not check that.
pub(crate) fn has_special_file() -> bool {
    let file = std::env::var_os("SSL_CERT_FILE").unwrap_or_default();
    Path::new(&file)
        .metadata()
        .is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Describes the values of the variables that are set, and whether certificates may be found there.
fn variables() -> Vec<(String, bool)> {
    let set = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(|name| (name, std::env::var_os(name)));
    let mut reasons = Vec::new();
    for (name, value) in set {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            continue;
        };
        let paths: Vec<PathBuf> = match name {
            "SSL_CERT_DIR" => std::env::split_paths(&value).collect(),
            _ => vec![value.into()],
        };
        reasons.extend(paths.iter().map(|path| {
            // A certificate itself in place of its path, and perhaps its key.
            if let Err(why) = crate::config::check_path(&path.to_string_lossy()) {
                return (format!("{name} {why}"), false);
            }
            let text = format!("{name} is {}", describe(path));
            (text, has_certificates(path))
        }));
    }
    reasons
}

/// Whether a file contains a certificate, or a directory a file.
fn has_certificates(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => certificates(path).is_ok_and(|found| found.contains(&true)),
    }
}

/// Returns for each certificate of a file whether it can be read.
fn certificates(path: &Path) -> io::Result<Vec<bool>> {
    let text = files::read_input(path, files::LARGE)?;
    Ok(CertificateDer::pem_slice_iter(&text)
        .map(|found| found.is_ok())
        .collect())
}

fn describe(path: &Path) -> String {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) => format!("{shown}: {error}"),
        Ok(found) if found.is_dir() => format!("{shown}, a directory without certificates"),
        Ok(found) if !found.is_file() => format!("{shown}, which is not a regular file"),
        Ok(found) if found.len() == 0 => format!("{shown}, which is empty"),
        Ok(_) => match certificates(path) {
            Err(error) => format!("{shown}: {error}"),
            Ok(found) if found.is_empty() => format!("{shown}, which holds no certificate (PEM)"),
            Ok(_) => format!("{shown}, whose certificates cannot be used"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_have_no_ca_certificates_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let broken = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert!(!has_certificates(&dir.path().join("missing.pem")));
        for (path, said) in [
            (dir.path().join("missing.pem"), "No such file"),
            (dir.path().to_owned(), "directory without certificates"),
            (file("empty.pem", ""), "which is empty"),
            (file("garbage.pem", "hello"), "holds no certificate"),
            (file("broken.pem", broken), "cannot be used"),
        ] {
            let text = describe(&path);
            assert!(text.contains(said), "{text}");
        }
    }
}
