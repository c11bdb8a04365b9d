//! What the commit log and the view promise, tested from outside on simulated and real disks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test stops where its promise is broken"
)]

mod a_full_disk_refuses_growth_and_nothing_else;
mod a_log_survives_its_encoding;
mod a_missing_file_is_reported_and_nothing_starts_empty;
mod a_second_process_is_refused;
mod a_torn_tail_is_cut_at_every_byte;
mod any_failed_write_or_sync_ends_in_unknown_not_in_loss;
mod no_flipped_bit_is_ever_served;
mod one_suite_for_every_log;
mod power_loss_keeps_every_acknowledged_group;
mod support;
mod tight;
