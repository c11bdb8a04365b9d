//! A folder that can be opened like any other and never changes: what is written stays in memory.
//!
//! Stands between a check and the files that it checks. Invariant: no byte, name or length in the
//! folder is changed, so that a damaged directory is the same before and after somebody looked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log::disk::{Disk, DiskFile};

/// Bytes that are copied into memory when one of them is written.
const PAGE: u64 = 4_096;

/// A folder of the file system, as it was found.
#[derive(Debug)]
pub(super) struct StillDisk {
    root: PathBuf,
    /// Files that were opened, made or moved; `None` was removed.
    names: Mutex<BTreeMap<String, Option<Arc<StillFile>>>>,
}

impl StillDisk {
    /// The folder `root`, which must be there.
    pub(super) fn new(root: &Path) -> Arc<Self> {
        Arc::new(Self { root: root.to_owned(), names: Mutex::default() })
    }

    fn find(&self, name: &str) -> io::Result<Arc<StillFile>> {
        let mut names = locked(&self.names);
        match names.get(name) {
            Some(Some(file)) => Ok(file.clone()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let base = File::open(self.root.join(name))?;
                let length = base.metadata()?.len();
                let file = Arc::new(StillFile {
                    state: Mutex::new(State {
                        base: Some(base),
                        kept: length,
                        length,
                        pages: BTreeMap::new(),
                    }),
                });
                names.insert(name.to_owned(), Some(file.clone()));
                Ok(file)
            }
        }
    }
}

impl Disk for StillDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = Arc::new(StillFile { state: Mutex::default() });
        locked(&self.names).insert(name.to_owned(), Some(file.clone()));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.find(name)?)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                found.insert(name, true);
            }
        }
        for (name, file) in &*locked(&self.names) {
            found.insert(name.clone(), file.is_some());
        }
        Ok(found.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.find(from)?;
        let mut names = locked(&self.names);
        names.insert(from.to_owned(), None);
        names.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.find(name)?;
        locked(&self.names).insert(name.to_owned(), None);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

/// One file: what is on disk, and over it the pages that were written.
#[derive(Debug)]
struct StillFile {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    base: Option<File>,
    /// Bytes of `base` that still count; those behind were cut off, and read as zeros if the file grew again.
    kept: u64,
    length: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl State {
    /// The page of this number as it is now.
    fn page(&self, number: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = self.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = vec![0; size(PAGE)?];
        let start = number * PAGE;
        let from_base = size(self.kept.saturating_sub(start).min(PAGE))?;
        if let (Some(base), Some(bytes)) = (&self.base, page.get_mut(..from_base)) {
            base.read_exact_at(bytes, start)?;
        }
        Ok(page)
    }
}

impl DiskFile for StillFile {
    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.state).length)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let state = locked(&self.state);
        if offset.saturating_add(out.len() as u64) > state.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The log reads large stretches that nobody wrote: those need no pages.
        let (first, end) = (offset / PAGE, (offset + out.len() as u64).div_ceil(PAGE));
        if let Some(base) = &state.base
            && offset + out.len() as u64 <= state.kept
            && state.pages.range(first..end).next().is_none()
        {
            return base.read_exact_at(out, offset);
        }
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let page = state.page(at / PAGE)?;
            let inside = page.get(size(at % PAGE)?..).unwrap_or_default();
            let take = inside.len().min(rest.len());
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(inside.get(..take).unwrap_or_default());
            at += take as u64;
            rest = later;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = locked(&self.state);
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let number = at / PAGE;
            let mut page = state.page(number)?;
            let inside = page.get_mut(size(at % PAGE)?..).unwrap_or_default();
            let (now, later) = rest.split_at(inside.len().min(rest.len()));
            let (target, _) = inside.split_at_mut(now.len());
            target.copy_from_slice(now);
            at += now.len() as u64;
            rest = later;
            state.pages.insert(number, page);
        }
        state.length = state.length.max(at);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = locked(&self.state);
        if len < state.length {
            state.kept = state.kept.min(len);
            state.pages.split_off(&len.div_ceil(PAGE));
            let inside = size(len % PAGE)?;
            if let Some(page) = state.pages.get_mut(&(len / PAGE))
                && let Some(cut) = page.get_mut(inside..)
            {
                cut.fill(0);
            }
        }
        state.length = len;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn size(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::disk::RealDisk;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u16, Vec<u8>),
        SetLen(u16),
        Read(u16, u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = proptest::collection::vec(any::<u8>(), 1..6_000);
        prop_oneof![
            (0u16..20_000, bytes).prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0u16..20_000).prop_map(Step::SetLen),
            (0u16..20_000, 0u16..9_000).prop_map(|(at, len)| Step::Read(at, len)),
            (0u16..20_000).prop_map(|at| Step::Read(at, 0)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_behaves_like_a_real_folder_and_leaves_the_real_one_alone(
            before in proptest::collection::vec(any::<u8>(), 0..15_000),
            steps in proptest::collection::vec(step(), 1..12),
        ) {
            let (kept, free) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            for folder in [&kept, &free] {
                fs::write(folder.path().join("a"), &before).unwrap();
            }
            let still = StillDisk::new(kept.path());
            let real = RealDisk::new(free.path()).unwrap();
            let (a, b) = (still.open("a").unwrap(), real.open("a").unwrap());
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        a.write_at(at.into(), &bytes).unwrap();
                        b.write_at(at.into(), &bytes).unwrap();
                    }
                    Step::SetLen(len) => {
                        a.set_len(len.into()).unwrap();
                        b.set_len(len.into()).unwrap();
                    }
                    Step::Read(at, len) => {
                        let (mut left, mut right) = (vec![0; len.into()], vec![0; len.into()]);
                        let results = (a.read_at(at.into(), &mut left), b.read_at(at.into(), &mut right));
                        prop_assert_eq!(results.0.is_ok(), results.1.is_ok());
                        if results.0.is_ok() {
                            prop_assert_eq!(left, right);
                        }
                    }
                }
                prop_assert_eq!(a.len().unwrap(), b.len().unwrap());
            }
            prop_assert_eq!(fs::read(kept.path().join("a")).unwrap(), before);
        }
    }

    #[test]
    fn names_change_only_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), b"one").unwrap();
        let disk = StillDisk::new(folder.path());
        disk.create("new").unwrap().write_at(0, b"x").unwrap();
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.list().unwrap(), ["b", "new"]);
        disk.remove("b").unwrap();
        assert_eq!(disk.list().unwrap(), ["new"]);
        assert!(disk.open("a").is_err());
        assert!(disk.remove("a").is_err());
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a"]);
    }
}
