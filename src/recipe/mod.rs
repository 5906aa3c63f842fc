//! Recipes: as written (TOML with its places kept) and as meant (typed, resolved, checked).

pub mod archive;
pub mod catalogue;
pub mod copied;
pub mod edit;
pub mod kernel;
pub mod os;
pub mod toolchain;

pub use archive::Archive;
pub use catalogue::Catalogue;
pub use copied::{Copied, Copier};
pub use kernel::KernelRecipe;
pub use os::OsRecipe;
pub use toolchain::ToolchainRecipe;

use std::collections::BTreeMap;

use crate::arch::Arch;
use crate::document::{Fields, Mistakes, list, nearest};
use crate::step::{Class, Diagnose};

/// A recipe that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe's text is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No recipe of this name.
    #[error("unknown flavour `{asked}`; known are {}", list(.known.iter().map(String::as_str)))]
    UnknownFlavour {
        /// What was asked for.
        asked: String,
        /// All flavours of the catalogue.
        known: Vec<String>,
    },
    /// No OS recipe of this name.
    #[error("unknown OS recipe `{asked}`; known are {}", list(.known.iter().map(String::as_str)))]
    UnknownSystem {
        /// What was asked for.
        asked: String,
        /// All OS recipes of the catalogue.
        known: Vec<String>,
    },
    /// No recipe says `default = true`.
    #[error("no recipe in `{place}` is the default")]
    NoDefault {
        /// The catalogue's place.
        place: String,
    },
    /// `extends` comes back to where it began.
    #[error("the recipes {} extend one another in a circle", list(.0.iter().map(String::as_str)))]
    Circle(Vec<String>),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Mistakes(_) | Self::Circle(_) | Self::NoDefault { .. } => Class::Recipe,
            Self::Io(error) if error.kind() == std::io::ErrorKind::NotFound => Class::Usage,
            Self::Io(_) => Class::Host,
            Self::UnknownFlavour { .. } | Self::UnknownSystem { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownFlavour { asked, known } | Self::UnknownSystem { asked, known } => {
                Some(match nearest(asked, known.iter().map(String::as_str)) {
                    Some(near) => {
                        format!("did you mean `{near}`? A recipe of your own is a file: `--recipe PATH`")
                    }
                    None => "a recipe of your own is a file: `--recipe PATH`".into(),
                })
            }
            Self::NoDefault { .. } => Some("name one with --flavour or --recipe".into()),
            _ => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Mistakes(mistakes) => mistakes.detail(),
            _ => None,
        }
    }
}

/// Tells the mistake if a recipe is not of the kind that is wanted.
fn expect_kind(fields: &Fields<'_>, wanted: &str) {
    if let Some(kind) = fields.required("kind").filter(|kind| kind.value != wanted) {
        let message = format!("`{}` is not a kind of recipe this command builds", kind.value);
        fields.mistake(&kind, message, Some(format!("`{wanted}` is")));
    }
}

/// The recipe that is extended, if any; `what` is what recipes of this kind are called.
fn parent(fields: &Fields<'_>, known: &[String], what: &str) -> Option<String> {
    let parent = fields.text("extends")?;
    if !known.contains(&parent.value) {
        let names = || known.iter().map(String::as_str);
        let help = nearest(&parent.value, names()).map_or_else(
            || format!("the {what}s are {}", list(names())),
            |near| format!("did you mean `{near}`?"),
        );
        fields.mistake(&parent, format!("no {what} `{}` to extend", parent.value), Some(help));
    }
    Some(parent.value)
}

/// The architectures that a recipe is released for, where it names them.
fn released_on(fields: &Fields<'_>) -> Option<Vec<Arch>> {
    let mut arches = Vec::new();
    for text in fields.texts("released-on") {
        match text.value.parse::<Arch>() {
            Ok(arch) if !arches.contains(&arch) => arches.push(arch),
            Ok(arch) => fields.mistake(&text, format!("{arch} is named twice"), None),
            Err(error) => fields.mistake(&text, error.to_string(), None),
        }
    }
    fields.has("released-on").then_some(arches)
}

/// What a recipe says by architecture (`[arch.x86_64]`).
fn by_arch<T>(fields: &Fields<'_>, mut read: impl FnMut(&Fields<'_>) -> T) -> BTreeMap<Arch, T> {
    let mut read_all = BTreeMap::new();
    for (key, value) in fields.named_tables("arch", |key, table| (key.clone(), read(table))) {
        match key.value.parse::<Arch>() {
            Ok(arch) if arch.name() == key.value => drop(read_all.insert(arch, value)),
            Ok(arch) => fields.mistake(&key, format!("a recipe writes `{arch}` for this architecture"), None),
            Err(error) => fields.mistake(&key, error.to_string(), None),
        }
    }
    read_all
}
