//! A root tree that commands are shut into by bubblewrap: no network, a private /tmp, fixed names, nobody left behind.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Command, Error};
use crate::step::Cancel;

/// The program that builds the walls: small, kept, and in need of no daemon and no root.
pub const PROGRAM: &str = "bwrap";
/// The host name inside.
const HOST_NAME: &str = "imgbuild";
/// Who one is inside, whoever one is outside.
const USER: &str = "1000";
/// Where programs are found inside.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What one process inside may use. A limit does not change a result, it ends a runaway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Address space, in MiB.
    pub memory_mib: Option<u64>,
    /// Processor time, in minutes.
    pub processor_minutes: Option<u64>,
}

/// A directory of the host as the inside sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    host: PathBuf,
    guest: PathBuf,
    writable: bool,
}

/// Where commands run: on this host, or inside a root tree.
///
/// Whoever has paths of the host asks [`Sandbox::path`] what a command calls them.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    root: Option<PathBuf>,
    mounts: Vec<Mount>,
    env: BTreeMap<OsString, OsString>,
    limits: Limits,
    bare: bool,
}

impl Sandbox {
    /// No walls: this host's tools and paths.
    pub fn host() -> Self {
        Self::default()
    }

    /// Inside the tree at `root`, which stays as it is.
    pub fn tree(root: impl Into<PathBuf>) -> Self {
        Self { root: Some(root.into()), ..Self::default() }
    }

    /// Whether there are walls.
    pub fn is_hermetic(&self) -> bool {
        self.root.is_some()
    }

    /// Shows `host` at `guest`, not to be written to.
    #[must_use]
    pub fn read_only(mut self, host: impl Into<PathBuf>, guest: impl Into<PathBuf>) -> Self {
        self.mounts.push(Mount { host: host.into(), guest: guest.into(), writable: false });
        self
    }

    /// Shows `host` at `guest`, to be written to.
    #[must_use]
    pub fn writable(mut self, host: impl Into<PathBuf>, guest: impl Into<PathBuf>) -> Self {
        self.mounts.push(Mount { host: host.into(), guest: guest.into(), writable: true });
        self
    }

    /// Sets a variable for every command inside.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Whether a variable is set for every command.
    pub fn sets(&self, name: &str) -> bool {
        self.env.contains_key(OsStr::new(name))
    }

    /// Limits every process inside.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What a command calls this path of the host.
    pub fn path(&self, host: &Path) -> PathBuf {
        let below = |mount: &Mount| Some(mount.guest.join(host.strip_prefix(&mount.host).ok()?));
        // `join` with nothing would add a slash, which shows in what compilers record.
        let tidy = |path: PathBuf| path.components().collect();
        self.mounts.iter().rev().find_map(below).map_or_else(|| host.to_owned(), tidy)
    }

    /// A command that runs here.
    pub fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program);
        if self.is_hermetic() {
            command = command.env("PATH", SEARCH_PATH);
            command.inside = Some(self.clone());
        }
        self.env.iter().fold(command, |command, (name, value)| command.env(name, value))
    }

    /// For a tree of a few files without a shell: programs are started without one, so limits and umask stay unset.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { bare: true, ..self }
    }

    /// The words that start `program` inside, after the name of [`PROGRAM`].
    pub(super) fn words(
        &self,
        program: &OsStr,
        args: &[OsString],
        env: &BTreeMap<OsString, OsString>,
        dir: Option<&Path>,
    ) -> std::io::Result<Vec<OsString>> {
        let mut words = Words::default();
        for kind in ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"] {
            words.add([kind]);
        }
        words.add(["--uid", USER, "--gid", USER, "--hostname", HOST_NAME]);
        // The pid namespace ends with its first process, and that one with us, even where we are killed.
        words.add(["--die-with-parent", "--new-session", "--clearenv"]);
        if let Some(root) = &self.root {
            words.root(root)?;
        }
        words.add(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        for mount in &self.mounts {
            let kind = if mount.writable { "--bind" } else { "--ro-bind" };
            words.add([kind.as_ref(), mount.host.as_os_str(), mount.guest.as_os_str()]);
        }
        words.add(["--remount-ro", "/"]);
        for (name, value) in env {
            words.add(["--setenv".as_ref(), name.as_os_str(), value.as_os_str()]);
        }
        words.add(["--chdir".as_ref(), dir.map_or(OsStr::new("/"), Path::as_os_str)]);
        words.add(["--"]);
        if !self.bare {
            words.add(["/bin/sh", "-c", &self.opening(), "sh"]);
        }
        words.add([program]);
        words.0.extend_from_slice(args);
        Ok(words.0)
    }

    /// What the shell does before it makes room for the program: what bubblewrap leaves as it was outside.
    fn opening(&self) -> String {
        let mut script = String::from("umask 022; ");
        if let Some(mib) = self.limits.memory_mib {
            script += &format!("ulimit -v {}; ", mib * 1024);
        }
        if let Some(minutes) = self.limits.processor_minutes {
            script += &format!("ulimit -t {}; ", minutes * 60);
        }
        script + "exec \"$@\""
    }
}

/// Arguments being put together.
#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn add<W: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = W>) {
        self.0.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
    }

    /// Shows each thing at the top of the tree, on a root of its own: mount points then need not be in the tree.
    fn root(&mut self, root: &Path) -> std::io::Result<()> {
        let mut entries = fs::read_dir(root)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            if ["proc", "dev", "tmp", "sys", "run"].iter().any(|own| name == *own) {
                continue;
            }
            let guest = Path::new("/").join(&name);
            if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                self.add(["--symlink".as_ref(), target.as_os_str(), guest.as_os_str()]);
            } else {
                self.add(["--ro-bind".as_ref(), entry.path().as_os_str(), guest.as_os_str()]);
            }
        }
        Ok(())
    }
}

/// Fails where this host does not let bubblewrap work, before anything long is begun.
pub fn require(cancel: &Cancel) -> Result<(), Error> {
    match Sandbox::tree("/").command("true").output(cancel) {
        Err(Error::Failed { output, .. }) => Err(Error::Forbidden { reason: output }),
        tried => tried.map(drop),
    }
}

/// What to change where a host forbids user namespaces: the switches kernels and distributions have for it.
pub(super) fn cure() -> String {
    let reads = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let switches = [
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ];
    let wrong: Vec<_> = switches
        .iter()
        .filter(|(file, value, _)| reads(&format!("/proc/sys/{file}"), value))
        .map(|(_, _, setting)| format!("`sysctl {setting}`"))
        .collect();
    if wrong.is_empty() {
        "in a container, allow it user namespaces (docker: `--security-opt seccomp=unconfined`, or `--privileged`); \
         or build with this host's own tools: `--toolchain host`"
            .into()
    } else {
        format!(
            "let users have namespaces: {} as root; or build with this host's own tools: `--toolchain host`",
            wrong.join(" and ")
        )
    }
}
