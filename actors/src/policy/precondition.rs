//! Decides whether a request's `If-Match` and `If-None-Match` allow it (RFC 9110 section 13.1).
//!
//! Stands between the headers and a partition's rules. Invariant: the answer depends only on the
//! headers and the current version, and a malformed header is an error, never a condition that holds.
//!
//! RFC 9110 section 13.2.1: a request that fails without its conditions (404 for a read, replace,
//! patch or delete of something absent) keeps that failure; callers ask here afterwards.

/// Longest list of entity tags in one header.
pub const MAX_TAGS: usize = 64;

/// The conditions of one request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// No condition.
    #[default]
    None,
    /// `If-Match`.
    IfMatch(EtagSet),
    /// `If-None-Match`.
    IfNoneMatch(EtagSet),
    /// Both headers; `If-Match` is asked first.
    Both {
        /// `If-Match`.
        if_match: EtagSet,
        /// `If-None-Match`.
        if_none_match: EtagSet,
    },
}

/// The value of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtagSet {
    /// `*`: whatever version there is.
    Any,
    /// Versions by their tags.
    Tags(Vec<EntityTag>),
}

/// An entity tag (RFC 9110 section 8.8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag {
    /// Whether it was written with `W/`.
    pub weak: bool,
    /// The opaque tag with its quotes.
    pub text: String,
}

/// A header that is not a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedPrecondition {
    /// No tag at all.
    #[error("`{0}` is empty: expected `*` or entity tags such as `\"1-2a\"`")]
    Empty(&'static str),
    /// Something that is not a tag.
    #[error("`{header}` has no entity tag at byte {at}: tags stand in double quotes, parted by commas")]
    NotATag {
        /// The header's name.
        header: &'static str,
        /// Where the trouble begins, in bytes.
        at: usize,
    },
    /// More than [`MAX_TAGS`].
    #[error("`{0}` has more than {MAX_TAGS} entity tags")]
    TooMany(&'static str),
}

/// A condition that does not hold: 412 Precondition Failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// `If-Match`, and there is nothing.
    #[error("`If-Match` asks for a document that does not exist")]
    Absent,
    /// `If-Match`, and there is another version.
    #[error("`If-Match` names another version than the current one")]
    Changed,
    /// `If-None-Match`, and there is such a version.
    #[error("`If-None-Match` forbids the version that exists")]
    Present,
}

impl Precondition {
    /// Reads the headers' values. Several fields of one name are joined with a comma beforehand.
    pub fn parse(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Self, MalformedPrecondition> {
        let if_match = if_match.map(|value| EtagSet::parse("If-Match", value)).transpose()?;
        let if_none_match = if_none_match.map(|value| EtagSet::parse("If-None-Match", value)).transpose()?;
        Ok(match (if_match, if_none_match) {
            (None, None) => Self::None,
            (Some(set), None) => Self::IfMatch(set),
            (None, Some(set)) => Self::IfNoneMatch(set),
            (Some(if_match), Some(if_none_match)) => Self::Both { if_match, if_none_match },
        })
    }

    /// Asks whether a write may go on. `current` is the current version's entity tag with its quotes;
    /// `Some("")` is a version that has no tag yet, because it was made earlier in the same batch:
    /// it exists, and equals no tag.
    pub fn check(&self, current: Option<&str>) -> Result<(), Failed> {
        self.check_read(current)?;
        if self.none_match_fails(current) {
            return Err(Failed::Present);
        }
        Ok(())
    }

    /// As [`check`](Self::check), for an upsert: where nothing exists, tags in `If-Match` do not keep
    /// it from creating, as in Cosmos DB. `If-Match: *` still asks for something that exists.
    pub fn check_upsert(&self, current: Option<&str>) -> Result<(), Failed> {
        let creates = current.is_none() && matches!(self.if_match(), Some(EtagSet::Tags(_)));
        if creates { Ok(()) } else { self.check(current) }
    }

    /// Whether a read is answered with 304 Not Modified, given that `If-Match` holds
    /// (see [`check_read`](Self::check_read)).
    pub fn not_modified(&self, current: Option<&str>) -> bool {
        self.none_match_fails(current)
    }

    /// Asks whether a read may go on; then [`not_modified`](Self::not_modified) chooses 304 or 200
    /// (RFC 9110 section 13.2.2).
    pub fn check_read(&self, current: Option<&str>) -> Result<(), Failed> {
        match (self.if_match(), current) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Failed::Absent),
            (Some(set), Some(tag)) if set.has_strong(tag) => Ok(()),
            (Some(_), Some(_)) => Err(Failed::Changed),
        }
    }

    fn if_match(&self) -> Option<&EtagSet> {
        match self {
            Self::IfMatch(set) | Self::Both { if_match: set, .. } => Some(set),
            Self::None | Self::IfNoneMatch(_) => None,
        }
    }

    fn none_match_fails(&self, current: Option<&str>) -> bool {
        let set = match self {
            Self::IfNoneMatch(set) | Self::Both { if_none_match: set, .. } => set,
            Self::None | Self::IfMatch(_) => return false,
        };
        current.is_some_and(|tag| set.has_weak(tag))
    }
}

impl EtagSet {
    fn parse(header: &'static str, value: &str) -> Result<Self, MalformedPrecondition> {
        if trim(value) == "*" {
            return Ok(Self::Any);
        }
        let mut tags = Vec::new();
        let mut rest = value;
        loop {
            // A sender may leave list elements empty (RFC 9110 section 5.6.1.2).
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            if tags.len() == MAX_TAGS {
                return Err(MalformedPrecondition::TooMany(header));
            }
            let at = value.len() - rest.len();
            let malformed = MalformedPrecondition::NotATag { header, at };
            let (tag, after) = EntityTag::take(rest).ok_or(malformed)?;
            rest = after.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(MalformedPrecondition::NotATag { header, at: value.len() - rest.len() });
            }
            tags.push(tag);
        }
        if tags.is_empty() {
            return Err(MalformedPrecondition::Empty(header));
        }
        Ok(Self::Tags(tags))
    }

    /// Strong comparison: neither tag is weak, and the texts are the same.
    fn has_strong(&self, current: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.iter().any(|tag| !tag.weak && tag.text == current),
        }
    }

    /// Weak comparison: the texts are the same.
    fn has_weak(&self, current: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.iter().any(|tag| tag.text == current),
        }
    }
}

impl EntityTag {
    /// Reads a tag from the front of a text; also returns what follows it.
    fn take(text: &str) -> Option<(Self, &str)> {
        let (weak, opaque) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
        let inside = opaque.strip_prefix('"')?;
        let (inside, after) = inside.split_once('"')?;
        let legal = |c: char| c == '!' || ('#'..='~').contains(&c) || !c.is_ascii();
        inside.chars().all(legal).then(|| (Self { weak, text: format!("\"{inside}\"") }, after))
    }
}

fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(if_match: Option<&str>, if_none_match: Option<&str>) -> Precondition {
        Precondition::parse(if_match, if_none_match).unwrap()
    }

    #[test]
    fn a_write_goes_on_only_when_its_conditions_hold() {
        use Failed::{Absent, Changed, Present};
        let now = Some("\"1-2\"");
        let unborn = Some("");
        for (if_match, if_none_match, current, expected) in [
            (None, None, None, Ok(())),
            (None, None, now, Ok(())),
            (Some("\"1-2\""), None, now, Ok(())),
            (Some("\"1-1\""), None, now, Err(Changed)),
            (Some("\"1-1\", \"1-2\""), None, now, Ok(())),
            (Some("W/\"1-2\""), None, now, Err(Changed)),
            (Some("\"1-2\""), None, None, Err(Absent)),
            (Some("*"), None, now, Ok(())),
            (Some("*"), None, None, Err(Absent)),
            (Some("*"), None, unborn, Ok(())),
            (Some("\"\""), None, unborn, Err(Changed)),
            (Some("\"1-2\""), None, unborn, Err(Changed)),
            (None, Some("*"), None, Ok(())),
            (None, Some("*"), now, Err(Present)),
            (None, Some("*"), unborn, Err(Present)),
            (None, Some("\"1-2\""), now, Err(Present)),
            (None, Some("W/\"1-2\""), now, Err(Present)),
            (None, Some("\"1-1\""), now, Ok(())),
            (None, Some("\"1-2\""), None, Ok(())),
            (None, Some("\"1-2\""), unborn, Ok(())),
            (Some("\"1-2\""), Some("\"1-1\""), now, Ok(())),
            (Some("\"1-2\""), Some("*"), now, Err(Present)),
            (Some("\"1-1\""), Some("*"), now, Err(Changed)),
        ] {
            let got = parsed(if_match, if_none_match).check(current);
            assert_eq!(got, expected, "{if_match:?} {if_none_match:?} {current:?}");
        }
    }

    #[test]
    fn an_upsert_with_tags_creates_what_does_not_exist() {
        let now = Some("\"1-2\"");
        for (if_match, if_none_match, current, expected) in [
            (Some("\"1-1\""), None, None, Ok(())),
            (Some("\"1-1\""), None, now, Err(Failed::Changed)),
            (Some("\"1-2\""), None, now, Ok(())),
            (Some("\"1-1\""), None, Some(""), Err(Failed::Changed)),
            (Some("*"), None, None, Err(Failed::Absent)),
            (Some("*"), None, now, Ok(())),
            (None, Some("*"), None, Ok(())),
            (None, Some("*"), now, Err(Failed::Present)),
            (Some("\"1-1\""), Some("*"), None, Ok(())),
            (None, None, None, Ok(())),
        ] {
            let got = parsed(if_match, if_none_match).check_upsert(current);
            assert_eq!(got, expected, "{if_match:?} {if_none_match:?} {current:?}");
        }
    }

    #[test]
    fn a_read_is_not_modified_when_the_caller_has_the_version() {
        let now = Some("\"1-2\"");
        for (if_match, if_none_match, current, allowed, not_modified) in [
            (None, None, now, true, false),
            (None, Some("\"1-2\""), now, true, true),
            (None, Some("W/\"1-2\""), now, true, true),
            (None, Some("\"0-0\", \"1-2\""), now, true, true),
            (None, Some("*"), now, true, true),
            (None, Some("\"1-1\""), now, true, false),
            (None, Some("*"), None, true, false),
            (Some("\"1-2\""), Some("\"1-2\""), now, true, true),
            (Some("\"1-1\""), None, now, false, false),
        ] {
            let precondition = parsed(if_match, if_none_match);
            assert_eq!(precondition.check_read(current).is_ok(), allowed, "{precondition:?}");
            assert_eq!(precondition.not_modified(current), not_modified, "{precondition:?}");
        }
    }

    #[test]
    fn lists_are_read_as_the_standard_writes_them() {
        for (value, tags) in [
            ("\"a\"", vec!["\"a\""]),
            (" \t\"a\" ", vec!["\"a\""]),
            ("\"a\",\"b\"", vec!["\"a\"", "\"b\""]),
            (",, \"a\" ,\t, \"b\" ,", vec!["\"a\"", "\"b\""]),
            ("\"a,b\", \"\"", vec!["\"a,b\"", "\"\""]),
            ("\"\u{e9}!#~\\\"", vec!["\"\u{e9}!#~\\\""]),
            ("\"*\"", vec!["\"*\""]),
        ] {
            let Precondition::IfMatch(EtagSet::Tags(found)) = parsed(Some(value), None) else {
                panic!("{value}");
            };
            assert!(found.iter().all(|tag| !tag.weak));
            assert_eq!(found.into_iter().map(|tag| tag.text).collect::<Vec<_>>(), tags, "{value}");
        }
        assert_eq!(parsed(Some(" * "), None), Precondition::IfMatch(EtagSet::Any));
    }

    #[test]
    fn malformed_headers_are_refused_with_their_place() {
        let header = "If-None-Match";
        let not_a_tag = |at| MalformedPrecondition::NotATag { header, at };
        for (value, error) in [
            ("", MalformedPrecondition::Empty(header)),
            (" , ,", MalformedPrecondition::Empty(header)),
            ("1-2", not_a_tag(0)),
            ("\"1-2", not_a_tag(0)),
            ("'1-2'", not_a_tag(0)),
            ("w/\"1-2\"", not_a_tag(0)),
            ("W/ \"1-2\"", not_a_tag(0)),
            ("\"a b\"", not_a_tag(0)),
            ("\"a\u{7f}\"", not_a_tag(0)),
            ("\"a\n\"", not_a_tag(0)),
            ("\"a\" \"b\"", not_a_tag(4)),
            ("\"a\"x", not_a_tag(3)),
            ("\"a\", *", not_a_tag(5)),
            ("*, \"a\"", not_a_tag(0)),
            ("**", not_a_tag(0)),
        ] {
            assert_eq!(Precondition::parse(None, Some(value)), Err(error), "{value:?}");
        }
        let tags = |n: usize| vec!["\"a\""; n].join(",");
        assert!(Precondition::parse(Some(&tags(MAX_TAGS)), None).is_ok());
        let error = Precondition::parse(Some(&tags(MAX_TAGS + 1)), None).unwrap_err();
        assert_eq!(error, MalformedPrecondition::TooMany("If-Match"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_condition_or_an_error(value in "[\"W/*, a\u{e9}\\t]{0,24}", exists: bool) {
            if let Ok(precondition) = Precondition::parse(Some(&value), Some(&value)) {
                // Whoever asks for a version and against the same version is never let through.
                let current = exists.then_some("\"a\"");
                prop_assert!(precondition.check(current).is_err());
            }
        }
    }
}
