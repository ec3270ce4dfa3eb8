//! Encryption in front of a server of a test: what it says travels over TLS, by a certificate of its own.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A server named `localhost` that nobody trusts by itself.
pub(crate) struct Front {
    pub(crate) port: u16,
    /// Those who did not trust the certificate.
    pub(crate) refused: Arc<AtomicUsize>,
    folder: TempDir,
    _task: JoinSet<()>,
}

impl Front {
    /// Starts it before the server at `address`.
    pub(crate) async fn of(address: SocketAddr) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused: Arc<AtomicUsize> = Arc::default();
        let counts = refused.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counts) = (acceptor.clone(), counts.clone());
                serving.spawn(async move {
                    let Ok(mut outside) = acceptor.accept(stream).await else {
                        counts.fetch_add(1, Ordering::Relaxed);
                        return;
                    };
                    let mut inside = TcpStream::connect(address).await.unwrap();
                    drop(copy_bidirectional(&mut outside, &mut inside).await);
                });
            }
        });
        Self { port, refused, folder, _task: task }
    }

    /// The certificate that whoever comes must trust.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}
