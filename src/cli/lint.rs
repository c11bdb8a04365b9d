//! `lint`: a manifest is checked where its secrets are not at hand.
//!
//! Invariant: what `serve` would refuse, `lint` refuses, except that a secret which is not there is a warning.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::failure::Failure;
use super::output::{self, counted};
use crate::manifest::{self, Flags, Manifest, Problem, Source, Sources};

pub(super) const EXAMPLE: &str = "\
Examples:
  lanekeeper lint config/northwind.yaml
  lanekeeper lint base.yaml production.yaml --json   several are merged, as `serve` does

Every problem is told with its file, line and column, and what was probably meant.";

/// What the manifest says of a secret that is not there; the name stands between them.
const NOT_SET: (&str, &str) = ("environment variable `", "` is not set");
/// How the variables begin that set values: they belong to a server and not to its manifest.
const SETTINGS: &str = "LANEKEEPER__";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Manifest; several are merged, the later one is stronger
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print the problems as JSON
    #[arg(long)]
    json: bool,
}

/// What is wrong with some manifests.
#[derive(Debug, Serialize)]
struct Findings {
    ok: bool,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Checks manifests.
pub(super) fn run(options: &Options, environment: Vec<(String, String)>) -> Result<(), Failure> {
    let (manifest, findings) = check(options.files.iter().cloned().map(Source::File).collect(), environment);
    let text = if options.json { output::json(&findings) } else { report(&findings, manifest.as_ref()) };
    output::print(&text);
    if findings.ok { Ok(()) } else { Err(Failure::BadManifest) }
}

/// Loads with a stand-in for each secret that is not there.
fn check(files: Vec<Source>, environment: Vec<(String, String)>) -> (Option<Manifest>, Findings) {
    let is_setting =
        |name: &str| name.get(..SETTINGS.len()).is_some_and(|head| head.eq_ignore_ascii_case(SETTINGS));
    let environment = environment.into_iter().filter(|(name, _)| !is_setting(name)).collect();
    let mut sources = Sources { files, environment, flags: Flags::default() };
    let mut warnings = Vec::new();
    loop {
        let problems = match manifest::load(&sources) {
            Ok(manifest) => {
                return (Some(manifest), Findings { ok: true, problems: Vec::new(), warnings });
            }
            Err(problems) => problems,
        };
        let known = sources.environment.len();
        for problem in problems.as_slice() {
            if let Some(name) = missing_secret(problem) {
                warnings.push(problem.clone());
                if !sources.environment.iter().any(|(there, _)| there == name) {
                    // Fits wherever a secret does, a signing key included.
                    let stand_in = format!("stand-in-for-a-secret-{:04}", sources.environment.len());
                    let stand_in = format!("whsec_{}", STANDARD.encode(stand_in));
                    sources.environment.push((name.to_owned(), stand_in));
                }
            }
        }
        if sources.environment.len() == known {
            return (None, Findings { ok: false, problems: problems.as_slice().to_vec(), warnings });
        }
    }
}

/// The variable that a problem says is not set.
fn missing_secret(problem: &Problem) -> Option<&str> {
    let name = problem.message.strip_prefix(NOT_SET.0)?.strip_suffix(NOT_SET.1)?;
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some(name)
}

fn report(findings: &Findings, manifest: Option<&Manifest>) -> String {
    let mut text = String::new();
    for problem in &findings.problems {
        text.push_str(&format!("{problem}\n"));
    }
    for warning in &findings.warnings {
        text.push_str(&format!("{warning} (warning: `serve` needs it)\n"));
    }
    match manifest {
        Some(manifest) => text.push_str(&summary(manifest)),
        None => text.push_str(&counted(findings.problems.len() as u64, "problem")),
    }
    text
}

fn summary(manifest: &Manifest) -> String {
    let Manifest { containers, topics, event_subscriptions, apis, products, api_keys, .. } = manifest;
    let parts = [
        (containers.len(), "container"),
        (topics.len(), "topic"),
        (event_subscriptions.len(), "subscription"),
        (apis.len(), "api"),
        (products.len(), "product"),
        (api_keys.len(), "key"),
    ];
    let parts: Vec<_> = parts.iter().map(|(number, thing)| counted(*number as u64, thing)).collect();
    format!("ok: {}: {}", manifest.project, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "
manifest: 1
project: p
apis: { a: { path: /a, operations: { o: { method: GET, path: /, to: { mock: { status: 200 } } } } } }
products: { p: { apis: [a] } }
api_keys:
  one: { product: p, tenant: t, primary: { env: KEY_ONE }, secondary: { env: KEY_TWO } }
  two: { product: p, tenant: t, primary: { env: KEY_THREE } }
";

    fn lint(text: &str, environment: &[(&str, &str)]) -> (String, Findings) {
        let source = Source::Text { name: "m.yaml".into(), text: text.into() };
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let (manifest, findings) = check(vec![source], environment);
        (report(&findings, manifest.as_ref()), findings)
    }

    #[test]
    fn a_secret_that_is_not_there_is_a_warning_with_its_place() {
        let (text, findings) = lint(KEYS, &[("KEY_TWO", "a-secret-of-some-length")]);
        assert!(findings.ok && findings.problems.is_empty());
        assert_eq!(
            text,
            "m.yaml:7:49: environment variable `KEY_ONE` is not set, did you mean `KEY_TWO`? \
             (warning: `serve` needs it)\n\
             m.yaml:8:49: environment variable `KEY_THREE` is not set, did you mean `KEY_TWO`? \
             (warning: `serve` needs it)\n\
             ok: p: 0 containers, 0 topics, 0 subscriptions, 1 api, 1 product, 2 keys"
        );
    }

    #[test]
    fn the_same_variable_twice_is_a_problem_with_and_without_it() {
        let text = KEYS.replace("KEY_THREE", "KEY_ONE");
        for environment in
            [&[][..], &[("KEY_ONE", "a-secret-of-some-length"), ("KEY_TWO", "another-secret-of-length")]]
        {
            let (_, findings) = lint(&text, environment);
            assert!(!findings.ok);
            assert!(findings.problems[0].message.contains("the same secret"), "{findings:?}");
        }
    }

    #[test]
    fn other_problems_stay_problems_and_are_told_beside_the_warnings() {
        let (text, findings) =
            lint(&KEYS.replace("tenant: t, primary: { env: KEY_T", "tenat: t, primary: { env: KEY_T"), &[]);
        assert!(!findings.ok);
        assert_eq!(findings.warnings.len(), 3);
        assert!(text.contains("did you mean `tenant`?"), "{text}");
        assert!(text.ends_with("2 problems"), "{text}");
    }

    #[test]
    fn settings_of_a_server_are_not_the_manifests_business() {
        let (_, findings) = lint("manifest: 1\nproject: p\n", &[("LANEKEEPER__SERVER__SHARDS", "none")]);
        assert!(findings.ok, "{findings:?}");
    }

    #[test]
    fn the_manifests_of_this_repository_are_sound() {
        for file in ["config/northwind.yaml", "config/examples/minimal.yaml"] {
            let (_, findings) = check(vec![Source::File(file.into())], Vec::new());
            assert!(findings.ok, "{file}: {findings:?}");
        }
    }
}
