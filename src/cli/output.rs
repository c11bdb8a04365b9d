//! The only place that writes to stdout and stderr.
//!
//! A reader that went away (`lanekeeper keys list | head -1`) is no failure of the verb, so an error of writing
//! ends nothing.

use std::io::{IsTerminal as _, Write as _};

/// Prints an answer, with a line feed at its end.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if !text.is_empty() && writeln!(out, "{}", text.trim_end_matches('\n')).is_ok() {
        out.flush().unwrap_or_default();
    }
}

/// Prints one line of many; false when nobody reads them any more.
pub(super) fn line(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// Prints a part of something long; false when nobody reads it any more.
pub(super) fn bytes(part: &[u8]) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(part).and_then(|()| out.flush()).is_ok()
}

/// Prints what went wrong.
pub(super) fn complain(text: &str) {
    if !text.is_empty() {
        writeln!(std::io::stderr().lock(), "{}", text.trim_end_matches('\n')).unwrap_or_default();
    }
}

/// Whether a person sees stdout: only then there are progress bars.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A value as JSON over several lines.
pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    // What verbs print are maps with text keys and numbers, which always have a JSON form.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A text of somebody else on one line: control characters, which could move the cursor of a terminal, are escaped.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { out.extend(character.escape_default()) } else { out.push(character) }
    }
    out
}

/// `1 load`, `2 loads`.
pub(super) fn counted(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_texts_cannot_move_the_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
    }

    #[test]
    fn one_thing_is_no_plural() {
        assert_eq!((counted(1, "load"), counted(0, "load")), ("1 load".into(), "0 loads".into()));
    }
}
