//! imgbuild turns declarative recipes into reproducible OCI images for microVMs.
//!
//! The rooms stand on floors and know only what lies below them: `cli`, then `plan`, then `attest`, `boot`, `export`,
//! `handoff`, `inspect` and `registry`, then `fetch`, `kernel`, `oci`, `store` and `tree`, then `lock`, `recipe`,
//! `sandbox`, `sign` and `step`.

pub mod answer;
pub mod arch;
pub mod attest;
pub mod boot;
pub mod cli;
pub mod digests;
pub mod document;
pub mod export;
pub mod fetch;
pub mod handoff;
pub mod host;
pub mod inspect;
pub mod kernel;
pub mod lock;
pub mod oci;
pub mod plan;
pub mod recipe;
pub mod record;
pub mod registry;
pub mod rootfs;
pub mod sandbox;
pub mod sign;
pub mod step;
pub mod store;
pub mod tree;
pub mod turn;
pub mod version;
