//! `POST /v1/backup`: copies the data of the running process into a directory of its machine.

use std::path::PathBuf;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use lanekeeper_actors::backup::{self, BackupError};
use serde::Deserialize;

use super::{Admin, AdminError, read};
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
    if to.contains("://") {
        let text = "`to` is a directory of the server's machine; object stores are not built yet";
        return Err(AdminError::Request(text.to_owned()).into());
    }
    let out = PathBuf::from(to);
    if !out.is_absolute() {
        return Err(AdminError::Request("`to` is an absolute path".to_owned()).into());
    }
    let (shards, data) = (admin.system.shards().to_vec(), admin.system.data().to_owned());
    let (id, now) = (admin.system.data_id().to_owned(), admin.clock.now().0);
    // It goes on when the caller gives up; a backup that was not finished has no list, and is none.
    let copy = move || backup::backup(&shards, &data, &id, &out, now);
    let list = tokio::task::spawn_blocking(copy).await.map_err(|_| Problem::crashed())??;
    Ok(HttpResponse::Created().json(&list))
}

impl From<BackupError> for AdminError {
    fn from(error: BackupError) -> Self {
        Self::Backup(error.to_string())
    }
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        AdminError::from(error).into()
    }
}
