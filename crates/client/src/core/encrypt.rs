//! Encryption of connections, from the configuration. A server that is to be met encrypted is never met in the clear.

use std::sync::Arc;

use evenkeel_pool::driver::dial::Secure;

use crate::{config::Config, error::Error};

/// Who encrypts the connections to data nodes and to sentinels.
#[derive(Clone, Debug, Default)]
pub(super) struct Encryption {
    pub(super) data: Option<Arc<dyn Secure>>,
    pub(super) sentinels: Option<Arc<dyn Secure>>,
}

#[cfg(not(feature = "tls"))]
pub(super) fn encryption(config: &Config) -> Result<Encryption, Error> {
    if config.tls().is_some() || sentinels_encrypted(config) {
        return Err(Error::wrong_setting(
            config,
            "is encrypted, and this program was built without the feature `tls`",
        ));
    }
    Ok(Encryption::default())
}

#[cfg(feature = "tls")]
pub(super) fn encryption(config: &Config) -> Result<Encryption, Error> {
    let data = config.tls().map(|tls| build(config, tls)).transpose()?;
    let sentinels = match (sentinels_encrypted(config), &data) {
        (false, _) => None,
        (true, Some(data)) => Some(Arc::clone(data)),
        (true, None) => Some(build(config, &crate::config::Tls::default())?),
    };
    Ok(Encryption { data, sentinels })
}

#[cfg(feature = "tls")]
fn build(config: &Config, tls: &crate::config::Tls) -> Result<Arc<dyn Secure>, Error> {
    if tls.insecure {
        return Err(Error::wrong_setting(
            config,
            "asks for encryption without verification, which is not offered",
        ));
    }
    let mut builder = evenkeel_pool::TlsConfig::builder();
    if let Some(roots) = &tls.ca_file {
        builder = builder.roots_pem_file(roots);
    }
    if let (Some(chain), Some(key)) = (&tls.cert_file, &tls.key_file) {
        builder = builder.client_certificate_files(chain, key);
    }
    if let Some(name) = &tls.server_name {
        builder = builder.server_name(name);
    }
    Ok(Arc::new(builder.build().map_err(Error::tls)?))
}

fn sentinels_encrypted(config: &Config) -> bool {
    matches!(config.deployment(), crate::config::Deployment::Sentinel { tls: true, .. })
}

#[cfg(all(test, not(feature = "tls")))]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_address_is_never_met_in_the_clear() {
        let config: Config = "rediss://localhost".parse().unwrap();
        let error = encryption(&config).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("tls"), "{error}");
    }
}
