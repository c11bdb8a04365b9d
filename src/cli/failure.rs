//! Stands between whatever went wrong in a verb and its one line on stderr with an exit code.

use std::path::PathBuf;

use lanekeeper_actors::store::superblock::DirectoryError;

use super::admin::Refusal;
use crate::manifest::Problems;

/// Exit code of a verb that failed.
pub(super) const FAILED: u8 = 1;
/// Exit code of a comparison that found something.
pub(super) const DIFFERS: u8 = 2;
/// Exit code of wrong usage and of a bad configuration (`EX_USAGE` of sysexits).
pub(super) const USAGE: u8 = 64;

/// Why a verb did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The manifest is wrong. One line for each problem, each with its place.
    #[error("{0}")]
    Manifest(#[from] Problems),
    /// What was asked makes no sense.
    #[error("error: {0}")]
    Usage(String),
    /// No token for the admin API.
    #[error(
        "error: no admin token: `{path}` cannot be read ({cause}); name the server's data directory with --data, or \
         set LANEKEEPER_ADMIN_TOKEN"
    )]
    NoToken { path: PathBuf, cause: std::io::Error },
    /// The server said no.
    #[error("error: {0}")]
    Refused(#[from] Refusal),
    /// The server did not answer.
    #[error("error: {0}")]
    Unreachable(String),
    /// The data directory cannot be used.
    #[error("error: {0}")]
    Directory(#[from] DirectoryError),
    /// Everything else that can fail.
    #[error("error: {0}")]
    Failed(String),
    /// The answer, which was printed, is that a manifest is wrong.
    #[error("")]
    BadManifest,
    /// The answer, which was printed, is that something is different.
    #[error("")]
    Differs,
    /// The answer, which was printed, is that data is damaged or something was lost.
    #[error("")]
    BadNews,
}

impl Failure {
    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Manifest(_) | Self::BadManifest | Self::Usage(_) | Self::NoToken { .. } => USAGE,
            Self::Refused(refusal) if refusal.is_of_configuration() => USAGE,
            Self::Differs => DIFFERS,
            Self::Refused(_)
            | Self::Unreachable(_)
            | Self::Directory(_)
            | Self::Failed(_)
            | Self::BadNews => FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_bad_configuration_from_failure() {
        let cause = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let no_token = Failure::NoToken { path: "data/admin.token".into(), cause: cause() };
        assert_eq!(no_token.code(), 64);
        assert_eq!(Failure::Directory(DirectoryError::InUse("data".into())).code(), 1);
        assert_eq!(
            Failure::Directory(DirectoryError::InUse("data".into())).to_string(),
            "error: data directory `data` is in use by another process"
        );
    }
}
