//! Files in a directory or in an object store, by one set of names.
//!
//! Stands between what has bytes to keep (backups; whatever else is exported) and Amazon S3, Azure Blob Storage, Google
//! Cloud Storage, what speaks their protocols, or a directory. Invariants: a blob is there as a whole or not at all; what
//! a server or the line failed at is tried again, a bounded number of times, and nothing waits for ever.

mod place;
mod shelf;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::io::AsyncWriteExt;

pub use place::{Cloud, InvalidPlace, Place};
pub use shelf::{StoreShelf, fetch};

/// Bytes that are sent at once. A store takes up to 10,000 such parts, and so blobs of up to 160 GB.
const PART: usize = 16 << 20;
/// Parts of one blob that are on their way at the same time. Together with one that is being filled, they are what a
/// large blob takes of memory.
const PARTS_UNDER_WAY: usize = 2;

/// A place for blobs. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    shown: Arc<str>,
}

/// A blob that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its name below the place, parts joined by `/`.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// Why something was not done with a blob. The text has no credentials in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// There is no such blob.
    #[error("`{0}` does not exist")]
    NotFound(String),
    /// The store does not let us.
    #[error("`{name}`: access denied: {why}")]
    Denied {
        /// The blob.
        name: String,
        /// What the store says.
        why: String,
    },
    /// The blob is larger than whoever wants it can take.
    #[error("`{name}` has {bytes} bytes, more than {most}")]
    TooLarge {
        /// The blob.
        name: String,
        /// Its length.
        bytes: u64,
        /// Most that was wanted.
        most: u64,
    },
    /// Everything else, after the last repetition.
    #[error("`{name}`: {why}")]
    Failed {
        /// The blob.
        name: String,
        /// What the store or the line says.
        why: String,
    },
}

/// A blob of any length that is being written. It is there once it is finished; one that is dropped is not, but parts of
/// it may lie in the store, unseen, until its rules for unfinished uploads take them away: so abort it.
#[derive(Debug)]
pub struct Upload {
    /// `None` once it has failed or was finished.
    out: Option<BufWriter>,
    shown: String,
}

impl Blobs {
    /// Opens a place: nothing is sent yet, but a directory is made.
    ///
    /// # Errors
    /// The environment has no credentials, or an endpoint that must not be used.
    pub fn open(place: &Place) -> Result<Self, InvalidPlace> {
        let (store, prefix) = place::store(place)?;
        Ok(Self { store, prefix, shown: place.to_string().into() })
    }

    /// Writes a whole blob over whatever is there.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), BlobError> {
        let payload = PutPayload::from_bytes(bytes);
        let put = self.store.put(&self.path(name), payload).await;
        put.map(drop).map_err(|error| failed(self.shown(name), &error))
    }

    /// Begins a blob of any length.
    pub fn upload(&self, name: &str) -> Upload {
        let out = BufWriter::with_capacity(self.store.clone(), self.path(name), PART);
        Upload { out: Some(out.with_max_concurrency(PARTS_UNDER_WAY)), shown: self.shown(name) }
    }

    /// Reads a whole blob of at most so many bytes.
    pub async fn get(&self, name: &str, most: u64) -> Result<Bytes, BlobError> {
        let failed = |error| failed(self.shown(name), &error);
        let found = self.store.get_opts(&self.path(name), GetOptions::default()).await.map_err(failed)?;
        let bytes = found.meta.size;
        if bytes > most {
            return Err(BlobError::TooLarge { name: self.shown(name), bytes, most });
        }
        found.bytes().await.map_err(failed)
    }

    /// Reads a part of a blob.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BlobError> {
        let found = self.store.get_range(&self.path(name), range).await;
        found.map_err(|error| failed(self.shown(name), &error))
    }

    /// Up to `most` blobs, in no order.
    pub async fn list(&self, most: usize) -> Result<Vec<Blob>, BlobError> {
        let mut found = self.store.list(Some(&self.prefix)).take(most);
        let mut blobs = Vec::new();
        while let Some(next) = found.next().await {
            let meta = next.map_err(|error| failed(self.shown.to_string(), &error))?;
            let parts = meta.location.prefix_match(&self.prefix);
            let name: Vec<_> = parts.into_iter().flatten().map(|part| part.as_ref().to_owned()).collect();
            blobs.push(Blob { name: name.join("/"), bytes: meta.size });
        }
        Ok(blobs)
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn shown(&self, name: &str) -> String {
        format!("{}/{name}", self.shown)
    }
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Blobs").field(&self.shown).finish()
    }
}

impl fmt::Display for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Upload {
    /// Adds bytes. After an error the blob is given up.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let Some(out) = &mut self.out else { return Err(self.over()) };
        match out.put(bytes).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let shown = self.shown.clone();
                self.abort().await;
                Err(failed(shown, &error))
            }
        }
    }

    /// Returns once the blob is there.
    pub async fn finish(mut self) -> Result<(), BlobError> {
        let Some(mut out) = self.out.take() else { return Err(self.over()) };
        // Nothing can be taken back then: whether the store has put it together is unknown.
        out.shutdown().await.map_err(|error| BlobError::Failed { name: self.shown, why: error.to_string() })
    }

    /// Gives the blob up, and what is in the store of it.
    pub async fn abort(&mut self) {
        if let Some(mut out) = self.out.take() {
            // What cannot be taken away now goes by the rules of the store.
            out.abort().await.ok();
        }
    }

    fn over(&self) -> BlobError {
        BlobError::Failed { name: self.shown.clone(), why: "the upload was given up".to_owned() }
    }
}

fn failed(name: String, error: &object_store::Error) -> BlobError {
    let why = error.to_string();
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library may add kinds, and all others mean the same here"
    )]
    match error {
        object_store::Error::NotFound { .. } => BlobError::NotFound(name),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            BlobError::Denied { name, why }
        }
        _ => BlobError::Failed { name, why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_into_a_directory_is_found_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Directory(folder.path().join("new"));
        let blobs = Blobs::open(&place).unwrap();
        assert_eq!(blobs.list(10).await, Ok(Vec::new()));
        blobs.put("a/b c.json", Bytes::from_static(b"{}")).await.unwrap();
        blobs.put("a/b c.json", Bytes::from_static(b"[1]")).await.unwrap();
        let mut upload = blobs.upload("large");
        for _ in 0..40 {
            upload.write(Bytes::from(vec![7; 1 << 20])).await.unwrap();
        }
        upload.finish().await.unwrap();
        let mut given_up = blobs.upload("given-up");
        given_up.write(Bytes::from(vec![7; PART + 1])).await.unwrap();
        given_up.abort().await;
        assert!(given_up.write(Bytes::new()).await.is_err());
        let mut found = blobs.list(10).await.unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let blob = |name: &str, bytes| Blob { name: name.to_owned(), bytes };
        assert_eq!(found, [blob("a/b c.json", 3), blob("large", 40 << 20)]);
        assert_eq!(blobs.list(1).await.unwrap().len(), 1);
        assert_eq!(blobs.get("a/b c.json", 3).await.unwrap(), "[1]");
        assert!(matches!(blobs.get("a/b c.json", 2).await, Err(BlobError::TooLarge { bytes: 3, .. })));
        assert_eq!(blobs.get_range("large", 5..9).await.unwrap(), [7; 4].as_slice());
        assert!(matches!(blobs.get("none", 9).await, Err(BlobError::NotFound(_))));
        assert_eq!(std::fs::read(folder.path().join("new/a/b c.json")).unwrap(), b"[1]");
    }
}
