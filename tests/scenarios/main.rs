//! End-to-end scenarios against real processes, in one binary. One module per subject.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario that can't continue must fail"
)]

mod access_log;
mod backups;
mod bad_input;
mod batches;
mod browsers;
mod clients;
mod command_line;
mod compose;
mod conversation;
mod cut_off;
mod distinct;
mod documents;
mod envoy_configuration;
mod envoy_gateway;
mod faults;
mod fuzzed;
mod growing;
mod guard;
mod harness;
mod hung_nodes;
mod import;
mod indexes;
mod istio;
mod keys;
mod lifecycle;
mod makefile;
mod mesh;
mod moving;
mod observability;
mod operations;
mod oracle;
mod order;
mod otlp;
mod outages;
mod overload;
mod rare_fields;
mod registrations;
mod remembered;
mod replicas;
mod searching;
mod settings;
mod several_mergers;
mod shortcuts;
mod sockets;
mod statistics;
mod status_page;
mod strategies;
mod support;
mod table_changes;
mod tasks;
mod tls;
mod traces;
mod uneven_shards;
mod verification;
mod webhooks;
mod write_modes;
