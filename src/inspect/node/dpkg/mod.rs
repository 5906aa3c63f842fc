//! dpkg's database: what it says is installed, whether that holds together, and whether it is there.

mod files;
mod version;

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::content::Content;
use files::Diversions;
pub(super) use version::holds;

/// Where the database lies.
const TOP: &str = "var/lib/dpkg";
const STATUS: &str = "var/lib/dpkg/status";

/// The packages of a volume.
#[derive(Debug, Default)]
pub(super) struct Database {
    packages: Vec<Package>,
    /// The paths that packages brought, without a leading `/`.
    paths: BTreeSet<String>,
    diversions: Diversions,
}

/// A package by its paragraph.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    arch: String,
    fields: BTreeMap<String, String>,
}

impl Package {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// What names its files in the database: packages that may be there for two architectures have theirs in it.
    fn stem(&self, content: &Content) -> Option<String> {
        let stems = [format!("{TOP}/info/{}", self.name), format!("{TOP}/info/{}:{}", self.name, self.arch)];
        stems.into_iter().find(|stem| content.file(format!("{stem}.list")).is_some())
    }
}

/// One of several packages that would do.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'w> {
    name: &'w str,
    version: Option<(&'w str, &'w str)>,
}

impl Database {
    /// Reads it. What cannot be understood is told.
    pub(super) fn read(content: &Content, report: &mut Report) -> Self {
        let Some(status) = content.text(STATUS) else {
            report.at(&STATUS, "there is none: what is installed cannot be told, nor updated; build the base with dpkg's database");
            return Self::default();
        };
        let mut packages: Vec<Package> = Vec::new();
        for paragraph in status.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
            match parse(paragraph) {
                Ok(package) => {
                    let same =
                        |other: &&Package| (&other.name, &other.arch) == (&package.name, &package.arch);
                    if packages.iter().any(|other| same(&other)) {
                        report.at(&STATUS, format!("{} for {} is in it twice", package.name, package.arch));
                    }
                    packages.push(package);
                }
                Err(why) => report.at(&STATUS, why),
            }
        }
        let mut database = Self { packages, ..Self::default() };
        database.diversions = Diversions::read(content);
        for package in &database.packages {
            let list = package.stem(content).and_then(|stem| content.text(format!("{stem}.list")));
            let paths = list.unwrap_or_default();
            let paths = paths.lines().map(|path| path.trim_start_matches('/').to_owned());
            database.paths.extend(paths.filter(|path| !path.is_empty() && path != "."));
        }
        database
    }

    /// An installed package.
    pub(super) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// The names of all packages.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().map(|package| package.name.as_str())
    }

    /// Whether a package brought a path, by this name of it or by the one it had before /bin and /lib became links.
    pub(super) fn owns(&self, path: &str) -> bool {
        self.paths.contains(path) || path.strip_prefix("usr/").is_some_and(|path| self.paths.contains(path))
    }

    /// Checks that it holds together.
    pub(super) fn check(&self, content: &Content, report: &mut Report) {
        for package in &self.packages {
            let Package { name, version, arch, .. } = package;
            let state = package.field("Status");
            if !["install ok installed", "hold ok installed"].contains(&state) {
                let what = format!(
                    "{name} {version} is `{state}`, not `install ok installed`: let apt finish or purge it"
                );
                report.at(&STATUS, what);
                continue;
            }
            if arch != "all" && *arch != content.arch.oci() {
                let what = format!("{name} {version} is for {arch}, in an image for {}", content.arch);
                report.at(&STATUS, what);
            }
            for field in ["Pre-Depends", "Depends"] {
                self.depends(package, package.field(field), report);
            }
            files::check(package, &self.diversions, content, report);
        }
        let begun: Vec<_> =
            content.below(&format!("{TOP}/updates")).into_iter().map(|(path, _)| path).collect();
        report
            .at_all(&begun, "a change that dpkg began and did not finish: let `dpkg --configure -a` end it");
    }

    fn depends(&self, package: &Package, field: &str, report: &mut Report) {
        for group in field.split(',').map(str::trim).filter(|group| !group.is_empty()) {
            let alternatives: Option<Vec<_>> = group.split('|').map(wanted).collect();
            let satisfied = alternatives.and_then(|alternatives| {
                alternatives.iter().try_fold(false, |found, wanted| Some(found || self.satisfies(wanted)?))
            });
            let Package { name, version, .. } = package;
            match satisfied {
                Some(true) => {}
                Some(false) => report.at(
                    &STATUS,
                    format!("{name} {version} depends on `{group}`, which is not installed: `apt-get install --fix-broken` brings it"),
                ),
                None => report.at(&STATUS, format!("{name} {version} depends on `{group}`, which is no dependency")),
            }
        }
    }

    /// Whether a package that is installed, or what one provides, is what is wanted; none for an unknown relation.
    fn satisfies(&self, wanted: &Wanted<'_>) -> Option<bool> {
        let fits = |version: &str| match wanted.version {
            None => Some(true),
            Some((relation, than)) => holds(version, relation, than),
        };
        for package in &self.packages {
            if package.name == wanted.name && fits(&package.version)? {
                return Some(true);
            }
            for provided in package.field("Provides").split(',').filter_map(self::wanted) {
                // What is provided without a version satisfies no relation to one.
                let fits = match provided.version {
                    Some((_, version)) => fits(version)?,
                    None => wanted.version.is_none(),
                };
                if provided.name == wanted.name && fits {
                    return Some(true);
                }
            }
        }
        Some(false)
    }
}

/// A paragraph's package; the reason why it is none, as a sentence.
fn parse(paragraph: &str) -> Result<Package, String> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last = None;
    for line in paragraph.lines() {
        if line.starts_with([' ', '\t']) {
            let Some(field) = last.as_ref().and_then(|last| fields.get_mut(last)) else {
                return Err(format!("`{}` continues no field", line.trim()));
            };
            field.push('\n');
            field.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':') {
            last = Some(name.to_owned());
            fields.insert(name.to_owned(), value.trim().to_owned());
        } else {
            return Err(format!("`{line}` is no field of a package"));
        }
    }
    let required = |name: &str| {
        let package = fields.get("Package").map_or("a package", String::as_str);
        fields.get(name).cloned().ok_or_else(|| format!("{package} has no {name}"))
    };
    let (name, version, arch) = (required("Package")?, required("Version")?, required("Architecture")?);
    required("Status")?;
    Ok(Package { name, version, arch, fields })
}

/// A name with an optional architecture and relation: `libc6:any (>= 2.31)`; none for something else.
fn wanted(text: &str) -> Option<Wanted<'_>> {
    let text = text.trim();
    let (name, version) = match text.split_once('(') {
        None => (text, None),
        Some((name, rest)) => {
            let inner = rest.strip_suffix(')')?.trim();
            let length = inner.find(|c: char| !"<=>".contains(c))?;
            let (relation, version) = inner.split_at(length);
            (name, Some((relation, version.trim())))
        }
    };
    let name = name.trim().split(':').next()?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
    is_name.then_some(Wanted { name, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        assert_eq!(
            wanted(" libc6:any (>= 2.31) "),
            Some(Wanted { name: "libc6", version: Some((">=", "2.31")) })
        );
        assert_eq!(wanted("a (=1)"), Some(Wanted { name: "a", version: Some(("=", "1")) }));
        assert_eq!(wanted("a"), Some(Wanted { name: "a", version: None }));
        for text in ["", "a b", "a (>= 1", "a ()"] {
            assert_eq!(wanted(text), None, "{text}");
        }
    }
}
