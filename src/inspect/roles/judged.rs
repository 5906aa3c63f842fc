//! The kernels of a place with their modules, and what each is fit for.

use std::collections::BTreeSet;

use serde::Serialize;

use super::super::Finding;
use super::kernel::{Kernel, Modules};
use super::{Fitness, KUBEADM, Role, Subject, all, judge};
use crate::version::Version;

/// What a place holds that fitness is told from.
#[derive(Debug, Default)]
pub struct Parts {
    /// Its kernels.
    pub kernels: Vec<Kernel>,
    /// Its modules.
    pub modules: Vec<Modules>,
    /// The modules that were named instead.
    pub named: Vec<Modules>,
    /// The Kubernetes versions of its root volumes.
    pub kubernetes: BTreeSet<Version>,
}

/// What is demanded.
#[derive(Debug, Default)]
pub struct Demand {
    /// The roles that every kernel must be fit for.
    pub roles: Vec<&'static Role>,
    /// The Kubernetes versions that every kernel must be fit for.
    pub kubernetes: BTreeSet<Version>,
}

/// What one kernel is fit for.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The image's name.
    pub image: String,
    /// Its platform: `amd64`.
    pub platform: String,
    /// The kernel's release.
    pub release: Option<String>,
    /// Where its configuration was found.
    pub config: Option<String>,
    /// The image its modules are in; none where nothing is known of them.
    pub modules: Option<String>,
    /// Why nothing can be told.
    pub unjudged: Option<String>,
    /// What it is for each role.
    pub fitness: Vec<Fitness>,
}

impl Demand {
    /// Whether anything is.
    pub fn is_some(&self) -> bool {
        !self.roles.is_empty() || !self.kubernetes.is_empty()
    }

    /// Whether this role must be filled.
    pub fn wants(&self, fitness: &Fitness) -> bool {
        let is_named = self.roles.iter().any(|role| role.name == fitness.role);
        let version = fitness.kubernetes.as_ref().and_then(|version| version.parse().ok());
        is_named || version.is_some_and(|version| self.kubernetes.contains(&version))
    }

    /// What of it is not met by a kernel.
    pub fn unmet<'j>(&self, judged: &'j Judged) -> Vec<&'j Fitness> {
        judged.fitness.iter().filter(|fitness| !fitness.fit && self.wants(fitness)).collect()
    }
}

impl Parts {
    /// What the kernels are fit for.
    pub fn judge(&self, demand: &Demand) -> Vec<Judged> {
        self.kernels.iter().map(|kernel| self.judge_one(kernel, demand)).collect()
    }

    fn judge_one(&self, kernel: &Kernel, demand: &Demand) -> Judged {
        let modules = self.modules_of(kernel);
        let mut judged = Judged {
            image: kernel.image.clone(),
            platform: kernel.platform.clone(),
            release: kernel.release.clone(),
            config: None,
            modules: modules.map(|modules| modules.image.clone()),
            unjudged: None,
            fitness: Vec::new(),
        };
        let found = match kernel.config() {
            Ok(found) => found,
            Err(why) => {
                judged.unjudged = Some(why);
                return judged;
            }
        };
        let subject = Subject {
            config: &found.config,
            arch: kernel.arch,
            version: &found.version,
            modules: modules.map(|modules| &modules.names),
            kubernetes: None,
        };
        for role in all().iter().filter(|role| role.is_for(kernel.arch)) {
            let versions: BTreeSet<_> = self.kubernetes.union(&demand.kubernetes).collect();
            if role.name != KUBEADM || versions.is_empty() {
                judged.fitness.push(judge(role, &subject));
            } else {
                let of = |version| judge(role, &Subject { kubernetes: Some(version), ..subject });
                judged.fitness.extend(versions.into_iter().map(of));
            }
        }
        judged.config = Some(found.place);
        judged
    }

    /// The modules that go with a kernel: those named, those in its own image, those beside it.
    fn modules_of<'p>(&'p self, kernel: &'p Kernel) -> Option<&'p Modules> {
        let goes = |modules: &&Modules| {
            modules.platform == kernel.platform
                && kernel.release.as_ref().is_none_or(|own| *own == modules.release)
        };
        let beside = || {
            let same = |modules: &&Modules| {
                goes(modules) && (kernel.flavour.is_none() || modules.flavour == kernel.flavour)
            };
            kernel.modules.as_ref().or_else(|| self.modules.iter().find(same))
        };
        if self.named.is_empty() { beside() } else { self.named.iter().find(goes) }
    }

    /// Modules that are not those of the kernels they are with.
    pub fn strangers(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for kernel in &self.kernels {
            let finding = |modules: &Modules, what: String| Finding {
                image: Some(modules.image.clone()),
                platform: Some(modules.platform.clone()),
                path: None,
                what,
            };
            let release = kernel.release.as_deref().unwrap_or("an unknown release");
            let Kernel { image, platform, .. } = kernel;
            if let Some(modules) = self.modules_of(kernel) {
                if let (Some(one), Some(other)) = (&kernel.config_digest, &modules.config_digest)
                    && one != other
                {
                    let flavour =
                        |flavour: &Option<String>| flavour.clone().unwrap_or_else(|| "unknown".into());
                    let (own, theirs) = (flavour(&kernel.flavour), flavour(&modules.flavour));
                    let what = format!(
                        "its modules (flavour {theirs}) were built with another configuration than {image} (flavour {own}), and may not load into it"
                    );
                    findings.push(finding(modules, what));
                }
            } else if let Some(modules) = self.named.iter().find(|modules| modules.platform == *platform) {
                let what = format!(
                    "its modules are of {}, the kernel of {image} is {release}: modprobe looks for lib/modules/{release}",
                    modules.release
                );
                findings.push(finding(modules, what));
            }
        }
        findings
    }
}
