//! mmdebstrap run on a signed archive: with the fixed options, and with its words made into errors.

use std::path::Path;

use fs_err as fs;

use super::Error;
use crate::arch::Arch;
use crate::host::Tool;
use crate::recipe::Archive;
use crate::sandbox::{self, Command};
use crate::step::Watch;

/// Where the hook leaves the list of packages, in the tree being made.
pub const LIST: &str = "imgbuild-packages";
/// Run by mmdebstrap while all packages' files are there: says what they are.
const HOOK: &str = r#"cd "$1/var/cache/apt/archives" && for deb in *.deb; do
  sum=$(sha256sum <"$deb") && line=$(dpkg-deb --show --showformat '${Package} ${Version} ${Architecture}' "$deb") || exit 1
  echo "$line ${sum%% *}"
done >"$1/imgbuild-packages""#;

/// What becomes of the packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// They are unpacked, and no script of theirs is run.
    Unpacked,
    /// They are installed, with their scripts run in the tree.
    Installed {
        /// No time in the tree is later than this, in seconds since 1970.
        epoch: u64,
    },
}

/// One run.
pub struct Run<'a> {
    /// What errors call the tree.
    pub name: &'a str,
    /// Where packages come from.
    pub archive: &'a Archive,
    /// What the tree runs on.
    pub arch: Arch,
    /// The packages asked for.
    pub packages: &'a [&'a str],
    /// What becomes of them.
    pub depth: Depth,
    /// The archive's URL or directory.
    pub base: &'a str,
}

/// The programs that any run needs.
pub fn requirements(archive: &Archive) -> Vec<Tool> {
    vec![
        Tool::new("mmdebstrap", "mmdebstrap", "makes root trees"),
        Tool::new(archive.keyring_path(), archive.keyring_package().to_owned(), "the keys of the archive"),
    ]
}

impl Run<'_> {
    /// Makes a directory ([`Depth::Unpacked`]) or a tar ([`Depth::Installed`]) at `target`, with the list of packages in
    /// it at [`LIST`].
    pub fn make(&self, target: &Path, watch: &Watch) -> Result<(), Error> {
        let keyring = self.archive.keyring_path();
        let is_root = rustix::process::geteuid().is_root();
        let mut command = Command::new("mmdebstrap");
        command = match self.depth {
            Depth::Unpacked => command
                .args(["--mode=chrootless", "--variant=extract", "--format=directory"])
                .arg(format!("--extract-hook={HOOK}")),
            Depth::Installed { epoch } => command
                .arg(if is_root { "--mode=root" } else { "--mode=unshare" })
                .args(["--variant=minbase", "--format=tar", "--skip=essential/unlink"])
                .arg(format!("--setup-hook={}", merged(self.arch)))
                .arg(format!("--customize-hook={HOOK}"))
                .env("SOURCE_DATE_EPOCH", epoch.to_string()),
        };
        command = command
            .arg(format!("--architectures={}", self.arch.oci()))
            .arg(format!("--include={}", self.packages.join(",")))
            .arg(format!("--keyring={keyring}"))
            // apt would give up root for a user who may not enter the store.
            .arg("--aptopt=APT::Sandbox::User \"root\"")
            .arg("--aptopt=Acquire::Retries \"3\"")
            .arg("--aptopt=Acquire::http::Timeout \"60\"")
            .arg(&self.archive.suites[0])
            .arg(target);
        for suite in &self.archive.suites {
            command = command.arg(source(self.base, &keyring, suite, &self.archive.components));
        }
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Some(value) = std::env::var_os(name) {
                command = command.env(name, value);
            }
        }
        // Where it makes the tree, which is large.
        if let Some(dir) = std::env::var_os("TMPDIR") {
            command = command.env("TMPDIR", dir);
        }
        // The leash forbids what gives an ordinary user further ids; mmdebstrap then ends by our signal alone.
        if self.depth == Depth::Unpacked || is_root {
            command = command.leashed();
        }
        let log = tempfile::NamedTempFile::new()?;
        match command.log(log.path()).output(&watch.cancel) {
            Err(sandbox::Error::Failed { .. }) => {
                let said = fs::read(log.path())?;
                Err(Error::of(self.name, self.archive, self.base, &String::from_utf8_lossy(&said)))
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}

/// Makes /bin and its kin links into /usr before any package is there, as debootstrap does: older suites have no package
/// that would, and the images of every distribution here are laid out so.
fn merged(arch: Arch) -> String {
    let loader = if arch == Arch::X86_64 { " lib64" } else { "" };
    format!(
        r#"for dir in bin sbin lib{loader}; do mkdir -p "$1/usr/$dir" && ln -s "usr/$dir" "$1/$dir" || exit 1; done"#
    )
}

/// A line of apt's sources. The dates in a snapshot's Release are over by now, and its signature still holds.
fn source(base: &str, keyring: &str, suite: &str, components: &[String]) -> String {
    let base = base.trim_end_matches('/').replace(' ', "%20");
    let base =
        if base.starts_with('/') { format!("copy:{base}") } else { base.replacen("file:", "copy:", 1) };
    format!("deb [check-valid-until=no signed-by={keyring}] {base} {suite} {}", components.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_written_for_urls_and_directories() {
        let line = |base| source(base, "/k.gpg", "bullseye", &["main".into()]);
        let options = "[check-valid-until=no signed-by=/k.gpg]";
        assert_eq!(
            line("http://a.test/debian/"),
            format!("deb {options} http://a.test/debian bullseye main")
        );
        assert_eq!(line("/srv/my archive"), format!("deb {options} copy:/srv/my%20archive bullseye main"));
        assert_eq!(line("file:///srv/a"), format!("deb {options} copy:///srv/a bullseye main"));
    }
}
