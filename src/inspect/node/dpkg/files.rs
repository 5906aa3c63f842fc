//! The files that packages brought, against those that are there.

use std::collections::BTreeMap;

use super::{Package, STATUS, TOP};
use crate::inspect::node::Report;
use crate::inspect::node::content::Content;

/// What a node does without; recipes leave it out to be smaller.
const EXCLUDED: [&str; 12] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/linda",
    "usr/share/groff",
    "usr/share/bug",
    "usr/share/doc-base",
    "usr/share/gnome/help",
    "usr/share/help",
    "usr/share/omf",
];
/// What is emptied when a tree is cleaned, directories of packages and all, and filled again at boot.
const EMPTIED: [&str; 6] = ["run", "tmp", "var/cache", "var/log", "var/tmp", "var/lib/apt/lists"];

/// Files of one package that another has moved aside.
#[derive(Debug, Default)]
pub(super) struct Diversions(BTreeMap<String, (String, String)>);

impl Diversions {
    /// Reads them: by three lines, the path, where it is now, and the package that took its place.
    pub(super) fn read(content: &Content) -> Self {
        let text = content.text(format!("{TOP}/diversions")).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(|line| line.trim_start_matches('/').to_owned()).collect();
        let entries =
            lines.chunks_exact(3).map(|entry| (entry[0].clone(), (entry[1].clone(), entry[2].clone())));
        Self(entries.collect())
    }

    /// Where a package's file is.
    fn place<'p>(&'p self, path: &'p str, package: &str) -> &'p str {
        match self.0.get(path) {
            Some((moved, by)) if by != package => moved,
            _ => path,
        }
    }
}

/// Checks one package's files.
pub(super) fn check(package: &Package, diversions: &Diversions, content: &Content, report: &mut Report) {
    let Package { name, version, .. } = package;
    let Some(stem) = package.stem(content) else {
        let what = format!(
            "{name} {version} is installed, but nothing in {TOP}/info lists its files: install it again"
        );
        return report.at(&STATUS, what);
    };
    let conffiles = package.field("Conffiles");
    let conffiles: Vec<_> =
        conffiles.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix('/')).collect();
    let mut missing = Vec::new();
    let list = content.text(format!("{stem}.list")).unwrap_or_default();
    for path in list.lines().map(|path| path.trim_start_matches('/')) {
        let place = diversions.place(path, name);
        // To take a configuration file away is an administrator's right, which dpkg respects.
        if !path.is_empty()
            && !is_left_out(place)
            && !conffiles.contains(&path)
            && content.entry(place).is_none()
        {
            missing.push(place.to_owned());
        }
    }
    report
        .at_all(&missing, &format!("{name} {version} brought it, and it is gone: install the package again"));
    changed(package, &stem, diversions, content, report);
}

/// Files whose bytes are not the package's. What a layer above the package's own put there was meant.
fn changed(package: &Package, stem: &str, diversions: &Diversions, content: &Content, report: &mut Report) {
    let Package { name, version, .. } = package;
    let base = content.file(STATUS).and_then(|status| content.layer(status.inode));
    let mut changed = Vec::new();
    for line in content.text(format!("{stem}.md5sums")).unwrap_or_default().lines() {
        let Some((sum, path)) = line.split_once("  ") else {
            let what = format!("`{line}` is no sum of a file");
            report.at(&format!("{stem}.md5sums"), what);
            continue;
        };
        let place = diversions.place(path.trim_start_matches('/'), name);
        let Some(found) = content.entry(place) else { continue };
        let is_replaced = content.layer(found.inode) > base;
        if !is_replaced && content.md5(found.inode).is_some_and(|md5| md5 != sum) {
            changed.push(place.to_owned());
        }
    }
    report.at_all(
        &changed,
        &format!("its bytes are not those that {name} {version} brought: install the package again"),
    );
}

fn is_left_out(path: &str) -> bool {
    let below =
        |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    EXCLUDED.iter().chain(&EMPTIED).any(|top| below(top))
}
