//! A question in SQL to a running server, and its answer as a table or as JSON lines.

use serde_json::{Map, Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, outline, str_at, text, things};
use super::output::{self, counted};
use super::table::Table;

pub(super) const EXAMPLE: &str = "\
Examples:
  lanekeeper query loads 'SELECT c.id, c.weight FROM c WHERE c.weight > @w' --param w=20
  lanekeeper query loads 'SELECT VALUE COUNT(1) FROM c' --partition '[\"OSL-BER\"]' --explain
  lanekeeper query quotes 'SELECT * FROM c' --tenant acme --all --json";

/// Rows of a table at most; JSON lines have no end.
const TABLE_ROWS: usize = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Name of the container
    container: String,
    /// The query
    #[arg(value_name = "SQL")]
    query: String,
    /// Value of `@name` in the query: JSON, or a text that is no JSON
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    param: Vec<(String, Value)>,
    /// A partition key as a JSON array, or the beginning of one
    #[arg(long, value_name = "JSON", value_parser = key)]
    partition: Option<Key>,
    /// Owner of the documents, in an isolated container
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Rows in a page
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    /// All pages, not only the first
    #[arg(long)]
    all: bool,
    /// Also show how the rows are found, and what that costs
    #[arg(long)]
    explain: bool,
}

/// A partition key of the command line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key(pub(super) Vec<Value>);

/// Reads a JSON array.
pub(super) fn key(text: &str) -> Result<Key, String> {
    serde_json::from_str(text).map(Key).map_err(|_| "a JSON array such as `[\"OSL-BER\"]`".to_owned())
}

fn parameter(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("a name and a value, such as `weight=20`")?;
    let name = name.strip_prefix('@').unwrap_or(name);
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

/// Asks, and prints what is answered.
pub(super) async fn run(options: &Options, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let mut rows = Vec::new();
    let (mut charge, mut plan, mut continuation) = (0.0, None, None::<String>);
    loop {
        let path = ["v1", "containers", &options.container, "query"];
        let answer = admin.post(&path, body(options, continuation.as_deref())).await?;
        charge += answer.get("request_charge").and_then(Value::as_f64).unwrap_or_default();
        plan = plan.or_else(|| answer.get("plan").cloned());
        continuation = str_at(&answer, "/continuation").map(ToOwned::to_owned);
        if as_json {
            for row in things(&answer, "documents") {
                if !output::line(&row.to_string()) {
                    return Ok(String::new());
                }
            }
        } else {
            rows.extend(things(&answer, "documents").iter().cloned());
        }
        if continuation.is_none() || !options.all || rows.len() >= TABLE_ROWS {
            break;
        }
    }
    if continuation.is_some() {
        output::complain(if options.all {
            "there are more rows than a table holds: use --json"
        } else {
            "there may be more rows: --all shows them"
        });
    }
    if as_json {
        return Ok(plan.map_or_else(String::new, |plan| json!({ "plan": plan }).to_string()));
    }
    let mut text = render(&rows);
    let number = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    text.push_str(&format!("\n{}, {charge:.2} RU\n", counted(number, "row")));
    if let Some(plan) = plan {
        text.push_str(&format!("\n{}", outline(&plan, &[])));
    }
    Ok(text)
}

fn body(options: &Options, continuation: Option<&str>) -> Value {
    let parameters = options.param.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    json!({
        "query": options.query,
        "parameters": parameters.collect::<Vec<_>>(),
        "partition": options.partition.as_ref().map(|key| &key.0),
        "tenant": options.tenant,
        "limit": options.limit,
        "continuation": continuation,
        // The plan is the same for every page.
        "explain": options.explain && continuation.is_none(),
    })
}

/// Objects as a table with a column for each property that any of them has; other values one on a line.
fn render(rows: &[Value]) -> String {
    let objects: Option<Vec<&Map<String, Value>>> = rows.iter().map(Value::as_object).collect();
    let Some(objects) = objects.filter(|objects| !objects.is_empty()) else {
        return rows.iter().map(|row| format!("{}\n", text(row))).collect();
    };
    let mut columns: Vec<&str> = Vec::new();
    for name in objects.iter().flat_map(|object| object.keys()) {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let mut table = Table::new(&columns);
    for row in rows {
        table.row(columns.iter().map(|name| cell(row, &[&pointer(name)])));
    }
    table.render()
}

/// The JSON pointer (RFC 6901) of a property.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_json_or_a_text() {
        for (text, name, value) in [
            ("w=20", "w", json!(20)),
            ("@w=20", "w", json!(20)),
            ("lane=OSL-BER", "lane", json!("OSL-BER")),
            ("id=\"5\"", "id", json!("5")),
            ("x=a=b", "x", json!("a=b")),
            ("tags=[1,2]", "tags", json!([1, 2])),
            ("empty=", "empty", json!("")),
        ] {
            assert_eq!(parameter(text), Ok((name.to_owned(), value)), "{text}");
        }
        assert!(parameter("w").is_err());
    }

    #[test]
    fn rows_are_a_table_of_all_their_properties() {
        let rows = [json!({ "id": "a", "w": 1 }), json!({ "id": "b", "x/y": [1, 2] })];
        assert_eq!(render(&rows), "id  w  x/y\na   1  -\nb   -  1, 2\n");
        assert_eq!(render(&[json!(3), json!("x\ny")]), "3\nx\\ny\n");
        assert_eq!(render(&[]), "");
    }
}
