//! Whom to believe on the other end, as libpq's `sslmode` says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::StoreUrlError;

/// Without a `root_cert` file the certificates of the system and Mozilla's are trusted; with one,
/// as in libpq, only those in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// Encrypt, believe anyone (`prefer`, `require`).
    Anyone,
    /// The certificate's issuer must be trusted, its name may differ (`verify-ca`).
    Issuer { root_cert: Option<PathBuf> },
    /// Issuer and host name must be right (`verify-full`).
    IssuerAndName { root_cert: Option<PathBuf> },
}

impl Trust {
    /// # Errors
    /// When the file with the trusted certificates can't be read or holds none.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, StoreUrlError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = match self {
            Self::Anyone => Verifier { provider: Arc::clone(&provider), issuers: None, check_name: false },
            Self::Issuer { root_cert } => Verifier::trusting(root_cert.as_deref(), &provider, false)?,
            Self::IssuerAndName { root_cert } => Verifier::trusting(root_cert.as_deref(), &provider, true)?,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreUrlError::RootCertificates(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, StoreUrlError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = file.filter(|file| *file != "system") {
        let unreadable = |reason: String| StoreUrlError::RootCertificates(format!("{}: {reason}", file.display()));
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unreadable("no certificate in it".into()));
        }
    } else {
        roots.roots.extend_from_slice(webpki_roots::TLS_SERVER_ROOTS);
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(roots)
}

/// One verifier for all modes: rustls' own, with the checks left out that the mode leaves out.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None`: any certificate will do, also one that can't be read, such as those of X.509 version 1. Then it
    /// tells nothing either that the other end has its key.
    issuers: Option<Arc<WebPkiServerVerifier>>,
    check_name: bool,
}

impl Verifier {
    fn trusting(
        root_cert: Option<&Path>,
        provider: &Arc<CryptoProvider>,
        check_name: bool,
    ) -> Result<Self, StoreUrlError> {
        let issuers = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(root_cert)?), Arc::clone(provider))
            .build()
            .map_err(|error| StoreUrlError::RootCertificates(error.to_string()))?;
        Ok(Self { provider: Arc::clone(provider), issuers: Some(issuers), check_name })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(issuers) = &self.issuers else { return Ok(ServerCertVerified::assertion()) };
        match issuers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is compared last, so everything else was right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.issuers.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.issuers.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
