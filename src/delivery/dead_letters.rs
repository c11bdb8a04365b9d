//! Stands between dead letters that are exported and the blobs that they become.
//!
//! Invariant: a blob is whole or not there, and what was told to be durable survives a power cut.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lanekeeper_actors::subscriber::{DeadLetterStore, SharedDeadLetterStore};

use crate::blob::{Blobs, InvalidPlace, Place};

/// Opens the place that a manifest names. Nothing is sent yet. A directory is made when there is something to write:
/// one that cannot be made now is no reason not to serve.
///
/// # Errors
/// The environment does not say how to reach the store.
pub fn open(place: &Place) -> Result<SharedDeadLetterStore, InvalidPlace> {
    match place {
        Place::Directory(_) => {}
        Place::Store { .. } => drop(Blobs::open(place)?),
    }
    Ok(Arc::new(Letters { place: place.clone(), opened: Arc::default() }))
}

/// Where they go.
#[derive(Debug)]
struct Letters {
    place: Place,
    opened: Arc<OnceLock<Blobs>>,
}

impl DeadLetterStore for Letters {
    fn put(&self, path: &str, body: Bytes) -> BoxFuture<'static, Result<(), String>> {
        let (place, opened, path) = (self.place.clone(), self.opened.clone(), path.to_owned());
        async move {
            let blobs = match opened.get() {
                Some(blobs) => blobs.clone(),
                None => {
                    let made = tokio::task::spawn_blocking(move || Blobs::open(&place)).await;
                    let made = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                    opened.get_or_init(|| made).clone()
                }
            };
            blobs.put(&path, body).await.map_err(|error| error.to_string())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_is_written_whole_and_overwritten_by_a_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("letters");
        let store = open(&Place::Directory(place.clone())).unwrap();
        for body in ["[1]", "[1,2]"] {
            store.put("SUB/2026/1/31/8/x.json", Bytes::from_static(body.as_bytes())).await.unwrap();
            let path = place.join("SUB/2026/1/31/8");
            assert_eq!(fs::read_to_string(path.join("x.json")).unwrap(), body);
            assert_eq!(fs::read_dir(path).unwrap().count(), 1);
        }
        // Whatever a name is made of, it stays below the directory.
        for path in ["../x.json", "/x.json", "a/../../x.json"] {
            store.put(path, Bytes::new()).await.unwrap_or_default();
            assert!(!folder.path().join("x.json").exists(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_is_told_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("letters");
        let store = open(&format!("file://{}", place.display()).parse().unwrap()).unwrap();
        fs::write(&place, b"in the way").unwrap();
        assert!(store.put("S/x.json", Bytes::new()).await.is_err());
        fs::remove_file(&place).unwrap();
        store.put("S/x.json", Bytes::new()).await.unwrap();
    }
}
