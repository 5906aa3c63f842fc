//! What lies over a base system: a Kubernetes node's programs and the configuration, all plain data.

pub mod path;
