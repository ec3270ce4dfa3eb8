//! TLS of the gateway's own, by rustls with its provider handed over explicitly.

use crate::config::TlsConfig;
use crate::error::ConfigError;
use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The certificate and key in force. They are replaced as one, with the sessions that clients may resume.
pub(crate) struct Tls(ArcSwap<ServerConfig>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads certificate and key.
    pub(crate) fn new(config: &TlsConfig) -> Result<Self, ConfigError> {
        Ok(Self(ArcSwap::from_pointee(read(config)?)))
    }

    /// Reads them anew, for handshakes from now on. With an error the old ones stay.
    pub(crate) fn reload(&self, config: &TlsConfig) -> Result<(), ConfigError> {
        self.0.store(Arc::new(read(config)?));
        Ok(())
    }

    /// Shakes hands with a client.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        acceptor.accept(stream).await
    }
}

/// Encrypts what the gateway itself asks others, trusting the system's authorities or those of a file.
pub(crate) struct Outgoing(ArcSwap<ClientConfig>);

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outgoing")
    }
}

impl Outgoing {
    /// Reads the authorities of `own`, or the system's; `key` is the setting that is blamed.
    pub(crate) fn new(key: &'static str, own: Option<&Path>) -> Result<Self, ConfigError> {
        Ok(Self(ArcSwap::from_pointee(Self::read(key, own)?)))
    }

    /// Reads the authorities of a file anew, for handshakes from now on. With an error the old ones stay.
    pub(crate) fn reload(&self, key: &'static str, own: &Path) -> Result<(), ConfigError> {
        self.0.store(Arc::new(Self::read(key, Some(own))?));
        Ok(())
    }

    fn read(key: &'static str, own: Option<&Path>) -> Result<ClientConfig, ConfigError> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = own {
            let wrong = |problem: String| ConfigError::new(key, format!("{}: {problem}", file.display()));
            for authority in certificates(file).map_err(wrong)? {
                roots.add(authority).map_err(|error| wrong(error.to_string()))?;
            }
        } else {
            // Systems carry certificates that no library reads; what is left counts.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err(ConfigError::new(key, "the system has no trusted certificate authority"));
        }
        Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new(key, error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }

    /// Shakes hands with a server that must prove to be `host`.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(self.0.load_full()).connect(name, stream).await
    }
}

/// The certificates of a file, at least one, or what is wrong with it.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err("has no certificate in PEM".to_owned()),
        all => all.map_err(|error| error.to_string()),
    }
}

fn read(config: &TlsConfig) -> Result<ServerConfig, ConfigError> {
    let wrong = |key: &'static str| {
        move |file: &Path, problem: String| ConfigError::new(key, format!("{}: {problem}", file.display()))
    };
    let (cert, key) = (wrong("tls.cert_file"), wrong("tls.key_file"));
    let chain = certificates(&config.cert_file).map_err(|problem| cert(&config.cert_file, problem))?;
    let text = std::fs::read(&config.key_file).map_err(|error| key(&config.key_file, error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => key(&config.key_file, "has no private key in PEM".to_owned()),
        other => key(&config.key_file, other.to_string()),
    })?;
    let unusable = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => {
            key(&config.key_file, "is not the key of the certificate in tls.cert_file".to_owned())
        }
        rustls::Error::InvalidCertificate(_) => cert(&config.cert_file, error.to_string()),
        other => key(&config.key_file, other.to_string()),
    };
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    // WebSockets and all else here are of HTTP/1.1.
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}
