//! The certificate of the interface, which is read again when its file changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at: a mounted Secret changes within a minute or two.
const EVERY: Duration = Duration::from_secs(10);

/// Why there is no certificate. Nothing of what the files have is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("reading {path:?}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has something else.
    #[error("{path:?} holds no {what} in PEM that can be used")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The two do not belong together, or are of a kind that is not supported.
    #[error("the certificate in {path:?} and its key cannot be used together")]
    Unfit {
        /// The file with the certificate.
        path: PathBuf,
    },
}

/// The certificate of today. Cloning shares it.
#[derive(Clone)]
pub struct Tls {
    files: Arc<(PathBuf, PathBuf)>,
    current: Arc<Mutex<(Vec<u8>, TlsAcceptor)>>,
}

impl Tls {
    /// Reads a certificate and its key.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Arc::new((certificate.to_owned(), key.to_owned()));
        let text = texts(&files)?;
        let acceptor = acceptor(&files, &text)?;
        Ok(Self { files, current: Arc::new(Mutex::new((text.concat(), acceptor))) })
    }

    /// What the next connection begins with.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.lock().1.clone()
    }

    /// Reads the files again whenever they have changed, for as long as this is polled. What cannot be used leaves all as it is.
    pub async fn follow(self) {
        loop {
            sleep(EVERY).await;
            match self.renew() {
                Ok(true) => tracing::info!("the certificate was renewed"),
                Ok(false) => {}
                Err(error) => {
                    let error = crate::runtime::telemetry::chain(&error);
                    tracing::warn!(error, "reading the certificate again failed; the one before stays in use");
                }
            }
        }
    }

    fn renew(&self) -> Result<bool, TlsError> {
        let text = texts(&self.files)?;
        if self.current.lock().0 == text.concat() {
            return Ok(false);
        }
        let acceptor = acceptor(&self.files, &text)?;
        *self.current.lock() = (text.concat(), acceptor);
        Ok(true)
    }
}

/// What the two files have.
fn texts(files: &(PathBuf, PathBuf)) -> Result<[Vec<u8>; 2], TlsError> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source });
    Ok([read(&files.0)?, read(&files.1)?])
}

fn acceptor(files: &(PathBuf, PathBuf), text: &[Vec<u8>; 2]) -> Result<TlsAcceptor, TlsError> {
    let unusable = |path: &PathBuf, what| TlsError::Unusable { path: path.clone(), what };
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&text[0]).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| unusable(&files.0, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&text[1]).map_err(|_| unusable(&files.1, "private key"))?;
    let unfit = || TlsError::Unfit { path: files.0.clone() };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| unfit())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|_| unfit())?;
    Ok(Arc::new(config).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named_and_nothing_of_them_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let said = |certificate: &Path, key: &Path| Tls::read(certificate, key).err().unwrap().to_string();
        let (secret, absent) = (file("a.pem", "hunter2"), folder.path().join("absent.pem"));
        assert!(said(&absent, &secret).contains("absent.pem"));
        let said = said(&secret, &secret);
        assert!(said.contains("a.pem") && said.contains("certificate") && !said.contains("hunter2"), "{said}");
    }
}
