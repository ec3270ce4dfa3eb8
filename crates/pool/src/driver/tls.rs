//! `TlsConfig`: encrypted connections by rustls, with its provider handed over explicitly.
//!
//! The peer's certificate is verified in each handshake, against the endpoint's host, and there is no way to switch that
//! off: credentials are written only to a peer that has proven its name. It knows nothing of Redis.
//!
//! ```no_run
//! use std::sync::Arc;
//! use evenkeel_pool::{DialConfig, TlsConfig};
//! # fn main() -> Result<(), evenkeel_pool::TlsError> {
//! let tls = TlsConfig::builder().roots_pem_file("/etc/redis/ca.pem").build()?;
//! let dial = DialConfig::default().secure(Some(Arc::new(tls.clone())));
//! // Later, when the files have been renewed:
//! tls.reload()?;
//! # Ok(())
//! # }
//! ```

use std::{
    borrow::Cow,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use evenkeel_protocol::Endpoint;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject};
use tokio_rustls::TlsConnector;

use super::dial::{Secure, Securing, Stream};

/// Why certificates cannot be used. Names files, never what is in them.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct TlsError(Arc<Problem>);

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("the client's certificate and key cannot be used")]
    Identity(#[source] rustls::Error),
    #[error("{0} has no certificate in it")]
    NoCertificate(String),
    #[error("the system has no trusted certificate authority")]
    NoRoots,
    #[error("{0} is not PEM with what is needed in it")]
    Pem(String, #[source] pem::Error),
    #[error("cannot read {0}")]
    Read(String, #[source] io::Error),
    #[error("{0} has a certificate that is no authority's")]
    Root(String, #[source] rustls::Error),
    #[error("`{0}` is no name that a certificate can be for")]
    ServerName(String),
    #[error("this build of rustls lacks what it needs")]
    Versions(#[source] rustls::Error),
}

impl From<Problem> for TlsError {
    fn from(problem: Problem) -> Self {
        Self(Arc::new(problem))
    }
}

/// Where PEM text comes from; a file is read again at each reload.
#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Text(Arc<[u8]>),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Pem {
    fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().to_owned())
    }

    fn text(text: impl AsRef<[u8]>) -> Self {
        Self::Text(text.as_ref().into())
    }

    /// How errors call it.
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(_) => "the PEM text".into(),
        }
    }

    fn read(&self) -> Result<Cow<'_, [u8]>, TlsError> {
        match self {
            Self::File(path) => match std::fs::read(path) {
                Ok(text) => Ok(Cow::Owned(text)),
                Err(error) => Err(Problem::Read(self.name(), error).into()),
            },
            Self::Text(text) => Ok(Cow::Borrowed(text)),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let text = self.read()?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let found = found.map_err(|error| Problem::Pem(self.name(), error))?;
        if found.is_empty() { Err(Problem::NoCertificate(self.name()).into()) } else { Ok(found) }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let text = self.read()?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| Problem::Pem(self.name(), error).into())
    }
}

/// What a [`TlsConfig`] is made of. `Debug` shows names of files only.
#[derive(Clone, Debug, Default)]
pub struct TlsBuilder {
    roots: Vec<Pem>,
    roots_der: Vec<RootDer>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
}

#[derive(Clone)]
struct RootDer(CertificateDer<'static>);

impl fmt::Debug for RootDer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DER")
    }
}

impl TlsBuilder {
    /// Trusts the authorities in this PEM file, in place of the system's. Default: the system's.
    #[must_use]
    pub fn roots_pem_file(mut self, path: impl AsRef<Path>) -> Self {
        self.roots.push(Pem::file(path));
        self
    }

    /// Trusts the authorities in this PEM text, in place of the system's. Default: the system's.
    #[must_use]
    pub fn roots_pem(mut self, text: impl AsRef<[u8]>) -> Self {
        self.roots.push(Pem::text(text));
        self
    }

    /// Trusts this authority, in place of the system's. Default: the system's.
    #[must_use]
    pub fn root_der(mut self, certificate: impl Into<Vec<u8>>) -> Self {
        self.roots_der.push(RootDer(CertificateDer::from(certificate.into())));
        self
    }

    /// Shows this certificate chain to servers that ask for one, with its key; both PEM files. Default: none is shown.
    #[must_use]
    pub fn client_certificate_files(mut self, chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.identity = Some((Pem::file(chain), Pem::file(key)));
        self
    }

    /// Shows this certificate chain to servers that ask for one, with its key; both PEM texts. Default: none is shown.
    #[must_use]
    pub fn client_certificate_pem(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some((Pem::text(chain), Pem::text(key)));
        self
    }

    /// The name that every server's certificate must be for. Default: the host of the endpoint that is dialled, its
    /// address when the host is one.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Reads everything and checks it. Blocks on files.
    ///
    /// # Errors
    /// A file that cannot be read, no certificate where one is needed, a key that does not fit its certificate, or a
    /// name that is none.
    pub fn build(self) -> Result<TlsConfig, TlsError> {
        Ok(TlsConfig { current: Arc::new(ArcSwap::from_pointee(self.read()?)) })
    }

    fn read(self) -> Result<Current, TlsError> {
        let name = match &self.server_name {
            Some(name) => Some(
                ServerName::try_from(name.clone()).map_err(|_invalid| Problem::ServerName(name.clone()))?,
            ),
            None => None,
        };
        let roots = self.read_roots()?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Problem::Versions)?
            .with_root_certificates(roots);
        let config = match &self.identity {
            Some((chain, key)) => {
                config.with_client_auth_cert(chain.certificates()?, key.key()?).map_err(Problem::Identity)?
            }
            None => config.with_no_client_auth(),
        };
        Ok(Current { config: Arc::new(config), name, made_of: self })
    }

    fn read_roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        if self.roots.is_empty() && self.roots_der.is_empty() {
            // Systems carry certificates that no library reads; what is left counts.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return if roots.is_empty() { Err(Problem::NoRoots.into()) } else { Ok(roots) };
        }
        for pem in &self.roots {
            for certificate in pem.certificates()? {
                roots.add(certificate).map_err(|error| Problem::Root(pem.name(), error))?;
            }
        }
        for RootDer(certificate) in &self.roots_der {
            roots.add(certificate.clone()).map_err(|error| Problem::Root("the DER".into(), error))?;
        }
        Ok(roots)
    }
}

/// What is in force.
struct Current {
    config: Arc<ClientConfig>,
    /// In place of each endpoint's host.
    name: Option<ServerName<'static>>,
    made_of: TlsBuilder,
}

/// Encrypts connections and verifies who answers; give it to
/// [`DialConfig::secure`](super::dial::DialConfig::secure). Cheap to clone; clones share what is in force.
#[derive(Clone)]
pub struct TlsConfig {
    current: Arc<ArcSwap<Current>>,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsConfig").field(&self.current.load().made_of).finish()
    }
}

impl TlsConfig {
    /// A configuration that trusts the system's authorities, to be changed.
    pub fn builder() -> TlsBuilder {
        TlsBuilder::default()
    }

    /// Reads all files again. Connections that are open stay as they are; every later dial uses what was read.
    /// Blocks on files.
    ///
    /// # Errors
    /// As [`TlsBuilder::build`]; what was in force stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        let made_of = self.current.load().made_of.clone();
        self.replace(made_of)
    }

    /// Puts another configuration in force for every later dial of all clones.
    ///
    /// # Errors
    /// As [`TlsBuilder::build`]; what was in force stays in force.
    pub fn replace(&self, builder: TlsBuilder) -> Result<(), TlsError> {
        self.current.store(Arc::new(builder.read()?));
        Ok(())
    }
}

/// What waits is encrypted: nobody knows how much it is.
impl Stream for tokio_rustls::client::TlsStream<Box<dyn Stream>> {}

impl Secure for TlsConfig {
    fn secure(&self, stream: Box<dyn Stream>, endpoint: &Endpoint) -> Securing {
        let current = self.current.load();
        let name = match &current.name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(endpoint.host().to_owned())
                .map_err(|invalid| io::Error::new(io::ErrorKind::InvalidInput, invalid)),
        };
        let connector = TlsConnector::from(Arc::clone(&current.config));
        Box::pin(async move {
            let stream = connector.connect(name?, stream).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

#[cfg(test)]
mod tests;
