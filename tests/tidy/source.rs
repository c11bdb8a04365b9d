//! Reads Rust text just well enough to keep rules: what is code, what is imported, how long a function is.
//!
//! Invariant: comments and the insides of literals never count as code, and lines keep their numbers.

/// `text` with comments and the insides of string and character literals turned into spaces.
pub(crate) fn code(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped(&bytes, at);
        if end > at {
            out.extend(bytes[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none does.
fn skipped(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1).copied().unwrap_or(' ');
    let inside_word = at > 0 && is_word(text[at - 1]);
    match text[at] {
        '/' if next == '/' => find(text, at, |i| text[i] == '\n'),
        '/' if next == '*' => block_comment(text, at),
        'r' if !inside_word => raw_string(text, at, at + 1).unwrap_or(at),
        'b' if !inside_word && next == 'r' => raw_string(text, at, at + 2).unwrap_or(at),
        '"' => quoted(text, at, '"'),
        // A lifetime has no closing quote two places on, or after an escape.
        '\'' if next == '\\' || text.get(at + 2) == Some(&'\'') => quoted(text, at, '\''),
        _ => at,
    }
}

fn find(text: &[char], from: usize, wanted: impl Fn(usize) -> bool) -> usize {
    (from..text.len()).find(|i| wanted(*i)).unwrap_or(text.len())
}

fn block_comment(text: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i + 1 < text.len() {
        match (text[i], text[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    text.len()
}

fn raw_string(text: &[char], at: usize, hashes_at: usize) -> Option<usize> {
    let quote = find(text, hashes_at, |i| text[i] != '#');
    if text.get(quote) != Some(&'"') {
        return None;
    }
    let hashes = quote - hashes_at;
    let closes =
        |i: usize| text[i] == '"' && text[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    debug_assert!(at < quote);
    Some((find(text, quote + 1, closes) + 1 + hashes).min(text.len()))
}

fn quoted(text: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < text.len() && text[i] != quote {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(text.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Code without the modules and functions under `#[cfg(test)]`.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let after = &rest[at + MARK.len()..];
        let end = match (after.find('{'), after.find(';')) {
            (Some(brace), semicolon) if semicolon.is_none_or(|semicolon| brace < semicolon) => {
                brace + matching(&after[brace..])
            }
            (_, semicolon) => semicolon.map_or(after.len(), |semicolon| semicolon + 1),
        };
        out.extend(after[..end].chars().filter(|c| *c == '\n'));
        rest = &after[end..];
    }
    out + rest
}

/// Length of `code`, which begins with a brace, up to and with the brace that closes it.
fn matching(code: &str) -> usize {
    let mut depth = 0;
    for (i, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    code.len()
}

/// The first names after `root::` in code: `use crate::{a, b::c}` names `a` and `b`.
pub(crate) fn names_after(root: &str, code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for after in uses(root, code) {
        let first = |text: &str| text.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
        if !after.starts_with('{') {
            names.push(first(after));
            continue;
        }
        let inside = &after[1..matching(after) - 1];
        let mut depth = 0;
        let top = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        };
        names.extend(inside.split(top).map(first));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What stands behind each `root::` that is a path of its own.
fn uses<'a>(root: &str, code: &'a str) -> Vec<&'a str> {
    let wanted = format!("{root}::");
    let found = code.match_indices(&wanted).filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        before.is_none_or(|c| !is_word(c) && c != '$') && !code[..*at].ends_with("::")
    });
    found.map(|(at, _)| &code[at + wanted.len()..]).collect()
}

/// Whether code names this crate, in a path or an import.
pub(crate) fn names_crate(name: &str, code: &str) -> bool {
    let plain = |word: &str| code.contains(&format!("use {name}{word}"));
    !uses(name, code).is_empty() || plain(";") || plain(" as ")
}

/// Name, line and length in lines of each function that has a body.
pub(crate) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let after = &code[at + 3..];
        let name: String = after.chars().take_while(|c| is_word(*c)).collect();
        let mut depth = 0;
        let opens = after.char_indices().find(|(_, c)| {
            depth += i32::from("([".contains(*c)) - i32::from(")]".contains(*c));
            depth == 0 && (*c == '{' || *c == ';')
        });
        let Some((brace, '{')) = opens else { continue };
        if name.is_empty() {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let end = brace + matching(&after[brace..]);
        found.push((name, line, after[..end].matches('\n').count() + 1));
    }
    found
}

/// Name and doc comment of each message: a struct with the attribute `rtype`.
pub(crate) fn messages(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut docs, mut is_message) = (String::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push_str(doc);
        } else if line.starts_with("#[") {
            is_message |= line.starts_with("#[rtype");
        } else {
            if let Some(rest) = line.strip_prefix("pub struct ").filter(|_| is_message) {
                found.push((rest.chars().take_while(|c| is_word(*c)).collect(), docs.clone()));
            }
            docs.clear();
            is_message = false;
        }
    }
    found
}

/// The literals in a text that please `wanted` and stand behind text that pleases `before`.
pub(crate) fn literals(text: &str, wanted: fn(&str) -> bool, before: fn(&str) -> bool) -> Vec<&str> {
    let parts: Vec<&str> = text.split('"').collect();
    let odd = (1..parts.len()).step_by(2);
    odd.filter(|i| wanted(parts[*i]) && before(parts[i - 1])).map(|i| parts[i]).collect()
}

/// Whether a text is a name in snake case.
pub(crate) fn is_snake(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text =
            "a // crate::x\n/* crate /* y */ z */ b \"c\\\"\n{\" 'd' '\\'' &'e r#\"f\"g\"# br\"h\" hour i";
        let code = code(text);
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "&'e", "hour", "i"]);
        assert_eq!(code.matches('\n').count(), text.matches('\n').count());
    }

    #[test]
    fn what_is_under_test_is_left_out() {
        let code = "a\n#[cfg(test)]\nmod tests {\n fn b() { c }\n}\nd\n#[cfg(test)]\nmod tests;\ne";
        let left = without_tests(code);
        assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["a", "d", "e"]);
        assert_eq!(left.matches('\n').count(), code.matches('\n').count());
    }

    #[test]
    fn imports_are_found_in_every_form() {
        let code = "use crate::a::B; crate::c::d(); use crate::{e, f::{g, h}, j}; $crate::k; x::crate::l; mycrate::m";
        assert_eq!(names_after("crate", code), ["a", "c", "e", "f", "j"]);
        assert!(names_crate("redb", "let x: redb::Database;"));
        assert!(names_crate("redb", "use redb as r;"));
        assert!(names_crate("actix", "actix::spawn"));
        assert!(!names_crate("actix", "use actix_web::web; my::actix::x; react::actix"));
        assert!(!names_crate("redb", "xredb::y"));
    }

    #[test]
    fn functions_are_measured_from_their_name_to_their_last_brace() {
        let code = "trait T {\n fn none(&self);\n}\nfn a(x: [u8; 2]) -> B\nwhere\n C: D,\n{\n {}\n fn b() {\n }\n}\nlet f: fn (u8);";
        assert_eq!(functions(code), [("a".to_owned(), 4, 8), ("b".to_owned(), 9, 2)]);
    }

    #[test]
    fn a_message_is_found_with_its_whole_comment() {
        let text = "/// Sender: `A`.\n/// Receiver: `B`.\n#[derive(Message)]\n#[rtype(result = \"()\")]\npub struct C;\n\n/// No message.\npub struct D;";
        assert_eq!(messages(text), [("C".to_owned(), " Sender: `A`. Receiver: `B`.".to_owned())]);
    }
}
