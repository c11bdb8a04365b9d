//! Stands between dead letters that are exported and the places where their files go.
//!
//! Invariant: a file is whole or not there, and what was told to be durable survives a power cut.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lanekeeper_actors::subscriber::{DeadLetterStore, SharedDeadLetterStore};

/// Why a place cannot take dead letters.
#[derive(Debug, thiserror::Error)]
pub enum StoreProblem {
    /// Another kind of place.
    #[error("`{0}` is no directory: `file:` URLs and paths are known")]
    Scheme(String),
    /// The directory cannot be made.
    #[error("the directory `{path}` cannot be made: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Opens the place that a manifest names: a directory, as a path or a `file:` URL. Stores behind other URLs are
/// opened here too, once there are some.
///
/// # Errors
/// See [`StoreProblem`].
pub fn open(place: &str) -> Result<SharedDeadLetterStore, StoreProblem> {
    let path = match place.split_once("://") {
        Some(("file", path)) => path,
        Some(_) => return Err(StoreProblem::Scheme(place.to_owned())),
        None => place,
    };
    let folder = PathBuf::from(path);
    fs::create_dir_all(&folder).map_err(|source| StoreProblem::Directory { path: folder.clone(), source })?;
    Ok(Arc::new(Folder { folder }))
}

/// A plain directory.
#[derive(Debug)]
struct Folder {
    folder: PathBuf,
}

impl DeadLetterStore for Folder {
    fn put(&self, path: &str, body: Bytes) -> BoxFuture<'static, Result<(), String>> {
        let (folder, path) = (self.folder.clone(), PathBuf::from(path));
        async move {
            let written = tokio::task::spawn_blocking(move || write(&folder, &path, &body)).await;
            written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        }
        .boxed()
    }
}

/// Writes beside its place, makes it durable, and moves it there.
fn write(folder: &Path, path: &Path, body: &Bytes) -> io::Result<()> {
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leaves the directory"));
    }
    let target = folder.join(path);
    let parent = target.parent().unwrap_or(folder);
    let made = missing(folder, parent);
    fs::create_dir_all(parent)?;
    let new = target.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(&new, &target)?;
    File::open(parent)?.sync_all()?;
    // A directory that was made is durable when the one that it is in is.
    for folder in made {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// The directories that have to note that one is made in them.
fn missing(folder: &Path, parent: &Path) -> Vec<PathBuf> {
    let below = parent.ancestors().take_while(|it| *it != folder && !it.exists());
    below.filter_map(|it| it.parent().map(Path::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_written_whole_and_overwritten_by_a_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("letters");
        let store = open(place.to_str().unwrap()).unwrap();
        for body in ["[1]", "[1,2]"] {
            store.put("SUB/2026/1/31/8/x.json", Bytes::from_static(body.as_bytes())).await.unwrap();
            let path = place.join("SUB/2026/1/31/8");
            assert_eq!(fs::read_to_string(path.join("x.json")).unwrap(), body);
            assert_eq!(fs::read_dir(path).unwrap().count(), 1);
        }
        for path in ["../x.json", "/x.json", "a/../../x.json"] {
            assert!(store.put(path, Bytes::new()).await.is_err(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_is_told_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("letters");
        let store = open(&format!("file://{}", place.display())).unwrap();
        fs::remove_dir(&place).unwrap();
        fs::write(&place, b"in the way").unwrap();
        assert!(store.put("S/x.json", Bytes::new()).await.is_err());
        fs::remove_file(&place).unwrap();
        store.put("S/x.json", Bytes::new()).await.unwrap();
        assert!(open("s3://bucket/x").is_err());
    }
}
