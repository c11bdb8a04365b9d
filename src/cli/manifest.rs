//! `plan`, `apply`, `export`, `rollback`, `generations` of a running server, and `diff` of files.
//!
//! Invariant: `plan` and `diff` say with their exit code whether anything would change: 0 nothing, 2 something.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, str_at, things};
use super::output::{self, counted};
use super::table::Table;
use crate::manifest::{self, Source, Written};

pub(super) const PLAN_EXAMPLE: &str = "\
Example: lanekeeper plan northwind.yaml

Says what `apply` would change, and changes nothing. Exit codes: 0 nothing would change, 2 something would, 1 failed,
64 the manifest is wrong.";
pub(super) const APPLY_EXAMPLE: &str = "\
Examples: lanekeeper apply northwind.yaml
          lanekeeper apply base.yaml production.yaml --allow-destroy

What changes follows at once and together: products, limits, keys of the manifest, identities, apis, event
subscriptions. Keys and webhooks that were made at run time stay. What is read when the process starts (`server`,
`limits`, `containers`, `topics`) is refused with its name. The server keeps what it was given over restarts, as long as
its own files do not change.";
pub(super) const EXPORT_EXAMPLE: &str = "\
Example: lanekeeper export > northwind.yaml

Prints what is applied, as it was written. To plan it is to plan nothing.";
pub(super) const EXPLAIN_EXAMPLE: &str = "\
Examples: lanekeeper explain GET /freight/v1/ping
          lanekeeper explain POST /freight/v1/loads --key lk_...

Nothing is counted, and nothing is done.";
pub(super) const ROLLBACK_EXAMPLE: &str = "\
Example: lanekeeper rollback 12

Applies again what generation 12 said, as a new generation; `lanekeeper generations` lists them.";
pub(super) const DIFF_EXAMPLE: &str = "\
Example: lanekeeper diff old.yaml new.yaml

Compares what is written, without a server. Exit codes: 0 the same, 2 different.";

#[derive(Debug, clap::Args)]
pub(super) struct Files {
    /// Manifest; several are merged, the later one is stronger
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ApplyOptions {
    #[command(flatten)]
    files: Files,
    /// Go on although something is lost for ever, such as what is pending for a subscription
    #[arg(long)]
    allow_destroy: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RollbackOptions {
    /// Number of the generation, from `generations`
    #[arg(value_name = "N")]
    generation: u64,
    /// Go on although something is lost for ever
    #[arg(long)]
    allow_destroy: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExplainOptions {
    /// Method of the call
    #[arg(value_name = "METHOD")]
    method: String,
    /// Its path
    #[arg(value_name = "PATH")]
    path: String,
    /// API key of the caller; without one, a caller without a key
    #[arg(long, value_name = "K", env = "LANEKEEPER_EXPLAIN_KEY", hide_env_values = true)]
    key: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct DiffOptions {
    /// One manifest
    #[arg(value_name = "FILE")]
    before: PathBuf,
    /// Another one
    #[arg(value_name = "FILE")]
    after: PathBuf,
    /// Print the differences as JSON
    #[arg(long)]
    json: bool,
}

impl Files {
    fn written(&self) -> Result<Written, Failure> {
        let sources: Vec<Source> = self.files.iter().cloned().map(Source::File).collect();
        Ok(manifest::written(&sources)?)
    }
}

/// Says what would change.
pub(super) async fn plan(files: &Files, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let Written { name, text } = files.written()?;
    let answer = admin.post(&["v1", "manifest:plan"], json!({ "name": name, "text": text })).await?;
    let text = if as_json { output::json(&answer) } else { changes(&answer) };
    if things(&answer, "changes").is_empty() {
        return Ok(text);
    }
    output::print(&text);
    Err(Failure::Differs)
}

/// Lets the server follow a manifest.
pub(super) async fn apply(options: &ApplyOptions, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let Written { name, text } = options.files.written()?;
    let now = admin.get(&["v1", "manifest"]).await?;
    let request = json!({
        "name": name,
        "text": text,
        "if_generation": now.get("generation"),
        "allow_destroy": options.allow_destroy,
    });
    applied(&admin.put(&["v1", "manifest"], request).await?, as_json)
}

/// Goes back to an earlier generation.
pub(super) async fn rollback(
    options: &RollbackOptions,
    admin: &Admin,
    as_json: bool,
) -> Result<String, Failure> {
    let RollbackOptions { generation, allow_destroy } = options;
    let request = json!({ "generation": generation, "allow_destroy": allow_destroy });
    applied(&admin.post(&["v1", "manifest:rollback"], request).await?, as_json)
}

fn applied(answer: &Value, as_json: bool) -> Result<String, Failure> {
    if as_json {
        return Ok(output::json(answer));
    }
    Ok(format!("{}\ngeneration {}", changes(answer), cell(answer, &["/generation"])))
}

/// Says what a call would meet.
pub(super) async fn explain(
    options: &ExplainOptions,
    admin: &Admin,
    as_json: bool,
) -> Result<String, Failure> {
    let ExplainOptions { method, path, key } = options;
    let question = json!({ "method": method, "path": path, "key": key });
    let answer = admin.post(&["v1", "explain"], question).await?;
    if as_json {
        return Ok(output::json(&answer));
    }
    let mut lines = Vec::new();
    for (name, place) in [
        ("refused", "/refused/code"),
        ("because", "/refused/detail"),
        ("route", "/route"),
        ("operation", "/operation"),
        ("api", "/api"),
        ("answered by", "/to"),
        ("priority", "/priority"),
        ("product", "/terms/0/product"),
        ("key", "/terms/0/grant"),
        ("tenant", "/terms/0/tenant"),
        ("token of", "/terms/0/identity"),
        ("at once", "/terms/0/concurrency"),
    ] {
        if answer.pointer(place).is_some_and(|value| !value.is_null()) {
            lines.push(format!("{name:<12} {}", cell(&answer, &[place])));
        }
    }
    for (name, place) in [("limit", "limits"), ("quota", "quotas")] {
        for one in answer.pointer("/terms/0").map(|terms| things(terms, place)).unwrap_or_default() {
            lines.push(format!("{name:<12} {}", cell(one, &["/text"])));
        }
    }
    Ok(lines.join("\n"))
}

/// Prints what is applied.
pub(super) async fn export(admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let answer = admin.get(&["v1", "manifest"]).await?;
    if as_json {
        return Ok(output::json(answer.get("manifest").unwrap_or(&answer)));
    }
    let text = str_at(&answer, "/text");
    let text = text.ok_or_else(|| Failure::Failed("the server runs a manifest of its own".into()))?;
    Ok(text.trim_end().to_owned())
}

/// Lists what is kept.
pub(super) async fn generations(admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let answer = admin.get(&["v1", "manifest", "generations"]).await?;
    if as_json {
        return Ok(output::json(&answer));
    }
    let mut table = Table::new(&["GENERATION", "APPLIED", "FILE"]);
    for one in things(&answer, "generations") {
        table.row([cell(one, &["/generation"]), cell(one, &["/applied"]), cell(one, &["/name"])]);
    }
    Ok(table.render())
}

/// Compares two files.
pub(super) fn diff(options: &DiffOptions) -> Result<(), Failure> {
    let document = |path: &PathBuf| -> Result<Value, Failure> {
        Ok(manifest::document(&manifest::written(&[Source::File(path.clone())])?)?)
    };
    let (before, after) = (document(&options.before)?, document(&options.after)?);
    let found = manifest::differences(Some(&before), Some(&after));
    let list: Vec<Value> = found
        .iter()
        .map(|one| json!({ "path": one.path, "before": one.before, "after": one.after }))
        .collect();
    let text = if options.json {
        output::json(&list)
    } else if list.is_empty() {
        "no difference".to_owned()
    } else {
        list.iter().map(|one| detail(one, "~ ")).collect::<Vec<_>>().join("\n")
    };
    output::print(&text);
    if list.is_empty() { Ok(()) } else { Err(Failure::Differs) }
}

/// `+` is new, `~` changes, `-` goes, `!` loses something for ever.
fn changes(answer: &Value) -> String {
    let mut lines = Vec::new();
    for change in things(answer, "changes") {
        let destroys = str_at(change, "/destroys");
        let sign = match (destroys, str_at(change, "/step")) {
            (Some(_), _) => "!",
            (None, Some("add")) => "+",
            (None, Some("remove")) => "-",
            (None, _) => "~",
        };
        let restart = change.get("restart") == Some(&Value::Bool(true));
        let restart = if restart { " (needs a restart)" } else { "" };
        let lost = destroys.map(|what| format!(": {}", output::plain(what))).unwrap_or_default();
        lines.push(format!("{sign} {}{restart}{lost}", cell(change, &["/path"])));
        lines.extend(things(change, "details").iter().map(|one| detail(one, "    ")));
    }
    let count = lines.iter().filter(|line| !line.starts_with(' ')).count() as u64;
    if lines.is_empty() {
        return "no change".to_owned();
    }
    lines.push(counted(count, "change"));
    lines.join("\n")
}

fn detail(one: &Value, indent: &str) -> String {
    let side = |name: &str| match one.get(name) {
        None | Some(Value::Null) => "(nothing)".to_owned(),
        Some(value) => output::plain(&value.to_string()),
    };
    format!("{indent}{}: {} -> {}", cell(one, &["/path"]), side("before"), side("after"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_their_signs() {
        let answer = json!({ "changes": [
            { "step": "add", "path": "products.a", "details": [], "destroys": null, "restart": false },
            { "step": "change", "path": "apis.b", "restart": false,
              "details": [{ "path": "operations.o.path", "before": "/x", "after": "/y" }] },
            { "step": "remove", "path": "event_subscriptions.c", "destroys": "what is pending is let go" },
            { "step": "change", "path": "containers.d", "restart": true },
        ] });
        assert_eq!(
            changes(&answer),
            "+ products.a\n~ apis.b\n    operations.o.path: \"/x\" -> \"/y\"\n\
             ! event_subscriptions.c: what is pending is let go\n~ containers.d (needs a restart)\n4 changes"
        );
        assert_eq!(changes(&json!({ "changes": [] })), "no change");
    }
}
