//! Rebuilders: whoever builds an image again to the same digest says so, signed; and how many of them are trusted.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::beside::{Beside, Bundle};
use super::{Check, State};
use crate::attest::statement::{Resource, Statement};
use crate::oci::image::rfc3339;
use crate::sign::{Public, statement};

/// The type of a rebuilder's statement.
pub const REBUILD: &str = "https://imgbuild.io/rebuild/v1";

/// What a rebuilder says of an image: it came out the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rebuild {
    rebuilder: Rebuilder,
    host: Host,
    /// With which toolchain: what the provenance says of it.
    #[serde(default)]
    toolchain: Vec<Resource>,
    rebuilt_on: String,
    /// From then on the statement counts no more.
    expires: String,
}

/// Who built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rebuilder {
    name: String,
    /// The digest of the public key.
    key: String,
    /// The versions of the programs.
    version: BTreeMap<String, String>,
}

/// Where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Host {
    name: String,
    os: String,
    architecture: String,
    kernel: String,
}

/// The bytes of the statement that `rebuilder`, who has `key`, built an image again to the same digest with what its
/// provenance records. It counts for so many days.
pub fn statement(digest: &str, provenance: &Statement, rebuilder: &str, key: &Public, days: u16) -> Vec<u8> {
    let host = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let now = Timestamp::now();
    let expires = now + SignedDuration::from_hours(24 * i64::from(days));
    let time = |time: Timestamp| rfc3339(u64::try_from(time.as_second()).unwrap_or(0));
    let inputs = provenance.predicate.build_definition.resolved_dependencies.iter();
    let rebuild = Rebuild {
        rebuilder: Rebuilder {
            name: rebuilder.to_owned(),
            key: key.id(),
            version: [("imgbuild".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into(),
        },
        host: Host {
            name: text(host.nodename()),
            os: text(host.sysname()).to_lowercase(),
            architecture: text(host.machine()),
            kernel: text(host.release()),
        },
        toolchain: inputs.filter(|input| input.annotation("role") == Some("toolchain")).cloned().collect(),
        rebuilt_on: time(now),
        expires: time(expires),
    };
    let name = provenance.subject.first().map(|subject| subject.name.as_str());
    let predicate = serde_json::to_value(rebuild).expect("a statement has string keys");
    statement::write(digest, name, REBUILD, &predicate)
}

/// Whether at least `wanted` of the owners of `trusted` keys built this digest again. A key counts once, however often it
/// signed and under however many names it is trusted.
pub fn quorum(beside: &Beside, trusted: &[Public], wanted: usize) -> Check {
    let now = Timestamp::now();
    let mut counted = BTreeMap::new();
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    for bundle in beside.signed(REBUILD) {
        match counts(bundle, &beside.digest, trusted, now) {
            Ok(signers) => {
                for signer in signers {
                    counted.entry(signer.id()).or_insert_with(|| signer.name().to_owned());
                }
            }
            Err(reason) => *others.entry(reason).or_default() += 1,
        }
    }
    let names: Vec<_> = counted.into_values().collect();
    let mut said = format!("{} of {wanted}", names.len());
    if !names.is_empty() {
        said += &format!(": {}", names.join(", "));
    }
    if !others.is_empty() {
        let others = others.into_iter().map(|(reason, count)| format!("{count} {reason}"));
        said += &format!(" (not counted: {})", others.collect::<Vec<_>>().join(", "));
    }
    let state = if names.len() >= wanted { State::Passed } else { State::Failed };
    Check::new("quorum", state, said)
}

/// The trusted signers of a statement, or why it does not count.
fn counts<'k>(
    bundle: &Bundle,
    digest: &str,
    trusted: &'k [Public],
    now: Timestamp,
) -> Result<Vec<&'k Public>, String> {
    let signers = bundle.signers(trusted);
    if signers.is_empty() {
        return Err("by nobody trusted".into());
    }
    bundle.about(digest)?;
    let rebuild = Rebuild::deserialize(&bundle.statement.predicate).map_err(|_| "garbled")?;
    let expires: Timestamp = rebuild.expires.parse().map_err(|_| "without an end")?;
    if expires <= now {
        return Err(format!("expired on {}", rebuild.expires));
    }
    Ok(signers)
}
