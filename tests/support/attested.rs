//! SBOMs and provenances held to what others have published about them. scripts/validators brings the programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Place, tool};

fn validator(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/validators/bin").join(program);
    assert!(path.is_file(), "there is no {}: run scripts/validators", path.display());
    path
}

/// An SPDX document that spdx-tools finds nothing wrong with.
#[track_caller]
pub(crate) fn sbom(place: &Place, text: &str) -> Value {
    let file = place.write("sbom.spdx.json", text);
    tool(validator("pyspdxtools").to_str().expect("text"), &["-i".as_ref(), file.as_os_str()]);
    serde_json::from_str(text).expect("it is JSON")
}

/// A statement that fits the published schemas.
#[track_caller]
pub(crate) fn provenance(place: &Place, text: &str) -> Value {
    let file = place.write("provenance.json", text);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/provenance.py");
    tool(validator("python").to_str().expect("text"), &[script.as_os_str(), file.as_os_str()]);
    serde_json::from_str(text).expect("it is JSON")
}

/// Runs oras, which scripts/readers brings, on a registry of this machine.
#[track_caller]
pub(crate) fn oras(words: &str, last: impl AsRef<OsStr>) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/readers/oras");
    assert!(program.is_file(), "there is no {}: run scripts/readers", program.display());
    let words = words.split_whitespace().map(OsStr::new);
    tool(program.to_str().expect("text"), &words.chain([last.as_ref()]).collect::<Vec<_>>())
}
