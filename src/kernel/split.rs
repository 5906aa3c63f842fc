//! What images need of a finished build, taken out of the build directory and read back.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::compile::{Compile, Site};
use super::kconfig::Config;
use super::{Error, header};
use crate::arch::Arch;
use crate::step::{Level, Watch};

/// Fills `out` with `boot/vmlinux` and `modules/`; returns the kernel's release.
pub(super) fn split<E>(
    step: &Compile<'_, E>,
    site: &Site,
    config: &Config,
    out: &Path,
    watch: &Watch,
) -> Result<String, Error> {
    let release = fs::read_to_string(site.build.join("include/config/kernel.release"))?.trim().to_owned();
    if release != step.version.release() {
        return Err(Error::Artifact(format!("its release is `{release}`, not `{}`", step.version.release())));
    }
    let boot = out.join("boot");
    fs::create_dir(&boot)?;
    let kernel = boot.join("vmlinux");
    match step.arch {
        Arch::X86_64 => {
            // Before strip sees it, which knows its own architecture alone.
            let built = site.build.join("vmlinux");
            check_arch(&fs::read(&built)?, step.arch).map_err(Error::Artifact)?;
            let strip = format!("{}strip", step.arch.cross_compile());
            // Into the build directory, since that is all the command may write to.
            let stripped = site.build.join("imgbuild-vmlinux");
            let [from, to] = [&built, &stripped].map(|path| site.sandbox.path(path));
            let command = site.sandbox.command(strip).arg("-s").arg("-o").arg(to).arg(from);
            command.log(&site.log).output(&watch.cancel)?;
            fs::rename(stripped, &kernel)?;
        }
        Arch::Arm64 => {
            fs::copy(site.build.join("arch/arm64/boot/Image"), &kernel)?;
        }
    }
    check_kernel(&fs::read(&kernel)?, step.arch, config).map_err(Error::Artifact)?;
    if config.is_on("MODULES") {
        let installed = install_modules(step, site, &release, watch)?;
        let count = check_modules(&installed, step.arch, &release)?;
        if count == 0 {
            watch
                .reporter
                .note(Level::Detail, "no symbol is a module: the modules image holds the index files alone");
        }
        fs::rename(installed, out.join("modules"))?;
    }
    Ok(release)
}

/// Says what a kernel is, if it is none of `arch`.
fn check_arch(data: &[u8], arch: Arch) -> Result<(), String> {
    if header::is_kernel(data, arch) {
        return Ok(());
    }
    Err(format!("boot/vmlinux for {arch} is {}", header::describe(data)))
}

/// Says what is wrong with a kernel, if anything is.
fn check_kernel(data: &[u8], arch: Arch, config: &Config) -> Result<(), String> {
    check_arch(data, arch)?;
    if arch == Arch::X86_64 {
        if config.is_on("PVH") && !header::has_pvh_note(data) {
            return Err("PVH is on, but boot/vmlinux has no PVH note".into());
        }
        if header::has_symbols(data) {
            return Err("boot/vmlinux is not stripped".into());
        }
    }
    Ok(())
}

/// Runs `modules_install`; returns the directory that is to be `lib/modules/RELEASE`.
fn install_modules<E>(
    step: &Compile<'_, E>,
    site: &Site,
    release: &str,
    watch: &Watch,
) -> Result<PathBuf, Error> {
    let root = site.build.join("imgbuild-modules");
    let mut install = std::ffi::OsString::from("INSTALL_MOD_PATH=");
    install.push(site.sandbox.path(&root));
    let jobs = format!("-j{}", site.jobs);
    let command =
        step.command(site)?.arg(jobs).arg("INSTALL_MOD_STRIP=1").arg(install).arg("modules_install");
    command.output(&watch.cancel)?;
    let modules = root.join("lib/modules").join(release);
    // Absolute links into the build directory.
    for link in ["build", "source"] {
        match fs::remove_file(modules.join(link)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    if !modules.join("modules.dep.bin").is_file() {
        return Err(Error::Artifact(format!("depmod made no modules.dep.bin in `{}`", modules.display())));
    }
    Ok(modules)
}

/// Reads every module back; returns how many there are.
fn check_modules(dir: &Path, arch: Arch, release: &str) -> Result<usize, Error> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            count += check_modules(&path, arch, release)?;
        } else if kind.is_symlink() {
            return Err(Error::Artifact(format!("`{}` is a link", path.display())));
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let data = fs::read(&path)?;
            let wrong = |what: String| Error::Artifact(format!("{}: {what}", entry.file_name().display()));
            if header::elf_arch(&data) != Some(Some(arch)) {
                return Err(wrong(format!("it is {}", header::describe(&data))));
            }
            let vermagic = header::modinfo(&data, "vermagic").unwrap_or_default();
            if vermagic.split(' ').next() != Some(release) {
                return Err(wrong(format!("its vermagic is `{vermagic}`, the kernel's release `{release}`")));
            }
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_of_the_other_architecture_is_refused() {
        let config = Config::parse("CONFIG_PVH=y\n");
        let mut image = vec![0; 64];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(check_kernel(&image, Arch::Arm64, &config), Ok(()));
        let message = check_kernel(&image, Arch::X86_64, &config).unwrap_err();
        assert_eq!(message, "boot/vmlinux for x86_64 is an arm64 Image");
    }
}
