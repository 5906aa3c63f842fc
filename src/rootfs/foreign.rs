//! Installing packages for the other architecture: their scripts run under qemu-user, by way of Linux's `binfmt_misc`.

use std::path::Path;

use fs_err as fs;

use super::Error;
use crate::arch::Arch;
use crate::host::{self, Tool};
use crate::sandbox::Command;
use crate::step::{Level, Watch};

/// Where Linux keeps which interpreter runs which programs.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// What an ELF of an architecture begins with, as `binfmt_misc` takes it: 20 bytes, and which of their bits count.
fn magic(arch: Arch) -> String {
    let machine = match arch {
        Arch::X86_64 => 0x3e,
        Arch::Arm64 => 0xb7,
    };
    let hex = |bytes: [u8; 20]| bytes.map(|byte| format!("\\x{byte:02x}")).concat();
    let sign = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0];
    let mask = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
        0xff, 0xff, 0xff,
    ];
    format!("{}:{}", hex(sign), hex(mask))
}

/// What runs the programs of another architecture; none for this host's own.
fn emulator(arch: Arch) -> Option<&'static str> {
    match arch {
        _ if Arch::host() == Some(arch) => None,
        Arch::X86_64 => Some("qemu-x86_64-static"),
        Arch::Arm64 => Some("qemu-aarch64-static"),
    }
}

/// The programs that a base for another architecture needs besides.
pub fn requirements(arch: Arch) -> Vec<Tool> {
    let Some(program) = emulator(arch) else { return Vec::new() };
    vec![
        Tool::new(program, "qemu-user-static", "runs the packages' scripts of the other architecture"),
        Tool::new("arch-test", "arch-test", "tells mmdebstrap that they run"),
    ]
}

/// Sees to it that programs for `arch` run here; root sets that up where it is missing, and says so.
pub fn ensure(arch: Arch, watch: &Watch) -> Result<(), Error> {
    let Some(program) = emulator(arch) else { return Ok(()) };
    host::require(&requirements(arch))?;
    if is_registered(program)? {
        return Ok(());
    }
    let refused = |reason: String| Error::Foreign { arch, reason };
    if !rustix::process::geteuid().is_root() {
        return Err(refused("binfmt_misc has no interpreter for them, and only root can add one".into()));
    }
    let register = Path::new(BINFMT).join("register");
    if !register.exists() {
        let mount = Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", BINFMT]);
        mount
            .output(&watch.cancel)
            .map_err(|error| refused(format!("binfmt_misc cannot be mounted: {error}")))?;
        if is_registered(program)? {
            return Ok(());
        }
    }
    let interpreter = crate::sandbox::find(program).expect("it was found");
    // F: the interpreter is opened now, so that it is there in any root.
    let line = format!(":imgbuild-{arch}:M::{}:{}:F", magic(arch), interpreter.display());
    fs::write(register, line).map_err(|error| refused(error.to_string()))?;
    let message = format!(
        "binfmt_misc now runs programs for {arch} with {program}, until this machine restarts (undo: `echo -1 > {BINFMT}/imgbuild-{arch}`)"
    );
    watch.reporter.note(Level::Warning, &message);
    Ok(())
}

/// Whether `binfmt_misc` runs programs with qemu-user, wherever it comes from.
fn is_registered(program: &str) -> std::io::Result<bool> {
    let stem = program.trim_end_matches("-static");
    let Ok(entries) = fs::read_dir(BINFMT) else { return Ok(false) };
    for entry in entries {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let interpreter = text.lines().find_map(|line| line.strip_prefix("interpreter "));
        if text.starts_with("enabled")
            && interpreter.is_some_and(|path| path.trim_end_matches("-static").ends_with(stem))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_magic_is_of_elf_programs_and_libraries() {
        let arm = magic(Arch::Arm64);
        assert!(arm.starts_with("\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00"));
        assert_eq!(arm.split(':').map(|part| part.matches("\\x").count()).collect::<Vec<_>>(), [20, 20]);
        assert!(arm.split(':').next().unwrap().ends_with("\\x02\\x00\\xb7\\x00"));
    }
}
