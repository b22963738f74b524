//! The certificates of TLS: those that a server's is checked against, and the one that the client shows.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::error::ConnectError;
use super::secret::Secret;
use super::settings::Access;

const CA: &str = "REDIS_CA";
const CERT: &str = "REDIS_CLIENT_CERT";
const KEY: &str = "REDIS_CLIENT_KEY";

/// How certificates are checked, and what the server is shown. Nothing of what is given is in an error.
pub(super) fn client_config(access: &Access) -> Result<Arc<ClientConfig>, ConnectError> {
    let invalid = |field, detail: &str| ConnectError::Invalid { field, detail: detail.to_owned() };
    let mut roots = RootCertStore::empty();
    match &access.ca {
        Some(ca) => {
            let unusable = || invalid(CA, "it holds no PEM certificate that can be used");
            for certificate in chain(ca).map_err(|_| unusable())? {
                roots.add(certificate).map_err(|_| unusable())?;
            }
            if roots.is_empty() {
                return Err(unusable());
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match (&access.client_cert, &access.client_key) {
        (None, None) => config.with_no_client_auth(),
        (Some(_), None) => return Err(invalid(KEY, "it is missing, although there is a REDIS_CLIENT_CERT")),
        (None, Some(_)) => return Err(invalid(CERT, "it is missing, although there is a REDIS_CLIENT_KEY")),
        (Some(certificate), Some(key)) => {
            let chain = chain(certificate).ok().filter(|chain| !chain.is_empty());
            let chain = chain.ok_or_else(|| invalid(CERT, "it holds no PEM certificate that can be used"))?;
            let key = private_key(key).map_err(|detail| invalid(KEY, detail))?;
            config.with_client_auth_cert(chain, key).map_err(|error| unfit(&error))?
        }
    };
    Ok(Arc::new(config))
}

fn chain(text: &str) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect()
}

fn private_key(text: &Secret) -> Result<PrivateKeyDer<'static>, &'static str> {
    let text = text.reveal();
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        if text.contains("ENCRYPTED") {
            "it is encrypted; give it without a passphrase"
        } else {
            "it holds no PEM private key that can be used"
        }
    })
}

/// Why a certificate and a key, which can both be read, are not used.
fn unfit(error: &tokio_rustls::rustls::Error) -> ConnectError {
    use tokio_rustls::rustls::Error;

    let (field, detail) = if matches!(error, Error::InconsistentKeys(_)) {
        (KEY, "it is not the key of REDIS_CLIENT_CERT")
    } else if matches!(error, Error::InvalidCertificate(_)) {
        (CERT, "it holds no PEM certificate that can be used")
    } else {
        (KEY, "it is no private key of a kind that can be used")
    };
    ConnectError::Invalid { field, detail: detail.to_owned() }
}
