//! `imgbuild lock --add`: one version verified, pinned, and released by a recipe.

use std::path::{Path, PathBuf};

use super::{Desk, Findings, LockCommand};
use crate::arch::Arch;
use crate::cli::Failure;
use crate::document::list;
use crate::lock::node::MATCHED;
use crate::plan::add::{With, kubernetes};
use crate::plan::lock::{Entry, release, write};
use crate::plan::{self, kernel};
use crate::recipe::Catalogue;
use crate::version::Version;

/// The list of a recipe that a version is to be put into.
struct List {
    file: PathBuf,
    field: &'static str,
    after: &'static str,
}

impl LockCommand {
    /// Adds a version to the lock at `path`, and to what a recipe releases.
    pub(super) fn add(&self, kind: &str, version: &str, path: &Path, desk: &Desk<'_>) -> Result<(), Failure> {
        let mut found = Findings::default();
        let version = parsed(kind, version)?;
        let list = if kind == "kernel" {
            if !self.with.is_empty() {
                return Err(usage("`--with` is for `--add k8s`".into()));
            }
            let list = self.flavour_list(&version, desk, &mut found)?;
            self.kernel_org(Some(&version), desk, &mut found)?;
            list
        } else {
            let with = self.with.iter().map(|text| with(text)).collect::<Result<Vec<_>, _>>()?;
            let list = self.system_list(desk)?;
            add_kubernetes(&version, &with, desk, &mut found)?;
            list
        };
        let Findings { mut text, entries, .. } = found;
        let (entries, told): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        if !entries.is_empty() {
            write(path, &entries)?;
        }
        told.iter().for_each(|told| text += &format!("in `{}` now: {told}\n", path.display()));
        // Last: a recipe may not name what the lock does not have.
        if let Some(List { file, field, after }) = list {
            let is_new = release(&file, field, after, &version.to_string())?;
            let file = file.display();
            text += &if is_new {
                format!("in `{file}` now: {version}, to be released\n")
            } else {
                format!("`{file}` releases {version} already\n")
            };
        }
        desk.context.print(&text)
    }

    /// The list of the flavour that is to release a kernel; none, and a sentence why, where no flavour is named and the
    /// default is not made for it.
    fn flavour_list(
        &self,
        version: &Version,
        desk: &Desk<'_>,
        found: &mut Findings,
    ) -> Result<Option<List>, Failure> {
        let flavour = self.recipe.clone().map_or(kernel::Flavour::Default, kernel::Flavour::Named);
        let recipe = flavour.recipe(desk.catalogue)?;
        if recipe.series.contains(&version.series()) {
            let list = |file| List { file, field: "released", after: "series" };
            return Ok(recipe_file("kernel", &recipe.name, desk, found).map(list));
        }
        if self.recipe.is_some() {
            let (flavour, series, version) = (recipe.name, recipe.series, version.clone());
            return Err(plan::Error::Series { flavour, series, version }.into());
        }
        let name = &recipe.name;
        found.text += &format!(
            "{version} is not released: `{name}` is not made for it, `--recipe NAME` names another\n"
        );
        Ok(None)
    }

    /// The list of the OS recipe that is to release a Kubernetes version.
    fn system_list(&self, desk: &Desk<'_>) -> Result<Option<List>, Failure> {
        let system = self.recipe.clone().map_or(plan::os::System::Default, plan::os::System::Named);
        let recipe = system.recipe(desk.catalogue)?;
        if recipe.kubernetes.is_empty() {
            return Err(plan::Error::NoKubernetes { recipe: recipe.name }.into());
        }
        let Some(file) = recipe_file("os", &recipe.name, desk, &mut Findings::default()) else {
            return Ok(None);
        };
        let text = fs_err::read_to_string(&file)?;
        let is_own = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("kubernetes"));
        if !is_own {
            let message =
                format!("the recipe `{}` has its Kubernetes versions from the one it extends", recipe.name);
            return Err(Failure::Usage { message, hint: "name that one: `--recipe NAME`".into() });
        }
        Ok(Some(List { file, field: "kubernetes", after: "extends" }))
    }
}

/// The file of a recipe; none where the recipes are built in.
fn recipe_file(kind: &str, name: &str, desk: &Desk<'_>, found: &mut Findings) -> Option<PathBuf> {
    if let Catalogue::Directory(dir) = desk.catalogue {
        return Some(dir.join("recipes").join(kind).join(format!("{name}.toml")));
    }
    found.text += "it is not released: the recipes are built into this program\n";
    None
}

/// Pins a Kubernetes version and what goes with it.
fn add_kubernetes(
    version: &Version,
    with: &[With],
    desk: &Desk<'_>,
    found: &mut Findings,
) -> Result<(), Failure> {
    let Desk { context, lock, mirrors, .. } = desk;
    let version = version.to_string();
    if lock.node(&version).is_ok() {
        found.text += &format!("Kubernetes {version} is pinned already\n");
        return Ok(());
    }
    let added = kubernetes(&version, with, lock, mirrors, &context.store()?, &context.watch)?;
    let programs = |(name, arch, version): (&str, Option<Arch>, &str)| match arch {
        None => format!("{name} {version}"),
        Some(arch) => format!("{name} {version} on {arch}"),
    };
    let programs: Vec<_> = added.set.programs().map(programs).collect();
    let (set, files) = (&added.set, added.releases.len());
    let told = format!(
        "Kubernetes {version} with {}, {}; {files} release files, their hashes from beside them",
        programs.join(", "),
        set.pause
    );
    found.entries.push((Entry::Kubernetes(added), told));
    Ok(())
}

/// The version to be added, of a kind that there is.
fn parsed(kind: &str, version: &str) -> Result<Version, Failure> {
    match kind {
        "kernel" => version.parse().map_err(|error| usage(format!("{error}"))),
        "k8s" => {
            let parsed = version.trim_start_matches('v').parse::<Version>();
            let whole = parsed.ok().filter(|version| version.to_string() == version.release());
            whole.ok_or_else(|| usage(format!("`{version}` is not a Kubernetes version such as 1.24.17")))
        }
        _ => Err(usage(format!("`{kind}` is nothing that can be added; `kernel` and `k8s` are"))),
    }
}

fn usage(message: String) -> Failure {
    Failure::Usage { message, hint: "as in `--add kernel 5.10.250`, `--add k8s 1.24.17`".into() }
}

/// Reads a word of `--with`.
fn with(text: &str) -> Result<With, Failure> {
    let wrong = |message: String| {
        Failure::Usage {
        message,
        hint: "as in `--with containerd=1.6.36`, `--with containerd@arm64=1.6.4`, `--with pause=registry.k8s.io/pause:3.7`"
            .into(),
    }
    };
    let (name, version) = text
        .split_once('=')
        .filter(|(_, version)| !version.is_empty())
        .ok_or_else(|| wrong(format!("`--with {text}` names no program and version")))?;
    let (name, arch) = match name.split_once('@') {
        Some((name, arch)) => (name, Some(arch.parse::<Arch>().map_err(|error| wrong(error.to_string()))?)),
        None => (name, None),
    };
    if name == "pause" {
        let is_image = arch.is_none() && version.contains('/') && version.contains(':');
        let image = || wrong(format!("`{version}` is no image for every architecture"));
        return if is_image { Ok((name.into(), None, version.into())) } else { Err(image()) };
    }
    if !MATCHED.contains(&name) {
        return Err(wrong(format!("`{name}` is none of {}, `pause`", list(MATCHED))));
    }
    Ok((name.into(), arch, version.trim_start_matches('v').to_owned()))
}
