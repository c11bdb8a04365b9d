//! What the product promises, tested by a stranger: the built binary, its files, and HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test stops where its promise is broken, and measures real time from outside"
)]

mod admin_data;
mod apart;
mod applies;
mod audit;
mod backups;
mod bad_input;
mod batches;
mod bucket;
mod bulk;
mod callers;
mod connections;
mod crash;
mod credentials;
mod documents;
mod edge;
mod edge_h2;
mod edge_tls;
mod events_delivery;
mod events_operator;
mod events_project;
mod events_publish;
mod events_queue;
mod feed;
mod full_disk;
mod isolation;
mod keys;
mod ledger;
mod outside;
mod partitions;
mod patches;
mod process;
mod project;
mod queries;
mod query;
mod repeats;
mod rules;
mod server;
mod sink;
mod small_disk;
mod smuggling;
mod smuggling_table;
mod store;
mod traps;
mod upstream;
mod usage;
mod webhooks;
mod webhooks_tenant;
