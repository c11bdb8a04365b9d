//! Stands between a row and the machine: which programs and rights there are, and what they are used for.
//! Invariant: what is not there skips the row with its name; nothing outside of a temporary directory is changed.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::outcome::Skip;

/// Runs a program to its end; what it says when it fails is the error.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| Skip(format!("`{program}`: {error}")))?;
    if !output.status.success() {
        let text = [output.stderr, output.stdout].concat();
        let text = String::from_utf8_lossy(&text);
        anyhow::bail!("`{program}` failed: {}", text.lines().next().unwrap_or("without a word"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command that starts another with private mounts, made by this shell text. Skips where that is not allowed.
pub(crate) async fn mounted(text: &str) -> anyhow::Result<Vec<String>> {
    let words = ["unshare", "-m", "sh", "-c"].map(str::to_owned);
    let mut wrapper = words.to_vec();
    wrapper.extend([format!("{text} && exec \"$@\""), "sh".to_owned()]);
    let (program, arguments) = wrapper.split_first().ok_or_else(|| Skip("no command".to_owned()))?;
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.push("true");
    match run(program, &arguments).await {
        Ok(_) => Ok(wrapper),
        Err(error) => Err(Skip(format!("no private mounts here: {error:#}")).into()),
    }
}

/// Skips unless this file is there.
pub(crate) fn needs_file<'a>(paths: &[&'a str], what: &str) -> anyhow::Result<&'a str> {
    let found = paths.iter().find(|path| Path::new(path).exists());
    Ok(found.ok_or_else(|| Skip(format!("{what} is not installed")))?)
}
