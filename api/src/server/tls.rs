//! The certificate that the API proves itself with, and its replacement while the service runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::x509::X509;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::signal::unix::Signal;

use crate::metrics::Metrics;

/// The variable that names the file of certificates.
const CERT: &str = "API_TLS_CERT";
/// The variable that names the file of the key.
const KEY: &str = "API_TLS_KEY";

/// How the API speaks TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate, read already.
    pub certificate: Arc<Certificate>,
    /// How often the files are looked at.
    pub period: Duration,
}

impl Tls {
    /// Reads the files; `None` when neither is named.
    ///
    /// # Errors
    /// The variable, the file, and what to do.
    pub fn new(
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        period: Duration,
    ) -> Result<Option<Self>, String> {
        match (cert, key) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(format!("{CERT} is set and {KEY} is not: set both, or none")),
            (None, Some(_)) => Err(format!("{KEY} is set and {CERT} is not: set both, or none")),
            (Some(cert), Some(key)) => {
                let certificate = Arc::new(Certificate::load(Files { cert, key })?);
                Ok(Some(Self { certificate, period }))
            }
        }
    }

    /// TLS 1.2 and 1.3. actix-web adds HTTP/2 and HTTP/1.1 as what may be spoken inside.
    pub(crate) fn server_config(&self) -> Result<ServerConfig, String> {
        let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions();
        let config = versions.map_err(|error| format!("TLS can't be set up: {error}"))?;
        Ok(config
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.certificate) as Arc<dyn ResolvesServerCert>))
    }
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What the files say, as of the last time that they could be used.
#[derive(Debug)]
pub struct Certificate {
    files: Files,
    current: RwLock<Loaded>,
    /// Of what was looked at last, whether it could be used or not.
    seen: Mutex<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Loaded {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

/// Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    not_before: i64,
    not_after: i64,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.loaded().key))
    }
}

impl Certificate {
    fn load(files: Files) -> Result<Self, String> {
        let (texts, seen) = files.read();
        let loaded = files.check(texts?)?;
        Ok(Self { files, current: RwLock::new(loaded), seen: Mutex::new(seen) })
    }

    fn loaded(&self) -> Loaded {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says until when the certificate holds, and warns when it does not hold now.
    pub(crate) fn report(&self, metrics: &Metrics) {
        let Validity { not_before, not_after } = self.loaded().validity;
        metrics.certificate_expiry(not_after);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let file = self.files.cert.display();
        if now > not_after {
            tracing::warn!(%file, not_after, "the certificate has expired: clients will refuse it");
        } else if now < not_before {
            tracing::warn!(%file, not_before, "the certificate is not valid yet: clients will refuse it");
        }
    }

    /// Looks at the files whenever `hangup` comes, and every `period`; for ever.
    pub(crate) async fn keep_fresh(
        self: Arc<Self>,
        metrics: Arc<Metrics>,
        period: Duration,
        mut hangup: Signal,
    ) {
        loop {
            let asked = tokio::time::timeout(period, hangup.recv()).await.is_ok();
            let certificate = Arc::clone(&self);
            // Files may lie on a network.
            let looked = tokio::task::spawn_blocking(move || certificate.look(asked)).await;
            match looked {
                Ok(Ok(true)) => {
                    tracing::info!(file = %self.files.cert.display(), "the certificate was replaced");
                    self.report(&metrics);
                }
                Ok(Ok(false)) => {}
                Ok(Err(cause)) => tracing::warn!(
                    cause,
                    "the certificate could not be replaced: the one of before stays"
                ),
                Err(error) => tracing::warn!(%error, "the certificate was not looked at"),
            }
        }
    }

    /// Takes what the files say now, when that is news or somebody `asked`. True when it was taken.
    fn look(&self, asked: bool) -> Result<bool, String> {
        let (texts, seen) = self.files.read();
        let mut last = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // By content: a volume of secrets swaps links, and times of files may go back.
        if *last == seen && !asked {
            return Ok(false);
        }
        *last = seen;
        let loaded = self.files.check(texts?)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(true)
    }
}

impl Files {
    /// Both texts, and a digest of them or of why they can't be read.
    fn read(&self) -> (Result<[Vec<u8>; 2], String>, Vec<u8>) {
        let read = |variable, path: &Path| {
            std::fs::read(path).map_err(|error| {
                let path = path.display();
                format!("{variable}={path} can't be read: {error}; name a PEM file that this user may read")
            })
        };
        let texts =
            read(CERT, &self.cert).and_then(|cert| read(KEY, &self.key).map(|key| [cert, key]));
        let mut digest = Sha256::new();
        match &texts {
            Ok([cert, key]) => {
                digest.update(Sha256::digest(cert));
                digest.update(Sha256::digest(key));
            }
            Err(error) => digest.update(error),
        }
        (texts, digest.finalize().to_vec())
    }

    fn check(&self, [cert, key]: [Vec<u8>; 2]) -> Result<Loaded, String> {
        let (cert_file, key_file) = (self.cert.display(), self.key.display());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
        let chain = chain.map_err(|error| broken(CERT, &self.cert, &error))?;
        let leaf = chain.first().ok_or_else(|| {
            format!("{CERT}={cert_file} has no certificate in it; name a PEM file with the server's own certificate first, then those between it and the authority's")
        })?;
        let validity = X509::from_der(leaf).ok().as_deref().and_then(validity);
        let validity = validity.ok_or_else(|| {
            format!(
                "{CERT}={cert_file}: its first certificate can't be read; export it again as PEM"
            )
        })?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| match error {
            pem::Error::NoItemsFound => format!(
                "{KEY}={key_file} has no private key in it; name a PEM file with the certificate's key, without a passphrase"
            ),
            error => broken(KEY, &self.key, &error),
        })?;
        let provider: &CryptoProvider = &ring::default_provider();
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "{KEY}={key_file} is not the key of the first certificate in {CERT}={cert_file}; name the two that belong together"
            ),
            error => {
                format!("{KEY}={key_file} can't be used: {error}; RSA of 2,048 bits or more, ECDSA P-256 or P-384, or Ed25519")
            }
        })?;
        Ok(Loaded { key: Arc::new(key), validity })
    }
}

/// What is no PEM. The error's own text could quote the file.
fn broken(variable: &str, path: &Path, error: &pem::Error) -> String {
    let mut text = format!("{variable}={} is no whole PEM file", path.display());
    if let pem::Error::Io(error) = error {
        let _ = write!(text, " ({error})");
    }
    text + "; write it again"
}

fn validity(certificate: &openssl::x509::X509Ref) -> Option<Validity> {
    let epoch = Asn1Time::from_unix(0).ok()?;
    let unix = |time: &Asn1TimeRef| {
        let since = epoch.diff(time).ok()?;
        Some(i64::from(since.days) * 86_400 + i64::from(since.secs))
    };
    Some(Validity {
        not_before: unix(certificate.not_before())?,
        not_after: unix(certificate.not_after())?,
    })
}
