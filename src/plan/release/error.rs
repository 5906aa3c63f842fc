//! Why a cell is not released, or a tag not moved.

use crate::step::{Class, Diagnose};
use crate::{oci, plan, registry, store};

/// A cell cannot be released, or an image not be joined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be planned or built.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// It does not boot.
    #[error(transparent)]
    Boot(#[from] plan::boot::Error),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// What is attached to it cannot be.
    #[error("{0}")]
    Attach(Box<dyn Diagnose>),
    /// The tag of a build names another one.
    #[error("`{reference}` is {there}, and the same build comes to {ours} now: no tag was moved")]
    Taken {
        /// The tag.
        reference: String,
        /// What it names.
        there: String,
        /// What it should name.
        ours: String,
    },
}

impl From<oci::Error> for Error {
    fn from(error: oci::Error) -> Self {
        Self::Plan(error.into())
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Plan(error.into())
    }
}

impl Error {
    fn inner(&self) -> Option<&dyn Diagnose> {
        match self {
            Self::Plan(error) => Some(error),
            Self::Boot(error) => Some(error),
            Self::Registry(error) => Some(error),
            Self::Attach(error) => Some(&**error),
            Self::Taken { .. } => None,
        }
    }

    /// Whether everything else would fail in the same way.
    pub fn is_everybodys(&self) -> bool {
        matches!(
            self,
            Self::Registry(
                registry::Error::Unreachable { .. }
                    | registry::Error::Denied { .. }
                    | registry::Error::Cancelled
            )
        ) || self.class() == Class::Interrupted
    }
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        self.inner().map_or(Class::NotReproducible, Diagnose::class)
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => Some(
                "`imgbuild diff` of the tag and of the cell's own tags tells where they differ; delete the tag once you know which is right"
                    .into(),
            ),
            _ => self.inner()?.hint(),
        }
    }

    fn detail(&self) -> Option<String> {
        self.inner()?.detail()
    }
}
