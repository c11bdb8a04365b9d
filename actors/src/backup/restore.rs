//! A data directory made of a backup.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use super::shelf::make_empty;
use super::{BackupError, BackupList, CHUNK, LIST, ROWS, checksum, copy, io_error};
use crate::log::disk::RealDisk;
use crate::store::export::import;
use crate::store::superblock::DataDirectory;

/// Page cache while a view is made.
const CACHE: usize = 64 << 20;

/// Makes the data directory `data` of the backup in `from`. `data` must be empty.
///
/// The first start afterwards replays what the log has beyond the rows, as after a crash.
pub fn restore(from: &Path, data: &Path) -> Result<BackupList, BackupError> {
    let list = read_list(from)?;
    for file in &list.files {
        let found = checksum(&from.join(&file.path)).map_err(|_| BackupError::Damaged(file.path.clone()))?;
        if found != (file.bytes, file.crc32c) {
            return Err(BackupError::Damaged(file.path.clone()));
        }
    }
    make_empty(data)?;
    let mut directory = DataDirectory::open_or_create(data, Some(list.shards), list.shards, &list.id)?;
    for shard in 0..list.shards {
        let log = directory.log(shard);
        fs::create_dir_all(&log).map_err(|source| io_error(&log, source))?;
    }
    for file in list.files.iter().filter(|file| file.path.file_name().is_none_or(|name| name != ROWS)) {
        let to = data.join(&file.path);
        copy(&from.join(&file.path), &to).map_err(|source| io_error(&to, source))?;
    }
    for shard in 0..list.shards {
        let folder = directory.shard(shard);
        let path = from.join(format!("shard-{shard:02}")).join(ROWS);
        let rows = File::open(&path).map_err(|source| io_error(&path, source))?;
        let disk = RealDisk::new(&folder).map_err(|source| io_error(&folder, source))?;
        import(&disk, CACHE, &mut BufReader::with_capacity(CHUNK, rows))
            .map_err(|source| BackupError::Rows { shard, source })?;
        for folder in [directory.log(shard), folder] {
            let synced = File::open(&folder).and_then(|folder| folder.sync_all());
            synced.map_err(|source| io_error(&folder, source))?;
        }
    }
    directory.complete()?;
    Ok(list)
}

fn read_list(from: &Path) -> Result<BackupList, BackupError> {
    BackupList::read(&fs::read(from.join(LIST)).map_err(|_| BackupError::NoBackup(from.to_owned()))?)
}
