//! Stands between the files of a manifest and the one text that is applied, kept and compared.
//!
//! Invariant: neither the text nor the document holds a secret: those are references in a manifest.

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::problem::{Problems, Report};
use super::{Source, layers, mock};

/// What an operator wrote, as one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file that it comes from; relative paths in it begin at its folder.
    pub name: String,
    /// YAML, as it was written where that is one file without `include`; else what was merged, as JSON.
    pub text: String,
}

impl Written {
    /// The source to load.
    pub fn source(&self) -> Source {
        Source::Text { name: self.name.clone(), text: self.text.clone() }
    }

    /// Tells this text from others: SHA-256, in hexadecimal digits.
    pub fn digest(&self) -> String {
        Sha256::digest(self.text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Makes one text of files.
///
/// # Errors
/// When a file cannot be read, or is no YAML.
pub fn written(files: &[Source]) -> Result<Written, Problems> {
    if let [Source::File(path)] = files
        && let Ok(bytes) = layers::read_file(path)
        && let Ok(text) = String::from_utf8(bytes)
        && !layers::includes(&text)
    {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        return Ok(Written { name: path.display().to_string(), text });
    }
    let mut report = Report::default();
    let mut whole = mock::json(&layers::merge_files(files, &mut report));
    if let Some(map) = whole.as_object_mut() {
        map.insert("manifest".to_owned(), json!(1));
    }
    let name = files.iter().find_map(|source| match source {
        Source::File(path) => {
            Some(path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string())
        }
        Source::Text { .. } => None,
    });
    // A tree of plain values always has a JSON form.
    let text = serde_json::to_string_pretty(&whole).unwrap_or_default();
    report.finish(Some(Written { name: name.unwrap_or_else(|| "manifest".to_owned()), text }))
}

/// What was written, as JSON with sorted keys.
///
/// # Errors
/// When it is no YAML.
pub fn document(written: &Written) -> Result<Json, Problems> {
    let mut report = Report::default();
    let root = layers::merge_files(&[written.source()], &mut report);
    report.finish(Some(mock::json(&root)))
}
