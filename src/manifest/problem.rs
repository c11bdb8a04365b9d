//! Stands between whoever reads a manifest and whoever must repair it: every problem, each with its place.
//!
//! Invariant: reading never stops at a problem. A reader reports, stands something in, and goes on; what it
//! read is handed out only if nothing was reported.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Problems kept of one load. A manifest of a mebibyte can hold more mistakes than anybody would read.
const PROBLEMS_MAX: usize = 1000;
/// Longest piece of a user's text that a message repeats, in characters.
const EXCERPT_CHARS: usize = 60;
/// How alike two words must be for one to be offered instead of the other (Jaro-Winkler, 1 is equal).
const LIKENESS_MIN: f64 = 0.8;
/// Words compared for one suggestion, so that thousands of dangling names do not take minutes.
const WORDS_MAX: usize = 1000;

/// Everything that is wrong with a manifest, in the order of its sources, lines and columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, or the environment variable or flag that carried the value.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// What is wrong, in one line, without the place.
    pub message: String,
    /// What was probably meant; it can be put in place of what is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Problems {
    /// All of them; never empty.
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, suggestion } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        match suggestion {
            Some(suggestion) => write!(f, ", did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

/// A position in one of the sources. Ordered as a reader goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index of the source in [`Report`].
    pub(super) source: usize,
    /// Line, counted from 1.
    pub(super) line: u32,
    /// Column in characters, counted from 1.
    pub(super) column: u32,
}

impl Place {
    /// Whether somebody wrote what is here: the first source is what is built into the binary.
    pub(super) fn is_given(self) -> bool {
        self.source > 0
    }
}

/// Collects problems while sources are read.
#[derive(Debug, Default)]
pub(super) struct Report {
    sources: Vec<String>,
    found: Vec<(Place, String, Option<String>)>,
    partial: bool,
    left_out: usize,
}

impl Report {
    /// Names a source, and returns the place of its first character.
    pub(super) fn open(&mut self, name: impl Into<String>) -> Place {
        self.sources.push(name.into());
        Place { source: self.sources.len() - 1, line: 1, column: 1 }
    }

    /// Reports a problem.
    pub(super) fn add(&mut self, place: Place, message: impl Into<String>) {
        self.push(place, message.into(), None);
    }

    /// Reports a problem, with what was probably meant.
    pub(super) fn suggest(&mut self, place: Place, message: impl Into<String>, suggestion: Option<String>) {
        self.push(place, message.into(), suggestion);
    }

    /// Reports that a key or a value of the design is not built yet.
    pub(super) fn not_built(&mut self, place: Place, what: &str) {
        self.add(place, format!("{} is not built yet", quoted(what)));
    }

    /// Reports a source that could not be read to its end. What it held is unknown from here on, so
    /// nothing is reported as missing or as naming something that does not exist.
    pub(super) fn unreadable(&mut self, place: Place, message: impl Into<String>) {
        self.partial = true;
        self.add(place, message);
    }

    /// Whether all sources were read, so that an absent thing is really absent.
    pub(super) fn is_whole(&self) -> bool {
        !self.partial
    }

    /// `line:column` of a place, with the source where that is another one than `seen_from`.
    pub(super) fn locate(&self, place: Place, seen_from: Place) -> String {
        let Place { source, line, column } = place;
        if source == seen_from.source {
            return format!("{line}:{column}");
        }
        format!("{}:{line}:{column}", self.name(source))
    }

    /// How many problems were reported so far.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// Ends the collection: what was read, or everything that is wrong with it, sorted by place.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<T, Problems> {
        if let Some(value) = value
            && self.found.is_empty()
        {
            return Ok(value);
        }
        if self.found.is_empty() {
            // A reader gave up without a word; better a poor message than none.
            let start = Place { source: 0, line: 1, column: 1 };
            self.add(start, "the manifest cannot be read");
        }
        self.found.sort();
        self.found.dedup();
        if self.left_out > 0
            && let Some((last, ..)) = self.found.last()
        {
            self.found.push((*last, format!("{} more problems are not listed", self.left_out), None));
        }
        let found = std::mem::take(&mut self.found);
        let problem = |(place, message, suggestion): (Place, String, Option<String>)| Problem {
            file: self.name(place.source).to_owned(),
            line: place.line,
            column: place.column,
            message,
            suggestion,
        };
        Err(Problems(found.into_iter().map(problem).collect()))
    }

    /// The folder of the file that a place is in; where it is in no file, the working directory.
    pub(super) fn folder(&self, place: Place) -> PathBuf {
        let file = Path::new(self.name(place.source));
        file.parent().filter(|_| file.is_file()).unwrap_or(Path::new("")).to_owned()
    }

    fn name(&self, source: usize) -> &str {
        self.sources.get(source).map_or("manifest", String::as_str)
    }

    fn push(&mut self, place: Place, message: String, suggestion: Option<String>) {
        if self.found.len() < PROBLEMS_MAX {
            self.found.push((place, message, suggestion));
        } else {
            self.left_out += 1;
        }
    }
}

/// A user's text in backticks, shortened, on one line and without control characters.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (index, character) in text.chars().enumerate() {
        if index == EXCERPT_CHARS {
            out.push('…');
            break;
        }
        if character.is_control() { out.extend(character.escape_default()) } else { out.push(character) }
    }
    out.push('`');
    out
}

/// The word that `text` was probably meant to be.
pub(super) fn closest<'w>(text: &str, words: impl IntoIterator<Item = &'w str>) -> Option<String> {
    if text.len() > EXCERPT_CHARS {
        return None;
    }
    let lower = text.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for word in words.into_iter().take(WORDS_MAX) {
        let likeness = strsim::jaro_winkler(&lower, &word.to_lowercase());
        if likeness >= LIKENESS_MIN && best.is_none_or(|(most, _)| likeness > most) {
            best = Some((likeness, word));
        }
    }
    best.map(|(_, word)| word.to_owned())
}
