//! A certificate authority for one test, with a server's certificate and a client's.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// The certificates, as files in a directory that is deleted after the test: `ca.pem`, `server.pem`, `server.key`, `client.pem`,
/// `client.key`. The server is `localhost`, `127.0.0.1` and every name given.
pub struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    pub fn new(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write("ca.pem", authority.self_signed(&key).unwrap().pem());
        let authority = Issuer::new(authority, key);
        for (name, usage) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let key = KeyPair::generate().unwrap();
            let all = ["localhost", "127.0.0.1"].iter().chain(names);
            let mut leaf =
                CertificateParams::new(all.map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
            leaf.extended_key_usages = vec![usage];
            write(
                &format!("{name}.pem"),
                leaf.signed_by(&key, &authority).unwrap().pem(),
            );
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
