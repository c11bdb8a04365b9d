//! Stands between the section `named_values` and the places that refer to it as `{{name}}`.
//!
//! Invariant: a secret comes from the environment, goes only where a secret belongs, and is never repeated in a
//! message.

use std::collections::BTreeMap;

use super::fields::{self, Fields};
use super::model::Secret;
use super::problem::{Report, closest, quoted};
use super::tree::Node;

/// Longest value, in bytes: it goes into a header or a request.
const VALUE_MAX: usize = 4_096;
/// Longest name of an environment variable, in bytes.
const VARIABLE_MAX: usize = 255;

/// What the names stand for; `None` where something is wrong with it.
#[derive(Default)]
pub(super) struct NamedValues<'t>(BTreeMap<&'t str, Option<Named>>);

enum Named {
    Plain(String),
    Secret(Secret),
}

impl<'t> NamedValues<'t> {
    /// Reads the section.
    pub(super) fn read(node: &'t Node, environment: &[(String, String)], report: &mut Report) -> Self {
        let mut values = BTreeMap::new();
        for (name, _, node) in fields::named(node, report) {
            values.insert(name, named(node, environment, report));
        }
        Self(values)
    }

    /// Reads a reference to a secret.
    pub(super) fn secret(&self, node: &Node, report: &mut Report) -> Option<Secret> {
        let Some(name) = fields::text(node, report).and_then(reference) else {
            // The text may be the secret itself, so it is not repeated.
            let text =
                "a secret is a reference, never a literal: write `\"{{name}}\"`, a name of `named_values`";
            report.add(node.place, text);
            return None;
        };
        match self.find(name, node, report)? {
            Named::Secret(secret) => Some(secret.clone()),
            Named::Plain(_) => {
                let text =
                    format!("named value {} is no secret: give it `secret` instead of `value`", quoted(name));
                report.add(node.place, text);
                None
            }
        }
    }

    /// Reads a text, which may be a reference to a value that is no secret.
    pub(super) fn text(&self, node: &Node, report: &mut Report) -> Option<String> {
        let text = fields::text(node, report)?;
        let Some(name) = reference(text) else { return Some(text.to_owned()) };
        match self.find(name, node, report)? {
            Named::Plain(value) => Some(value.clone()),
            Named::Secret(_) => {
                report.add(
                    node.place,
                    format!("named value {} is a secret, which would show here", quoted(name)),
                );
                None
            }
        }
    }

    /// Reads a text that goes nowhere else: it may be written out, or be a reference to any value.
    pub(super) fn any(&self, node: &Node, report: &mut Report) -> Option<Secret> {
        let text = fields::text(node, report)?;
        let Some(name) = reference(text) else { return Some(Secret::new(text.to_owned())) };
        match self.find(name, node, report)? {
            Named::Plain(value) => Some(Secret::new(value.clone())),
            Named::Secret(secret) => Some(secret.clone()),
        }
    }

    fn find(&self, name: &str, node: &Node, report: &mut Report) -> Option<&Named> {
        let found = self.0.get(name);
        if found.is_none() && report.is_whole() {
            let message = format!("there is no named value {}", quoted(name));
            let similar = closest(name, self.0.keys().copied()).map(|name| format!("{{{{{name}}}}}"));
            report.suggest(node.place, message, similar);
        }
        found?.as_ref()
    }
}

/// The name in `{{name}}`.
fn reference(text: &str) -> Option<&str> {
    let name = text.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    (!name.is_empty() && !name.contains(['{', '}'])).then_some(name)
}

fn named(node: &Node, environment: &[(String, String)], report: &mut Report) -> Option<Named> {
    let mut fields = Fields::open(node, report)?;
    let value = fields.optional("value");
    let secret = fields.optional("secret");
    let read = match (value, secret) {
        (Some(node), None) => fields::text(node, report).and_then(|text| {
            if is_value(text) {
                return Some(Named::Plain(text.to_owned()));
            }
            fields::expected(node, &format!("a text of 1 to {VALUE_MAX} bytes on one line"), report)
        }),
        (None, Some(node)) => secret_of(node, environment, report).map(Named::Secret),
        (Some(_), Some(_)) | (None, None) => {
            fields::expected(node, "either `value`, or `secret: { env: NAME }`", report)
        }
    };
    fields.finish(&[], report);
    read
}

fn secret_of(node: &Node, environment: &[(String, String)], report: &mut Report) -> Option<Secret> {
    let node = variable(node, report)?;
    let name = fields::text(node, report)?;
    if !is_variable(name) {
        // The text may be the secret itself, so it is not repeated.
        report.add(node.place, "expected the name of an environment variable: letters, digits and `_`");
        return None;
    }
    let Some((_, text)) = environment.iter().rev().find(|(key, _)| key == name) else {
        let similar = closest(name, environment.iter().map(|(key, _)| key.as_str()));
        report.suggest(node.place, format!("environment variable {} is not set", quoted(name)), similar);
        return None;
    };
    if !is_value(text) {
        let message = format!(
            "environment variable {} does not hold a secret: 1 to {VALUE_MAX} bytes on one line",
            quoted(name)
        );
        report.add(node.place, message);
        return None;
    }
    Some(Secret::new(text.clone()))
}

/// The node with the name of a secret's variable.
pub(super) fn variable<'t>(node: &'t Node, report: &mut Report) -> Option<&'t Node> {
    if !matches!(node.value, super::tree::Value::Map(_)) {
        report.add(node.place, "a secret is a reference, never a literal: write `{ env: NAME }`");
        return None;
    }
    let mut fields = Fields::open(node, report)?;
    let variable = fields.required("env", report);
    fields.finish(&[], report);
    variable
}

/// Whether a text can be the name of an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    name.len() <= VARIABLE_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= VALUE_MAX && !text.chars().any(char::is_control)
}
