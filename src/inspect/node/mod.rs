//! Whether a root volume is a node that its users can start: what Flintlock, CAPMVM, kubeadm and systemd find in it.
//!
//! The image's own files answer, read once and never unpacked; the Kubernetes programs alone are run, for their version.
//! dpkg's database is read here and not by `dpkg --audit`: that needs dpkg on the host and the tree on its disk, and
//! says neither whether dependencies hold nor whether the files are there.

mod content;
mod dpkg;
mod elf;
mod kubernetes;
mod leftovers;
mod ownership;
mod programs;
mod run;
mod units;

use std::fmt::Display;

use oci_spec::image::Descriptor;

use super::{Error, Finding};
use crate::arch::Arch;
use crate::oci::image::Labels;
use crate::oci::source::Source;
use crate::step::Cancel;
use content::Content;

/// The label that names the Kubernetes version of a node.
const KUBERNETES: &str = "io.imgbuild.kubernetes.version";
/// The label that names the sandbox image which that version's kubeadm means, where it is known.
const PAUSE: &str = "io.imgbuild.kubernetes.pause";

/// An image that is a root volume, for one platform.
#[derive(Clone, Copy)]
pub struct Volume<'v> {
    /// Where its layers are.
    pub source: &'v dyn Source,
    /// Its layers, lowest first.
    pub layers: &'v [Descriptor],
    /// What its programs run on.
    pub arch: Arch,
    /// The labels of its configuration: the versions that it was asked to have.
    pub labels: &'v Labels,
}

impl<'v> Volume<'v> {
    fn label(&self, name: &str) -> Option<&'v str> {
        self.labels.get(name).map(String::as_str)
    }

    /// The Kubernetes version it was asked to have, `1.22.8`; none for a system without Kubernetes.
    fn kubernetes(&self) -> Option<&'v str> {
        self.label(KUBERNETES)
    }
}

/// What became of the checks.
#[derive(Debug, Default)]
pub struct Report {
    /// All that is wrong.
    pub findings: Vec<Finding>,
    /// What could not be checked on this host, and why.
    pub notes: Vec<Finding>,
}

impl Report {
    /// Something is wrong with the volume.
    fn add(&mut self, what: impl Into<String>) {
        self.findings.push(Finding { image: None, platform: None, path: None, what: what.into() });
    }

    /// Something is wrong with a file of it.
    fn at(&mut self, path: &dyn Display, what: impl Into<String>) {
        let path = Some(path.to_string());
        self.findings.push(Finding { image: None, platform: None, path, what: what.into() });
    }

    /// The same is wrong with all of these files: the first stands for them.
    fn at_all(&mut self, paths: &[String], what: &str) {
        match paths {
            [] => {}
            [path] => self.at(path, what),
            [path, more @ ..] => self.at(path, format!("{what}; so it is with {} more", more.len())),
        }
    }

    /// Something could not be checked.
    fn note(&mut self, what: impl Into<String>) {
        self.notes.push(Finding { image: None, platform: None, path: None, what: what.into() });
    }
}

/// Checks a root volume. An error is what cannot be read at all; everything else is told in the report.
pub fn check(volume: &Volume<'_>, cancel: &Cancel) -> Result<Report, Error> {
    let content = Content::read(volume, cancel)?;
    let mut report = Report::default();
    let database = dpkg::Database::read(&content, &mut report);
    database.check(&content, &mut report);
    programs::check(volume, &content, &mut report);
    leftovers::check(&content, &database, &mut report);
    ownership::check(&content, &database, &mut report);
    units::check(volume, &content, &mut report);
    kubernetes::check(volume, &content, &database, &mut report);
    run::check(volume, &content, &mut report, cancel)?;
    Ok(report)
}
