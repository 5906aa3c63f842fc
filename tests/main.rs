//! One program for all tests: the helpers are compiled once, and what is slow runs beside what is quick.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as the test does")]

mod append;
mod attest;
mod boot;
mod build;
mod cache;
mod compression;
mod config;
mod consumers;
mod crash;
mod credentials;
mod diff;
mod digests;
mod docs;
mod doctor;
mod explain;
mod export;
mod fetch;
mod full_disk;
mod gate;
mod headers;
mod hermetic;
mod images;
mod inspect;
mod interrupt;
mod kernel;
mod legacy;
mod list;
mod lock;
mod lock_add;
mod lock_archive;
mod lock_command;
mod memory;
mod messages;
mod mirrors;
mod node;
mod node_boot;
mod os;
mod output;
mod packages;
mod pipeline;
mod plan;
mod pull;
mod push;
mod readers;
mod real_registry;
mod rebuild;
mod recipe;
mod referrers;
mod release;
mod remote_cache;
mod roles;
mod sandbox;
mod sign;
mod spec;
mod spec_input;
mod support;
mod tls;
mod tree;
mod validate;
mod verify;
mod vmm;
mod workflows;

/// Cargo no longer finds the files by itself.
#[test]
fn every_file_of_tests_is_run() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for name in support::names(&dir) {
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            let line = format!("\nmod {module};\n");
            assert!(include_str!("main.rs").contains(&line), "tests/{name} is not in tests/main.rs");
        }
    }
}
