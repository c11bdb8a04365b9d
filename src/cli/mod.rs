//! Stands between a person or a script and everything that this binary does.
//!
//! Invariant: stdout holds the answer and nothing else, stderr what went wrong, and the exit code says which it
//! was: 0 done, 1 failed, 64 wrong usage or configuration. What verbs take and print is a promise to scripts.

mod admin;
mod arguments;
mod audit;
mod backup;
mod changes;
mod dead_letters;
mod demo;
mod export;
mod failure;
mod fields;
mod import;
mod keys;
mod lint;
mod manifest;
mod output;
mod partitions;
mod process;
mod query;
mod serve;
mod subscriptions;
mod table;
mod topics;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use self::admin::Admin;
use self::arguments::{Cli, Connection, Verb};
use self::failure::Failure;

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing help or an error can only fail when nobody is there to read it.
            error.print().unwrap_or_default();
            return if error.use_stderr() { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match perform(cli.verb, environment()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

fn perform(verb: Verb, environment: Vec<(String, String)>) -> Result<(), Failure> {
    match verb {
        Verb::Serve(options) => serve::run(options, environment),
        Verb::Demo(options) => demo::run(&options, &environment),
        Verb::Lint(options) => lint::run(&options, environment),
        Verb::Verify(options) => verify::run(&options),
        Verb::Keys { connection, verb } => {
            ask(&connection, &environment, async |admin| keys::run(&verb, admin, connection.json).await)
        }
        Verb::Subscriptions { connection, verb } => ask(&connection, &environment, async |admin| {
            subscriptions::run(&verb, admin, connection.json).await
        }),
        Verb::Topics { connection, verb } => {
            ask(&connection, &environment, async |admin| topics::run(&verb, admin, connection.json).await)
        }
        Verb::DeadLetters { connection, verb } => ask(&connection, &environment, async |admin| {
            dead_letters::run(&verb, admin, connection.json).await
        }),
        Verb::Query { connection, options } => {
            ask(&connection, &environment, async |admin| query::run(&options, admin, connection.json).await)
        }
        Verb::Import { connection, options } => {
            ask(&connection, &environment, async |admin| import::run(&options, admin, connection.json).await)
        }
        Verb::ExportDocuments { connection, options } => {
            ask(&connection, &environment, async |admin| export::run(&options, admin).await)
        }
        Verb::Partitions { connection, verb } => {
            ask(&connection, &environment, async |admin| partitions::run(&verb, admin, connection.json).await)
        }
        Verb::Changes { connection, options } => {
            ask(&connection, &environment, async |admin| changes::run(&options, admin).await)
        }
        Verb::Backup { connection, options } => ask(&connection, &environment, async |admin| {
            backup::backup(&options, admin, connection.json).await
        }),
        Verb::Audit { connection, verb } => match verb {
            audit::Verb::Verify { directory, anchor } => audit::verify(&directory, anchor, connection.json),
            audit::Verb::List { from, limit, action } => ask(&connection, &environment, async |admin| {
                let asked = (from.as_deref(), limit, action.as_deref());
                audit::list(asked, admin, connection.json).await
            }),
        },
        Verb::Plan { connection, files } => {
            ask(&connection, &environment, async |admin| manifest::plan(&files, admin, connection.json).await)
        }
        Verb::Apply { connection, options } => ask(&connection, &environment, async |admin| {
            manifest::apply(&options, admin, connection.json).await
        }),
        Verb::Export { connection } => {
            ask(&connection, &environment, async |admin| manifest::export(admin, connection.json).await)
        }
        Verb::Explain { connection, options } => ask(&connection, &environment, async |admin| {
            manifest::explain(&options, admin, connection.json).await
        }),
        Verb::Rollback { connection, options } => ask(&connection, &environment, async |admin| {
            manifest::rollback(&options, admin, connection.json).await
        }),
        Verb::Generations { connection } => {
            ask(&connection, &environment, async |admin| manifest::generations(admin, connection.json).await)
        }
        Verb::Diff(options) => manifest::diff(&options),
        Verb::Restore(options) => backup::restore(&options),
    }
}

/// Asks a running server and prints what it answered.
fn ask(
    connection: &Connection,
    environment: &[(String, String)],
    question: impl AsyncFnOnce(&Admin) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let admin = Admin::connect(connection, environment)?;
    let answer = process::runtime()?.block_on(question(&admin))?;
    output::print(&answer);
    Ok(())
}

/// The environment as texts. A variable that is no UTF-8 can neither set a value nor be a secret.
fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}
