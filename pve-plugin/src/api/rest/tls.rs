//! Whether the server is the right one: by the fingerprint of its certificate, or by the cluster's CA.

use rblocksync::error::{Error, Kind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// SHA-256 of a certificate, as Proxmox VE shows it: `AA:BB:...`
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(certificate).into())
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Fingerprint> {
        let bad = || {
            Error::new(
                Kind::Usage,
                format!("\"{}\" is not a fingerprint", text.escape_default()),
            )
            .advise("it is 32 pairs of hexadecimal digits with colons between: `pvenode cert info` shows it")
        };
        let pairs: Vec<&str> = text.split(':').collect();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() {
            return Err(bad());
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let hex = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = match (hex, u8::from_str_radix(pair, 16)) {
                (true, Ok(value)) => value,
                _ => return Err(bad()),
            };
        }
        Ok(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|b| format!("{b:02X}")).collect();
        f.write_str(&pairs.join(":"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// How the server is known.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Its certificate is exactly this one. Names and dates in it do not matter.
    Fingerprint(Fingerprint),
    /// Its certificate is for the name in the address, valid, and signed by one of the CAs in this PEM file.
    Ca(PathBuf),
}

pub(super) fn config(trust: &Trust) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Fingerprint(wanted) => Arc::new(Pinned {
            wanted: *wanted,
            provider: Arc::clone(&provider),
        }),
        Trust::Ca(file) => by_ca(file, &provider)?,
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(Kind::Usage, "cannot set up TLS").because(e))?
        // What is dangerous is a verifier of one's own: this one takes one certificate and no other.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

fn by_ca(file: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let what = || format!("cannot use the CA in {}", file.display());
    let bad = |why: String| {
        Error::new(Kind::Usage, what())
            .because(why)
            .advise("the cluster's is /etc/pve/pve-root-ca.pem on each node")
    };
    let text = std::fs::read(file).map_err(|e| Error::io(what(), e))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("there is no certificate in it".into()));
    }
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    match built.build() {
        Ok(verifier) => Ok(verifier),
        Err(e) => Err(bad(e.to_string())),
    }
}

/// Takes one certificate. That the server has its key is proved by the handshake's signature, which is checked as ever.
#[derive(Debug)]
struct Pinned {
    wanted: Fingerprint,
    provider: Arc<CryptoProvider>,
}

/// The certificate is another one.
#[derive(Debug)]
struct WrongFingerprint {
    found: Fingerprint,
}

impl fmt::Display for WrongFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its certificate has the fingerprint {}", self.found)
    }
}

impl std::error::Error for WrongFingerprint {}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of(end_entity);
        match found == self.wanted {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(
                CertificateError::Other(rustls::OtherError(Arc::new(WrongFingerprint { found })))
                    .into(),
            ),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The error, if the reason for a failed request is that the server is not trusted or speaks no TLS.
pub(super) fn distrust(address: &str, failure: &reqwest::Error) -> Option<Error> {
    let reason = tls_error(failure)?;
    let what = format!("{address} is not the server that was expected");
    let error = |why: String| Error::new(Kind::Refused, what.clone()).because(why);
    Some(match reason {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            error(other.0.to_string()).advise(
                "if the node got a new certificate, compare with `pvenode cert info` there before you take it; \
                 otherwise somebody is in between",
            )
        }
        rustls::Error::InvalidCertificate(
            why @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
        ) => error(why.to_string())
            .advise("use a name that is in its certificate, or --fingerprint"),
        rustls::Error::InvalidCertificate(why) => error(why.to_string())
            .advise("is it this cluster's CA? It is /etc/pve/pve-root-ca.pem on each node; or use --fingerprint"),
        other => Error::new(Kind::Remote, format!("no TLS connection to {address}"))
            .because(other.to_string()),
    })
}

/// It is below what reqwest, hyper and the I/O layer wrap around it, which do not all show what they wrap as their source.
fn tls_error(failure: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(failure);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            let inner = io
                .get_ref()
                .map(|e| e as &(dyn std::error::Error + 'static));
            if let Some(inner) = inner {
                next = Some(inner);
                continue;
            }
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_and_shown_alike() {
        let text = Fingerprint::of(b"x").to_string();
        assert_eq!(text.len(), 95);
        assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), text);
        assert_eq!(
            text.to_lowercase().parse::<Fingerprint>().unwrap(),
            text.parse().unwrap()
        );
        for bad in [
            "",
            "AA",
            &text[3..],
            &text.replace(':', ""),
            &text.replace("A", "G"),
            &format!("{text}:AA"),
            &text.replacen(':', ":+", 1),
        ] {
            if bad != text {
                bad.parse::<Fingerprint>().unwrap_err();
            }
        }
    }

    #[test]
    fn a_file_without_a_ca_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let trust = Trust::Ca(file.clone());
        assert_eq!(config(&trust).unwrap_err().kind(), Kind::NotFound);
        for text in [
            "",
            "x",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(config(&trust).unwrap_err().kind(), Kind::Usage, "{text:?}");
        }
    }
}
