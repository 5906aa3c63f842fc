//! The kernel's configuration: what fragments ask for, what the kernel's own kconfig makes of it, and why the two differ.
//!
//! `fragment` reads what is asked for, `configure` has the kernel resolve it. The kernel's tools do not say why
//! they refuse a symbol, so `reader` reads the Kconfig language itself into a `tree`, `eval` weighs its expressions against a
//! resolved configuration, and `check` tells each difference with its reason.

mod absences;
mod check;
mod condition;
mod config;
mod configure;
mod eval;
mod expr;
pub mod fragment;
mod leaks;
mod miss;
mod reader;
mod requested;
mod tree;

pub use absences::{Accepted, Explained, explain};
pub use config::Config;
pub use configure::{Configure, Configured, Error, make};
pub use leaks::Leak;
pub use miss::{Miss, Why};
pub use requested::{Override, Requested};
