//! systemd's units: that what is to be started is there, and that what must be started is.

use super::content::{Content, Found};
use super::{Report, Volume};
use crate::inspect::files::Bytes;
use crate::oci::root::Kind;

/// Where an image has unit files, the first found wins; /lib is a link to /usr/lib today, and was none once.
const DIRS: [&str; 5] = [
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "etc/systemd/system.control",
];

/// The file of a unit, a template's for an instance of it.
pub(super) fn unit(content: &Content, name: &str) -> Option<Found> {
    let template = name.split_once('@').and_then(|(stem, rest)| {
        let (_, kind) = rest.rsplit_once('.')?;
        Some(format!("{stem}@.{kind}"))
    });
    let names = [Some(name), template.as_deref()];
    names
        .into_iter()
        .flatten()
        .find_map(|name| DIRS.iter().find_map(|dir| content.file(format!("{dir}/{name}"))))
}

/// Checks the links by which units are enabled.
pub(super) fn check(volume: &Volume<'_>, content: &Content, report: &mut Report) {
    let mut enabled = Vec::new();
    for dir in DIRS {
        for (name, _) in content.names(dir) {
            if !matches!(name.rsplit_once('.'), Some((_, "wants" | "requires"))) {
                continue;
            }
            for (unit, inode) in content.names(format!("{dir}/{name}")) {
                let path = format!("{dir}/{name}/{unit}");
                if let Kind::Symlink(target) = &content.root.inodes[inode].kind
                    && content.file(&path).is_none()
                    && self::unit(content, &unit).is_none()
                {
                    let target = Bytes(target.clone());
                    report.at(&path, format!("it enables {target}, which is no unit file: add the package that has it, or disable it"));
                }
                enabled.push(unit);
            }
        }
    }
    let is_node = volume.kubernetes().is_some();
    let needed = [
        ("kubelet.service", is_node, "nothing starts the node's kubelet"),
        ("containerd.service", is_node, "nothing starts the node's container runtime"),
        ("systemd-networkd.service", false, "nothing brings the network up"),
        ("systemd-resolved.service", false, "nothing resolves names"),
    ];
    for (name, is_required, why) in needed {
        let masked = format!("etc/systemd/system/{name}");
        let is_masked = content.entry(&masked).is_some_and(
            |entry| matches!(&content.root.inodes[entry.inode].kind, Kind::Symlink(target) if target == b"/dev/null"),
        );
        if is_masked {
            report.at(&masked, format!("it is masked, and so {why}: unmask it"));
            continue;
        }
        match unit(content, name) {
            None if is_required => report.add(format!("there is no {name}: {why}")),
            None => {}
            Some(_) if enabled.iter().any(|unit| unit == name) => {}
            Some(found) => report.at(
                &found.path,
                format!(
                    "it is not enabled, and so {why}: link it from etc/systemd/system/multi-user.target.wants"
                ),
            ),
        }
    }
}
