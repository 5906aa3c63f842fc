//! The kernel: its configuration, its compilation, what comes out of it.

pub mod kconfig;
