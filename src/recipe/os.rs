//! An OS recipe: a distribution's packages, and what lies over them: files, units, settings, a Kubernetes node's programs.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::{self, Archive, plain};
use super::kernel::{ModulesOf, is_image_name};
use super::{by_arch, expect_kind, parent, released_on};
use crate::arch::Arch;
use crate::document::{Fields, Text};

/// A file over the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path in the image, without the leading `/`.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// The numbers of its owner and group.
    pub owner: (u64, u64),
    /// Whether it may take the place of a file of another layer.
    pub replace: bool,
}

/// What a recipe makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsRecipe {
    /// Its name.
    pub name: String,
    /// One sentence about it.
    pub description: String,
    /// The distribution's version, the tag of an image without Kubernetes.
    pub version: String,
    /// The name of the image.
    pub image: String,
    /// The name of the image with a kernel's modules in it.
    pub combined: String,
    /// The kernel whose modules are always in it, for CAPMVM up to 0.7.0.
    pub modules_of: Option<ModulesOf>,
    /// The recipe that says what the base is made of: itself, or the one it extends and adds no package to.
    pub base: String,
    /// The Kubernetes versions it is released with, in the recipe's order; none for a system without.
    pub kubernetes: Vec<String>,
    /// The architectures it is released for.
    pub released_on: Vec<Arch>,
    /// Files, by path.
    pub files: BTreeMap<String, File>,
    /// Symbolic links by their path without the leading `/`, with their targets.
    pub links: BTreeMap<String, String>,
    /// Directories that are there with nothing in them, without the leading `/`.
    pub directories: BTreeSet<String>,
    /// Unit files that it brings, by name.
    pub units: BTreeMap<String, String>,
    /// The units that are started at boot, its own and those of packages.
    pub enabled: BTreeSet<String>,
    /// The units that nothing can start.
    pub masked: BTreeSet<String>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Kernel modules that are loaded at boot, in order.
    pub modules: Vec<String>,
    archive: Archive,
    archives: BTreeMap<Arch, String>,
    packages: Vec<String>,
    arch_packages: BTreeMap<Arch, Vec<String>>,
}

impl OsRecipe {
    /// The packages asked for, sorted; what they depend on comes along.
    pub fn packages(&self, arch: Arch) -> Vec<&str> {
        let own = self.arch_packages.get(&arch).into_iter().flatten();
        let packages: BTreeSet<_> = self.packages.iter().chain(own).map(String::as_str).collect();
        packages.into_iter().collect()
    }

    /// Where the packages of an architecture come from.
    pub fn archive(&self, arch: Arch) -> Archive {
        let place = self.archives.get(&arch).unwrap_or(&self.archive.place).clone();
        Archive { place, ..self.archive.clone() }
    }

    /// Puts together a recipe and those it extends, itself first. A child adds to lists and overrides by name.
    pub(super) fn meant(chain: Vec<Written>) -> Self {
        let mut chain = chain.into_iter().rev();
        let root = chain.next().expect("a chain begins with a recipe");
        let archive = root.archive.clone().expect("a recipe without a parent names its archive");
        let mut recipe = Self {
            name: String::new(),
            description: String::new(),
            version: String::new(),
            image: String::new(),
            combined: String::new(),
            modules_of: None,
            base: String::new(),
            kubernetes: Vec::new(),
            released_on: Arch::ALL.into(),
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            directories: BTreeSet::new(),
            units: BTreeMap::new(),
            enabled: BTreeSet::new(),
            masked: BTreeSet::new(),
            sysctls: BTreeMap::new(),
            modules: Vec::new(),
            archive,
            archives: BTreeMap::new(),
            packages: Vec::new(),
            arch_packages: BTreeMap::new(),
        };
        recipe.take(root);
        chain.for_each(|written| recipe.take(written));
        recipe
    }

    fn take(&mut self, written: Written) {
        let changes = [!written.packages.is_empty(), !written.without.is_empty()];
        let is_base = changes.contains(&true)
            || written.archive.is_some()
            || !written.archives.is_empty()
            || written.arch_packages.values().any(|packages| !packages.is_empty());
        if is_base {
            self.base.clone_from(&written.name);
        }
        let without: BTreeSet<_> = written.without.into_iter().collect();
        let lists = self.arch_packages.values_mut().chain([&mut self.packages]);
        lists.for_each(|packages| packages.retain(|package| !without.contains(package)));
        self.packages.extend(written.packages);
        for (arch, packages) in written.arch_packages {
            self.arch_packages.entry(arch).or_default().extend(packages);
        }
        if let Some(archive) = written.archive {
            (self.archive, self.archives) = (archive, BTreeMap::new());
        }
        self.archives.extend(written.archives);
        self.image = written.image.unwrap_or_else(|| written.name.clone());
        self.combined = written.combined.unwrap_or_else(|| format!("{}-with-modules", self.image));
        written.modules_of.into_iter().for_each(|kernel| self.modules_of = Some(kernel));
        (self.name, self.description) = (written.name, written.description);
        written.version.into_iter().for_each(|version| self.version = version);
        written.kubernetes.into_iter().for_each(|versions| self.kubernetes = versions);
        written.released_on.into_iter().for_each(|arches| self.released_on = arches);
        self.files.extend(written.files.into_iter().map(|file| (file.path.clone(), file)));
        self.links.extend(written.links);
        self.directories.extend(written.directories);
        self.units.extend(written.units);
        for unit in written.enabled {
            self.masked.remove(&unit);
            self.enabled.insert(unit);
        }
        for unit in written.masked {
            self.enabled.remove(&unit);
            self.masked.insert(unit);
        }
        self.sysctls.extend(written.sysctls);
        for module in written.modules {
            if !self.modules.contains(&module) {
                self.modules.push(module);
            }
        }
    }
}

/// An OS recipe as one file writes it, checked by itself.
#[derive(Debug)]
pub struct Written {
    pub(super) name: String,
    pub(super) default: bool,
    pub(super) extends: Option<String>,
    description: String,
    version: Option<String>,
    image: Option<String>,
    combined: Option<String>,
    modules_of: Option<ModulesOf>,
    archive: Option<Archive>,
    archives: BTreeMap<Arch, String>,
    packages: Vec<String>,
    without: Vec<String>,
    arch_packages: BTreeMap<Arch, Vec<String>>,
    kubernetes: Option<Vec<String>>,
    released_on: Option<Vec<Arch>>,
    files: Vec<File>,
    links: BTreeMap<String, String>,
    directories: Vec<String>,
    units: BTreeMap<String, String>,
    enabled: Vec<String>,
    masked: Vec<String>,
    sysctls: BTreeMap<String, String>,
    modules: Vec<String>,
}

/// What the catalogue can tell while a recipe is read.
pub(super) struct Known<'k> {
    /// The bytes of a file that lies beside the recipe, or why there are none.
    pub(super) beside: &'k dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// The recipes that can be extended.
    pub(super) recipes: &'k [String],
}

/// Reads a recipe's fields; `None` only when a mistake was told.
pub(super) fn read(fields: &Fields<'_>, known: &Known<'_>) -> Option<Written> {
    expect_kind(fields, "os");
    let name = fields.required("name");
    let extends = parent(fields, known.recipes, "OS recipe");
    let version = if extends.is_some() { fields.text("version") } else { fields.required("version") };
    let images = fields.table("image", |table| (table.text("name"), table.text("combined")));
    let (image, combined) = images.unwrap_or_default();
    for text in name.iter().chain(&image).chain(&combined) {
        if !is_image_name(&text.value) {
            let message = format!("`{}` is no name of an image", text.value);
            let help = "lower-case letters, digits and single `-`, `_`, `.` or `/` between them";
            fields.mistake(text, message, Some(help.into()));
        }
    }
    let archive = if extends.is_some() && !fields.has("archive") {
        for name in
            ["suites", "components", "snapshot", "keyring"].into_iter().filter(|name| fields.has(name))
        {
            let help = "the recipe it extends has an archive: write all of `archive`, `suites`, `components`, `snapshot`, `keyring` for another one";
            fields.mistake_here(format!("`{name}` without `archive`"), Some(help.into()));
        }
        Some(None)
    } else {
        archive::read(fields).map(Some)
    };
    let by_arch = by_arch(fields, |table| (table.text("archive"), plain(table, table.texts("packages"))));
    let archives =
        by_arch.iter().filter_map(|(arch, (place, _))| Some((*arch, place.as_ref()?.value.clone())));
    let archives = archives.collect();
    let arch_packages = by_arch.into_iter().map(|(arch, (_, packages))| (arch, packages)).collect();
    let values = |texts: Vec<Text>| texts.into_iter().map(|text| text.value).collect::<Vec<_>>();
    let packages = plain(fields, fields.texts("packages"));
    if packages.is_empty() && extends.is_none() {
        fields.mistake_here("`packages` is missing or empty", None);
    }
    let kubernetes = fields.has("kubernetes").then(|| values(fields.texts("kubernetes")));
    let files = fields.tables("file", |table| file(table, known));
    let mut links = BTreeMap::new();
    for (path, target) in fields.named_texts("links") {
        match absolute(&path) {
            Ok(path) => drop(links.insert(path, target.value)),
            Err(reason) => fields.mistake(&target, format!("`{path}` {reason}"), None),
        }
    }
    let directories = directories(fields);
    let mut enabled = unit_names(fields, "enable");
    let mut units = BTreeMap::new();
    for (name, text, enable) in fields.tables("unit", |table| unit(table, known)).into_iter().flatten() {
        if enable {
            enabled.push(name.clone());
        }
        units.insert(name, text);
    }
    let sysctls = fields.named_texts("sysctl");
    for (name, value) in &sysctls {
        let word = |c: char| c.is_ascii_alphanumeric() || "._-/*".contains(c);
        if !name.chars().all(word) || value.value.contains('\n') {
            fields.mistake(value, format!("`{name}` is no kernel parameter with a value"), None);
        }
    }
    let modules = plain_modules(fields);
    let modules_of = fields.text("modules-of").and_then(|text| {
        let told = |error: <ModulesOf as std::str::FromStr>::Err| {
            let help = "a kernel: `5.10.77`, or with its flavour `firecracker/5.10.77`";
            fields.mistake(&text, error.to_string(), Some(help.into()));
        };
        text.value.parse().map_err(told).ok()
    });
    Some(Written {
        name: name?.value,
        default: fields.boolean("default"),
        extends,
        description: fields.text("description").map(|text| text.value).unwrap_or_default(),
        version: version.map(|text| text.value),
        image: image.map(|text| text.value),
        combined: combined.map(|text| text.value),
        modules_of,
        archive: archive?,
        archives,
        packages,
        without: plain(fields, fields.texts("without")),
        arch_packages,
        kubernetes,
        released_on: released_on(fields),
        files: files.into_iter().flatten().collect(),
        links,
        directories,
        units,
        enabled,
        masked: unit_names(fields, "mask"),
        sysctls: sysctls.into_iter().map(|(name, text)| (name, text.value)).collect(),
        modules,
    })
}

/// The bytes that a table gives by `content`, or by `source`, a file beside the recipe.
fn bytes(table: &Fields<'_>, known: &Known<'_>) -> Option<Vec<u8>> {
    match (table.text("content"), table.text("source")) {
        (Some(content), None) => Some(content.value.into_bytes()),
        (None, Some(source)) => (known.beside)(&source.value)
            .map_err(|reason| table.mistake(&source, format!("`{}` {reason}", source.value), None))
            .ok(),
        _ => {
            table.mistake_here("one of `content` and `source` says what is in it", None);
            None
        }
    }
}

fn directories(fields: &Fields<'_>) -> Vec<String> {
    let path = |text: Text| {
        absolute(&text.value)
            .map_err(|reason| fields.mistake(&text, format!("`{}` {reason}", text.value), None))
            .ok()
    };
    fields.texts("directories").into_iter().filter_map(path).collect()
}

fn file(table: &Fields<'_>, known: &Known<'_>) -> Option<File> {
    let path = table.required("path");
    let normal = path.as_ref().and_then(|path| {
        absolute(&path.value)
            .map_err(|reason| table.mistake(path, format!("`{}` {reason}", path.value), None))
            .ok()
    });
    let bytes = bytes(table, known);
    let mode = table.text("mode");
    let parsed = mode
        .as_ref()
        .map_or(Some(0o644), |text| u32::from_str_radix(&text.value, 8).ok().filter(|mode| *mode <= 0o7777));
    if let (Some(text), None) = (&mode, parsed) {
        table.mistake(text, format!("`{}` is no mode such as `0644`", text.value), None);
    }
    let owner = table.text("owner");
    let numbers = owner.as_ref().map_or(Some((0, 0)), |text| {
        let (uid, gid) = text.value.split_once(':')?;
        Some((uid.parse().ok()?, gid.parse().ok()?))
    });
    if let (Some(text), None) = (&owner, numbers) {
        let help = "numbers, since the names of the image are not this machine's: `1000:1000`";
        table.mistake(text, format!("`{}` is no owner and group", text.value), Some(help.into()));
    }
    let replace = table.boolean("replace");
    Some(File { path: normal?, bytes: bytes?, mode: parsed?, owner: numbers?, replace })
}

fn unit(table: &Fields<'_>, known: &Known<'_>) -> Option<(String, String, bool)> {
    let name = table.required("name");
    name.iter().for_each(|name| check_unit(table, name));
    let text = bytes(table, known).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| table.mistake_here("a unit is text", None)).ok()
    });
    let enable = table.boolean("enable");
    Some((name?.value, text?, enable))
}

fn unit_names(fields: &Fields<'_>, name: &str) -> Vec<String> {
    let texts = fields.texts(name);
    texts.iter().for_each(|text| check_unit(fields, text));
    texts.into_iter().map(|text| text.value).collect()
}

/// What systemd takes as the name of a unit file.
fn check_unit(fields: &Fields<'_>, name: &Text) {
    const KINDS: [&str; 8] = ["service", "socket", "target", "timer", "mount", "path", "automount", "swap"];
    let word = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let known =
        name.value.rsplit_once('.').is_some_and(|(stem, kind)| !stem.is_empty() && KINDS.contains(&kind));
    if !known || !name.value.chars().all(word) {
        fields.mistake(name, format!("`{}` is no name of a unit, such as `node.service`", name.value), None);
    }
}

fn plain_modules(fields: &Fields<'_>) -> Vec<String> {
    let texts = fields.texts("modules");
    let word = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    for text in texts.iter().filter(|text| text.value.is_empty() || !text.value.chars().all(word)) {
        fields.mistake(text, format!("`{}` is no name of a kernel module", text.value), None);
    }
    texts.into_iter().map(|text| text.value).collect()
}

/// A path of a recipe without its leading `/`; the reason why it is none, to follow the path in a sentence.
fn absolute(path: &str) -> Result<String, &'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Err("is not an absolute path, as in the image") };
    if rest.split('/').any(|part| part == "..") {
        return Err("holds `..`, which could lead out of the image's root");
    }
    let parts: Vec<_> = rest.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() || rest.contains('\0') { Err("is no file's path") } else { Ok(parts.join("/")) }
}

#[cfg(test)]
mod tests;
