//! TLS as libpq's `sslmode` asks for it, on rustls with the ring provider passed explicitly, so that
//! nothing depends on a provider installed for the process.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::fault::Fault;
use super::settings::{Settings, SslMode};

/// The client's side of TLS for these settings.
///
/// Roots: `sslrootcert`, else Mozilla's. `require` checks the issuer only where `sslrootcert` is given, as libpq does.
pub(super) fn client_config(settings: &Settings) -> Result<ClientConfig, Fault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &settings.sslrootcert {
        Some(path) => certificates(path, "sslrootcert")?,
        None => Vec::new(),
    };
    let verifier: Arc<dyn ServerCertVerifier> = match settings.sslmode {
        SslMode::VerifyFull => Arc::new(Verifier::new(roots, Names::MustMatch, provider.clone())?),
        SslMode::VerifyCa => Arc::new(Verifier::new(roots, Names::Any, provider.clone())?),
        SslMode::Require if !roots.is_empty() => Arc::new(Verifier::new(roots, Names::Any, provider.clone())?),
        _ => Arc::new(AnyServer(provider.clone())),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Fault::Tls(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match &settings.client_cert {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let chain = certificates(cert, "sslcert")?;
            let key =
                PrivateKeyDer::from_pem_file(key).map_err(|e| Fault::Tls(format!("sslkey {}: {e}", key.display())))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| Fault::Tls(format!("sslcert and sslkey: {e}")))
        }
    }
}

/// The name that the certificate must hold.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, Fault> {
    ServerName::try_from(host.to_owned()).map_err(|_| Fault::Tls("the host is not a name that TLS can check".into()))
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let wrong = |e: rustls::pki_types::pem::Error| Fault::Tls(format!("{what} {}: {e}", path.display()));
    let found = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() {
        return Err(Fault::Tls(format!("{what} {} holds no certificate", path.display())));
    }
    Ok(found)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Names {
    MustMatch,
    Any,
}

/// `verify-ca` and `verify-full`.
#[derive(Debug)]
struct Verifier {
    chain: Arc<WebPkiServerVerifier>,
    /// A server's own certificate may stand in `sslrootcert` itself: the one that PostgreSQL's manual
    /// makes with openssl is a CA, which webpki refuses as a server's, so it is compared byte for byte.
    pinned: Vec<CertificateDer<'static>>,
    names: Names,
}

impl Verifier {
    fn new(roots: Vec<CertificateDer<'static>>, names: Names, provider: Arc<CryptoProvider>) -> Result<Self, Fault> {
        let mut store = RootCertStore::empty();
        if roots.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        store.add_parsable_certificates(roots.iter().cloned());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|e| Fault::Tls(format!("sslrootcert: {e}")))?;
        Ok(Self { chain, pinned: roots, names })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|root| root == end_entity) {
            if self.names == Names::MustMatch {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            // The name is checked last, after the chain and the dates.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.names == Names::Any => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// `allow`, `prefer` and `require` without roots: encrypted, whoever answers. The handshake's own signature
/// is still checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `tls-server-end-point` (RFC 5929 section 4.1): the hash of the server's certificate by the hash of its own
/// signature, SHA-256 in the place of MD5 and SHA-1. `None`: the signature has no hash of its own
/// (Ed25519, RSA-PSS), so there is no channel binding.
pub(super) fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match signature_oid(certificate)? {
        // 1.2.840.113549.1.1.{4,5,11,12,13}: md5, sha1, sha256, sha384, sha512 with RSA
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 4 | 5 | 11] => Sha256::digest(certificate).to_vec(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12] => Sha384::digest(certificate).to_vec(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 13] => Sha512::digest(certificate).to_vec(),
        // 1.2.840.10045.4.1 and 4.3.{2,3,4}: ECDSA with sha1, sha256, sha384, sha512
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] => {
            Sha256::digest(certificate).to_vec()
        }
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => Sha384::digest(certificate).to_vec(),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 4] => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID, … }, … }`.
fn signature_oid(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OID: u8 = 0x06;
    let (inside, _) = der(certificate, SEQUENCE)?;
    let (_, after_tbs) = der(inside, SEQUENCE)?;
    let (algorithm, _) = der(after_tbs, SEQUENCE)?;
    Some(der(algorithm, OID)?.0)
}

/// The content of the DER element at the front, and what follows it.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let digits = usize::from(length & 0x7f);
        if digits == 0 || digits > 4 || rest.len() < digits {
            return None;
        }
        let (number, rest) = rest.split_at(digits);
        (number.iter().fold(0usize, |n, b| n << 8 | usize::from(*b)), rest)
    };
    (first == tag && rest.len() >= length).then(|| rest.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_certificate_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            end_point_hash(&bytes);
        }
    }
}
