//! A request made into steps, and the steps run: fetch → unpack → configure → compile → split → pack → assemble.

pub mod account;
pub mod add;
pub mod attest;
pub mod boot;
pub mod config;
pub mod digests;
pub mod gate;
pub mod handoff;
mod headers;
pub mod images;
pub mod kernel;
pub mod list;
pub mod lock;
pub mod os;
pub mod outline;
mod outputs;
mod pack;
pub mod rebuild;
pub mod release;
pub mod remote;
pub mod sign;
mod source;
pub mod toolchain;
pub mod verify;
mod workshop;

use std::collections::BTreeSet;

use crate::arch::{Arch, UnknownArch};
use crate::document::list;
use crate::recipe::kernel::Output;
use crate::step::{Class, Diagnose};
use crate::version::Version;
use crate::{
    fetch, host, inspect, kernel as kernel_room, lock as lock_room, oci, recipe, rootfs, sandbox, store, tree,
};

/// Why a request cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe cannot be had.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// The lock has no answer.
    #[error(transparent)]
    Lock(#[from] lock_room::Error),
    /// Tools are missing.
    #[error(transparent)]
    Missing(#[from] host::Missing),
    /// An input cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The kernel cannot be built.
    #[error(transparent)]
    Kernel(#[from] kernel_room::Error),
    /// The toolchain cannot be had.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The root volume cannot be made.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// The finished image cannot be looked at.
    #[error(transparent)]
    Inspect(#[from] inspect::Error),
    /// The finished image is not what its users need.
    #[error("{image} for {arch} is not sound, and was not written: {} findings", .findings.len())]
    Unsound {
        /// The image.
        image: String,
        /// Its architecture.
        arch: Arch,
        /// What is wrong with it.
        findings: Vec<String>,
    },
    /// The recipe is for a system without Kubernetes.
    #[error("the recipe `{recipe}` is for a system without Kubernetes")]
    NoKubernetes {
        /// The recipe.
        recipe: String,
    },
    /// The recipe is for other Kubernetes versions.
    #[error("the recipe `{recipe}` is for Kubernetes {}, not for {version}", list(.known.iter().map(String::as_str)))]
    OtherKubernetes {
        /// The recipe.
        recipe: String,
        /// The version asked for.
        version: String,
        /// The recipe's.
        known: Vec<String>,
    },
    /// No toolchain of this name.
    #[error("unknown toolchain `{asked}`; known are {}", list(.known.iter().map(String::as_str)))]
    UnknownToolchain {
        /// What was asked for.
        asked: String,
        /// All toolchains.
        known: Vec<String>,
    },
    /// No toolchain is the default for this kernel.
    #[error("no toolchain is the default for Linux {version}; known are {}", list(.known.iter().map(String::as_str)))]
    NoToolchain {
        /// The kernel.
        version: Version,
        /// All toolchains.
        known: Vec<String>,
    },
    /// A tool failed.
    #[error(transparent)]
    Command(#[from] sandbox::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An image cannot be written.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// An architecture that is none.
    #[error(transparent)]
    Arch(#[from] UnknownArch),
    /// The recipe is for other series.
    #[error("flavour `{flavour}` is made for the series {}, not for {version}", list(.series.iter().map(String::as_str)))]
    Series {
        /// The recipe.
        flavour: String,
        /// Its series.
        series: Vec<String>,
        /// The version asked for.
        version: Version,
    },
    /// The recipe does not know the architecture.
    #[error("flavour `{flavour}` is not made for {arch}")]
    NotForArch {
        /// The recipe.
        flavour: String,
        /// The architecture asked for.
        arch: Arch,
    },
    /// Two images would have one name.
    #[error("the recipe `{recipe}` calls two images `{name}`: its {} and its {}", .outputs[0], .outputs[1])]
    SameName {
        /// The recipe.
        recipe: String,
        /// The name.
        name: String,
        /// Which images.
        outputs: [String; 2],
    },
    /// Images of modules were asked for, of a kernel that has none.
    #[error("Linux {version} for {arch} of flavour `{flavour}` has no modules, so there is no output {}", list(.outputs.iter().map(|output| output.name())))]
    NoModules {
        /// The version.
        version: Version,
        /// The architecture.
        arch: Arch,
        /// The recipe.
        flavour: String,
        /// What was asked for.
        outputs: Vec<Output>,
    },
    /// Nothing that is released is called so.
    #[error("no cell of the release is called `{asked}`")]
    UnknownCell {
        /// What was asked for.
        asked: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// Two recipes release the same image.
    #[error("the recipes `{}` and `{}` both release {image}", .recipes[0], .recipes[1])]
    Twins {
        /// The image: repository and version.
        image: String,
        /// The recipes.
        recipes: [String; 2],
    },
    /// Images are not what is recorded, and that was asked for.
    #[error("{} not what is recorded: nothing was written", if .0.len() == 1 { "1 image is".into() } else { format!("{} images are", .0.len()) })]
    NotRecorded(Vec<String>),
    /// The digests built into the program cannot be written.
    #[error("the recorded digests are those built into this imgbuild")]
    BuiltinDigests,
    /// imgbuild runs on a machine it does not build for, and no architecture was named.
    #[error("this host is neither x86_64 nor arm64")]
    Host,
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<store::MakeError<Self>> for Error {
    fn from(error: store::MakeError<Self>) -> Self {
        match error {
            store::MakeError::Store(error) => error.into(),
            store::MakeError::Step(error) => error,
        }
    }
}

impl Error {
    /// The room's own error, where this only carries it.
    fn inner(&self) -> Option<&dyn Diagnose> {
        Some(match self {
            Self::Recipe(error) => error,
            Self::Lock(error) => error,
            Self::Missing(error) => error,
            Self::Fetch(error) => error,
            Self::Kernel(error) => error,
            Self::Tree(error) => error,
            Self::Rootfs(error) => error,
            Self::Inspect(error) => error,
            Self::Command(error) => error,
            Self::Store(error) => error,
            Self::Oci(error) => error,
            _ => return None,
        })
    }
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match (self.inner(), self) {
            (Some(error), _) => error.class(),
            (None, Self::Io(_)) => Class::Host,
            (None, Self::NotRecorded(_)) => Class::NotReproducible,
            (None, Self::Unsound { .. }) => Class::Verification,
            (None, Self::SameName { .. } | Self::Twins { .. }) => Class::Recipe,
            (None, _) => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match (self.inner(), self) {
            (Some(error), _) => error.hint(),
            (None, Self::Io(error)) => crate::step::io_hint(error),
            (None, Self::Series { version, .. }) => Some(format!(
                "a recipe of your own can extend it and name the series \"{}\"",
                version.series()
            )),
            (None, Self::NotForArch { .. }) => {
                Some("a recipe with [arch.NAME] tables is for those architectures alone".into())
            }
            (None, Self::UnknownToolchain { asked, known }) => {
                let near = crate::document::nearest(asked, known.iter().map(String::as_str));
                near.map(|near| format!("did you mean `{near}`?"))
            }
            (None, Self::NoToolchain { .. }) => Some("name one with --toolchain".into()),
            (None, Self::Unsound { .. }) => Some("a package, a file or a unit of the recipe cures most of these".into()),
            (None, Self::OtherKubernetes { recipe, version, .. }) => Some(format!(
                "name another recipe with --recipe, or one of your own: `extends = \"{recipe}\"` and `kubernetes = [\"{version}\"]`"
            )),
            (None, Self::NoKubernetes { .. }) => {
                Some("leave out --k8s, or name a recipe that has Kubernetes with --recipe".into())
            }
            (None, Self::SameName { .. }) => {
                Some("give each a name of its own in the table `[image]`".into())
            }
            (None, Self::NoModules { .. }) => {
                Some("`CONFIG_MODULES=y` in a fragment of the recipe, or `--outputs kernel`".into())
            }
            (None, Self::UnknownCell { near: Some(near), .. }) => Some(format!("did you mean `{near}`?")),
            (None, Self::UnknownCell { .. }) => {
                Some("`imgbuild plan --all` lists them; a beginning such as `kernel/firecracker` means all of it".into())
            }
            (None, Self::Twins { .. }) => {
                Some("give one of them another name in its [image], or take the version out of it".into())
            }
            (None, Self::Host) => Some("name one with --arch".into()),
            (None, Self::NotRecorded(_)) => Some(
                "`imgbuild plan --explain` tells what a key is made of; without --locked the images are written anyway"
                    .into(),
            ),
            (None, Self::BuiltinDigests) => {
                Some("stand in a checkout of imgbuild, or name one with --catalogue".into())
            }
            (None, _) => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::NotRecorded(lines) | Self::Unsound { findings: lines, .. } => Some(lines.join("\n")),
            _ => self.inner().and_then(Diagnose::detail),
        }
    }
}

/// The architectures a request names; `all` means those of `known`, and none the host's.
pub fn arches(names: &[String], known: &[Arch]) -> Result<Vec<Arch>, Error> {
    let mut arches = BTreeSet::new();
    for name in names {
        match name.as_str() {
            "all" => arches.extend(known),
            name => drop(arches.insert(name.parse()?)),
        }
    }
    if arches.is_empty() {
        arches.insert(Arch::host().ok_or(Error::Host)?);
    }
    Ok(arches.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_sorted_and_named_once() {
        let named = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            arches(&names, &Arch::ALL).map_err(|error| error.to_string())
        };
        assert_eq!(named(&["arm64", "amd64", "x86_64"]), Ok(vec![Arch::X86_64, Arch::Arm64]));
        assert_eq!(named(&["all", "aarch64"]), Ok(Arch::ALL.to_vec()));
        assert_eq!(named(&[]), Ok(vec![Arch::host().unwrap()]));
        assert!(named(&["riscv64"]).unwrap_err().contains("unknown architecture `riscv64`"));
    }
}
