//! What may stand on the command line. Names, defaults and exit codes are a promise to scripts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{
    audit, backup, changes, dead_letters, demo, export, import, keys, lint, manifest, partitions, query,
    serve, subscriptions, topics, verify,
};

const EXAMPLES: &str = "\
Examples:
  lanekeeper demo                                    everything at work, in some seconds
  lanekeeper serve --manifest config/northwind.yaml  run a backend
  lanekeeper keys issue --product carrier --tenant acme
  lanekeeper dead-letters replay partner-webhook --all

Exit codes: 0 done, 1 failed, 2 something differs (plan, diff), 64 wrong usage or configuration.";

/// A governed, multi-tenant API backend in one binary: gateway, partitioned document store, change feed, event router
#[derive(Debug, Parser)]
#[command(name = "lanekeeper", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the backend
    #[command(after_help = serve::EXAMPLE)]
    Serve(serve::Options),
    /// Run the freight exchange with its subscribers, break one, and show that nothing is lost
    #[command(after_help = demo::EXAMPLE)]
    Demo(demo::Options),
    /// Check manifests without a server and without secrets
    #[command(after_help = lint::EXAMPLE)]
    Lint(lint::Options),
    /// Issue, list, rotate and revoke API keys
    #[command(after_help = "Example: lanekeeper keys list")]
    Keys {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        verb: keys::Verb,
    },
    /// Look at event subscriptions, pause and resume them, replay history, try filters
    #[command(after_help = "Example: lanekeeper subscriptions list")]
    Subscriptions {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        verb: subscriptions::Verb,
    },
    /// Look at topics
    #[command(after_help = "Example: lanekeeper topics list")]
    Topics {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        verb: topics::Verb,
    },
    /// List, replay and purge events that could not be delivered
    #[command(after_help = "Example: lanekeeper dead-letters list partner-webhook")]
    DeadLetters {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        verb: dead_letters::Verb,
    },
    /// Ask a container in SQL
    #[command(after_help = query::EXAMPLE)]
    Query {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        options: query::Options,
    },
    /// Print what changes in a container, as JSON lines
    #[command(after_help = changes::EXAMPLE)]
    Changes {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        options: changes::Options,
    },
    /// Write the documents of a file into a container
    #[command(after_help = import::EXAMPLE)]
    Import {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        options: import::Options,
    },
    /// Print the documents of a container, one a line
    #[command(after_help = export::EXAMPLE)]
    ExportDocuments {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        options: export::Options,
    },
    /// Look at the busiest partitions
    #[command(after_help = "Example: lanekeeper partitions top")]
    Partitions {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        verb: partitions::Verb,
    },
    /// List what was recorded of changes and callers, and check that nobody changed it
    #[command(after_help = "Example: lanekeeper audit verify ./data")]
    Audit {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        verb: audit::Verb,
    },
    /// Say what applying a manifest would change
    #[command(after_help = manifest::PLAN_EXAMPLE)]
    Plan {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        files: manifest::Files,
    },
    /// Let a running server follow a manifest
    #[command(after_help = manifest::APPLY_EXAMPLE)]
    Apply {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        options: manifest::ApplyOptions,
    },
    /// Print the manifest that is applied
    #[command(after_help = manifest::EXPORT_EXAMPLE)]
    Export {
        #[command(flatten)]
        connection: Connection,
    },
    /// Say what a call would meet: its operation, terms, limits and quotas
    #[command(after_help = manifest::EXPLAIN_EXAMPLE)]
    Explain {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        options: manifest::ExplainOptions,
    },
    /// Go back to an earlier generation of the manifest
    #[command(after_help = manifest::ROLLBACK_EXAMPLE)]
    Rollback {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        options: manifest::RollbackOptions,
    },
    /// List the generations of the manifest that are kept
    #[command(after_help = "Example: lanekeeper generations")]
    Generations {
        #[command(flatten)]
        connection: Connection,
    },
    /// Compare two manifests, without a server
    #[command(after_help = manifest::DIFF_EXAMPLE)]
    Diff(manifest::DiffOptions),
    /// Copy the data of a running server
    #[command(after_help = backup::BACKUP_EXAMPLE)]
    Backup {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        options: backup::BackupOptions,
    },
    /// Make a data directory of a backup
    #[command(after_help = backup::RESTORE_EXAMPLE)]
    Restore(backup::RestoreOptions),
    /// Check a stopped data directory
    #[command(after_help = verify::EXAMPLE)]
    Verify(verify::Options),
}

/// Where the server is, and how to speak with it.
#[derive(Debug, Clone, Args)]
pub(super) struct Connection {
    /// Address of the server's admin API
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LANEKEEPER_ADMIN",
        default_value = "http://127.0.0.1:9080"
    )]
    pub(super) admin: String,
    /// Data directory of the server: its `admin.token` is used unless LANEKEEPER_ADMIN_TOKEN is set
    #[arg(long, global = true, value_name = "DIR", default_value = "./data")]
    pub(super) data: PathBuf,
    /// Print the server's answer as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Verb, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.verb)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_promised_line_is_understood() {
        for line in [
            "lanekeeper serve",
            "lanekeeper serve --manifest a.yaml --manifest b.yaml --data /d --listen 127.0.0.1:0 --admin 127.0.0.1:0",
            "lanekeeper demo --keep",
            "lanekeeper demo --json",
            "lanekeeper lint a.yaml b.yaml --json",
            "lanekeeper verify ./data --json",
            "lanekeeper keys issue --product carrier --tenant acme --expires 30d --json",
            "lanekeeper keys list --admin http://127.0.0.1:1",
            "lanekeeper keys --json list",
            "lanekeeper keys rotate k1",
            "lanekeeper keys rotate k1 --slot secondary",
            "lanekeeper keys revoke k1",
            "lanekeeper subscriptions list --data /d",
            "lanekeeper subscriptions show s",
            "lanekeeper subscriptions pause s",
            "lanekeeper subscriptions resume s",
            "lanekeeper subscriptions attempts s --json",
            "lanekeeper subscriptions replay s",
            "lanekeeper subscriptions replay s --from 2026-01-31T08:30:00Z --to 0-812 --rate 50",
            "lanekeeper subscriptions cancel-replay s r1",
            "lanekeeper subscriptions test-filter s event.json",
            "lanekeeper topics list --json",
            "lanekeeper dead-letters list s",
            "lanekeeper dead-letters list s --limit 5",
            "lanekeeper dead-letters replay s --all",
            "lanekeeper dead-letters replay s 0-1 0-2",
            "lanekeeper dead-letters replay s --filter [{}]",
            "lanekeeper dead-letters purge s",
            "lanekeeper query loads q --param a=1 --param b=x --partition [] --tenant t --limit 5 --all --explain",
            "lanekeeper query loads q --json --admin http://127.0.0.1:1",
            "lanekeeper import loads loads.ndjson",
            "lanekeeper import loads - --on-conflict replace --tenant t --json",
            "lanekeeper export-documents loads --tenant t --partition [1,{}]",
            "lanekeeper audit verify ./data --json",
            "lanekeeper audit verify ./data --anchor 1:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "lanekeeper audit list --from beginning --limit 5 --action key --json",
            "lanekeeper partitions top",
            "lanekeeper partitions top --container loads --limit 5 --json",
            "lanekeeper changes loads --from now --follow --mode all --previous --tenant t --partition [1]",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused_as_wrong_usage() {
        for line in [
            "lanekeeper",
            "lanekeeper lint",
            "lanekeeper verify",
            "lanekeeper keys",
            "lanekeeper keys issue --product carrier",
            "lanekeeper dead-letters list s --limit 0",
            "lanekeeper keys rotate k1 --slot third",
            "lanekeeper subscriptions show",
            "lanekeeper subscriptions replay s --rate 0",
            "lanekeeper subscriptions cancel-replay s",
            "lanekeeper topics",
            "lanekeeper dead-letters replay s",
            "lanekeeper dead-letters replay s --all 0-1",
            "lanekeeper dead-letters replay s --filter [] 0-1",
            "lanekeeper dead-letters replay s --filter {}",
            "lanekeeper demo --keep --json",
            "lanekeeper query loads",
            "lanekeeper query loads q --param a",
            "lanekeeper query loads q --partition a",
            "lanekeeper query loads q --limit 1001",
            "lanekeeper import loads",
            "lanekeeper import loads x --on-conflict ask",
            "lanekeeper export-documents",
            "lanekeeper audit",
            "lanekeeper audit verify",
            "lanekeeper audit verify ./data --anchor 1:ff",
            "lanekeeper audit list --limit 0",
            "lanekeeper partitions",
            "lanekeeper changes",
            "lanekeeper changes loads --mode some",
            "lanekeeper swerve",
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.use_stderr(), "{line} would exit with 0");
        }
    }

    #[test]
    fn the_server_is_looked_for_where_the_default_manifest_puts_it() {
        let Ok(Verb::Keys { connection, .. }) = parse("lanekeeper keys list") else { panic!("no keys") };
        let default = crate::manifest::load(&crate::manifest::Sources::default()).unwrap();
        if std::env::var_os("LANEKEEPER_ADMIN").is_none() {
            assert_eq!(connection.admin, format!("http://{}", default.server.admin.addr));
        }
        assert_eq!(connection.data, default.server.data);
    }

    #[test]
    fn every_verb_that_exists_shows_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            for verb in
                command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
            {
                let path = format!("{path} {}", verb.get_name());
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(&format!("lanekeeper{path}")), "no example for `{path}`: {help}");
                walk(verb, &path);
            }
        }
        walk(&Cli::command(), "");
    }
}
