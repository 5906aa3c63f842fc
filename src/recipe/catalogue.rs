//! Where recipes, fragments and the lock come from: a directory, or the set built into the program.

use std::path::{Path, PathBuf};

use fs_err as fs;
use include_dir::{Dir, include_dir};

use super::Error;
use super::copied::{Copied, Copier, own_name};
use super::kernel::{self, KernelRecipe, Written};
use super::os::{self, OsRecipe};
use super::toolchain::{self, ToolchainRecipe};
use crate::document::{Document, Mistakes};

static RECIPES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/recipes");
static KEYS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/keys");
static KCONFIGS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/kconfigs");

/// The lock's path in a catalogue.
pub const LOCK: &str = "recipes/imgbuild.lock";

/// A tree that holds `recipes/`, `kconfigs/` and `keys/`.
#[derive(Debug, Clone)]
pub enum Catalogue {
    /// The tree this program was built with.
    Builtin,
    /// A directory, such as a checkout of the project.
    Directory(PathBuf),
    /// One of the others, and where all that is read of it is kept.
    Watched(Box<Self>, Copier),
    /// What was kept of one.
    Copied(Copied),
}

impl Catalogue {
    /// The catalogue to use: `asked` if given, else the checkout we stand in, else the built-in one.
    pub fn find(asked: Option<PathBuf>) -> Self {
        match asked {
            Some(path) => Self::Directory(path),
            None if Path::new(LOCK).is_file() => Self::Directory(PathBuf::new()),
            None => Self::Builtin,
        }
    }

    /// How messages call a file of the catalogue.
    pub fn name(&self, path: &str) -> String {
        match self {
            Self::Builtin => format!("<built-in>/{path}"),
            Self::Directory(dir) => dir.join(path).display().to_string(),
            Self::Watched(watched, _) => watched.name(path),
            Self::Copied(_) => format!("<recorded>/{path}"),
        }
    }

    /// This catalogue, with all that is read of it kept.
    #[must_use]
    pub fn watched(&self, copier: &Copier) -> Self {
        Self::Watched(Box::new(self.clone()), copier.clone())
    }

    /// The text of a file of the catalogue.
    pub fn read(&self, path: &str) -> std::io::Result<String> {
        let missing = || {
            std::io::Error::new(std::io::ErrorKind::NotFound, format!("no `{path}` among the built-in files"))
        };
        match self {
            Self::Directory(dir) => fs::read_to_string(dir.join(path)),
            Self::Builtin => {
                let (tree, rest) = match path.split_once('/') {
                    Some(("recipes", rest)) => (&RECIPES, rest),
                    Some(("kconfigs", rest)) => (&KCONFIGS, rest),
                    Some(("keys", rest)) => (&KEYS, rest),
                    _ => return Err(missing()),
                };
                tree.get_file(rest)
                    .and_then(|file| file.contents_utf8())
                    .map(str::to_owned)
                    .ok_or_else(missing)
            }
            Self::Watched(watched, copier) => kept(copier, path, watched.read(path)),
            Self::Copied(files) => files.text(path),
        }
    }

    /// The text of a recipe in a file of the user's own.
    fn read_own(&self, path: &Path) -> std::io::Result<String> {
        match self {
            Self::Watched(watched, copier) => kept(copier, &own_name(path), watched.read_own(path)),
            Self::Copied(files) => files.text(&own_name(path)),
            Self::Builtin | Self::Directory(_) => fs::read_to_string(path),
        }
    }

    /// The text of a fragment that lies where a recipe of the user's own says, seen from that recipe's directory.
    fn read_beside_own(&self, fragment: &str, path: &Path) -> std::io::Result<String> {
        match self {
            Self::Watched(watched, copier) => kept(copier, fragment, watched.read_beside_own(fragment, path)),
            Self::Copied(files) => files.text(fragment),
            Self::Builtin | Self::Directory(_) => fs::read_to_string(path),
        }
    }

    /// The bytes of a file beside an OS recipe: one of the user's own in `dir`, or one of the catalogue.
    fn beside(&self, name: &str, dir: Option<&Path>) -> Result<Vec<u8>, String> {
        let key = || format!("{}{name}", if dir.is_some() { "./" } else { "recipes/os/" });
        match (self, dir) {
            (Self::Watched(watched, copier), _) => {
                watched.beside(name, dir).inspect(|bytes| copier.keep(&key(), bytes))
            }
            (Self::Copied(files), _) => {
                files.get(&key()).ok_or_else(|| "is not among the files that were recorded".into())
            }
            (_, Some(dir)) => beside(dir, name),
            (Self::Directory(top), None) => beside(&top.join("recipes/os"), name),
            (Self::Builtin, None) => {
                let file = RECIPES.get_file(Path::new("os").join(name));
                file.map(|file| file.contents().to_vec())
                    .ok_or_else(|| "is not among the built-in files".into())
            }
        }
    }

    /// The names of all kernel flavours, sorted.
    pub fn flavours(&self) -> std::io::Result<Vec<String>> {
        self.names("kernel")
    }

    /// All toolchains, sorted by name.
    pub fn toolchains(&self) -> Result<Vec<ToolchainRecipe>, Error> {
        let read = |name: String| {
            let path = format!("recipes/toolchains/{name}.toml");
            let recipe = Document::new(&self.name(&path), &self.read(&path)?).read(toolchain::read)?;
            Ok(recipe.unwrap_or_else(|| unreachable!("a recipe without mistakes has all its fields")))
        };
        let names = self.names("toolchains")?;
        // A catalogue of flavours alone compiles them with the toolchains that are built in.
        match self {
            Self::Watched(_, copier) if names.is_empty() => {
                return Self::Builtin.watched(copier).toolchains();
            }
            Self::Directory(_) if names.is_empty() => return Self::Builtin.toolchains(),
            _ => {}
        }
        names.into_iter().map(read).collect()
    }

    /// The names of all recipes of a kind, sorted; a directory without any has no folder for them.
    fn names(&self, kind: &str) -> std::io::Result<Vec<String>> {
        let paths: Vec<PathBuf> = match self {
            Self::Builtin => {
                let dir = RECIPES.get_dir(kind);
                dir.map(|dir| dir.files().map(|file| file.path().to_owned()).collect()).unwrap_or_default()
            }
            Self::Directory(dir) => match fs::read_dir(dir.join("recipes").join(kind)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && kind != "kernel" => Vec::new(),
                entries => entries?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?,
            },
            Self::Watched(watched, _) => return watched.names(kind),
            Self::Copied(files) => {
                let top = format!("recipes/{kind}/");
                files
                    .files()
                    .filter(|(name, _)| name.starts_with(&top))
                    .map(|(name, _)| name.into())
                    .collect()
            }
        };
        let mut names: Vec<String> = paths
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The kernel recipe of a flavour.
    pub fn flavour(&self, name: &str) -> Result<KernelRecipe, Error> {
        self.resolve(self.written(name)?, None)
    }

    /// The kernel recipe that says `default = true`.
    pub fn default_flavour(&self) -> Result<KernelRecipe, Error> {
        for name in self.flavours()? {
            let written = self.written(&name)?;
            if written.default {
                return self.resolve(written, None);
            }
        }
        Err(Error::NoDefault { place: self.name("recipes/kernel") })
    }

    /// The kernel recipe in a file; its `./` fragments lie beside it.
    pub fn kernel_file(&self, path: &Path) -> Result<KernelRecipe, Error> {
        let text = self.read_own(path)?;
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let written = self.parse(&path.display().to_string(), &text, Some(&dir))?;
        self.resolve(written, Some(&dir))
    }

    /// The names of all OS recipes, sorted.
    pub fn systems(&self) -> std::io::Result<Vec<String>> {
        self.names("os")
    }

    /// The OS recipe of this name.
    pub fn system(&self, name: &str) -> Result<OsRecipe, Error> {
        self.whole_system(self.written_system(name)?)
    }

    /// The OS recipe that says `default = true`.
    pub fn default_system(&self) -> Result<OsRecipe, Error> {
        for name in self.systems()? {
            let written = self.written_system(&name)?;
            if written.default {
                return self.whole_system(written);
            }
        }
        Err(Error::NoDefault { place: self.name("recipes/os") })
    }

    /// The OS recipe in a file; what its `source`s name lies beside it.
    pub fn system_file(&self, path: &Path) -> Result<OsRecipe, Error> {
        let text = self.read_own(path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let beside = |name: &str| self.beside(name, Some(dir));
        self.whole_system(self.parse_system(&path.display().to_string(), &text, &beside)?)
    }

    fn written_system(&self, name: &str) -> Result<os::Written, Error> {
        let known = self.systems()?;
        if !known.iter().any(|system| system == name) {
            return Err(Error::UnknownSystem { asked: name.to_owned(), known });
        }
        let path = format!("recipes/os/{name}.toml");
        Ok(self.parse_system(&self.name(&path), &self.read(&path)?, &|source| self.beside(source, None))?)
    }

    fn parse_system(
        &self,
        name: &str,
        text: &str,
        beside: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<os::Written, Mistakes> {
        let known = os::Known { beside, recipes: &self.systems().unwrap_or_default() };
        Document::new(name, text)
            .read(|fields| os::read(fields, &known))?
            .ok_or_else(|| unreachable!("a recipe without mistakes has all its fields"))
    }

    /// Follows `extends` to its root.
    fn whole_system(&self, written: os::Written) -> Result<OsRecipe, Error> {
        let mut chain = vec![written];
        while let Some(parent) = chain.last().and_then(|last| last.extends.clone()) {
            if chain.iter().any(|written| written.name == parent) {
                let names = chain.into_iter().map(|written| written.name).chain([parent]);
                return Err(Error::Circle(names.collect()));
            }
            chain.push(self.written_system(&parent)?);
        }
        Ok(OsRecipe::meant(chain))
    }

    fn written(&self, name: &str) -> Result<Written, Error> {
        let known = self.flavours()?;
        if !known.iter().any(|flavour| flavour == name) {
            return Err(Error::UnknownFlavour { asked: name.to_owned(), known });
        }
        let path = format!("recipes/kernel/{name}.toml");
        Ok(self.parse(&self.name(&path), &self.read(&path)?, None)?)
    }

    fn parse(&self, name: &str, text: &str, dir: Option<&Path>) -> Result<Written, Mistakes> {
        let known = kernel::Known {
            fragment: &|fragment| self.fragment(fragment, dir).is_ok(),
            flavours: &self.flavours().unwrap_or_default(),
        };
        Document::new(name, text)
            .read(|fields| kernel::read(fields, &known))?
            .ok_or_else(|| unreachable!("a recipe without mistakes has all its fields"))
    }

    /// Follows `extends` to its root and reads every fragment.
    fn resolve(&self, written: Written, dir: Option<&Path>) -> Result<KernelRecipe, Error> {
        let mut chain = vec![(written, dir)];
        let mut names = vec![chain[0].0.name.clone()];
        while let Some(parent) = chain.last().and_then(|(last, _)| last.extends.clone()) {
            if names.contains(&parent) {
                names.push(parent);
                return Err(Error::Circle(names));
            }
            chain.push((self.written(&parent)?, None));
            names.push(parent);
        }
        KernelRecipe::meant(&chain, |fragment, dir| self.fragment(fragment, dir)).map_err(Error::Io)
    }

    /// A fragment's name for messages and its text: `./x` lies beside the recipe, all else in `kconfigs/`.
    fn fragment(&self, fragment: &str, dir: Option<&Path>) -> std::io::Result<(String, String)> {
        match dir {
            Some(dir)
                if fragment.starts_with("./") || fragment.starts_with("../") || fragment.starts_with('/') =>
            {
                let path = dir.join(fragment.strip_prefix("./").unwrap_or(fragment));
                Ok((path.display().to_string(), self.read_beside_own(fragment, &path)?))
            }
            _ => {
                let path = format!("kconfigs/{fragment}");
                Ok((self.name(&path), self.read(&path)?))
            }
        }
    }
}

/// Keeps a text that could be read.
fn kept(copier: &Copier, name: &str, text: std::io::Result<String>) -> std::io::Result<String> {
    text.inspect(|text| copier.keep(name, text.as_bytes()))
}

/// The bytes of a file below `dir`; links that lead out of it are not followed.
fn beside(dir: &Path, name: &str) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("cannot be read: {error}");
    let file = dir.join(name).canonicalize().map_err(told)?;
    if !file.starts_with(dir.canonicalize().map_err(told)?) {
        return Err("lies outside the recipe's directory".into());
    }
    fs::read(file).map_err(told)
}
