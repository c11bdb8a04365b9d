//! `POST /v1/backup`: copies the data of the running process into a directory of its machine, or into an object store.

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use lanekeeper_actors::backup::{self, BackupError, BackupList, Folder, Shelf};
use serde::Deserialize;

use super::{Admin, AdminError, read};
use crate::blob::{Blobs, InvalidPlace, Place, StoreShelf};
use crate::http::problem::Problem;

/// Where to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    to: String,
}

/// Makes a backup, and answers once it is whole and on disk.
pub(super) async fn make(admin: &Admin, body: &Bytes) -> Result<HttpResponse, Problem> {
    let Wanted { to } = read(body)?;
    let place: Place = to.parse().map_err(refused)?;
    if let Place::Directory(path) = &place
        && !path.is_absolute()
    {
        return Err(AdminError::Request("a directory is an absolute path".to_owned()).into());
    }
    let (shards, data) = (admin.system.shards().to_vec(), admin.system.data().to_owned());
    let (id, now) = (admin.system.data_id().to_owned(), admin.clock.now().0);
    // It goes on when the caller gives up; a backup that was not finished has no list, and is none.
    let copy = move || -> Result<BackupList, AdminError> {
        let shelf: Box<dyn Shelf> = match place {
            Place::Directory(path) => Box::new(Folder::at(path)),
            Place::Store { .. } => {
                let shelf = StoreShelf::new(Blobs::open(&place).map_err(refused)?);
                Box::new(shelf.map_err(|error| AdminError::Backup(error.to_string()))?)
            }
        };
        Ok(backup::backup(&shards, &data, &id, &*shelf, now)?)
    };
    let list = tokio::task::spawn_blocking(copy).await.map_err(|_| Problem::crashed())??;
    Ok(HttpResponse::Created().json(&list))
}

impl From<BackupError> for AdminError {
    fn from(error: BackupError) -> Self {
        Self::Backup(error.to_string())
    }
}

fn refused(error: InvalidPlace) -> AdminError {
    AdminError::Request(format!("`to`: {error}"))
}
