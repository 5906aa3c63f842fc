//! What an SPDX document says that an image holds: as much of it as the image's own layers can answer.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::attest::Error;

/// What a document claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// The digest of the image: `sha256:…`.
    pub image: String,
    /// The sha256 of files, as digits, by path.
    pub files: BTreeMap<String, String>,
    /// What it holds of packages and programs, as package URLs with the digits of their files' sha256 where it has any.
    pub packages: BTreeMap<String, String>,
    /// The digests of its layers, as digits.
    pub layers: BTreeSet<String>,
}

impl Claims {
    /// Reads the claims of an SPDX 2.3 document in JSON; `subject` is what it was found beside.
    pub fn parse(document: &[u8], subject: &str) -> Result<Self, Error> {
        let none = |reason: String| Error::NoSbom { subject: subject.to_owned(), reason };
        let document: Value = serde_json::from_slice(document).map_err(|error| none(error.to_string()))?;
        if document["spdxVersion"] != "SPDX-2.3" {
            return Err(none("it is no SPDX 2.3 document in JSON".into()));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |name: &str| document[name].as_array().map_or(&[][..], Vec::as_slice);
        let related = |how: &str| -> BTreeSet<String> {
            let meant = list("relationships").iter().filter(|it| it["relationshipType"] == how);
            meant.map(|it| text(&it["relatedSpdxElement"])).collect()
        };
        let (described, contained) = (related("DESCRIBES"), related("CONTAINS"));
        let mut claims = Self::default();
        for package in list("packages") {
            let id = text(&package["SPDXID"]);
            let sha256 = sha256(package);
            if described.contains(&id) {
                claims.image = format!("sha256:{sha256}");
            } else if contained.contains(&id) {
                match purl(package) {
                    Some(purl) => drop(claims.packages.insert(purl, sha256)),
                    None => drop(claims.layers.insert(sha256)),
                }
            }
        }
        for file in list("files") {
            let name = text(&file["fileName"]);
            claims.files.insert(name.strip_prefix("./").unwrap_or(&name).to_owned(), sha256(file));
        }
        if described.len() != 1 || claims.image.is_empty() {
            return Err(none("it does not say which image it describes".into()));
        }
        Ok(claims)
    }

    /// How these claims differ from the truth: where, if it is a file, and in what.
    pub fn differ(&self, truth: &Self) -> Vec<(Option<String>, String)> {
        let mut found = Vec::new();
        if self.image != truth.image {
            found.push((None, format!("the SBOM describes {}, the image is {}", self.image, truth.image)));
        }
        for layer in self.layers.symmetric_difference(&truth.layers) {
            let (there, missing) =
                if truth.layers.contains(layer) { ("image", "SBOM") } else { ("SBOM", "image") };
            found.push((None, format!("layer sha256:{layer} is in the {there} and not in the {missing}")));
        }
        for (path, what) in compare(&self.files, &truth.files) {
            found.push((Some(path.to_owned()), what));
        }
        for (purl, what) in compare(&self.packages, &truth.packages) {
            found.push((None, format!("{purl}: {what}")));
        }
        found
    }
}

/// How what is claimed of some things differs from how they are.
fn compare<'m>(
    claimed: &'m BTreeMap<String, String>,
    truth: &'m BTreeMap<String, String>,
) -> Vec<(&'m str, String)> {
    let names: BTreeSet<_> = claimed.keys().chain(truth.keys()).collect();
    let told = |name: &'m String| {
        let what = match (claimed.get(name), truth.get(name)) {
            (Some(a), Some(b)) if a == b => return None,
            (Some(a), Some(b)) => format!("the SBOM has it as sha256:{a}, the image as sha256:{b}"),
            (Some(_), None) => "it is in the SBOM and not in the image".into(),
            (None, _) => "it is in the image and not in the SBOM".into(),
        };
        Some((name.as_str(), what))
    };
    names.into_iter().filter_map(told).collect()
}

fn sha256(element: &Value) -> String {
    let sums = element["checksums"].as_array().into_iter().flatten();
    let mut ours = sums.filter(|sum| sum["algorithm"] == "SHA256");
    ours.next().and_then(|sum| sum["checksumValue"].as_str()).unwrap_or_default().to_owned()
}

fn purl(package: &Value) -> Option<String> {
    let mut references = package["externalRefs"].as_array()?.iter();
    let purl = references.find(|reference| reference["referenceType"] == "purl")?;
    Some(purl["referenceLocator"].as_str()?.to_owned())
}
