//! Stands between the certificate files of a listener and the handshakes that are made with them.
//! Invariant: what is served is a certificate and a key that belong together. Files that are changed are taken when
//! all of them fit, and until then the ones before are served.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::delivery::{TlsProblem, certificates, private_key};

/// Protocols offered, the preferred one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Versions from 1.2 on, and 1.3 alone.
const FROM_1_2: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
const ONLY_1_3: [&SupportedProtocolVersion; 1] = [&version::TLS13];
/// Largest file that is read, in bytes; a bundle of all public authorities is a quarter of it.
const FILE_MAX: u64 = 1 << 20;
/// Between two looks at the files.
pub const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What a listener needs for TLS; see `server.listen` in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and its authority (PEM), its own first.
    pub cert: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// Whom certificates of clients are asked of.
    pub client: Option<ClientAuthority>,
    /// The oldest version that is spoken.
    pub oldest: TlsVersion,
}

/// Who signs the certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuthority {
    /// Certificates (PEM) of the authorities.
    pub ca: PathBuf,
    /// Whether a client without a certificate is refused. One with a wrong certificate always is.
    pub required: bool,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// 1.2 (RFC 5246).
    #[default]
    V1_2,
    /// 1.3 (RFC 8446).
    V1_3,
}

/// One of the files of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// [`TlsFiles::cert`].
    Certificate,
    /// [`TlsFiles::key`].
    Key,
    /// [`ClientAuthority::ca`].
    ClientAuthority,
}

/// Why the files of a listener cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesProblem {
    /// A file cannot be read.
    #[error("`{}` cannot be read: {source}", .path.display())]
    Read {
        /// Which file.
        part: Part,
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it must.
    #[error("`{}` cannot be used: {}", .path.display(), told(.source))]
    Content {
        /// Which file.
        part: Part,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: TlsProblem,
    },
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate `{}`", .0.display())]
    Mismatch(PathBuf),
    /// The TLS library cannot be used.
    #[error("no TLS: {0}")]
    Library(#[source] rustls::Error),
}

impl FilesProblem {
    /// Which file is meant.
    pub fn part(&self) -> Part {
        match self {
            Self::Read { part, .. } | Self::Content { part, .. } => *part,
            Self::Mismatch(_) => Part::Key,
            Self::Library(_) => Part::Certificate,
        }
    }
}

/// A problem with its cause, in one line.
fn told(problem: &TlsProblem) -> String {
    match std::error::Error::source(problem) {
        Some(cause) => format!("{problem}: {cause}"),
        None => problem.to_string(),
    }
}

/// The certificates of one listener, as they are now.
#[derive(Debug)]
pub struct Certificates {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    /// Of the texts that were looked at last, good or bad.
    seen: Mutex<[u8; 32]>,
}

/// What the files hold.
struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Whether these files can be served.
///
/// # Errors
/// See [`FilesProblem`].
pub fn check(files: &TlsFiles) -> Result<(), FilesProblem> {
    make(files, &Texts::read(files)?).map(|_| ())
}

impl Certificates {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// See [`FilesProblem`].
    pub fn open(files: TlsFiles) -> Result<Self, FilesProblem> {
        let texts = Texts::read(&files)?;
        let current = ArcSwap::new(make(&files, &texts)?);
        Ok(Self { files, current, seen: Mutex::new(texts.digest()) })
    }

    /// What new connections shake hands with.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Looks at the files, and takes what is new in them. Whether it did.
    ///
    /// # Errors
    /// When they cannot be used; what was served before still is. Bad files are complained about once.
    pub fn refresh(&self) -> Result<bool, FilesProblem> {
        let texts = Texts::read(&self.files)?;
        let digest = texts.digest();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == digest {
                return Ok(false);
            }
            *seen = digest;
        }
        self.current.store(make(&self.files, &texts)?);
        Ok(true)
    }
}

/// Keeps certificates fresh for as long as it is polled: looks every few seconds, and at SIGHUP.
pub async fn keep(all: Vec<Arc<Certificates>>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hangups = signal(SignalKind::hangup()).ok();
    // A file that is gone stays gone for many looks; it is told once.
    let mut told = vec![None; all.len()];
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = ticks.tick() => (),
            _ = hangup => (),
        }
        for (certificates, told) in all.iter().zip(&mut told) {
            look(certificates, told).await;
        }
    }
}

async fn look(certificates: &Arc<Certificates>, told: &mut Option<String>) {
    let looked = Arc::clone(certificates);
    let result = tokio::task::spawn_blocking(move || looked.refresh()).await;
    let file = certificates.files.cert.display();
    match result {
        Ok(Ok(changed)) => {
            *told = None;
            if changed {
                tracing::info!(%file, "certificate changed");
            }
        }
        Ok(Err(problem)) => {
            let problem = problem.to_string();
            if told.as_ref() != Some(&problem) {
                tracing::error!(%file, problem, "new certificate refused, the one before is still served");
                *told = Some(problem);
            }
        }
        // The process is ending.
        Err(_) => {}
    }
}

impl Texts {
    fn read(files: &TlsFiles) -> Result<Self, FilesProblem> {
        let client = files.client.as_ref();
        Ok(Self {
            cert: read(&files.cert, Part::Certificate)?,
            key: read(&files.key, Part::Key)?,
            client_ca: client.map(|client| read(&client.ca, Part::ClientAuthority)).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for text in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            let text = text.map_or(&[][..], Vec::as_slice);
            digest.update(text.len().to_be_bytes());
            digest.update(text);
        }
        digest.finalize().into()
    }
}

fn read(path: &Path, part: Part) -> Result<Vec<u8>, FilesProblem> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
    read.map_err(|source| FilesProblem::Read { part, path: path.to_owned(), source })?;
    Ok(text)
}

fn make(files: &TlsFiles, texts: &Texts) -> Result<Arc<ServerConfig>, FilesProblem> {
    let content = |part, path: &Path| {
        let path = path.to_owned();
        move |source| FilesProblem::Content { part, path, source }
    };
    let chain = certificates(&texts.cert, "certificate").map_err(content(Part::Certificate, &files.cert))?;
    let key = private_key(&texts.key, "key").map_err(content(Part::Key, &files.key))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = match files.oldest {
        TlsVersion::V1_2 => &FROM_1_2[..],
        TlsVersion::V1_3 => &ONLY_1_3[..],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).map_err(FilesProblem::Library)?;
    let builder = match (&files.client, &texts.client_ca) {
        (Some(client), Some(text)) => {
            let verifier = verifier(provider, text, client.required);
            let verifier = verifier.map_err(content(Part::ClientAuthority, &client.ca))?;
            builder.with_client_cert_verifier(verifier)
        }
        (None, _) | (_, None) => builder.with_no_client_auth(),
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "what the library adds is said in its own words")]
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => FilesProblem::Mismatch(files.cert.clone()),
        other => content(Part::Certificate, &files.cert)(TlsProblem::Refused(other)),
    })?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    // Sessions are resumed by tickets, so that they take no memory here.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(FilesProblem::Library)?;
    Ok(Arc::new(config))
}

fn verifier(
    provider: Arc<CryptoProvider>,
    text: &[u8],
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, TlsProblem> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(text, "authority's certificate")? {
        roots.add(authority)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| TlsProblem::Refused(rustls::Error::General(error.to_string())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn write(folder: &TempDir, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let (cert, key) =
            (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (cert, key)
    }

    fn files(folder: &TempDir) -> TlsFiles {
        let (cert, key) = write(folder, "a", "a.example");
        TlsFiles { cert, key, client: None, oldest: TlsVersion::V1_2 }
    }

    #[test]
    fn files_that_do_not_fit_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let good = files(&folder);
        let (other, other_key) = write(&folder, "b", "b.example");
        let empty = folder.path().join("empty.pem");
        fs::write(&empty, "").unwrap();
        check(&good).unwrap();
        let part = |files: &TlsFiles| check(files).unwrap_err().part();
        assert_eq!(part(&TlsFiles { cert: folder.path().join("none"), ..good.clone() }), Part::Certificate);
        assert_eq!(part(&TlsFiles { key: folder.path().join("none"), ..good.clone() }), Part::Key);
        assert_eq!(part(&TlsFiles { key: good.cert.clone(), ..good.clone() }), Part::Key);
        let mismatch = check(&TlsFiles { key: other_key, ..good.clone() }).unwrap_err();
        assert!(matches!(mismatch, FilesProblem::Mismatch(_)), "{mismatch}");
        let client = |ca: &Path| TlsFiles {
            client: Some(ClientAuthority { ca: ca.to_owned(), required: true }),
            ..good.clone()
        };
        assert_eq!(part(&client(&empty)), Part::ClientAuthority);
        check(&client(&other)).unwrap();
    }

    #[test]
    fn new_files_are_taken_and_bad_ones_leave_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::open(files(&folder)).unwrap();
        let first = certificates.current();
        assert!(!certificates.refresh().unwrap());
        let key = fs::read(&certificates.files.key).unwrap();
        fs::write(&certificates.files.key, "nonsense").unwrap();
        certificates.refresh().unwrap_err();
        assert!(Arc::ptr_eq(&first, &certificates.current()));
        fs::write(&certificates.files.key, key).unwrap();
        assert!(certificates.refresh().unwrap(), "what is good again is taken again");
        write(&folder, "a", "new.example");
        assert!(certificates.refresh().unwrap());
        assert!(!Arc::ptr_eq(&first, &certificates.current()));
    }
}
