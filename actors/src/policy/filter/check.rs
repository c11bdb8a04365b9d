//! A test made ready, and its verdict on one value.
//!
//! Invariant: [`Check::verdict`] is the only place that decides; a match and an explanation both come from it.

use std::sync::Arc;

use super::fact::{Elements, Fact};
use super::fold;
use super::key::Key;
use super::test::Test;

/// A condition of a compiled filter.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) key: Arc<Key>,
    pub(super) check: Check,
    /// As it was written.
    pub(super) test: Test,
}

/// A test with its values folded.
#[derive(Debug, Clone)]
pub(super) enum Check {
    Numbers(Numbers, Wanted),
    Bool(bool),
    Texts(How, Box<[Box<str>]>, Wanted),
    /// Whether the value has to be there, and not null.
    There(bool),
}

#[derive(Debug, Clone)]
pub(super) enum Numbers {
    In(Box<[f64]>),
    Ranges(Box<[[f64; 2]]>),
    Less(f64),
    AtMost(f64),
    Greater(f64),
    AtLeast(f64),
}

/// How a text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Contains,
    Begins,
    Ends,
    Is,
}

/// Which result of the comparison meets the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A value matches.
    Match,
    /// None does. Not met when there is nothing to compare.
    NoMatch,
    /// None does. Met when there is nothing to compare.
    NoMatchOrAbsent,
}

/// Whether a test is met, and what decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) met: bool,
    /// Whether one of the test's values was found in the event's.
    pub(super) found: bool,
    pub(super) because: Because,
}

impl Verdict {
    fn mismatch(because: Because) -> Self {
        Self { met: false, found: false, because }
    }
}

/// What decided a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    /// The value.
    Value,
    /// The elements of an array.
    Elements,
    /// There is no value.
    Absent,
    /// The value is null.
    Null,
    /// The value is of a kind that the test does not compare.
    Kind,
    /// The value is an array, and the filter does not look into arrays.
    ArraysOff,
}

impl Check {
    pub(super) fn new(test: &Test) -> Self {
        use Wanted::{Match, NoMatch, NoMatchOrAbsent};
        let texts = |how, values: &[String], wanted| {
            Self::Texts(how, values.iter().map(|value| fold(value)).collect(), wanted)
        };
        match test {
            Test::NumberIn(values) => Self::Numbers(Numbers::In(values[..].into()), Match),
            Test::NumberNotIn(values) => Self::Numbers(Numbers::In(values[..].into()), NoMatchOrAbsent),
            Test::NumberLessThan(value) => Self::Numbers(Numbers::Less(*value), Match),
            Test::NumberLessThanOrEquals(value) => Self::Numbers(Numbers::AtMost(*value), Match),
            Test::NumberGreaterThan(value) => Self::Numbers(Numbers::Greater(*value), Match),
            Test::NumberGreaterThanOrEquals(value) => Self::Numbers(Numbers::AtLeast(*value), Match),
            Test::NumberInRange(ranges) => Self::Numbers(Numbers::Ranges(ranges[..].into()), Match),
            Test::NumberNotInRange(ranges) => {
                Self::Numbers(Numbers::Ranges(ranges[..].into()), NoMatchOrAbsent)
            }
            Test::BoolEquals(value) => Self::Bool(*value),
            Test::StringContains(values) => texts(How::Contains, values, Match),
            Test::StringNotContains(values) => texts(How::Contains, values, NoMatch),
            Test::StringBeginsWith(values) => texts(How::Begins, values, Match),
            Test::StringNotBeginsWith(values) => texts(How::Begins, values, NoMatch),
            Test::StringEndsWith(values) => texts(How::Ends, values, Match),
            Test::StringNotEndsWith(values) => texts(How::Ends, values, NoMatch),
            Test::StringIn(values) => texts(How::Is, values, Match),
            Test::StringNotIn(values) => texts(How::Is, values, NoMatchOrAbsent),
            Test::IsNullOrUndefined => Self::There(false),
            Test::IsNotNull => Self::There(true),
        }
    }

    /// Whether a value meets the test. `arrays`: whether it looks into arrays.
    pub(super) fn verdict(&self, fact: &Fact, arrays: bool) -> Verdict {
        let nothing = match fact {
            Fact::Absent => Some(Because::Absent),
            Fact::Null => Some(Because::Null),
            Fact::Bool(_) | Fact::Number(_) | Fact::Text(_) | Fact::Array(_) | Fact::Other => None,
        };
        if let Self::There(expected) = self {
            let because = nothing.unwrap_or(Because::Value);
            let found = nothing.is_none();
            return Verdict { met: found == *expected, found, because };
        }
        if let Some(because) = nothing {
            let met = self.wanted() == Wanted::NoMatchOrAbsent;
            return Verdict { met, found: false, because };
        }
        let (found, because) = match fact {
            Fact::Array(_) if !arrays => return Verdict::mismatch(Because::ArraysOff),
            Fact::Array(elements) => (self.finds_in(elements), Because::Elements),
            Fact::Bool(_) | Fact::Number(_) | Fact::Text(_) | Fact::Absent | Fact::Null | Fact::Other => {
                match self.finds(fact) {
                    Some(found) => (found, Because::Value),
                    None => return Verdict::mismatch(Because::Kind),
                }
            }
        };
        Verdict { met: found == (self.wanted() == Wanted::Match), found, because }
    }

    fn wanted(&self) -> Wanted {
        match self {
            Self::Numbers(_, wanted) | Self::Texts(_, _, wanted) => *wanted,
            Self::Bool(_) | Self::There(_) => Wanted::Match,
        }
    }

    /// Whether one of the test's values matches; `None` for a value that it does not compare.
    fn finds(&self, fact: &Fact) -> Option<bool> {
        match (self, fact) {
            (Self::Numbers(numbers, _), Fact::Number(number)) => Some(numbers.find(*number)),
            (Self::Bool(value), Fact::Bool(seen)) => Some(value == seen),
            (Self::Texts(how, values, _), Fact::Text(text)) => Some(how.finds(values, text)),
            _ => None,
        }
    }

    fn finds_in(&self, elements: &Elements) -> bool {
        match self {
            Self::Numbers(numbers, _) => elements.numbers.iter().any(|number| numbers.find(*number)),
            Self::Bool(true) => elements.has_true,
            Self::Bool(false) => elements.has_false,
            Self::Texts(how, values, _) => elements.texts.iter().any(|text| how.finds(values, text)),
            Self::There(expected) => *expected,
        }
    }
}

impl Numbers {
    fn find(&self, number: f64) -> bool {
        match self {
            Self::In(values) => values.contains(&number),
            Self::Ranges(ranges) => ranges.iter().any(|[low, high]| *low <= number && number <= *high),
            Self::Less(value) => number < *value,
            Self::AtMost(value) => number <= *value,
            Self::Greater(value) => number > *value,
            Self::AtLeast(value) => number >= *value,
        }
    }
}

impl How {
    fn finds(self, values: &[Box<str>], text: &str) -> bool {
        values.iter().any(|value| match self {
            Self::Contains => text.contains(&**value),
            Self::Begins => text.starts_with(&**value),
            Self::Ends => text.ends_with(&**value),
            Self::Is => text == &**value,
        })
    }
}
