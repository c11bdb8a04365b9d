//! `RegexMatch`: regular expressions that match in linear time. Backreferences and lookaround, which
//! would not, make a pattern invalid.
//!
//! Invariant: what a pattern takes in memory and how long one match can take are bounded, and so is how
//! many patterns a thread keeps.

use std::cell::RefCell;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::arguments::Arguments;
use super::{Context, Row, row};

pub(super) const ROWS: &[Row] = &[row("RegexMatch", (2, 3), matches)];

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 16 * 1024;
/// Sizes that the program of a pattern may have, in bytes. The smallest that fits is what it counts as.
const PROGRAM_SIZES: [usize; 6] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20];
/// The largest cache of a pattern's automaton, in bytes.
const MAX_CACHE: usize = 1 << 20;
/// The most that the size of a program times the length of a text may be. At worst a match looks at all
/// of the program for each byte of the text, and this much takes about a second.
const MAX_WORK: usize = 1 << 33;
/// How many patterns a thread keeps. A query has few, and asks for them once per document.
const KEPT: usize = 8;

/// A pattern with its modifiers, and what it compiled to: `None` when it is invalid.
struct Compiled {
    pattern: String,
    modifiers: String,
    program: Option<Program>,
}

struct Program {
    regex: Regex,
    /// The longest text that it may be matched with, in bytes.
    longest: usize,
}

thread_local! {
    /// The patterns asked for last, the latest one in front.
    static RECENT: RefCell<Vec<Compiled>> = const { RefCell::new(Vec::new()) };
}

fn matches(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (text, pattern) = (arguments.text(0)?, arguments.text(1)?);
    let modifiers = arguments.text_or(2, "")?;
    if pattern.len() > MAX_PATTERN || modifiers.len() > MAX_PATTERN {
        return None;
    }
    RECENT.with_borrow_mut(|recent| {
        let known = recent.iter().position(|one| one.pattern == pattern && one.modifiers == modifiers);
        if let Some(at) = known {
            recent.get_mut(..=at)?.rotate_right(1);
        } else {
            recent.truncate(KEPT - 1);
            let program = compile(pattern, modifiers);
            recent.insert(0, Compiled { pattern: pattern.into(), modifiers: modifiers.into(), program });
        }
        let program = recent.first()?.program.as_ref()?;
        (text.len() <= program.longest).then(|| Value::Bool(program.regex.is_match(text)))
    })
}

fn compile(pattern: &str, modifiers: &str) -> Option<Program> {
    let mut builder = RegexBuilder::new(pattern);
    builder.dfa_size_limit(MAX_CACHE);
    for modifier in modifiers.chars() {
        match modifier {
            'm' => builder.multi_line(true),
            's' => builder.dot_matches_new_line(true),
            'i' => builder.case_insensitive(true),
            'x' => builder.ignore_whitespace(true),
            _ => return None,
        };
    }
    for size in PROGRAM_SIZES {
        match builder.size_limit(size).build() {
            Ok(regex) => return Some(Program { regex, longest: MAX_WORK / size }),
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{KEPT, MAX_PATTERN};
    use crate::query::functions::tests::{UNDEFINED, call, check};

    #[test]
    fn patterns_match_with_their_modifiers() {
        check(&[
            ("RegexMatch", json!(["abcd", "ABC"]), json!(false)),
            ("RegexMatch", json!(["abcd", "ABC", "i"]), json!(true)),
            ("RegexMatch", json!(["abcd", "ab.", ""]), json!(true)),
            ("RegexMatch", json!(["abcd", "ab c", "x"]), json!(true)),
            ("RegexMatch", json!(["abcd", "aB c", "ix"]), json!(true)),
            ("RegexMatch", json!(["03a", "[0-9]"]), json!(true)),
            ("RegexMatch", json!(["salt3824908", "salt{1}"]), json!(true)),
            ("RegexMatch", json!(["shame", "s....", "i"]), json!(true)),
            ("RegexMatch", json!(["a\nb", "^b$"]), json!(false)),
            ("RegexMatch", json!(["a\nb", "^b$", "m"]), json!(true)),
            ("RegexMatch", json!(["a\nb", "a.b"]), json!(false)),
            ("RegexMatch", json!(["a\nb", "a.b", "s"]), json!(true)),
        ]);
    }

    #[test]
    fn an_invalid_or_monstrous_pattern_is_undefined() {
        let long = "a".repeat(MAX_PATTERN + 1);
        check(&[
            ("RegexMatch", json!(["a", "("]), json!(UNDEFINED)),
            ("RegexMatch", json!(["a", "a", "g"]), json!(UNDEFINED)),
            ("RegexMatch", json!(["a", "a", UNDEFINED]), json!(UNDEFINED)),
            ("RegexMatch", json!(["aa", r"(a)\1"]), json!(UNDEFINED)),
            ("RegexMatch", json!(["a", "((a{100}){100}){100}"]), json!(UNDEFINED)),
            ("RegexMatch", json!(["a", long]), json!(UNDEFINED)),
        ]);
    }

    #[test]
    fn a_large_pattern_matches_no_long_text() {
        let (short, long) = ("x".repeat(1_000), "x".repeat(1_000_000));
        check(&[
            ("RegexMatch", json!([long, "x{10}$"]), json!(true)),
            ("RegexMatch", json!([short, "^x{10,1000}$"]), json!(true)),
            ("RegexMatch", json!([long, "^x{10,1000}$"]), json!(UNDEFINED)),
            ("RegexMatch", json!([short, r"\w{20}"]), json!(true)),
        ]);
    }

    #[test]
    fn a_pattern_matches_the_same_after_many_others() {
        for _ in 0..2 {
            for i in 0..KEPT * 2 {
                let is_match = call("RegexMatch", &json!([format!("a{i}"), format!("^a{i}$")]));
                assert_eq!(is_match, Some(Value::Bool(true)));
                assert_eq!(call("RegexMatch", &json!(["b", format!("^a{i}$")])), Some(Value::Bool(false)));
            }
        }
    }
}
