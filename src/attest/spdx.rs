//! SPDX 2.3 documents: what an image holds, layer by layer, and what it was made from and with.
//!
//! Two documents of one image made by one imgbuild differ in `creationInfo.created` alone.

mod claims;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub use claims::Claims;

use super::statement::Resource;
use crate::oci::image::Labels;
use crate::step::hex;

/// Below this URI every document has its namespace.
const NAMESPACE: &str = "https://imgbuild.io/spdx";
/// Nobody knows.
const NOTHING: &str = "NOASSERTION";
/// The licence of a node's programs: Kubernetes, cri-tools, containerd, runc and the CNI plugins have the same.
const PROGRAMS_LICENCE: &str = "Apache-2.0";

/// The image a document is about.
#[derive(Debug, Clone)]
pub struct Subject<'s> {
    /// Its name: `kernel-bin:5.10.262`.
    pub name: &'s str,
    /// The digest of its manifest: `sha256:…`.
    pub digest: &'s str,
    /// Its architecture, as OCI has it.
    pub architecture: &'s str,
    /// The digests of its layers, lowest first.
    pub layers: &'s [String],
    /// The labels of its configuration.
    pub labels: &'s Labels,
}

/// What an image holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The files that no package of a distribution brought, by path.
    pub files: Vec<File>,
    /// The packages of the distribution, sorted.
    pub packages: Vec<Package>,
    /// The layer they are in.
    pub packages_layer: usize,
    /// The distribution: its `ID` and `VERSION_ID`.
    pub distribution: Option<(String, String)>,
    /// Programs from release files.
    pub programs: Vec<Program>,
    /// The layer they are in.
    pub programs_layer: usize,
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path, without a leading `/`.
    pub path: String,
    /// The digits of its SHA-1, which SPDX wants of every file.
    pub sha1: String,
    /// The digits of its sha256.
    pub sha256: String,
    /// The layer it is in, counted from 0.
    pub layer: usize,
}

/// A package of a distribution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, as dpkg has it.
    pub arch: String,
    /// The digits of its file's sha256, where known.
    pub sha256: Option<String>,
}

/// A program from a release file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The digits of the release file's sha256.
    pub sha256: String,
    /// Where the release file is.
    pub url: Option<String>,
}

/// The package URL of a distribution's package.
pub fn deb(vendor: &str, name: &str, version: &str, arch: &str, distribution: Option<&str>) -> String {
    let distribution = distribution.map_or_else(String::new, |name| format!("&distro={}", percent(name)));
    format!("pkg:deb/{vendor}/{}@{}?arch={arch}{distribution}", percent(name), percent(version))
}

/// A document being written.
#[derive(Default)]
struct Document {
    packages: Vec<Value>,
    files: Vec<Value>,
    relationships: Vec<Value>,
    ids: BTreeSet<String>,
}

impl Document {
    /// An id that no other element has.
    fn id(&mut self, kind: &str, text: &str) -> String {
        let plain: String =
            text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        let mut id = format!("SPDXRef-{kind}-{plain}");
        if plain != text || !self.ids.insert(id.clone()) {
            id = format!("{id}-{}", &hex(&Sha256::digest(text))[..12]);
            self.ids.insert(id.clone());
        }
        id
    }

    fn relate(&mut self, a: &str, how: &str, b: &str) {
        let related = json!({ "spdxElementId": a, "relationshipType": how, "relatedSpdxElement": b });
        self.relationships.push(related);
    }

    /// Adds a package; `more` is put over what all packages have. Returns its id.
    fn package(&mut self, kind: &str, key: &str, name: &str, version: &str, more: &Value) -> String {
        let id = self.id(kind, key);
        let mut package = json!({
            "SPDXID": id,
            "name": name,
            "downloadLocation": NOTHING,
            "filesAnalyzed": false,
            "licenseConcluded": NOTHING,
            "licenseDeclared": NOTHING,
            "copyrightText": NOTHING,
        });
        if !version.is_empty() {
            package["versionInfo"] = version.into();
        }
        for (field, value) in more.as_object().into_iter().flatten() {
            package[field] = value.clone();
        }
        self.packages.push(package);
        id
    }

    /// The document about the element `described`.
    fn finish(mut self, name: &str, namespace: &str, described: &str, created: &str) -> Vec<u8> {
        self.relate("SPDXRef-DOCUMENT", "DESCRIBES", described);
        let mut document = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": name,
            "documentNamespace": format!("{NAMESPACE}/{namespace}"),
            "creationInfo": {
                "created": created,
                "creators": [concat!("Tool: imgbuild-", env!("CARGO_PKG_VERSION"))],
            },
            "packages": self.packages,
            "relationships": self.relationships,
        });
        if !self.files.is_empty() {
            document["files"] = self.files.into();
        }
        document.to_string().into_bytes()
    }
}

/// Writes the document about one platform's image; of `inputs`, what compiled it is taken. `created` is RFC 3339, UTC.
pub fn document(subject: &Subject<'_>, contents: &Contents, inputs: &[Resource], created: &str) -> Vec<u8> {
    let mut document = Document::default();
    let label = |name: &str| subject.labels.get(name).map(String::as_str);
    let (repository, tag) = subject.name.rsplit_once(':').unwrap_or((subject.name, ""));
    let purl = image_purl(subject.name, subject.digest, Some(subject.architecture));
    let mut image = json!({
        "primaryPackagePurpose": "CONTAINER",
        "checksums": checksums(subject.digest),
        "externalRefs": purls(&purl),
        "licenseDeclared": label("org.opencontainers.image.licenses").unwrap_or(NOTHING),
    });
    if let Some(summary) = label("org.opencontainers.image.description") {
        image["summary"] = summary.into();
    }
    let image = document.package("Image", subject.architecture, repository, tag, &image);
    let mut layers = Vec::new();
    for (number, digest) in subject.layers.iter().enumerate() {
        let own: Vec<_> = contents.files.iter().filter(|file| file.layer == number).collect();
        let mut layer = json!({ "primaryPackagePurpose": "ARCHIVE", "checksums": checksums(digest) });
        if !own.is_empty() {
            layer["filesAnalyzed"] = true.into();
            layer["packageVerificationCode"] = json!({ "packageVerificationCodeValue": verification(&own) });
        }
        let name = format!("layer {} of {}", number + 1, subject.layers.len());
        let id = document.package("Layer", &number.to_string(), &name, "", &layer);
        document.relate(&image, "CONTAINS", &id);
        for file in own {
            add_file(&mut document, file, &id);
        }
        layers.push(id);
    }
    let layer = |number: usize| layers.get(number).unwrap_or(&image).clone();
    add_packages(&mut document, contents, &layer(contents.packages_layer));
    for program in &contents.programs {
        add_program(&mut document, program, &layer(contents.programs_layer));
    }
    add_source(&mut document, subject.labels, &image);
    for tool in inputs.iter().filter(|input| input.annotation("role") == Some("toolchain")) {
        let version = tool.annotation("version").unwrap_or_default();
        let more = json!({ "checksums": checksums(tool.sha256()), "externalRefs": purls(&tool.uri) });
        let id = document.package("Tool", &tool.uri, &tool.name, version, &more);
        document.relate(&id, "BUILD_TOOL_OF", &image);
    }
    let namespace = namespace(subject.name, subject.architecture, subject.digest);
    document.finish(&format!("{} {}", subject.name, subject.architecture), &namespace, &image, created)
}

/// Writes the document about an index: which platforms it has. `members` are architectures with digests.
pub fn index_document(name: &str, digest: &str, members: &[(String, String)], created: &str) -> Vec<u8> {
    let mut document = Document::default();
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    let package = |digest: &str, architecture| {
        json!({
            "primaryPackagePurpose": "CONTAINER",
            "checksums": checksums(digest),
            "externalRefs": purls(&image_purl(name, digest, architecture)),
        })
    };
    let index = document.package("Index", "all", repository, tag, &package(digest, None));
    for (architecture, digest) in members {
        let more = package(digest, Some(architecture));
        let id = document.package("Image", architecture, repository, tag, &more);
        document.relate(&id, "VARIANT_OF", &index);
    }
    document.finish(name, &namespace(name, "index", digest), &index, created)
}

fn add_file(document: &mut Document, file: &File, layer: &str) {
    let id = document.id("File", &file.path);
    document.files.push(json!({
        "SPDXID": id,
        "fileName": format!("./{}", file.path),
        "checksums": [
            { "algorithm": "SHA1", "checksumValue": file.sha1 },
            { "algorithm": "SHA256", "checksumValue": file.sha256 },
        ],
        "licenseConcluded": NOTHING,
        "copyrightText": NOTHING,
    }));
    document.relate(layer, "CONTAINS", &id);
}

fn add_packages(document: &mut Document, contents: &Contents, layer: &str) {
    let named = contents.distribution.as_ref();
    let vendor = named.map_or("debian", |(id, _)| id);
    let distribution = named.map(|(id, version)| format!("{id}-{version}"));
    for package in &contents.packages {
        let Package { name, version, arch, sha256 } = package;
        let purl = deb(vendor, name, version, arch, distribution.as_deref());
        let mut more = json!({ "externalRefs": purls(&purl) });
        if let Some(sha256) = sha256 {
            more["checksums"] = checksums(sha256);
        }
        let id = document.package("Deb", &format!("{name}.{arch}"), name, version, &more);
        document.relate(layer, "CONTAINS", &id);
    }
}

fn add_program(document: &mut Document, program: &Program, layer: &str) {
    let Program { name, version, sha256, url } = program;
    let download = url.as_ref().map_or_else(String::new, |url| format!("&download_url={}", percent(url)));
    let purl =
        format!("pkg:generic/{}@{}?checksum=sha256:{sha256}{download}", percent(name), percent(version));
    let more = json!({
        "primaryPackagePurpose": "APPLICATION",
        "downloadLocation": url.as_deref().unwrap_or(NOTHING),
        "checksums": checksums(sha256),
        "externalRefs": purls(&purl),
        "licenseDeclared": PROGRAMS_LICENCE,
    });
    let id = document.package("Program", name, name, version, &more);
    document.relate(layer, "CONTAINS", &id);
}

/// The kernel's source, as the labels name it.
fn add_source(document: &mut Document, labels: &Labels, image: &str) {
    let label = |name: &str| labels.get(name).map(String::as_str);
    let Some(digest) = label("io.imgbuild.kernel.source") else { return };
    let version = label("org.opencontainers.image.version").unwrap_or_default();
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    let mut more = json!({
        "primaryPackagePurpose": "SOURCE",
        "checksums": checksums(digest),
        "externalRefs": purls(&format!("pkg:generic/linux@{}?checksum=sha256:{digits}", percent(version))),
        "licenseDeclared": label("org.opencontainers.image.licenses").unwrap_or(NOTHING),
    });
    // Where the tarball has no address for everybody, the label names a page about it.
    match label("org.opencontainers.image.source") {
        Some(url) if url.contains(".tar.") => more["downloadLocation"] = url.into(),
        Some(page) => more["homepage"] = page.into(),
        None => {}
    }
    let id = document.package("Source", "linux", "linux", version, &more);
    document.relate(image, "GENERATED_FROM", &id);
}

/// What SPDX calls a package's verification code: the SHA-1 over its files' SHA-1s.
fn verification(files: &[&File]) -> String {
    let mut sums: Vec<_> = files.iter().map(|file| file.sha1.as_str()).collect();
    sums.sort_unstable();
    // Of another generation than sha2.
    hex(&<Sha1 as sha1::Digest>::digest(sums.concat()))
}

fn namespace(name: &str, which: &str, digest: &str) -> String {
    format!("{}/{which}/{}", percent(name), digest.strip_prefix("sha256:").unwrap_or(digest))
}

fn image_purl(name: &str, digest: &str, architecture: Option<&str>) -> String {
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let mut parts: Vec<String> = architecture.map(|arch| format!("arch={arch}")).into_iter().collect();
    if !tag.is_empty() {
        parts.push(format!("tag={}", percent(tag)));
    }
    let qualifiers = if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) };
    format!("pkg:oci/{}@{}{qualifiers}", percent(last), percent(digest))
}

fn purls(purl: &str) -> Value {
    json!([{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }])
}

fn checksums(digest: &str) -> Value {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    json!([{ "algorithm": "SHA256", "checksumValue": digits }])
}

/// What a package URL has of a text: all but letters, digits and `.-_~` as `%XX`.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests;
