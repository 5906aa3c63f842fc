//! A fresh base system made fit for many: without what belongs to the machine it was made on, or to one machine alone.
//!
//! The system is a tar stream and stays one: nothing is unpacked, so owners and devices need nobody's privileges.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use super::scan::{Scan, Secret};
use crate::oci::archive::Archive;
use crate::oci::layer::{Content, Entry, described, head, is_file, padding};
use crate::step::Cancel;
use crate::tree::LIST;

/// Directories whose content is a machine's, a run's or a cache's; they themselves stay.
const EMPTIED: [&str; 14] = [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/tmp",
    "var/run",
    "var/lock",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/cache/ldconfig",
    "var/cache/man",
    "var/cache/fontconfig",
    "usr/share/lintian",
];
/// What is only for people who sit at the machine. The licences in usr/share/doc stay.
const DOCUMENTATION: [&str; 4] =
    ["usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/doc-base"];
/// Files of one machine, of the builder, and what programs keep of their files' last state.
const DROPPED: [&str; 20] = [
    "etc/hostname",
    "etc/mailname",
    "etc/.pwd.lock",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/debconf/passwords.dat-old",
];
/// Where an image says what it is made of.
pub const RECORDS: &str = "usr/share/imgbuild";
/// Its packages, as a lock has them.
pub const PACKAGES: &str = "usr/share/imgbuild/packages";
/// Where systemd's units lie.
const UNITS: [&str; 2] = ["usr/lib/systemd/system/", "lib/systemd/system/"];
/// What a merged /usr has as links.
const MERGED: [&str; 4] = ["bin/", "sbin/", "lib/", "lib64/"];
/// A file that is rewritten or kept as text is no larger, in bytes.
const TEXT: u64 = 16 << 20;

/// What is known of a base system once it is clean.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Paths of all that is no directory.
    pub files: BTreeSet<String>,
    /// Paths of directories.
    pub directories: BTreeSet<String>,
    /// Symbolic links with their targets.
    pub links: BTreeMap<String, String>,
    /// The texts of systemd's units, by name.
    pub units: BTreeMap<String, String>,
}

/// What a cleaning is told.
pub struct Rules<'r> {
    /// No time is later, in seconds since 1970.
    pub epoch: u64,
    /// The text of etc/apt/sources.list: where the system will find its packages.
    pub sources: &'r str,
}

/// What a cleaning came to.
pub struct Cleaned {
    /// What the system holds.
    pub contents: Contents,
    /// The list of packages that [`crate::tree::Run`] left in it.
    pub list: String,
    /// Keys, tokens and names that no package ships.
    pub secrets: Vec<Secret>,
}

/// Reads a system's tar from `raw` and writes the clean one to `out`.
pub fn clean(
    raw: impl Read,
    out: &mut dyn Write,
    rules: &Rules<'_>,
    cancel: &Cancel,
) -> Result<Cleaned, Error> {
    let mut archive = Archive::new(raw);
    let mut cleaning = Cleaning { out, rules, contents: Contents::default(), shipped: BTreeSet::new() };
    let (mut scan, mut list) = (Scan::new(), String::new());
    while let Some(member) = archive.next_member()? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let is_file = is_file(member.kind);
        let size = if is_file { member.size } else { 0 };
        let entry = described(member)?;
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        if path == LIST {
            archive.read_to_string(&mut list)?;
        } else if is_dropped(&path, &entry) || path == "etc/apt/sources.list" || path == "etc/resolv.conf" {
            // The last two come again at the end.
        } else if let Some(rewrite) = rewritten(&path).filter(|_| is_file && size <= TEXT) {
            let mut text = Vec::new();
            archive.read_to_end(&mut text)?;
            io::copy(&mut scan.reader(&path, &text[..]), &mut io::sink())?;
            let text = rewrite(&mut cleaning, &path, text);
            cleaning.put(entry, text.len() as u64, &mut &text[..])?;
        } else {
            cleaning.put(entry, size, &mut scan.reader(&path, &mut archive))?;
        }
    }
    cleaning.finish(&list)?;
    let Cleaning { contents, shipped, .. } = cleaning;
    Ok(Cleaned { contents, list, secrets: scan.findings(|path| shipped.contains(path)) })
}

/// How a text is changed.
type Rewrite = fn(&mut Cleaning<'_>, &str, Vec<u8>) -> Vec<u8>;

struct Cleaning<'c> {
    out: &'c mut dyn Write,
    rules: &'c Rules<'c>,
    contents: Contents,
    /// What the packages ship, by dpkg's own lists.
    shipped: BTreeSet<String>,
}

impl Cleaning<'_> {
    /// What every system has, whatever its packages left.
    fn finish(&mut self, list: &str) -> Result<(), Error> {
        let sources = self.rules.sources;
        let file = |path: &str, text: &str| Entry::new(path, 0o644, Content::Bytes(text.as_bytes().to_vec()));
        if !self.contents.files.contains("etc/machine-id") {
            self.put(file("etc/machine-id", ""), 0, &mut io::empty())?;
        }
        self.put(file("etc/apt/sources.list", sources), sources.len() as u64, &mut sources.as_bytes())?;
        let mut packages: Vec<_> = list.lines().collect();
        packages.sort_unstable();
        let packages = packages.join("\n") + "\n";
        self.put(Entry::directory(RECORDS), 0, &mut io::empty())?;
        self.put(file(PACKAGES, &packages), packages.len() as u64, &mut packages.as_bytes())?;
        // What Flintlock's and CAPMVM's vendor-data expects: names are resolved by systemd.
        let resolver = Entry::symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
        self.put(resolver, 0, &mut io::empty())?;
        Ok(self.out.write_all(&[0; 1024])?)
    }

    fn put(&mut self, mut entry: Entry, size: u64, data: &mut dyn Read) -> Result<(), Error> {
        let epoch = self.rules.epoch;
        entry.mtime = Some(entry.mtime.unwrap_or(epoch).min(epoch));
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        match &entry.content {
            Content::Directory => drop(self.contents.directories.insert(path)),
            content => {
                if let Content::Symlink(target) = content {
                    self.contents.links.insert(path.clone(), String::from_utf8_lossy(target).into_owned());
                }
                self.contents.files.insert(path);
            }
        }
        self.out.write_all(&head(&entry, size, epoch)?)?;
        let copied = io::copy(&mut data.take(size), self.out)?;
        if copied < size {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("`{path}` ends early")).into());
        }
        Ok(self.out.write_all(&[0; 512][..padding(size)])?)
    }
}

/// What is done to the text of a file, if anything is.
fn rewritten(path: &str) -> Option<Rewrite> {
    let unit = |prefix: &str| path.strip_prefix(prefix).is_some_and(|name| !name.contains('/'));
    match path {
        // Empty means that systemd gives each machine an id of its own at its first boot.
        "etc/machine-id" => Some(|_, _, _| Vec::new()),
        "etc/shadow" => Some(|cleaning, _, text| undated(&text, cleaning.rules.epoch)),
        _ if path.starts_with("var/lib/dpkg/info/") && has_extension(path, "list") => {
            Some(|cleaning, _, text| {
                let lines = String::from_utf8_lossy(&text);
                for line in lines.lines().map(|line| line.trim_start_matches('/')) {
                    // Older packages have paths through the links of a merged /usr.
                    if MERGED.iter().any(|dir| line.starts_with(dir)) {
                        cleaning.shipped.insert(format!("usr/{line}"));
                    }
                    cleaning.shipped.insert(line.to_owned());
                }
                text
            })
        }
        _ if UNITS.iter().any(|prefix| unit(prefix)) => Some(|cleaning, path, text| {
            let name = path.rsplit('/').next().unwrap_or(path).to_owned();
            cleaning.contents.units.insert(name, String::from_utf8_lossy(&text).into_owned());
            text
        }),
        _ => None,
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// Whether an entry of a fresh system is left out.
fn is_dropped(path: &str, entry: &Entry) -> bool {
    let is_directory = entry.content == Content::Directory;
    let below = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    let name = path.rsplit('/').next().unwrap_or(path);
    if EMPTIED.iter().any(|dir| below(dir)) {
        // apt wants these.
        return !(is_directory
            && matches!(
                path,
                "var/lib/apt/lists/partial" | "var/cache/apt/archives" | "var/cache/apt/archives/partial"
            ));
    }
    // A link there stands for another package's licences.
    let is_licence = name == "copyright" || matches!(entry.content, Content::Symlink(_));
    let is_log = below("var/log") && !is_directory;
    let is_compiled = name == "__pycache__" || path.contains("/__pycache__/") || has_extension(name, "pyc");
    let is_host_key = path.starts_with("etc/ssh/ssh_host_");
    // Scripts of packages that come later expect the directories.
    (DOCUMENTATION.iter().any(|dir| below(dir)) && !is_directory)
        || (below("usr/share/doc") && !is_directory && !is_licence)
        || is_log
        || is_compiled
        || is_host_key
        || DROPPED.contains(&path)
}

/// A shadow file whose passwords were all changed last on one day.
fn undated(text: &[u8], epoch: u64) -> Vec<u8> {
    let day = (epoch / 86_400).to_string();
    let line = |line: &[u8]| {
        let mut fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        if let Some(changed) = fields.get_mut(2).filter(|changed| !changed.is_empty()) {
            *changed = day.as_bytes();
        }
        fields.join(&b':')
    };
    text.split(|byte| *byte == b'\n').map(line).collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::archive::Member;

    /// A tar of files, directories (ending in `/`) and links (`path -> target`).
    fn raw(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (path, text) in files {
            let (entry, size) = match path.split_once(" -> ") {
                Some((path, target)) => (Entry::symlink(path, target), 0),
                None if path.ends_with('/') => (Entry::directory(path.trim_end_matches('/')), 0),
                None => (Entry::new(*path, 0o644, Content::Bytes(Vec::new())), text.len()),
            };
            tar.extend(head(&entry, size as u64, 2_000_000_000).unwrap());
            tar.extend(&text.as_bytes()[..size]);
            tar.extend(&[0; 512][..padding(size as u64)]);
        }
        tar.extend([0; 1024]);
        tar
    }

    fn cleaned(files: &[(&str, &str)]) -> (Cleaned, BTreeMap<String, (Member, String)>) {
        let rules = Rules { epoch: 86_400 * 20_000, sources: "deb here\n" };
        let mut out = Vec::new();
        let cleaned = clean(&raw(files)[..], &mut out, &rules, &Cancel::default()).unwrap();
        let (mut archive, mut members) = (Archive::new(&out[..]), BTreeMap::new());
        while let Some(member) = archive.next_member().unwrap() {
            let mut text = String::new();
            archive.read_to_string(&mut text).unwrap();
            let path = String::from_utf8(member.path.clone()).unwrap();
            members.insert(path.trim_end_matches('/').to_owned(), (member, text));
        }
        (cleaned, members)
    }

    #[test]
    fn what_belongs_to_one_machine_goes() {
        let (cleaned, members) = cleaned(&[
            ("imgbuild-packages", "dash 1 amd64 x\n"),
            ("dev/", ""),
            ("dev/null", ""),
            ("etc/hostname", "anvil"),
            ("etc/machine-id", "0123"),
            ("etc/resolv.conf", "nameserver 10.0.0.1"),
            ("etc/shadow", "root:*:20500:0:99999:7:::\nx:!::0:::\n"),
            ("etc/shadow-", ""),
            ("etc/ssh/ssh_host_rsa_key", "secret"),
            ("lib -> usr/lib", ""),
            ("usr/lib/python3/__pycache__/x.cpython-311.pyc", ""),
            ("usr/lib/systemd/system/ssh.service", "[Install]\nWantedBy=multi-user.target\n"),
            ("usr/share/doc/dash/changelog.gz", ""),
            ("usr/share/doc/dash/copyright", "BSD"),
            ("var/cache/apt/archives/partial/", ""),
            ("var/cache/apt/pkgcache.bin", ""),
            ("var/log/apt/", ""),
            ("var/log/apt/term.log", "anvil"),
        ]);
        let paths: Vec<_> = members.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "dev",
                "etc/apt/sources.list",
                "etc/machine-id",
                "etc/resolv.conf",
                "etc/shadow",
                "lib",
                "usr/lib/systemd/system/ssh.service",
                "usr/share/doc/dash/copyright",
                "usr/share/imgbuild",
                "usr/share/imgbuild/packages",
                "var/cache/apt/archives/partial",
                "var/log/apt",
            ]
        );
        assert_eq!(members["etc/machine-id"].1, "");
        assert_eq!(members["etc/shadow"].1, "root:*:20000:0:99999:7:::\nx:!::0:::\n");
        assert!(members.values().all(|(member, _)| member.mtime == 86_400 * 20_000));
        assert_eq!(
            members["etc/resolv.conf"].0.link.as_deref(),
            Some(&b"../run/systemd/resolve/stub-resolv.conf"[..])
        );
        assert_eq!(cleaned.list, "dash 1 amd64 x\n");
        assert_eq!(cleaned.contents.links["lib"], "usr/lib");
        assert!(cleaned.contents.units["ssh.service"].contains("WantedBy"));
    }

    #[test]
    fn a_key_that_no_package_ships_is_told() {
        let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n", "A".repeat(64));
        let (cleaned, _) = cleaned(&[
            ("etc/ssl/private/snakeoil.key", &key),
            ("usr/lib/test/key.pem", &key),
            ("var/lib/dpkg/info/test.list", "/.\n/usr/lib/test/key.pem\n"),
        ]);
        let paths: Vec<_> = cleaned.secrets.iter().map(|secret| secret.path.as_str()).collect();
        assert_eq!(paths, ["etc/ssl/private/snakeoil.key"]);
    }
}
