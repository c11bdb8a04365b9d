//! What was applied, as files of the data directory.
//!
//! Invariants: a generation is there whole or not at all, whenever the process is killed; numbers grow and are never
//! used twice; what is kept holds references to secrets and no secret.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use lanekeeper_actors::model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::manifest::Written;

/// Generations that are kept.
pub const KEPT: usize = 20;
/// The folder in the data directory.
const FOLDER: &str = "manifest";
/// The file that says what the last start was given.
const STARTED: &str = "started";

/// What was applied at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number, from 1.
    pub generation: u64,
    /// When it was applied, in milliseconds since 1970.
    pub applied: u64,
    /// The file that it came from.
    pub name: String,
    /// What was written.
    pub text: String,
}

impl Generation {
    /// What was written.
    pub fn written(&self) -> Written {
        Written { name: self.name.clone(), text: self.text.clone() }
    }
}

/// Why generations cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum GenerationsProblem {
    /// The file system failed.
    #[error("`{path}`: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// A file is not what was written.
    #[error("`{0}` is damaged: remove it to go on with the generation before it")]
    Damaged(PathBuf),
}

/// The generations of a data directory.
#[derive(Debug, Clone)]
pub struct Generations(PathBuf);

impl Generations {
    /// Those of this data directory.
    pub fn of(data: &Path) -> Self {
        Self(data.join(FOLDER))
    }

    /// The newest one.
    ///
    /// # Errors
    /// [`GenerationsProblem`].
    pub fn latest(&self) -> Result<Option<Generation>, GenerationsProblem> {
        let newest = self.numbers()?.pop();
        newest.map(|number| self.get(number)).transpose().map(Option::flatten)
    }

    /// One of them, if it is kept.
    ///
    /// # Errors
    /// [`GenerationsProblem`].
    pub fn get(&self, number: u64) -> Result<Option<Generation>, GenerationsProblem> {
        let path = self.path(number);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(GenerationsProblem::Io { path, source }),
        };
        let read: Result<Generation, _> = serde_json::from_slice(&bytes);
        match read {
            Ok(generation) if generation.generation == number => Ok(Some(generation)),
            Ok(_) | Err(_) => Err(GenerationsProblem::Damaged(path)),
        }
    }

    /// All that are kept, the newest first.
    ///
    /// # Errors
    /// [`GenerationsProblem`].
    pub fn all(&self) -> Result<Vec<Generation>, GenerationsProblem> {
        let mut all = Vec::new();
        for number in self.numbers()?.into_iter().rev() {
            all.extend(self.get(number)?);
        }
        Ok(all)
    }

    /// Keeps what is applied now as the next generation, and lets go of those that are too old.
    ///
    /// # Errors
    /// [`GenerationsProblem`]; nothing is kept then.
    pub fn keep(&self, written: &Written, now: Timestamp) -> Result<Generation, GenerationsProblem> {
        let numbers = self.numbers()?;
        let number = numbers.last().copied().unwrap_or(0) + 1;
        let generation = Generation {
            generation: number,
            applied: now.0,
            name: written.name.clone(),
            text: written.text.clone(),
        };
        // Texts and numbers always have a JSON form.
        let bytes = serde_json::to_vec_pretty(&generation).unwrap_or_default();
        self.write(&self.path(number), &bytes)?;
        let old = numbers.len().saturating_sub(KEPT - 1);
        for number in numbers.into_iter().take(old) {
            let path = self.path(number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "an old generation of the manifest stays");
            }
        }
        Ok(generation)
    }

    /// Takes back the newest generation, because what it says could not be done.
    ///
    /// # Errors
    /// [`GenerationsProblem`].
    pub fn take_back(&self, number: u64) -> Result<(), GenerationsProblem> {
        let path = self.path(number);
        fs::remove_file(&path).map_err(|source| GenerationsProblem::Io { path, source })?;
        self.sync()
    }

    /// What the last start was given, by its digest.
    ///
    /// # Errors
    /// [`GenerationsProblem`].
    pub fn started(&self) -> Result<Option<String>, GenerationsProblem> {
        let path = self.0.join(STARTED);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(GenerationsProblem::Io { path, source }),
        }
    }

    /// Notes what a start was given.
    ///
    /// # Errors
    /// [`GenerationsProblem`].
    pub fn note_started(&self, digest: &str) -> Result<(), GenerationsProblem> {
        self.write(&self.0.join(STARTED), digest.as_bytes())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:010}.json"))
    }

    /// The numbers that are there, the oldest first.
    fn numbers(&self) -> Result<Vec<u64>, GenerationsProblem> {
        let io = |source| GenerationsProblem::Io { path: self.0.clone(), source };
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io(source)),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(io)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Writes a file so that it is there whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), GenerationsProblem> {
        let io = |source| GenerationsProblem::Io { path: path.to_owned(), source };
        fs::create_dir_all(&self.0).map_err(io)?;
        let beside = path.with_extension("tmp");
        let mut file = File::create(&beside).map_err(io)?;
        file.write_all(bytes).map_err(io)?;
        file.sync_all().map_err(io)?;
        fs::rename(&beside, path).map_err(io)?;
        self.sync()
    }

    fn sync(&self) -> Result<(), GenerationsProblem> {
        let io = |source| GenerationsProblem::Io { path: self.0.clone(), source };
        File::open(&self.0).map_err(io)?.sync_all().map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Written {
        Written { name: "/etc/m.yaml".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn generations_grow_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let generations = Generations::of(folder.path());
        assert_eq!(generations.latest().unwrap(), None);
        for number in 1..=25 {
            let kept = generations.keep(&written(&format!("n: {number}")), Timestamp(number)).unwrap();
            assert_eq!((kept.generation, generations.latest().unwrap()), (number, Some(kept)));
        }
        let all: Vec<_> = generations.all().unwrap().iter().map(|one| one.generation).collect();
        assert_eq!(all, (6..=25).rev().collect::<Vec<_>>());
        assert_eq!(generations.get(5).unwrap(), None);
        generations.take_back(25).unwrap();
        assert_eq!(generations.latest().unwrap().map(|one| one.text), Some("n: 24".to_owned()));
    }

    #[test]
    fn what_was_not_written_to_its_end_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let generations = Generations::of(folder.path());
        generations.keep(&written("a"), Timestamp(1)).unwrap();
        fs::write(folder.path().join("manifest/0000000002.tmp"), "{\"gener").unwrap();
        assert_eq!(generations.latest().unwrap().map(|one| one.generation), Some(1));
        fs::write(folder.path().join("manifest/0000000002.json"), "{\"gener").unwrap();
        assert!(matches!(generations.latest(), Err(GenerationsProblem::Damaged(_))));
    }

    #[test]
    fn what_a_start_was_given_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let generations = Generations::of(folder.path());
        assert_eq!(generations.started().unwrap(), None);
        generations.note_started("abc").unwrap();
        assert_eq!(generations.started().unwrap().as_deref(), Some("abc"));
    }
}
