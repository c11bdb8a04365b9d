//! Stands between the text that names a place for blobs and the store behind it.
//!
//! Invariant: credentials come from the environment of the process and never from the text, so the text may be shown
//! and logged; and they go over TLS, or do not leave the machine.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use percent_encoding::percent_decode_str;

/// Time for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one request, which carries at most one part of a blob: enough for a line of 2 Mbit/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// How often a request is sent again after an error of the server or of the line.
const RETRIES: usize = 5;
/// Time after which it is not sent again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(180);
/// Wait before the first repetition; it doubles.
const BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait before a repetition.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A place for blobs, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `/var/backups`, `./blobs` or `file:///var/backups`.
    Directory(PathBuf),
    /// `s3://bucket/prefix`, `az://container/prefix` or `gs://bucket/prefix`.
    Store {
        /// Whose.
        cloud: Cloud,
        /// The bucket, or the container.
        bucket: String,
        /// What the names of all blobs begin with; may be empty.
        prefix: String,
    },
}

/// A kind of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3, and what speaks its protocol.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Google,
}

const CLOUDS: [(&str, Cloud); 3] = [("s3", Cloud::S3), ("az", Cloud::Azure), ("gs", Cloud::Google)];

/// Why a text is no place, or the place cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlace {
    /// Another scheme.
    #[error(
        "`{0}` is no place: name a directory, `s3://bucket/prefix`, `az://container/prefix` or `gs://bucket/prefix`"
    )]
    Scheme(String),
    /// Nothing between the scheme and the first slash.
    #[error("`{0}` names no bucket: `s3://bucket/prefix`")]
    NoBucket(String),
    /// A user, a port, a query or a fragment.
    #[error(
        "`{0}` has more in it than a bucket and a prefix; credentials and endpoints come from the environment"
    )]
    Surplus(String),
    /// A prefix that cannot be one.
    #[error("`{prefix}` cannot be a prefix: {why}")]
    Prefix {
        /// The prefix.
        prefix: String,
        /// Why not.
        why: String,
    },
    /// A `file:` URL that names another machine, or is not absolute.
    #[error("`{0}` names no directory of this machine: `file:///var/backups`")]
    NotLocal(String),
    /// Credentials would go over the network in the clear.
    #[error("the endpoint `{0}` is not encrypted: use https, or a loopback address")]
    Insecure(String),
    /// The environment lacks something, or what it has is wrong.
    #[error("{0}")]
    Environment(String),
    /// The directory cannot be used.
    #[error("`{path}`: {why}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl FromStr for Place {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Directory(PathBuf::from(text)));
        };
        if scheme == "file" {
            let path = percent_decode_str(rest).decode_utf8();
            let path = path.ok().filter(|path| path.starts_with('/'));
            let path = path.ok_or_else(|| InvalidPlace::NotLocal(text.to_owned()))?;
            return Ok(Self::Directory(PathBuf::from(path.as_ref())));
        }
        let cloud = CLOUDS.iter().find(|(known, _)| *known == scheme).map(|(_, cloud)| *cloud);
        let cloud = cloud.ok_or_else(|| InvalidPlace::Scheme(text.to_owned()))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(InvalidPlace::NoBucket(text.to_owned()));
        }
        if bucket.contains(['@', ':', '?', '#']) || prefix.contains(['?', '#']) {
            // Nothing of it is shown: there may be a secret in it.
            return Err(InvalidPlace::Surplus(format!("{scheme}://…")));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix).to_owned();
        // The parser passes over an empty beginning.
        if prefix.starts_with('/') {
            return Err(InvalidPlace::Prefix { prefix, why: "it begins with `/`".to_owned() });
        }
        Path::parse(&prefix)
            .map_err(|error| InvalidPlace::Prefix { prefix: prefix.clone(), why: error.to_string() })?;
        Ok(Self::Store { cloud, bucket: bucket.to_owned(), prefix })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Store { cloud, bucket, prefix } => {
                let scheme = CLOUDS.iter().find(|(_, known)| known == cloud).map_or("", |(scheme, _)| scheme);
                let slash = if prefix.is_empty() { "" } else { "/" };
                write!(f, "{scheme}://{bucket}{slash}{prefix}")
            }
        }
    }
}

/// The store of a place, and what the names of its blobs begin with. Nothing is sent yet.
pub(super) fn store(place: &Place) -> Result<(Arc<dyn ObjectStore>, Path), InvalidPlace> {
    let (cloud, bucket, prefix) = match place {
        Place::Directory(path) => return Ok((Arc::new(directory(path)?), Path::default())),
        Place::Store { cloud, bucket, prefix } => (*cloud, bucket, prefix),
    };
    let prefix = Path::parse(prefix)
        .map_err(|error| InvalidPlace::Prefix { prefix: prefix.clone(), why: error.to_string() })?;
    let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match cloud {
        Cloud::S3 => {
            let builder = AmazonS3Builder::from_env();
            let keys = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
            let endpoint = keys.iter().find_map(|key| builder.get_config_value(key));
            let builder = builder.with_client_options(options(endpoint.as_deref())?);
            builder.with_retry(retry()).with_bucket_name(bucket).build().map(|store| Arc::new(store) as _)
        }
        Cloud::Azure => {
            let builder = MicrosoftAzureBuilder::from_env();
            let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
            let builder = builder.with_client_options(options(endpoint.as_deref())?);
            builder.with_retry(retry()).with_container_name(bucket).build().map(|store| Arc::new(store) as _)
        }
        Cloud::Google => {
            let builder = GoogleCloudStorageBuilder::from_env().with_client_options(options(None)?);
            builder.with_retry(retry()).with_bucket_name(bucket).build().map(|store| Arc::new(store) as _)
        }
    };
    Ok((store.map_err(|error| InvalidPlace::Environment(error.to_string()))?, prefix))
}

fn directory(path: &std::path::Path) -> Result<LocalFileSystem, InvalidPlace> {
    let failed = |why: String| InvalidPlace::Directory { path: path.to_owned(), why };
    std::fs::create_dir_all(path).map_err(|error| failed(error.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(error.to_string()))?;
    Ok(store.with_fsync(true))
}

fn options(endpoint: Option<&str>) -> Result<ClientOptions, InvalidPlace> {
    let mut options =
        ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT);
    if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.starts_with("https://")) {
        if !is_loopback(endpoint) {
            return Err(InvalidPlace::Insecure(without_user(endpoint).to_owned()));
        }
        options = options.with_allow_http(true);
    }
    Ok(options)
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF, max_backoff: BACKOFF_MAX, base: 2.0 },
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// Whether a URL is one of plain HTTP to this machine.
fn is_loopback(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return false;
    }
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn without_user(endpoint: &str) -> &str {
    endpoint.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_or_a_bucket_with_a_prefix() {
        let directory = |path: &str| Place::Directory(path.into());
        let store = |cloud, bucket: &str, prefix: &str| Place::Store {
            cloud,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        for (text, place) in [
            ("/var/backups", directory("/var/backups")),
            ("backups/2026", directory("backups/2026")),
            ("file:///var/my%20backups", directory("/var/my backups")),
            ("s3://bucket", store(Cloud::S3, "bucket", "")),
            ("s3://bucket/", store(Cloud::S3, "bucket", "")),
            ("s3://Bucket.name/a/b/", store(Cloud::S3, "Bucket.name", "a/b")),
            ("az://box/a", store(Cloud::Azure, "box", "a")),
            ("gs://box/a", store(Cloud::Google, "box", "a")),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        assert_eq!("s3://bucket/a/b/".parse::<Place>().unwrap().to_string(), "s3://bucket/a/b");
        assert_eq!("gs://bucket".parse::<Place>().unwrap().to_string(), "gs://bucket");
    }

    #[test]
    fn a_place_without_a_meaning_is_refused_and_shows_no_secret() {
        for text in [
            "ftp://a/b",
            "S3://a",
            "s3://",
            "s3:///a",
            "s3://a//b",
            "s3://a/b//c",
            "s3://a/../b",
            "file://host/x",
            "file://x",
        ] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        for text in ["s3://key:word@bucket/a", "az://box/a?sig=word", "s3://bucket:9000/word", "gs://a#word"]
        {
            let refused = text.parse::<Place>().unwrap_err();
            assert!(!refused.to_string().contains("word"), "{refused}");
        }
    }

    #[test]
    fn credentials_go_in_the_clear_to_this_machine_only() {
        for near in
            ["http://localhost:9000", "http://127.0.0.1", "http://127.3.2.1:80/x", "http://[::1]:9000"]
        {
            assert!(options(Some(near)).is_ok(), "{near}");
        }
        for far in [
            "http://minio:9000",
            "http://10.0.0.1",
            "http://localhost.example",
            "http://127.0.0.1@example.com",
            "http://[::2]",
            "ftp://localhost",
            "localhost:9000",
        ] {
            assert!(matches!(options(Some(far)), Err(InvalidPlace::Insecure(_))), "{far}");
        }
        assert!(options(Some("https://minio:9000")).is_ok());
    }
}
