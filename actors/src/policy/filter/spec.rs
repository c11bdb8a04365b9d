//! What a subscription asks of events, as it is written in a manifest or sent to the API: the nineteen
//! operators of Event Grid, and the limits that a filter keeps.
//!
//! Stands between whoever reads a filter and [`Filter`], which only [`FilterSpec::compile`] makes of it.

use serde::{Deserialize, Serialize};

use super::Filter;
use super::check::{Check, Compiled};
use super::key::{KeyFault, KeyTable};
use super::test::{Test, TestFault};
use crate::model::ids::Name;

/// Conditions of one filter, as Event Grid allows.
pub const MAX_CONDITIONS: usize = 25;
/// Values of all conditions of one filter together, as Event Grid allows. A range is one value.
pub const MAX_VALUES: usize = 25;
/// Longest text that a condition compares with, in characters, as Event Grid allows.
pub const MAX_TEXT: usize = 512;
/// Types that one filter names. A list that is longer says "all" with an exception, or is a mistake.
pub const MAX_TYPES: usize = 256;
/// Longest beginning or end of a subject, in characters; longer than any subject of a change.
pub const MAX_AFFIX: usize = 4_096;

/// The one member of `types` that means every type, as in Event Grid.
const ALL_TYPES: &str = "All";

/// A filter as it is written. An event must pass the types, the subject **and** every condition.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterSpec {
    /// Types that are wanted, compared exactly; `None` or only `All` is every type, an empty list is none.
    pub types: Option<Vec<Name>>,
    /// What the subject looks like.
    pub subject: SubjectFilter,
    /// What is asked of attributes and data.
    pub advanced: Vec<Condition>,
    /// Whether conditions look into arrays (`enableAdvancedFilteringOnArrays`); otherwise an array is a
    /// value of the wrong kind.
    pub arrays: bool,
}

/// What the subject of an event looks like; literal, without wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectFilter {
    /// How it begins; empty is any.
    pub begins: String,
    /// How it ends; empty is any.
    pub ends: String,
    /// Whether case matters. It never does in [`FilterSpec::advanced`].
    pub case_sensitive: bool,
}

/// One question about an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Condition {
    /// An attribute (case does not matter), or `data.` and names of properties, parted by dots.
    pub key: String,
    /// What must be true of its value.
    pub test: Test,
}

/// A condition as JSON: `{"key":"data.weight","operator":"NumberGreaterThan","value":1000}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    key: String,
    #[serde(alias = "operatorType")]
    operator: String,
    #[serde(default)]
    value: Option<serde_json::Value>,
    #[serde(default)]
    values: Option<serde_json::Value>,
}

/// Why a filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterProblem {
    /// More than [`MAX_CONDITIONS`].
    #[error("{0} conditions, the limit is {MAX_CONDITIONS}")]
    TooManyConditions(usize),
    /// More than [`MAX_VALUES`].
    #[error("the conditions have {0} values together, the limit is {MAX_VALUES}")]
    TooManyValues(usize),
    /// More than [`MAX_TYPES`].
    #[error("{0} types, the limit is {MAX_TYPES}")]
    TooManyTypes(usize),
    /// More than [`MAX_AFFIX`].
    #[error("the beginning or the end of a subject has {0} characters, the limit is {MAX_AFFIX}")]
    SubjectTooLong(usize),
    /// One condition is wrong.
    #[error("condition {index} on `{key}`: {fault}")]
    Condition {
        /// Its place in the list, from 0.
        index: usize,
        /// Its key.
        key: String,
        /// What is wrong.
        #[source]
        fault: ConditionFault,
    },
}

/// What is wrong with one condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionFault {
    /// The key.
    #[error("{0}")]
    Key(#[from] KeyFault),
    /// The operator or its values.
    #[error("{0}")]
    Test(#[from] TestFault),
}

impl FilterSpec {
    /// Checks the filter and makes it ready to be asked. `keys` is the table of the topic whose events it
    /// will be asked about: events that are read with the same table answer each key once, however many
    /// filters ask.
    ///
    /// # Errors
    /// [`FilterProblem`] is the first thing that is wrong.
    pub fn compile(&self, keys: &KeyTable) -> Result<Filter, FilterProblem> {
        let types = self.types.as_ref().filter(|types| !matches!(&types[..], [all] if &**all == ALL_TYPES));
        if let Some(types) = types.filter(|types| types.len() > MAX_TYPES) {
            return Err(FilterProblem::TooManyTypes(types.len()));
        }
        for affix in [&self.subject.begins, &self.subject.ends] {
            let length = affix.chars().count();
            if length > MAX_AFFIX {
                return Err(FilterProblem::SubjectTooLong(length));
            }
        }
        if self.advanced.len() > MAX_CONDITIONS {
            return Err(FilterProblem::TooManyConditions(self.advanced.len()));
        }
        let values = self.advanced.iter().map(|condition| condition.test.values()).sum();
        if values > MAX_VALUES {
            return Err(FilterProblem::TooManyValues(values));
        }
        let affix = |text: &String| (!text.is_empty()).then(|| text.clone());
        let SubjectFilter { begins, ends, case_sensitive } = &self.subject;
        let mut filter = Filter::new(types.cloned(), affix(begins), affix(ends), *case_sensitive);
        filter.arrays = self.arrays;
        for (index, condition) in self.advanced.iter().enumerate() {
            let compiled = condition.compile(keys).map_err(|fault| {
                let key = condition.key.chars().take(64).collect();
                FilterProblem::Condition { index, key, fault }
            })?;
            filter.conditions.push(compiled);
        }
        Ok(filter)
    }
}

impl Condition {
    /// A condition of the parts that manifests and requests have.
    ///
    /// # Errors
    /// [`TestFault`] when the operator is unknown or its values are not what it takes.
    pub fn read(
        key: String,
        operator: &str,
        value: Option<&serde_json::Value>,
        values: Option<&serde_json::Value>,
    ) -> Result<Self, TestFault> {
        Ok(Self { key, test: Test::read(operator, value, values)? })
    }

    fn compile(&self, keys: &KeyTable) -> Result<Compiled, ConditionFault> {
        self.test.check()?;
        let key = keys.intern(&self.key)?;
        Ok(Compiled { key, check: Check::new(&self.test), test: self.test.clone() })
    }
}

impl TryFrom<Written> for Condition {
    type Error = TestFault;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { key, operator, value, values } = written;
        Self::read(key, &operator, value.as_ref(), values.as_ref())
    }
}

impl From<Condition> for Written {
    fn from(condition: Condition) -> Self {
        let (value, values) = condition.test.written();
        let operator = condition.test.operator().to_owned();
        Self { key: condition.key, operator, value, values }
    }
}
