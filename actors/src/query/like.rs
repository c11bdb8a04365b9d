//! `LIKE`: `%` is any text, `_` one character, `[a-f]` and `[^a-f]` one of a set.

/// A pattern that is ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Char(char),
    AnyChar,
    AnyText,
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    pub(super) fn new(text: &str, escape: Option<char>) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let mut parts = Vec::with_capacity(chars.len());
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            at += 1;
            let part = match c {
                c if Some(c) == escape => {
                    let escaped = chars.get(at).copied();
                    at += 1;
                    Part::Char(escaped.unwrap_or(c))
                }
                '%' => Part::AnyText,
                '_' => Part::AnyChar,
                '[' => match set(chars.get(at..).unwrap_or_default(), escape) {
                    Some((set, length)) => {
                        at += length;
                        set
                    }
                    None => Part::Char('['),
                },
                c => Part::Char(c),
            };
            if part != Part::AnyText || parts.last() != Some(&Part::AnyText) {
                parts.push(part);
            }
        }
        Self(parts)
    }

    /// Whether the whole text fits.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (mut part, mut at) = (0, 0);
        // Where the last `%` stands, and up to where it has taken the text: the only place to go back to.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let next = text.get(at..).and_then(|rest| rest.chars().next());
            match (self.0.get(part), next) {
                (None, None) => return true,
                (Some(Part::AnyText), _) => {
                    retry = Some((part, at));
                    part += 1;
                    continue;
                }
                (Some(wanted), Some(c)) if wanted.fits(c) => {
                    part += 1;
                    at += c.len_utf8();
                    continue;
                }
                _ => {}
            }
            let Some((star, from)) = retry else { return false };
            let Some(skipped) = text.get(from..).and_then(|rest| rest.chars().next()) else { return false };
            retry = Some((star, from + skipped.len_utf8()));
            (part, at) = (star + 1, from + skipped.len_utf8());
        }
    }

    /// What every fitting text begins with, and whether it is that text alone.
    pub(super) fn prefix(&self) -> (String, bool) {
        let mut prefix = String::new();
        for part in &self.0 {
            match part {
                Part::Char(c) => prefix.push(*c),
                Part::AnyChar | Part::AnyText | Part::Set { .. } => return (prefix, false),
            }
        }
        (prefix, true)
    }
}

impl Part {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Char(wanted) => *wanted == c,
            Self::AnyChar => true,
            Self::AnyText => false,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
        }
    }
}

/// A set after its `[`, and how many characters it takes with its `]`; `None` when it is not closed.
fn set(chars: &[char], escape: Option<char>) -> Option<(Part, usize)> {
    let negated = matches!(chars.first(), Some('^' | '!'));
    let mut at = usize::from(negated);
    let first = at;
    let mut ranges = Vec::new();
    loop {
        let mut from = *chars.get(at)?;
        if from == ']' && at > first {
            return Some((Part::Set { negated, ranges }, at + 1));
        }
        if Some(from) == escape {
            at += 1;
            from = *chars.get(at)?;
        }
        at += 1;
        match (chars.get(at), chars.get(at + 1)) {
            (Some('-'), Some(&to)) if to != ']' => {
                ranges.push((from, to));
                at += 2;
            }
            _ => ranges.push((from, from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_texts() {
        for (text, pattern, fits) in [
            ("", "", true),
            ("", "%", true),
            ("a", "", false),
            ("abc", "abc", true),
            ("abc", "ab", false),
            ("abc", "%b%", true),
            ("abc", "a_c", true),
            ("äbc", "_bc", true),
            ("abc", "a%%c", true),
            ("ab", "a_%_", false),
            ("aXbXc", "a%X%c", true),
            ("mississippi", "m%iss%ip%i", true),
            ("mississippi", "m%iss%ip%x", false),
            ("bat", "[abc]at", true),
            ("dat", "[a-c]at", false),
            ("dat", "[^a-c]at", true),
            ("]", "[]]", true),
            ("-", "[a-]", true),
            ("[a", "[a", true),
            ("a%c", "a[%]c", true),
            ("abc", "a[%]c", false),
        ] {
            assert_eq!(Pattern::new(pattern, None).matches(text), fits, "{text} LIKE {pattern}");
        }
    }

    #[test]
    fn an_escaped_wildcard_is_itself() {
        for (text, pattern, fits) in
            [("20%", "20!%", true), ("200", "20!%", false), ("a!b", "a!!b", true), ("!", "!", true)]
        {
            assert_eq!(Pattern::new(pattern, Some('!')).matches(text), fits, "{text} LIKE {pattern}");
        }
    }

    #[test]
    fn a_prefix_is_what_stands_before_the_first_wildcard() {
        for (pattern, prefix, whole) in [("ab%", "ab", false), ("ab", "ab", true), ("%a", "", false)] {
            assert_eq!(Pattern::new(pattern, None).prefix(), (prefix.to_owned(), whole));
        }
        assert_eq!(Pattern::new("5!%%", Some('!')).prefix(), ("5%".to_owned(), false));
    }
}
