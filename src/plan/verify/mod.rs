//! What is claimed of an image in a registry, held against keys, against its layers, and against a build of one's own.
//!
//! A check that cannot be made says so, and is not counted as passed.

mod beside;
pub mod keyless;
pub mod rebuilders;

use serde::Serialize;

use super::attest::check_sbom;
use super::{attest as documents, rebuild};
use crate::attest::statement::Statement;
use crate::inspect::diff::{Difference, Side};
use crate::inspect::{self, Image};
use crate::oci::source::Source;
use crate::registry;
use crate::sign::{self, Public};
use crate::step::{Cancel, Class, Diagnose};

pub use beside::Beside;

/// An image cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A key, or something signed.
    #[error(transparent)]
    Sign(#[from] sign::Error),
    /// The image cannot be looked at.
    #[error(transparent)]
    Documents(#[from] documents::Error),
    /// It cannot be built again.
    #[error(transparent)]
    Rebuild(#[from] rebuild::Error),
    /// cosign cannot be asked.
    #[error(transparent)]
    Keyless(#[from] keyless::Error),
}

impl Error {
    fn inner(&self) -> &dyn Diagnose {
        match self {
            Self::Registry(error) => error,
            Self::Sign(error) => error,
            Self::Documents(error) => error,
            Self::Rebuild(error) => error,
            Self::Keyless(error) => error,
        }
    }
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        self.inner().class()
    }

    fn hint(&self) -> Option<String> {
        self.inner().hint()
    }

    fn detail(&self) -> Option<String> {
        self.inner().detail()
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// What is claimed holds.
    Passed,
    /// It does not, or what should be there is not.
    Failed,
    /// It was not looked at.
    Unchecked,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was checked: `signature`, `provenance`, `sbom`, `rebuild`, `quorum`, `tag`.
    pub check: &'static str,
    /// The platform it was checked for; none for the image as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// How it ended.
    pub state: State,
    /// Why, in a few words.
    pub said: String,
    /// Of a build of one's own that is another: the first difference, side A being the published image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

impl Check {
    /// A check of the image as a whole.
    pub fn new(check: &'static str, state: State, said: impl Into<String>) -> Self {
        Self { check, platform: None, state, said: said.into(), difference: None }
    }

    /// The same of one platform.
    #[must_use]
    pub fn of(mut self, platform: Option<&str>) -> Self {
        self.platform = platform.map(str::to_owned);
        self
    }
}

/// Whether a digest is signed by one of `keys`.
pub fn signature(beside: &Beside, keys: &[Public]) -> Check {
    let signatures = beside.signatures();
    let check = |state, said: String| Check::new("signature", state, said);
    if keys.is_empty() {
        let there = match signatures.len() {
            0 => "none is there".to_owned(),
            1 => "1 is there".to_owned(),
            count => format!("{count} are there"),
        };
        return check(State::Unchecked, format!("not checked: no key; {there}"));
    }
    let mut reasons = Vec::new();
    let mut signers: Vec<&str> = Vec::new();
    for signature in &signatures {
        match signature.check(&beside.digest, keys) {
            Ok(by) => signers.extend(by.into_iter().map(Public::name)),
            Err(reason) => reasons.push(reason),
        }
    }
    signers.sort_unstable();
    signers.dedup();
    if !signers.is_empty() {
        return check(State::Passed, format!("valid, by {}", signers.join(" and ")));
    }
    if signatures.is_empty() {
        return check(State::Failed, "none is there".into());
    }
    check(State::Failed, told(reasons))
}

/// Whether there is a provenance about this digest, and the statement that is to be believed.
pub fn provenance(beside: &Beside, keys: &[Public]) -> (Check, Option<Statement>) {
    let check = |state, said: String| Check::new("provenance", state, said);
    let (mut reasons, mut unsigned) = (Vec::new(), None);
    let mut foreign = None;
    for claim in beside.provenances() {
        let statement = match claim.statement(&beside.digest) {
            Ok(statement) => statement,
            Err(reason) => {
                reasons.push(reason);
                continue;
            }
        };
        match claim.signers(keys) {
            None => unsigned = unsigned.or(Some(statement)),
            Some(by) if by.is_empty() => foreign = foreign.or(Some(statement)),
            Some(by) => {
                let said =
                    format!("about this digest, signed by {}; {}", by.join(" and "), origin(&statement));
                return (check(State::Passed, said), Some(statement));
            }
        }
    }
    match (unsigned, foreign) {
        (Some(statement), _) => {
            let said = format!("about this digest, not signed; {}", origin(&statement));
            (check(State::Passed, said), Some(statement))
        }
        (None, Some(statement)) if keys.is_empty() => {
            let said =
                format!("about this digest, its signature not checked: no key; {}", origin(&statement));
            (check(State::Passed, said), Some(statement))
        }
        (None, Some(_)) => (check(State::Failed, "signed, but by none of the keys".into()), None),
        (None, None) if reasons.is_empty() => (check(State::Failed, "none is there".into()), None),
        (None, None) => (check(State::Failed, told(reasons)), None),
    }
}

/// Who built, for people.
fn origin(statement: &Statement) -> String {
    let builder = &statement.predicate.run_details.builder;
    match builder.version.get("imgbuild") {
        Some(version) => format!("built by imgbuild {version}, {}", builder.id),
        None => format!("built by {}", builder.id),
    }
}

/// Whether an SBOM that is there says what is in the layers of the image.
pub fn sbom(beside: &Beside, source: &dyn Source, image: &Image, cancel: &Cancel) -> Result<Check, Error> {
    let check = |state, said: String| Check::new("sbom", state, said);
    let mut reasons = Vec::new();
    for document in beside.sboms() {
        let bytes = match document {
            Ok(bytes) => bytes,
            Err(reason) => {
                reasons.push(reason);
                continue;
            }
        };
        match check_sbom(bytes, source, image, cancel) {
            Ok(findings) => match &findings[..] {
                [] => return Ok(check(State::Passed, "says what is in the layers".into())),
                [first, rest @ ..] => {
                    let path = first.path.as_ref().map_or_else(String::new, |path| format!("{path}: "));
                    let more =
                        if rest.is_empty() { String::new() } else { format!(" ({} more)", rest.len()) };
                    reasons.push(format!("does not say what is in the layers: {path}{}{more}", first.what));
                }
            },
            Err(documents::Error::Attest(error)) => reasons.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    if reasons.is_empty() {
        return Ok(check(State::Failed, "none is there".into()));
    }
    Ok(check(State::Failed, told(reasons)))
}

/// Whether an image that was built again is the published one, `original`.
pub fn rebuilt(
    rebuilt: &rebuild::Rebuilt,
    digest: &str,
    original: &Side<'_>,
    cancel: &Cancel,
) -> Result<Check, Error> {
    if rebuilt.digest == digest {
        return Ok(Check::new("rebuild", State::Passed, "built again to the same digest"));
    }
    let difference = rebuilt.differences(original, cancel)?.into_iter().next();
    let said = format!("built again to another digest, {}", rebuilt.digest);
    Ok(Check { difference, ..Check::new("rebuild", State::Failed, said) })
}

/// Reasons for people, each once.
fn told(mut reasons: Vec<String>) -> String {
    reasons.sort();
    reasons.dedup();
    reasons.join("; ")
}

impl From<inspect::Error> for Error {
    fn from(error: inspect::Error) -> Self {
        Self::Documents(error.into())
    }
}
