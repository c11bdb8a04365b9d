//! Queries with the answers that the service gives to them.
//!
//! The examples lie beside the repository: a folder for each, with `query.sql`, `result.json`, and where
//! the query reads documents `seed.json`. Without the folder there is nothing to compare.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where its promise is broken"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::query::{Context, End, Execution, Flow, PageLimits, Query};
use serde_json::Value;

fn examples() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let Ok(entries) = fs::read_dir(workspace.join("../shared/vectors/sql")) else { return Vec::new() };
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn json(path: &Path) -> Option<Vec<Value>> {
    fs::read_to_string(path).ok().map(|text| serde_json::from_str(&text).unwrap())
}

fn rows(text: &str, documents: &[Value]) -> Result<Vec<Value>, String> {
    let query = Query::parse(text).map_err(|error| error.to_string())?;
    let bound = Arc::new(query.bind(&[]).map_err(|error| error.to_string())?);
    let context = Context { now: Timestamp(0), seed: 0 };
    let page = PageLimits { rows: 1_000, bytes: 1 << 30, groups: 1_000, carried: 6 * 1024 };
    let mut execution =
        Execution::start(bound, context, page, false, None).map_err(|error| error.to_string())?;
    for (position, document) in documents.iter().enumerate() {
        let flow = execution.offer(&position.to_be_bytes(), document).map_err(|error| error.to_string())?;
        if flow == Flow::Full {
            break;
        }
    }
    execution.finish(End::Reached).map(|page| page.rows).map_err(|error| error.to_string())
}

/// The same as JSON, numbers within what a double can differ by.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            let (left, right) = (left.as_f64().unwrap(), right.as_f64().unwrap());
            (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| same(value, other)))
        }
        _ => left == right,
    }
}

/// The same rows; their order counts only where the query gives one.
fn agree(found: &[Value], wanted: &[Value], is_ordered: bool) -> bool {
    if is_ordered {
        return found.len() == wanted.len()
            && found.iter().zip(wanted).all(|(left, right)| same(left, right));
    }
    let mut left: Vec<&Value> = wanted.iter().collect();
    let all_known = found.iter().all(|row| {
        let at = left.iter().position(|wanted| same(row, wanted));
        at.map(|at| left.swap_remove(at)).is_some()
    });
    all_known && left.is_empty()
}

#[test]
fn queries_answer_as_the_service_does() {
    let examples = examples();
    let mut faults = Vec::new();
    for folder in &examples {
        let name = folder.file_name().unwrap().to_string_lossy();
        let text = fs::read_to_string(folder.join("query.sql")).unwrap();
        let wanted = json(&folder.join("result.json")).unwrap();
        match rows(&text, &json(&folder.join("seed.json")).unwrap_or_default()) {
            Ok(found) if agree(&found, &wanted, text.to_uppercase().contains("ORDER BY")) => {}
            Ok(found) => faults.push(format!(
                "{name}:\n  found  {}\n  wanted {}",
                Value::from(found),
                Value::from(wanted)
            )),
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    println!("{} of {} examples agree", examples.len() - faults.len(), examples.len());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
