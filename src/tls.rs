//! TLS to Asterisk and to receivers: 1.2 or newer, ring, and a certificate that is always verified, by the
//! system's roots, by `ca_file` in their place, or by a pinned public key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

/// What the configuration says about TLS for one peer.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// In place of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the certificate's public key (SPKI), base64. Alone it stands in place of a chain
    /// of trust, a name and a date; beside `ca_file` both must hold.
    pub pin: Option<String>,
    /// Our certificate and its key, where the receiver asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// The client configuration, without protocols to negotiate (ALPN).
///
/// # Errors
/// With what is wrong, where, and what to do.
pub fn client_config(settings: &TlsSettings) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(settings, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match &settings.client {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| format!("client_key_file {}: {e}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(cert, "client_cert_file")?, key_der)
                .map_err(|e| format!("client_cert_file {} and its key: {e}", cert.display()))
        }
    }
}

fn verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let chain = match (&settings.ca_file, &settings.pin) {
        (Some(path), _) => Some(own_roots(path, provider)?),
        (None, Some(_)) => None,
        (None, None) => Some(system_roots(provider)?),
    };
    let Some(pin) = &settings.pin else {
        return chain.ok_or_else(|| "no certificate verifier".to_owned());
    };
    let pin = STANDARD.decode(pin.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or(
        "pin is not the base64 of a SHA-256 (44 characters): `callpost check` prints the receiver's",
    )?;
    Ok(Arc::new(Pinned { pin, chain, provider: Arc::clone(provider) }))
}

fn system_roots(provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(provider)).map_err(|e| {
        format!("the system's root certificates: {e}: install ca-certificates, or name a ca_file")
    })?;
    Ok(Arc::new(verifier))
}

fn own_roots(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "ca_file")? {
        roots.add(certificate).map_err(|e| format!("ca_file {}: {e}", path.display()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
        .map_err(|e| format!("ca_file {}: {e}", path.display()))
}

fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| format!("{key} {}: {e}", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("{key} {} holds no certificate in PEM form", path.display()));
    }
    Ok(certificates)
}

/// Accepts one public key, and the chain as well where there is one to check.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    chain: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let seen: [u8; 32] = Sha256::digest(certificate.subject_public_key_info().as_ref()).into();
        if seen != self.pin {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        match &self.chain {
            Some(chain) => {
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
