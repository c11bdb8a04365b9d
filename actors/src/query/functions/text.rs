//! Functions of text. Positions and lengths count Unicode characters, so a function never cuts one in
//! half.

use std::borrow::Cow;

use serde_json::Value;

use super::arguments::{Arguments, COMMA, QUOTES, Room, array_of, count, index, text_of};
use super::{Context, MANY, Row, row};

/// `REPLICATE` gives no longer text than this, in characters.
const MAX_REPLICATED: usize = 10_000;

pub(super) const ROWS: &[Row] = &[
    row("CONCAT", (2, MANY), concat),
    row("CONTAINS", (2, 3), |a, _| compare(a, |text, part| text.contains(part))),
    row("ENDSWITH", (2, 3), |a, _| compare(a, |text, part| text.ends_with(part))),
    row("STARTSWITH", (2, 3), |a, _| compare(a, |text, part| text.starts_with(part))),
    row("StringEquals", (2, 3), |a, _| compare(a, |text, part| text == part)),
    row("INDEX_OF", (2, 3), index_of),
    row("LastIndexOf", (2, 3), last_index_of),
    row("LEFT", (2, 2), left),
    row("RIGHT", (2, 2), right),
    row("SUBSTRING", (3, 3), substring),
    row("LENGTH", (1, 1), |a, _| count(a.text(0)?.chars().count())),
    row("LOWER", (1, 1), |a, _| text_of(a.text(0)?.to_lowercase())),
    row("UPPER", (1, 1), |a, _| text_of(a.text(0)?.to_uppercase())),
    row("REVERSE", (1, 1), |a, _| text_of(a.text(0)?.chars().rev().collect::<String>())),
    row("TRIM", (1, 2), |a, _| trim(a, true, true)),
    row("LTRIM", (1, 2), |a, _| trim(a, true, false)),
    row("RTRIM", (1, 2), |a, _| trim(a, false, true)),
    row("REPLACE", (3, 3), replace),
    row("REPLICATE", (2, 2), replicate),
    row("StringJoin", (2, 2), join),
    row("StringSplit", (2, 2), split),
];

fn concat(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (mut room, mut all) = (Room::new(), String::new());
    for argument in arguments.from(0) {
        let text = (*argument)?.as_str()?;
        room.take(text.len())?;
        all.push_str(text);
    }
    Some(Value::String(all))
}

/// Compares two texts as they are, or without their case when the third argument is true.
fn compare(arguments: &Arguments<'_>, holds: fn(&str, &str) -> bool) -> Option<Value> {
    let (text, part) = (arguments.text(0)?, arguments.text(1)?);
    let found = if arguments.switch(2)? { holds(&fold(text), &fold(part)) } else { holds(text, part) };
    Some(Value::Bool(found))
}

/// Lower case character by character, so that a part of a text stays a part of it.
fn fold(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| c.is_ascii() && !c.is_ascii_uppercase()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().flat_map(char::to_lowercase).collect())
}

fn index_of(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (text, part) = (arguments.text(0)?, arguments.text(1)?);
    let skipped = index(arguments.integer_or(2, 0)?);
    let Some(rest) = after(text, skipped) else { return Some(Value::from(-1)) };
    match rest.find(part) {
        Some(at) => count(skipped + characters(rest, at)),
        None => Some(Value::from(-1)),
    }
}

/// The last place of a text. With a position, the place has to end at that character or before it.
fn last_index_of(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (text, part) = (arguments.text(0)?, arguments.text(1)?);
    let last = arguments.integer_or(2, i64::MAX)?;
    let kept = if last < 0 { 0 } else { index(last).saturating_add(1) };
    let searched = text.get(..offset(text, kept)).unwrap_or(text);
    match searched.rfind(part) {
        Some(at) => count(characters(searched, at)),
        None => Some(Value::from(-1)),
    }
}

fn left(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (text, length) = (arguments.text(0)?, index(arguments.integer(1)?));
    text_of(text.get(..offset(text, length))?)
}

fn right(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (text, length) = (arguments.text(0)?, index(arguments.integer(1)?));
    let start = text.char_indices().rev().take(length).last().map_or(text.len(), |(at, _)| at);
    text_of(text.get(start..)?)
}

/// Characters from a position on. A position outside, or no length, gives the empty text.
fn substring(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (text, start, length) = (arguments.text(0)?, arguments.integer(1)?, arguments.integer(2)?);
    if start < 0 || length <= 0 {
        return text_of("");
    }
    let rest = after(text, index(start)).unwrap_or_default();
    text_of(rest.get(..offset(rest, index(length)))?)
}

/// Takes white space off the ends, or any of the characters of the second argument.
fn trim(arguments: &Arguments<'_>, start: bool, end: bool) -> Option<Value> {
    let mut text = arguments.text(0)?;
    let characters = if arguments.len() > 1 { Some(arguments.text(1)?) } else { None };
    let goes = |c: char| characters.map_or(c.is_whitespace(), |characters| characters.contains(c));
    if start {
        text = text.trim_start_matches(goes);
    }
    if end {
        text = text.trim_end_matches(goes);
    }
    text_of(text)
}

fn replace(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (text, old, new) = (arguments.text(0)?, arguments.text(1)?, arguments.text(2)?);
    if old.is_empty() {
        return None;
    }
    let (mut room, mut all) = (Room::new(), String::new());
    for (i, piece) in text.split(old).enumerate() {
        if i > 0 {
            room.take(new.len())?;
            all.push_str(new);
        }
        room.take(piece.len())?;
        all.push_str(piece);
    }
    Some(Value::String(all))
}

fn replicate(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (text, times) = (arguments.text(0)?, arguments.number(1)?);
    if times < 0.0 {
        return None;
    }
    // A fraction of a repetition is none; the conversion saturates, and the product is checked.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
    let times = times as usize;
    let length = text.chars().count().checked_mul(times)?;
    // An empty text is empty however often it is repeated.
    if length == 0 {
        return text_of("");
    }
    if length <= MAX_REPLICATED { text_of(text.repeat(times)) } else { None }
}

fn join(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (pieces, separator) = (arguments.array(0)?, arguments.text(1)?);
    let (mut room, mut all) = (Room::new(), String::new());
    for (i, piece) in pieces.iter().enumerate() {
        let piece = piece.as_str()?;
        let before = if i > 0 { separator } else { "" };
        room.take(before.len() + piece.len())?;
        all.push_str(before);
        all.push_str(piece);
    }
    Some(Value::String(all))
}

/// The pieces between separators; an empty separator separates nothing.
fn split(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (text, separator) = (arguments.text(0)?, arguments.text(1)?);
    if separator.is_empty() {
        return array_of([&Value::from(text)].into_iter());
    }
    let (mut room, mut pieces) = (Room::new(), Vec::new());
    for piece in text.split(separator) {
        room.take(piece.len() + QUOTES + COMMA)?;
        pieces.push(Value::from(piece));
    }
    Some(Value::Array(pieces))
}

/// The byte where the character of this number starts, or the end.
fn offset(text: &str, characters: usize) -> usize {
    text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at)
}

/// How many characters come before a byte.
fn characters(text: &str, end: usize) -> usize {
    text.get(..end).map_or(0, |before| before.chars().count())
}

/// What comes after this many characters; `None` when there are fewer.
fn after(text: &str, characters: usize) -> Option<&str> {
    let mut rest = text.chars();
    if characters > 0 {
        rest.nth(characters - 1)?;
    }
    Some(rest.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::query::functions::tests::{UNDEFINED, check};

    const NAME: &str = "AdventureWorks";

    #[test]
    fn texts_are_compared_with_and_without_their_case() {
        check(&[
            ("CONTAINS", json!([NAME, "Works"]), json!(true)),
            ("CONTAINS", json!([NAME, "adventure"]), json!(false)),
            ("CONTAINS", json!([NAME, "adventure", false]), json!(false)),
            ("CONTAINS", json!([NAME, "works", true]), json!(true)),
            ("CONTAINS", json!([NAME, "Contoso"]), json!(false)),
            ("CONTAINS", json!([NAME, ""]), json!(true)),
            ("CONTAINS", json!([NAME, 1]), json!(UNDEFINED)),
            ("CONTAINS", json!([NAME, "works", 1]), json!(UNDEFINED)),
            ("CONTAINS", json!([NAME, "works", UNDEFINED]), json!(false)),
            ("ENDSWITH", json!([NAME, "Works"]), json!(true)),
            ("ENDSWITH", json!([NAME, "Adventure"]), json!(false)),
            ("ENDSWITH", json!([NAME, "works"]), json!(false)),
            ("ENDSWITH", json!([NAME, "works", true]), json!(true)),
            ("STARTSWITH", json!([NAME, "Adventure"]), json!(true)),
            ("STARTSWITH", json!([NAME, "aDV", true]), json!(true)),
            ("StringEquals", json!([NAME, NAME]), json!(true)),
            ("StringEquals", json!([NAME, "adventureworks"]), json!(false)),
            ("StringEquals", json!([NAME, "adventureworks", true]), json!(true)),
            ("StringEquals", json!(["STRASSE", "straße", true]), json!(false)),
            ("CONTAINS", json!(["ÅNGSTRÖM", "ngströ", true]), json!(true)),
        ]);
    }

    #[test]
    fn places_in_a_text_are_counted_in_characters() {
        check(&[
            ("INDEX_OF", json!([NAME, "A"]), json!(0)),
            ("INDEX_OF", json!([NAME, "s"]), json!(13)),
            ("INDEX_OF", json!([NAME, "tureW"]), json!(5)),
            ("INDEX_OF", json!([NAME, "Cosmos"]), json!(-1)),
            ("INDEX_OF", json!([NAME, "Works", 5]), json!(9)),
            ("INDEX_OF", json!([NAME, "Adventure", 5]), json!(-1)),
            ("INDEX_OF", json!([NAME, "aD"]), json!(-1)),
            ("INDEX_OF", json!([NAME, "s", 14]), json!(-1)),
            ("INDEX_OF", json!([NAME, "s", 99]), json!(-1)),
            ("INDEX_OF", json!([NAME, "A", -9]), json!(0)),
            ("INDEX_OF", json!([NAME, "A", 0.5]), json!(UNDEFINED)),
            ("INDEX_OF", json!(["søster 𝄞x", "x", 3]), json!(8)),
            ("LastIndexOf", json!(["abcdeabc", "abc"]), json!(5)),
            ("LastIndexOf", json!(["abcdeabc", "abc", 6]), json!(0)),
            ("LastIndexOf", json!(["abcdeabc", "abc", 7]), json!(5)),
            ("LastIndexOf", json!(["abcdeabc", "fg"]), json!(-1)),
            ("LastIndexOf", json!(["abcdeabc", "a", -1]), json!(-1)),
            ("LastIndexOf", json!(["𝄞x𝄞x", "x"]), json!(3)),
            ("LENGTH", json!([NAME]), json!(14)),
            ("LENGTH", json!(["søster 𝄞"]), json!(8)),
            ("LENGTH", json!([""]), json!(0)),
            ("LENGTH", json!([[1]]), json!(UNDEFINED)),
        ]);
    }

    #[test]
    fn parts_of_a_text_end_where_it_ends() {
        check(&[
            ("LEFT", json!([NAME, 0]), json!("")),
            ("LEFT", json!([NAME, 5]), json!("Adven")),
            ("LEFT", json!([NAME, 100]), json!(NAME)),
            ("LEFT", json!([NAME, -1]), json!("")),
            ("LEFT", json!([NAME, 1.5]), json!(UNDEFINED)),
            ("RIGHT", json!([NAME, 0]), json!("")),
            ("RIGHT", json!([NAME, 1]), json!("s")),
            ("RIGHT", json!([NAME, 5]), json!("Works")),
            ("RIGHT", json!([NAME, 100]), json!(NAME)),
            ("RIGHT", json!(["a𝄞b", 2]), json!("𝄞b")),
            ("SUBSTRING", json!([NAME, 0, 9]), json!("Adventure")),
            ("SUBSTRING", json!([NAME, 9, 5]), json!("Works")),
            ("SUBSTRING", json!([NAME, 9, 1e15]), json!("Works")),
            ("SUBSTRING", json!([NAME, 0, -1]), json!("")),
            ("SUBSTRING", json!([NAME, -1, 3]), json!("")),
            ("SUBSTRING", json!([NAME, 14, 3]), json!("")),
            ("SUBSTRING", json!([NAME, 15, 3]), json!("")),
            ("SUBSTRING", json!(["a𝄞b", 1, 1]), json!("𝄞")),
            ("SUBSTRING", json!([NAME, "0", 1]), json!(UNDEFINED)),
        ]);
    }

    #[test]
    fn white_space_or_given_characters_are_trimmed() {
        check(&[
            ("RTRIM", json!(["  AdventureWorks  "]), json!("  AdventureWorks")),
            ("RTRIM", json!([NAME, "Works"]), json!("Adventure")),
            ("RTRIM", json!([NAME, "Adventure"]), json!(NAME)),
            ("RTRIM", json!([NAME, NAME]), json!("")),
            ("RTRIM", json!([NAME, ""]), json!(NAME)),
            ("RTRIM", json!([NAME, UNDEFINED]), json!(UNDEFINED)),
            ("LTRIM", json!(["  AdventureWorks  "]), json!("AdventureWorks  ")),
            ("LTRIM", json!([NAME, "Adventure"]), json!("Works")),
            ("LTRIM", json!([NAME, "Works"]), json!(NAME)),
            ("TRIM", json!(["\t AdventureWorks\n"]), json!(NAME)),
            ("TRIM", json!(["--a-b--", "-"]), json!("a-b")),
        ]);
    }

    #[test]
    fn texts_are_made_of_texts() {
        check(&[
            (
                "CONCAT",
                json!(["duonovi-pro-coat", "-", "heavy-coats"]),
                json!("duonovi-pro-coat-heavy-coats"),
            ),
            ("CONCAT", json!(["a", UNDEFINED]), json!(UNDEFINED)),
            ("CONCAT", json!(["a", "b", 1]), json!(UNDEFINED)),
            ("LOWER", json!([NAME]), json!("adventureworks")),
            ("UPPER", json!(["adventure_wörks"]), json!("ADVENTURE_WÖRKS")),
            ("REVERSE", json!(["a𝄞b"]), json!("b𝄞a")),
            ("REPLACE", json!([NAME, "Works", " Works "]), json!("Adventure Works ")),
            ("REPLACE", json!(["aaa", "a", ""]), json!("")),
            ("REPLACE", json!(["aaa", "b", "c"]), json!("aaa")),
            ("REPLACE", json!(["aaa", "", "c"]), json!(UNDEFINED)),
            ("REPLICATE", json!(["Cosmic", 3]), json!("CosmicCosmicCosmic")),
            ("REPLICATE", json!(["Cosmic", 0]), json!("")),
            ("REPLICATE", json!(["Cosmic", 1.9]), json!("Cosmic")),
            ("REPLICATE", json!(["Cosmic", -1]), json!(UNDEFINED)),
            ("REPLICATE", json!(["", 1_000_000]), json!("")),
            ("StringJoin", json!([["Adventure", "Works"], " "]), json!("Adventure Works")),
            ("StringJoin", json!([[], ","]), json!("")),
            ("StringJoin", json!([["a", 1], ","]), json!(UNDEFINED)),
            ("StringSplit", json!(["Handlebar", "e"]), json!(["Handl", "bar"])),
            ("StringSplit", json!(["CARBON_STEEL", "_"]), json!(["CARBON", "STEEL"])),
            ("StringSplit", json!(["xenmoun mountain bike", "moun"]), json!(["xen", " ", "tain bike"])),
            ("StringSplit", json!(["AluminumBikeFrame", UNDEFINED]), json!(UNDEFINED)),
            ("StringSplit", json!(["Helmet", ""]), json!(["Helmet"])),
            ("StringSplit", json!(["", ""]), json!([""])),
            ("StringSplit", json!(["a,", ","]), json!(["a", ""])),
        ]);
    }
}
