//! The step that makes a kernel: configure, compile, split, read back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use serde_json::{Value, json};

use super::kconfig::{self, Configure, Configured, Requested};
use super::{BZ_IMAGE, Error, Facts, failure, split};
use crate::arch::Arch;
use crate::sandbox::{self, Sandbox};
use crate::step::{Level, Progress, Step, Unit, Watch};
use crate::version::Version;

/// Where a kernel is built: all of it outside what the key depends on.
#[derive(Debug, Clone)]
pub struct Site {
    /// The unpacked kernel source.
    pub source: PathBuf,
    /// The source's own date, in seconds since 1970.
    pub epoch: u64,
    /// The build directory, made and left behind.
    pub build: PathBuf,
    /// Where the output of make goes.
    pub log: PathBuf,
    /// Where make and its compilers run.
    pub sandbox: Sandbox,
    /// How many jobs make runs at once.
    pub jobs: usize,
}

/// Brings the site when the step really runs: nothing is unpacked for a hit.
pub(super) type SiteOf<'a, E> = dyn Fn() -> Result<Site, E> + 'a;

/// Compiles one kernel. The artifact: `boot/vmlinux`, `boot/config-RELEASE`, `modules/` (the content of
/// `lib/modules/RELEASE`), `kernel.json`, and [`BZ_IMAGE`] where QEMU needs one.
pub struct Compile<'a, E> {
    /// The version.
    pub version: Version,
    /// The architecture.
    pub arch: Arch,
    /// The flavour: for the step's name alone, its key depends on what is asked for.
    pub flavour: String,
    /// The sha256 of the source archive.
    pub source_sha256: String,
    /// The make target that answers what no fragment asks for.
    pub base: String,
    /// What the fragments ask for.
    pub requested: Arc<Requested>,
    /// The tools: the identity of a tree, or of this host's own.
    pub toolchain: Value,
    /// Whether the tools are pinned, so that any machine's kernel is every machine's.
    pub pinned: bool,
    /// Where to build.
    pub site: &'a SiteOf<'a, E>,
}

impl<E: From<Error>> Step for Compile<'_, E> {
    type Error = E;

    fn kind(&self) -> &'static str {
        "kernel"
    }

    fn record(&self) -> Value {
        json!({
            "step": "kernel 1",
            "version": self.version.to_string(),
            "arch": self.arch.name(),
            "source": self.source_sha256,
            "base": self.base,
            "requested": self.requested.canonical(),
            "toolchain": self.toolchain,
        })
    }

    fn name(&self) -> String {
        format!("Linux {} {} {}", self.version, self.arch, self.flavour)
    }

    fn is_shared(&self) -> bool {
        self.pinned
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), E> {
        let site = (self.site)()?;
        Ok(self.build(&site, out, watch)?)
    }
}

impl<E> Compile<'_, E> {
    fn build(&self, site: &Site, out: &Path, watch: &Watch) -> Result<(), Error> {
        let configured = self.configure(site, watch)?;
        let compiled = self.make_kernel(site, &configured.config, watch)?;
        let modules = configured.config.is_on("MODULES");

        let progress = watch.reporter.begin("split", &self.what(), None, Unit::Files);
        let release = split::split(self, site, &configured.config, out, watch)?;
        if self.needs_bz_image(&configured.config) {
            fs::create_dir_all(out.join(BZ_IMAGE).parent().expect("it lies in a directory"))?;
            fs::copy(site.build.join("arch/x86/boot/bzImage"), out.join(BZ_IMAGE))?;
        }
        fs::write(out.join("boot").join(format!("config-{release}")), &configured.text)?;
        let facts = Facts { release, epoch: site.epoch, compiled, absences: configured.absences, modules };
        fs::write(
            out.join("kernel.json"),
            serde_json::to_string_pretty(&facts).map_err(std::io::Error::from)?,
        )?;
        progress.finish("read back");
        Ok(())
    }

    /// What stages call the kernel.
    pub(super) fn what(&self) -> String {
        format!("Linux {} {}", self.version, self.arch)
    }

    /// Writes the `.config` into the build directory.
    pub(super) fn configure(&self, site: &Site, watch: &Watch) -> Result<Configured, Error> {
        let awkward = |c: char| c.is_whitespace() || c == ':';
        if site.sandbox.path(&site.build).to_string_lossy().contains(awkward) {
            return Err(Error::Path(site.build.clone()));
        }
        let progress = watch.reporter.begin("configure", &self.what(), None, Unit::Files);
        let configured = Configure {
            source: &site.source,
            build: &site.build,
            base: &self.base,
            requested: &self.requested,
            log: &site.log,
            sandbox: &site.sandbox,
            cancel: &watch.cancel,
        }
        .run()?;
        configured.notes.iter().for_each(|note| watch.reporter.note(Level::Detail, note));
        progress.finish(&format!("{} symbols on", configured.config.on().count()));
        Ok(configured)
    }

    /// Compiles what is configured, and counts the files.
    pub(super) fn make_kernel(
        &self,
        site: &Site,
        config: &kconfig::Config,
        watch: &Watch,
    ) -> Result<u64, Error> {
        let image = match self.arch {
            Arch::Arm64 => "Image",
            // It comes out of vmlinux, which is then there too.
            Arch::X86_64 if self.needs_bz_image(config) => "bzImage",
            Arch::X86_64 => "vmlinux",
        };
        let targets = [image, "modules"].into_iter().take(1 + usize::from(config.is_on("MODULES")));
        let progress = watch.reporter.begin("compile", &self.what(), Some(expected(config)), Unit::Files);
        let compiled = self.make(site, targets, progress.as_ref(), watch)?;
        progress.finish(&format!("{compiled} files"));
        Ok(compiled)
    }

    /// Whether QEMU has no way into the kernel's ELF: before 5.0, or where PVH is off.
    fn needs_bz_image(&self, config: &kconfig::Config) -> bool {
        self.arch == Arch::X86_64 && !config.is_on("PVH")
    }

    /// make, as configured and with all that could leak from this host fixed.
    pub(super) fn command(&self, site: &Site) -> Result<sandbox::Command, Error> {
        Ok(kconfig::make(&site.sandbox, &site.source, &site.build, self.arch)?
            // A date as `date` writes it: the kernel copies `@SECONDS` literally into `uname -v`.
            .env("KBUILD_BUILD_TIMESTAMP", build_date(site.epoch))
            .env("KBUILD_BUILD_USER", "imgbuild")
            .env("KBUILD_BUILD_HOST", "imgbuild")
            .env("KBUILD_BUILD_VERSION", "1")
            .env("SOURCE_DATE_EPOCH", site.epoch.to_string())
            .log(&site.log))
    }

    /// Makes targets and counts the files that were compiled or assembled for the target.
    pub(super) fn make<'t>(
        &self,
        site: &Site,
        targets: impl IntoIterator<Item = &'t str>,
        progress: &dyn Progress,
        watch: &Watch,
    ) -> Result<u64, Error> {
        let begun = fs::metadata(&site.log).map_or(0, |meta| meta.len());
        let mut compiled = 0;
        let count = |line: &[u8]| {
            let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            if line.starts_with(b"  ") && matches!(words.next(), Some(b"CC" | b"AS")) {
                compiled += 1;
                progress.set(compiled);
            }
        };
        let result =
            self.command(site)?.arg(format!("-j{}", site.jobs)).args(targets).lines(&watch.cancel, count);
        match result {
            Ok(()) => Ok(compiled),
            Err(sandbox::Error::Failed { .. }) => {
                let log = fs::read(&site.log)?;
                let output = &log[usize::try_from(begun).unwrap_or(0).min(log.len())..];
                let (first, context) = failure::first_error(&String::from_utf8_lossy(output));
                let (release, arch) = (self.version.to_string(), self.arch.to_string());
                Err(Error::Compile { release, arch, first, context, log: site.log.clone() })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// About how many files make will compile, for the progress bar alone: a line through what 5.10 took
/// (377 symbols on: 641 files, 1219: 2740).
fn expected(config: &kconfig::Config) -> u64 {
    (config.on().count() as u64 * 5 / 2).saturating_sub(300).max(1)
}

/// `Thu Jul 30 10:56:00 UTC 2026`.
fn build_date(epoch: u64) -> String {
    let time = jiff::Timestamp::from_second(i64::try_from(epoch).unwrap_or(0)).unwrap_or_default();
    time.strftime("%a %b %e %H:%M:%S UTC %Y").to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_build_date_is_written_as_date_writes_it() {
        assert_eq!(super::build_date(1_785_408_960), "Thu Jul 30 10:56:00 UTC 2026");
        assert_eq!(super::build_date(0), "Thu Jan  1 00:00:00 UTC 1970");
    }
}
