//! The recorded digests: what every image that was built and checked came to, and out of what.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::document::{Document, Fields, Mistakes};
use crate::lock::ASSEMBLY;
use crate::step::Key;

/// The toolchain whose compilers are whatever this machine has.
pub const HOST: &str = "host";

/// The head of the file.
const HEAD: &str = "\
# The digest of every image that was built and checked, with what it was made of. A build says whether it came to the
# same; with --locked it fails if not. Written by `imgbuild digests --write`, never by hand: whoever moves a digest
# says so in CHANGELOG.md.
#
# `digest` is that of the platform's manifest, `key` that of the step that compiled the kernel. `parts` are the first
# digits of a hash of each field of that step's record, by which a later build can tell what has changed.
";

/// One image for one platform, as built or as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `kernel-bin:5.10.262`.
    pub image: String,
    /// `amd64` or `arm64`.
    pub platform: String,
    /// The name of the toolchain.
    pub toolchain: String,
    /// The digest of the manifest, `sha256:…`.
    pub digest: String,
    /// The key of the kernel's step.
    pub key: String,
    /// A short hash of each part that decides about the digest.
    pub parts: BTreeMap<String, String>,
}

impl Entry {
    /// An image whose kernel was made by the step with this record.
    pub fn new(image: &str, platform: &str, toolchain: &str, digest: &str, record: &Value) -> Self {
        let short = |value: &Value| Key::of(value).short();
        let fields = record.as_object().into_iter().flatten();
        let mut parts: BTreeMap<_, _> = fields.map(|(name, value)| (name.clone(), short(value))).collect();
        parts.insert("assembly".into(), ASSEMBLY.to_string());
        Self {
            image: image.to_owned(),
            platform: platform.to_owned(),
            toolchain: toolchain.to_owned(),
            digest: digest.to_owned(),
            key: Key::of(record).to_string(),
            parts,
        }
    }

    fn place(&self) -> (&str, &str, &str) {
        (&self.image, &self.platform, &self.toolchain)
    }

    /// The names of the parts in which two entries differ.
    fn moved(&self, other: &Self) -> Vec<String> {
        let names = self.parts.keys().chain(other.parts.keys());
        let mut moved: Vec<_> =
            names.filter(|name| self.parts.get(*name) != other.parts.get(*name)).cloned().collect();
        moved.sort();
        moved.dedup();
        moved
    }
}

/// How a built image compares with what is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It has the recorded digest.
    Same,
    /// Nothing is recorded that it could be compared with.
    None,
    /// It has another one.
    Differs {
        /// The recorded digest.
        recorded: String,
        /// The parts that have changed since; none means that the build itself came to another result.
        changed: Vec<String>,
    },
}

/// All recorded digests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Digests(Vec<Entry>);

impl Digests {
    /// Parses the text of the file called `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self, Mistakes> {
        let mut entries: Vec<Entry> = Document::new(name, text)
            .read(|top| top.tables("image", entry).into_iter().flatten().collect())?;
        entries.sort_by(|a, b| a.place().cmp(&b.place()));
        Ok(Self(entries))
    }

    /// Compares what was built with what is recorded for the same image, platform and toolchain.
    pub fn compare(&self, built: &Entry) -> Verdict {
        let Some(recorded) = self.0.iter().find(|entry| entry.place() == built.place()) else {
            return Verdict::None;
        };
        if recorded.digest == built.digest {
            return Verdict::Same;
        }
        let changed = recorded.moved(built);
        // Another machine has other compilers, and nobody promised that they agree.
        if built.toolchain == HOST && changed.iter().any(|part| part == "toolchain") {
            return Verdict::None;
        }
        Verdict::Differs { recorded: recorded.digest.clone(), changed }
    }

    /// With these entries in the place of those of the same image, platform and toolchain.
    #[must_use]
    pub fn with(mut self, built: &[Entry]) -> Self {
        self.0.retain(|entry| !built.iter().any(|new| new.place() == entry.place()));
        self.0.extend(built.iter().cloned());
        self.0.sort_by(|a, b| a.place().cmp(&b.place()));
        self
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut text = HEAD.to_owned();
        for entry in &self.0 {
            let Entry { image, platform, toolchain, digest, key, parts } = entry;
            text += &format!("\n[[image]]\nname = \"{image}\"\nplatform = \"{platform}\"\n");
            text += &format!("toolchain = \"{toolchain}\"\ndigest = \"{digest}\"\nkey = \"{key}\"\n");
            let parts: Vec<_> = parts.iter().map(|(name, hash)| format!("{name} = \"{hash}\"")).collect();
            text += &format!("parts = {{ {} }}\n", parts.join(", "));
        }
        text
    }
}

fn entry(fields: &Fields<'_>) -> Option<Entry> {
    let text = |name| Some(fields.required(name)?.value);
    let (image, platform, toolchain) = (text("name"), text("platform"), text("toolchain"));
    let digest = fields.required("digest");
    let key = text("key");
    let parts = fields.named_texts("parts").into_iter().map(|(name, hash)| (name, hash.value)).collect();
    if let Some(digest) = &digest
        && digest.value.strip_prefix("sha256:").is_none_or(|digits| digits.len() != 64)
    {
        fields.mistake(digest, "a digest is `sha256:` and 64 digits", None);
    }
    Some(Entry {
        image: image?,
        platform: platform?,
        toolchain: toolchain?,
        digest: digest?.value,
        key: key?,
        parts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn built(toolchain: &str, digit: char, record: &Value) -> Entry {
        let digest = format!("sha256:{}", String::from(digit).repeat(64));
        Entry::new("kernel-bin:5.10.262", "amd64", toolchain, &digest, record)
    }

    fn record(gcc: &str, symbol: &str) -> Value {
        json!({"arch": "x86_64", "requested": {"A": symbol}, "toolchain": {"gcc": gcc}})
    }

    #[test]
    fn what_is_written_is_read_back() {
        let arm64 = Entry { platform: "arm64".into(), ..built("debian-11", 'b', &record("gcc 10", "y")) };
        let digests = Digests::default().with(&[arm64, built("debian-11", 'a', &record("gcc 10", "y"))]);
        let text = digests.to_text();
        assert_eq!(Digests::parse("digests.toml", &text).unwrap(), digests);
        assert_eq!(text.matches("[[image]]").count(), 2);
        assert!(text.find("amd64") < text.find("arm64"), "{text}");
        let again = digests.with(&[built("debian-11", 'c', &record("gcc 10", "y"))]);
        assert_eq!(again.0.len(), 2);
        assert!(again.to_text().contains(&"c".repeat(64)) && !again.to_text().contains(&"a".repeat(64)));
    }

    #[test]
    fn a_built_image_is_compared_with_that_of_its_toolchain() {
        let recorded = built("debian-11", 'a', &record("gcc 10", "y"));
        let digests = Digests::default().with(std::slice::from_ref(&recorded));
        assert_eq!(digests.compare(&recorded), Verdict::Same);
        assert_eq!(digests.compare(&built("debian-12", 'b', &record("gcc 12", "y"))), Verdict::None);
        let differs = |changed: &[&str]| Verdict::Differs {
            recorded: recorded.digest.clone(),
            changed: changed.iter().map(|part| (*part).to_owned()).collect(),
        };
        assert_eq!(digests.compare(&built("debian-11", 'b', &record("gcc 10", "y"))), differs(&[]));
        assert_eq!(
            digests.compare(&built("debian-11", 'b', &record("gcc 11", "m"))),
            differs(&["requested", "toolchain"])
        );
        // What leads to the same bytes is the same, whatever the key.
        assert_eq!(digests.compare(&built("debian-11", 'a', &record("gcc 10", "m"))), Verdict::Same);
    }

    #[test]
    fn another_host_s_compilers_are_nothing_to_compare_with() {
        let digests = Digests::default().with(&[built(HOST, 'a', &record("gcc 10", "y"))]);
        assert_eq!(digests.compare(&built(HOST, 'b', &record("gcc 12", "y"))), Verdict::None);
        assert!(matches!(
            digests.compare(&built(HOST, 'b', &record("gcc 10", "m"))),
            Verdict::Differs { .. }
        ));
    }

    #[test]
    fn mistakes_are_told() {
        let error = Digests::parse("digests.toml", "[[image]]\nname = 'a'\ndigest = 'b'\n").unwrap_err();
        let detail = crate::step::Diagnose::detail(&error).unwrap();
        assert!(detail.contains("64 digits") && detail.contains("`key` is missing"), "{detail}");
    }
}
