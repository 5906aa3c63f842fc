//! An apt archive as of a moment: where root trees get their packages from, toolchains and systems alike.

use crate::document::{Fields, Text};
use crate::host;

/// Suites of a signed archive as they were at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its place in the lock.
    pub place: String,
    /// Its suites, by code name.
    pub suites: Vec<String>,
    /// The suites' components.
    pub components: Vec<String>,
    /// The moment, as snapshot services write it.
    pub snapshot: String,
    /// The keys that it may be signed with: a name below `/usr/share/keyrings`, or a path.
    pub keyring: String,
}

impl Archive {
    /// The file with the archive's keys.
    pub fn keyring_path(&self) -> String {
        host::keyring_path(&self.keyring)
    }

    /// The package that brings the keys, where a package does.
    pub fn keyring_package(&self) -> &str {
        match self.keyring.as_str() {
            "ubuntu-archive-keyring" => "ubuntu-keyring",
            other => other,
        }
    }

    /// The file below the archive's base that tells whether the archive is there.
    pub fn probe(&self) -> String {
        format!("dists/{}/Release", self.suites[0])
    }

    /// The moment in seconds since 1970.
    pub fn epoch(&self) -> u64 {
        let moment = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &self.snapshot);
        let moment = moment.and_then(|moment| moment.to_zoned(jiff::tz::TimeZone::UTC));
        let seconds = moment.expect("it was read as a moment").timestamp().as_second();
        u64::try_from(seconds).unwrap_or(0)
    }
}

/// Reads the fields that say which archive; `None` only when a mistake was told.
pub(super) fn read(fields: &Fields<'_>) -> Option<Archive> {
    let place = fields.required("archive");
    let words = |name| checked(fields, name, fields.texts(name));
    let (suites, components) = (words("suites"), words("components"));
    let snapshot = fields.required("snapshot");
    if let Some(moment) = &snapshot
        && jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &moment.value).is_err()
    {
        let help = "write it as snapshot services do: 20260901T000000Z";
        fields.mistake(moment, format!("`{}` is not a moment", moment.value), Some(help.into()));
    }
    let keyring = fields.required("keyring");
    let (place, snapshot, keyring) = (place?.value, snapshot?.value, keyring?.value);
    Some(Archive { place, suites, components, snapshot, keyring })
}

/// Words that have to be there, and that go on mmdebstrap's command line and into a line of apt's sources.
pub(super) fn checked(fields: &Fields<'_>, name: &str, texts: Vec<Text>) -> Vec<String> {
    if texts.is_empty() {
        fields.mistake_here(format!("`{name}` is missing or empty"), None);
    }
    plain(fields, texts)
}

/// Words that go on mmdebstrap's command line.
pub(super) fn plain(fields: &Fields<'_>, texts: Vec<Text>) -> Vec<String> {
    let plain = |text: &Text| {
        text.value.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.value.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    for text in texts.iter().filter(|text| !plain(text)) {
        fields.mistake(text, format!("`{}` is no name", text.value), None);
    }
    texts.into_iter().map(|text| text.value).collect()
}
