//! A kernel recipe: which fragments make its configuration, and what its images are called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use super::{by_arch, expect_kind, parent, released_on};
use crate::arch::Arch;
use crate::document::{Fields, Text, list, nearest};
use crate::version::Version;

/// A kernel recipe as one file writes it, checked by itself.
#[derive(Debug)]
pub struct Written {
    pub(super) name: String,
    pub(super) default: bool,
    pub(super) extends: Option<String>,
    description: String,
    base: Option<String>,
    series: Vec<String>,
    released: Vec<Version>,
    released_on: Option<Vec<Arch>>,
    fragments: Vec<String>,
    arch_fragments: BTreeMap<Arch, Vec<String>>,
    images: BTreeMap<Output, String>,
    outputs: Option<Vec<Output>>,
    toolchain: Option<String>,
    absent: Vec<Absent>,
}

/// An image that a kernel can be put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// The kernel: `boot/`.
    Kernel,
    /// Its modules: `lib/modules`.
    Modules,
    /// Both in one, for Flintlock up to 0.4.0.
    Combined,
    /// What modules of other people are compiled against: `usr/src`.
    Headers,
}

impl Output {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kernel, Self::Modules, Self::Combined, Self::Headers];
    /// What a kernel is put into where nothing is said.
    const USUAL: [Self; 2] = [Self::Kernel, Self::Modules];

    /// Its name in recipes, on the command line and in the label `io.imgbuild.role`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Modules => "modules",
            Self::Combined => "combined",
            Self::Headers => "headers",
        }
    }

    /// The name of the image where a recipe has none, to which a recipe that extends another adds its own.
    fn usual_image(self) -> &'static str {
        match self {
            Self::Kernel => "kernel-bin",
            Self::Modules => "kernel-modules",
            Self::Combined => "flintlock-kernel",
            Self::Headers => "kernel-headers",
        }
    }
}

/// Text that names no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown output `{0}`; known are {known}", known = list(Output::ALL.map(Output::name)))]
pub struct UnknownOutput(String);

impl FromStr for Output {
    type Err = UnknownOutput;

    fn from_str(text: &str) -> Result<Self, UnknownOutput> {
        let found = Self::ALL.into_iter().find(|output| output.name() == text);
        found.ok_or_else(|| UnknownOutput(text.to_owned()))
    }
}

/// A kernel as a root volume's recipe names it: `5.10.77`, or `tiny/5.10.77` of another flavour than the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulesOf {
    /// The flavour, where it is not the default.
    pub flavour: Option<String>,
    /// The version.
    pub version: Version,
}

impl FromStr for ModulesOf {
    type Err = <Version as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (flavour, version) = match text.rsplit_once('/') {
            Some((flavour, version)) => (Some(flavour.to_owned()), version),
            None => (None, text),
        };
        Ok(Self { flavour, version: version.parse()? })
    }
}

/// Symbols that the recipe leaves off on purpose although `alldefconfig` has them on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// Symbol names without `CONFIG_`; `*` stands for any characters.
    pub symbols: Vec<String>,
    /// Why they are off.
    pub reason: String,
}

/// A fragment's name (a path, for messages) and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Its path as messages give it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A kernel recipe as meant: its chain of `extends` followed, its fragments read.
#[derive(Debug, Clone)]
pub struct KernelRecipe {
    /// The flavour's name.
    pub name: String,
    /// One sentence about it.
    pub description: String,
    /// The make target that answers every symbol no fragment asks for: `allnoconfig` or `alldefconfig`.
    pub base: String,
    /// The series it is made for (`5.10`).
    pub series: Vec<String>,
    /// The versions it is released with; a series means its newest pinned version. No recipe inherits them.
    pub released: Vec<Version>,
    /// The architectures it is released for: those it is for, unless it names fewer.
    pub released_on: Vec<Arch>,
    images: BTreeMap<Output, String>,
    outputs: Option<Vec<Output>>,
    /// The toolchain it names, where it does not take the default of the series.
    pub toolchain: Option<String>,
    /// What it leaves off, with reasons.
    pub absent: Vec<Absent>,
    /// In merge order, with the architecture each is for where that is but one.
    fragments: Vec<(Option<Arch>, Fragment)>,
    /// The architectures it has a table for.
    tables: BTreeSet<Arch>,
}

impl KernelRecipe {
    /// The fragments for an architecture, in merge order: from the recipe that extends none to this one, of each the common ones,
    /// then the architecture's.
    pub fn fragments(&self, arch: Arch) -> impl Iterator<Item = &Fragment> {
        self.fragments
            .iter()
            .filter(move |(only, _)| only.is_none_or(|only| only == arch))
            .map(|(_, fragment)| fragment)
    }

    /// The name of an image.
    pub fn image(&self, output: Output) -> &str {
        &self.images[&output]
    }

    /// The images it is put into, sorted: those it names, or kernel and modules.
    pub fn outputs(&self) -> &[Output] {
        self.outputs.as_deref().unwrap_or(&Output::USUAL)
    }

    /// Whether it names its images itself.
    pub fn names_outputs(&self) -> bool {
        self.outputs.is_some()
    }

    /// The architectures it is for: those it has a table for, or all where it has none.
    pub fn arches(&self) -> Vec<Arch> {
        if self.tables.is_empty() { Arch::ALL.into() } else { self.tables.iter().copied().collect() }
    }

    /// Puts together a recipe and those it extends, itself first. A child's fragments come after its parent's.
    pub(super) fn meant(
        chain: &[(Written, Option<&Path>)],
        load: impl Fn(&str, Option<&Path>) -> std::io::Result<(String, String)>,
    ) -> std::io::Result<Self> {
        let child = &chain[0].0;
        let own = |prefix: &str| {
            if child.extends.is_some() { format!("{prefix}-{}", child.name) } else { prefix.to_owned() }
        };
        let mut recipe = Self {
            name: child.name.clone(),
            description: child.description.clone(),
            base: chain.iter().find_map(|(w, _)| w.base.clone()).unwrap_or_else(|| "allnoconfig".into()),
            series: chain
                .iter()
                .find(|(w, _)| !w.series.is_empty())
                .map(|(w, _)| w.series.clone())
                .unwrap_or_default(),
            released: child.released.clone(),
            released_on: Vec::new(),
            images: Output::ALL
                .into_iter()
                .map(|output| {
                    let named = child.images.get(&output).cloned();
                    (output, named.unwrap_or_else(|| own(output.usual_image())))
                })
                .collect(),
            outputs: chain.iter().find_map(|(w, _)| w.outputs.clone()),
            toolchain: chain.iter().find_map(|(w, _)| w.toolchain.clone()),
            absent: Vec::new(),
            fragments: Vec::new(),
            tables: BTreeSet::new(),
        };
        for (written, dir) in chain.iter().rev() {
            let common = written.fragments.iter().map(|name| (None, name));
            let of_arches = written
                .arch_fragments
                .iter()
                .flat_map(|(arch, names)| names.iter().map(move |name| (Some(*arch), name)));
            for (arch, name) in common.chain(of_arches) {
                let (name, text) = load(name, *dir)?;
                recipe.fragments.push((arch, Fragment { name, text }));
            }
            recipe.tables.extend(written.arch_fragments.keys());
            recipe.absent.extend(written.absent.iter().cloned());
        }
        recipe.released_on = child.released_on.clone().unwrap_or_else(|| recipe.arches());
        Ok(recipe)
    }
}

/// What the catalogue can tell while a recipe is read.
pub(super) struct Known<'k> {
    /// Whether there is a fragment of this name.
    pub(super) fragment: &'k dyn Fn(&str) -> bool,
    /// The flavours that can be extended.
    pub(super) flavours: &'k [String],
}

/// Reads a recipe's fields; `None` only when a mistake was told.
pub(super) fn read(fields: &Fields<'_>, known: &Known<'_>) -> Option<Written> {
    expect_kind(fields, "kernel");
    let name = fields.required("name");
    if let Some(name) = &name
        && !is_image_name(&name.value)
    {
        fields.mistake(
            name,
            "a name is lower-case letters, digits and single `-`, `_` or `.` between them",
            None,
        );
    }
    let extends = parent(fields, known.flavours, "flavour");
    let base = fields.text("base");
    if let Some(base) = &base
        && !matches!(base.value.as_str(), "allnoconfig" | "alldefconfig")
    {
        fields.mistake(base, "`base` is `allnoconfig` or `alldefconfig`", None);
    }
    let series = fields.texts("series");
    for text in &series {
        if text.value.parse::<Version>().is_ok_and(|version| version.series() == text.value) {
            continue;
        }
        fields.mistake(text, format!("`{}` is not a series such as `5.10`", text.value), None);
    }
    if series.is_empty() && extends.is_none() {
        fields.mistake_here(
            "`series` is missing: which kernel series is this recipe for?",
            Some("series = [\"5.10\"]".into()),
        );
    }
    let released = released(fields, &series);
    let fragments = fragment_names(fields, known);
    let arch_fragments = by_arch(fields, |table| fragment_names(table, known));
    let image = |table: &Fields<'_>, name| {
        let text = table.text(name)?;
        if !is_image_name(&text.value) {
            table.mistake(
                &text,
                format!("`{}` is not a repository name", text.value),
                Some("lower-case letters, digits and single `-`, `_`, `.` or `/` between them".into()),
            );
        }
        Some(text.value)
    };
    let images = fields.table("image", |table| {
        let named = |output: Output| Some((output, image(table, output.name())?));
        Output::ALL.into_iter().filter_map(named).collect::<BTreeMap<_, _>>()
    });
    let outputs = fields.has("outputs").then(|| outputs(fields));
    let toolchain = fields.text("toolchain");
    if let Some(toolchain) = toolchain.as_ref().filter(|text| text.value == "host") {
        let help =
            "whoever builds may say `--toolchain host`; leave `toolchain` out for the default of the series";
        fields.mistake(
            toolchain,
            "a recipe cannot ask for the tools of a host it does not know",
            Some(help.into()),
        );
    }
    let absent = fields.tables("absent", |table| {
        let symbols = table.texts("symbols").into_iter().map(|text| text.value).collect();
        Some(Absent { symbols, reason: table.required("reason")?.value })
    });
    Some(Written {
        name: name?.value,
        default: fields.boolean("default"),
        extends,
        description: fields.text("description").map(|text| text.value).unwrap_or_default(),
        base: base.map(|text| text.value),
        series: series.into_iter().map(|text| text.value).collect(),
        released,
        released_on: released_on(fields),
        fragments,
        arch_fragments,
        images: images.unwrap_or_default(),
        outputs,
        toolchain: toolchain.map(|text| text.value),
        absent: absent.into_iter().flatten().collect(),
    })
}

/// The images a recipe names, sorted, each once.
fn outputs(fields: &Fields<'_>) -> Vec<Output> {
    let texts = fields.texts("outputs");
    if texts.is_empty() {
        fields.mistake_here("`outputs` is empty: nothing would be built", None);
    }
    let output = |text: &Text| {
        let told = |error: UnknownOutput| {
            let near = nearest(&text.value, Output::ALL.map(Output::name));
            fields.mistake(text, error.to_string(), near.map(|near| format!("did you mean `{near}`?")));
        };
        text.value.parse().map_err(told).ok()
    };
    texts.iter().filter_map(output).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The versions a recipe is released with; those of a series that it names itself and is not for are told.
fn released(fields: &Fields<'_>, series: &[Text]) -> Vec<Version> {
    let mut versions = Vec::new();
    for text in fields.texts("released") {
        match text.value.parse::<Version>() {
            Ok(version)
                if !series.is_empty() && series.iter().all(|series| series.value != version.series()) =>
            {
                let help = format!("`series` has to name \"{}\" too", version.series());
                let message = format!("{version} is released, and the recipe is not made for its series");
                fields.mistake(&text, message, Some(help));
            }
            Ok(version) => versions.push(version),
            Err(error) => fields.mistake(&text, error.to_string(), None),
        }
    }
    versions
}

fn fragment_names(fields: &Fields<'_>, known: &Known<'_>) -> Vec<String> {
    let missing = |text: &&Text| !(known.fragment)(&text.value);
    let texts = fields.texts("fragments");
    for text in texts.iter().filter(missing) {
        let help = "`name.config` is looked up in kconfigs/, `./name.config` beside the recipe";
        fields.mistake(text, format!("no fragment `{}`", text.value), Some(help.into()));
    }
    texts.into_iter().map(|text| text.value).collect()
}

/// Whether a name can be an OCI repository name.
pub(super) fn is_image_name(name: &str) -> bool {
    name.split(['/', '-', '_', '.']).all(|part| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}
