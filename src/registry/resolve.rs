//! What a reference stands for: one manifest, or an index with its platforms. No blob is read but configurations.

use super::Error;
use super::append::members;
use super::client::Client;
use super::push::Source;
use super::reference::Reference;

/// What a reference stands for at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The digest of its index or manifest: `sha256:…`.
    pub digest: String,
    /// That document, as it is written.
    pub bytes: Vec<u8>,
    /// Its platforms for Linux: architecture as OCI has it, and the manifest's digest. A manifest alone is its own one.
    pub platforms: Vec<(String, String)>,
}

impl Resolved {
    /// Whether it is an index.
    pub fn is_index(&self) -> bool {
        self.platforms.iter().all(|(_, digest)| *digest != self.digest)
    }
}

/// Asks a registry what a reference stands for.
pub fn resolve(reference: &Reference, client: &Client) -> Result<Resolved, Error> {
    let wanted = reference.wanted();
    let wanted =
        wanted.ok_or_else(|| Error::reference(&reference.to_string(), "it has neither tag nor digest"))?;
    let root = client.manifest(&reference.repository, wanted)?;
    let members = members(&root, &Source::Registry(client, &reference.repository))?;
    let is_linux = |platform: &super::tree::Platform| platform.os == "linux";
    let platforms = members
        .into_iter()
        .filter(|(platform, _)| is_linux(platform))
        .filter_map(|(platform, member)| Some((platform.architecture, member["digest"].as_str()?.to_owned())))
        .collect();
    Ok(Resolved { digest: root.digest, bytes: root.bytes, platforms })
}
