//! The nineteen operators of Event Grid with their values, and how they are written as JSON.

use serde_json::{Value, json};

use super::spec::MAX_TEXT;

/// The names of the operators.
pub const OPERATORS: [&str; 19] = [
    "NumberIn",
    "NumberNotIn",
    "NumberLessThan",
    "NumberLessThanOrEquals",
    "NumberGreaterThan",
    "NumberGreaterThanOrEquals",
    "NumberInRange",
    "NumberNotInRange",
    "BoolEquals",
    "StringContains",
    "StringNotContains",
    "StringBeginsWith",
    "StringNotBeginsWith",
    "StringEndsWith",
    "StringNotEndsWith",
    "StringIn",
    "StringNotIn",
    "IsNullOrUndefined",
    "IsNotNull",
];

/// What must be true of a value. Several values of one test are alternatives; texts are compared without
/// regard to case, numbers as doubles, and the ends of a range belong to it.
///
/// What is not there, or null, meets `IsNullOrUndefined`, `NumberNotIn`, `NumberNotInRange` and
/// `StringNotIn`, and nothing else. A value of another kind meets no test but `IsNotNull`. (Event Grid does
/// not say what `NumberNotInRange` makes of an absent value; here it does as `NumberNotIn`.)
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// It equals one of these numbers.
    NumberIn(Vec<f64>),
    /// It equals none of them.
    NumberNotIn(Vec<f64>),
    /// It is less.
    NumberLessThan(f64),
    /// It is less, or the same.
    NumberLessThanOrEquals(f64),
    /// It is greater.
    NumberGreaterThan(f64),
    /// It is greater, or the same.
    NumberGreaterThanOrEquals(f64),
    /// It lies in one of these ranges, ends included.
    NumberInRange(Vec<[f64; 2]>),
    /// It lies in none of them.
    NumberNotInRange(Vec<[f64; 2]>),
    /// It is this.
    BoolEquals(bool),
    /// One of these texts is part of it.
    StringContains(Vec<String>),
    /// None of them is.
    StringNotContains(Vec<String>),
    /// It begins with one of these texts.
    StringBeginsWith(Vec<String>),
    /// It begins with none of them.
    StringNotBeginsWith(Vec<String>),
    /// It ends with one of these texts.
    StringEndsWith(Vec<String>),
    /// It ends with none of them.
    StringNotEndsWith(Vec<String>),
    /// It is one of these texts.
    StringIn(Vec<String>),
    /// It is none of them.
    StringNotIn(Vec<String>),
    /// It is not there, or null.
    IsNullOrUndefined,
    /// It is there, and not null.
    IsNotNull,
}

/// Why an operator with its values is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TestFault {
    /// Not one of [`OPERATORS`].
    #[error("unknown operator `{0}`; the operators are {list}", list = OPERATORS.join(", "))]
    Unknown(String),
    /// The operator takes one value.
    #[error("`{operator}` takes `value`, {kind}")]
    OneValue {
        /// The operator.
        operator: &'static str,
        /// What it takes.
        kind: &'static str,
    },
    /// The operator takes a list of values.
    #[error("`{operator}` takes `values`, a list of at least one {kind}")]
    ManyValues {
        /// The operator.
        operator: &'static str,
        /// What it takes.
        kind: &'static str,
    },
    /// The operator takes nothing.
    #[error("`{0}` takes neither `value` nor `values`")]
    NoValue(&'static str),
    /// A number that is none, or has no end.
    #[error("a number that is not finite")]
    NotFinite,
    /// A range whose end is before its beginning.
    #[error("the range from {0} to {1} is empty")]
    EmptyRange(String, String),
    /// A text of more than [`MAX_TEXT`].
    #[error("a text of {0} characters, the limit is {MAX_TEXT}")]
    TextTooLong(usize),
}

impl Test {
    /// The test of an operator's name (case does not matter) and its `value` or `values`. JSON null is no
    /// value.
    ///
    /// # Errors
    /// [`TestFault`] says what the operator takes.
    pub fn read(operator: &str, value: Option<&Value>, values: Option<&Value>) -> Result<Self, TestFault> {
        let known = OPERATORS.iter().find(|name| name.eq_ignore_ascii_case(operator));
        let operator = *known.ok_or_else(|| TestFault::Unknown(operator.chars().take(64).collect()))?;
        let given = Given {
            operator,
            value: value.filter(|value| !value.is_null()),
            values: values.filter(|values| !values.is_null()),
        };
        let test = match operator {
            "NumberIn" => Self::NumberIn(given.numbers()?),
            "NumberNotIn" => Self::NumberNotIn(given.numbers()?),
            "NumberLessThan" => Self::NumberLessThan(given.number()?),
            "NumberLessThanOrEquals" => Self::NumberLessThanOrEquals(given.number()?),
            "NumberGreaterThan" => Self::NumberGreaterThan(given.number()?),
            "NumberGreaterThanOrEquals" => Self::NumberGreaterThanOrEquals(given.number()?),
            "NumberInRange" => Self::NumberInRange(given.ranges()?),
            "NumberNotInRange" => Self::NumberNotInRange(given.ranges()?),
            "BoolEquals" => Self::BoolEquals(given.one("true or false", Value::as_bool)?),
            "StringContains" => Self::StringContains(given.texts()?),
            "StringNotContains" => Self::StringNotContains(given.texts()?),
            "StringBeginsWith" => Self::StringBeginsWith(given.texts()?),
            "StringNotBeginsWith" => Self::StringNotBeginsWith(given.texts()?),
            "StringEndsWith" => Self::StringEndsWith(given.texts()?),
            "StringNotEndsWith" => Self::StringNotEndsWith(given.texts()?),
            "StringIn" => Self::StringIn(given.texts()?),
            "StringNotIn" => Self::StringNotIn(given.texts()?),
            "IsNullOrUndefined" => given.nothing(Self::IsNullOrUndefined)?,
            // The last of the list that the name was found in.
            _ => given.nothing(Self::IsNotNull)?,
        };
        test.check()?;
        Ok(test)
    }

    /// The operator's name.
    pub fn operator(&self) -> &'static str {
        match self {
            Self::NumberIn(_) => "NumberIn",
            Self::NumberNotIn(_) => "NumberNotIn",
            Self::NumberLessThan(_) => "NumberLessThan",
            Self::NumberLessThanOrEquals(_) => "NumberLessThanOrEquals",
            Self::NumberGreaterThan(_) => "NumberGreaterThan",
            Self::NumberGreaterThanOrEquals(_) => "NumberGreaterThanOrEquals",
            Self::NumberInRange(_) => "NumberInRange",
            Self::NumberNotInRange(_) => "NumberNotInRange",
            Self::BoolEquals(_) => "BoolEquals",
            Self::StringContains(_) => "StringContains",
            Self::StringNotContains(_) => "StringNotContains",
            Self::StringBeginsWith(_) => "StringBeginsWith",
            Self::StringNotBeginsWith(_) => "StringNotBeginsWith",
            Self::StringEndsWith(_) => "StringEndsWith",
            Self::StringNotEndsWith(_) => "StringNotEndsWith",
            Self::StringIn(_) => "StringIn",
            Self::StringNotIn(_) => "StringNotIn",
            Self::IsNullOrUndefined => "IsNullOrUndefined",
            Self::IsNotNull => "IsNotNull",
        }
    }

    /// How many values it has, for the limit of a filter.
    pub fn values(&self) -> usize {
        match self {
            Self::NumberIn(values) | Self::NumberNotIn(values) => values.len(),
            Self::NumberInRange(ranges) | Self::NumberNotInRange(ranges) => ranges.len(),
            Self::StringContains(values)
            | Self::StringNotContains(values)
            | Self::StringBeginsWith(values)
            | Self::StringNotBeginsWith(values)
            | Self::StringEndsWith(values)
            | Self::StringNotEndsWith(values)
            | Self::StringIn(values)
            | Self::StringNotIn(values) => values.len(),
            Self::NumberLessThan(_)
            | Self::NumberLessThanOrEquals(_)
            | Self::NumberGreaterThan(_)
            | Self::NumberGreaterThanOrEquals(_)
            | Self::BoolEquals(_) => 1,
            Self::IsNullOrUndefined | Self::IsNotNull => 0,
        }
    }

    /// Its `value` and `values` as JSON; [`Self::read`] understands them.
    pub fn written(&self) -> (Option<Value>, Option<Value>) {
        match self {
            Self::NumberIn(values) | Self::NumberNotIn(values) => {
                (None, Some(values.iter().map(number).collect()))
            }
            Self::NumberInRange(ranges) | Self::NumberNotInRange(ranges) => {
                let range = |range: &[f64; 2]| range.iter().map(number).collect::<Value>();
                (None, Some(ranges.iter().map(range).collect()))
            }
            Self::StringContains(values)
            | Self::StringNotContains(values)
            | Self::StringBeginsWith(values)
            | Self::StringNotBeginsWith(values)
            | Self::StringEndsWith(values)
            | Self::StringNotEndsWith(values)
            | Self::StringIn(values)
            | Self::StringNotIn(values) => (None, Some(json!(values))),
            Self::NumberLessThan(value)
            | Self::NumberLessThanOrEquals(value)
            | Self::NumberGreaterThan(value)
            | Self::NumberGreaterThanOrEquals(value) => (Some(number(value)), None),
            Self::BoolEquals(value) => (Some(json!(value)), None),
            Self::IsNullOrUndefined | Self::IsNotNull => (None, None),
        }
    }

    /// Whether the values are such as [`Self::read`] gives, for tests that were made by hand.
    pub(super) fn check(&self) -> Result<(), TestFault> {
        let many = |kind| TestFault::ManyValues { operator: self.operator(), kind };
        let finite = |value: &f64| if value.is_finite() { Ok(()) } else { Err(TestFault::NotFinite) };
        match self {
            Self::NumberIn(values) | Self::NumberNotIn(values) => {
                if values.is_empty() {
                    return Err(many(NUMBER));
                }
                values.iter().try_for_each(finite)
            }
            Self::NumberLessThan(value)
            | Self::NumberLessThanOrEquals(value)
            | Self::NumberGreaterThan(value)
            | Self::NumberGreaterThanOrEquals(value) => finite(value),
            Self::NumberInRange(ranges) | Self::NumberNotInRange(ranges) => {
                if ranges.is_empty() {
                    return Err(many(RANGE));
                }
                ranges.iter().flatten().try_for_each(finite)?;
                match ranges.iter().find(|[low, high]| low > high) {
                    Some([low, high]) => Err(TestFault::EmptyRange(low.to_string(), high.to_string())),
                    None => Ok(()),
                }
            }
            Self::StringContains(values)
            | Self::StringNotContains(values)
            | Self::StringBeginsWith(values)
            | Self::StringNotBeginsWith(values)
            | Self::StringEndsWith(values)
            | Self::StringNotEndsWith(values)
            | Self::StringIn(values)
            | Self::StringNotIn(values) => {
                if values.is_empty() {
                    return Err(many(TEXT));
                }
                let longest = values.iter().map(|value| value.chars().count()).max().unwrap_or_default();
                if longest > MAX_TEXT { Err(TestFault::TextTooLong(longest)) } else { Ok(()) }
            }
            Self::BoolEquals(_) | Self::IsNullOrUndefined | Self::IsNotNull => Ok(()),
        }
    }
}

/// A number as JSON, without a fraction where it has none.
fn number(value: &f64) -> Value {
    /// Up to here every whole number is a double of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "within the range of exact integers")]
        return Value::from(*value as i64);
    }
    json!(value)
}

const NUMBER: &str = "number";
const RANGE: &str = "range `[from, to]`";
const TEXT: &str = "text";

/// What stands beside an operator.
struct Given<'v> {
    operator: &'static str,
    value: Option<&'v Value>,
    values: Option<&'v Value>,
}

impl<'v> Given<'v> {
    fn one<T>(&self, kind: &'static str, read: impl Fn(&'v Value) -> Option<T>) -> Result<T, TestFault> {
        let refused = TestFault::OneValue { operator: self.operator, kind };
        if self.values.is_some() {
            return Err(refused);
        }
        self.value.and_then(read).ok_or(refused)
    }

    fn many<T>(
        &self,
        kind: &'static str,
        read: impl Fn(&'v Value) -> Option<T>,
    ) -> Result<Vec<T>, TestFault> {
        let refused = TestFault::ManyValues { operator: self.operator, kind };
        if self.value.is_some() {
            return Err(refused);
        }
        let values = self.values.and_then(Value::as_array).ok_or_else(|| refused.clone())?;
        values.iter().map(read).collect::<Option<Vec<T>>>().ok_or(refused)
    }

    fn number(&self) -> Result<f64, TestFault> {
        self.one("a number", Value::as_f64)
    }

    fn numbers(&self) -> Result<Vec<f64>, TestFault> {
        self.many(NUMBER, Value::as_f64)
    }

    fn ranges(&self) -> Result<Vec<[f64; 2]>, TestFault> {
        self.many(RANGE, |value| match value.as_array()?.as_slice() {
            [low, high] => Some([low.as_f64()?, high.as_f64()?]),
            _ => None,
        })
    }

    fn texts(&self) -> Result<Vec<String>, TestFault> {
        self.many(TEXT, |value| value.as_str().map(str::to_owned))
    }

    fn nothing(&self, test: Test) -> Result<Test, TestFault> {
        if self.value.is_some() || self.values.is_some() {
            return Err(TestFault::NoValue(self.operator));
        }
        Ok(test)
    }
}
