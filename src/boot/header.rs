//! Whether a kernel can be booted at all, from its header.

use std::path::Path;

use super::Error;
use crate::arch::Arch;
use crate::kernel::header::{describe, elf_arch, has_pvh_note, is_arm64_image};

/// Refuses what no monitor would boot as a kernel of `arch`; tells whether others than Firecracker have a way into it.
pub(super) fn check(data: &[u8], arch: Arch, path: &Path) -> Result<bool, Error> {
    let (wanted, fits) = match arch {
        Arch::X86_64 => ("an uncompressed x86_64 ELF", elf_arch(data) == Some(Some(arch))),
        Arch::Arm64 => ("an uncompressed arm64 Image", is_arm64_image(data)),
    };
    if !fits {
        return Err(Error::WrongKernel { path: path.to_owned(), wanted, found: describe(data) });
    }
    Ok(arch == Arch::Arm64 || has_pvh_note(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::header::tests::elf;

    fn image(at: usize, magic: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 0x400];
        file[at..at + magic.len()].copy_from_slice(magic);
        file
    }

    fn outcome(data: &[u8], arch: Arch) -> String {
        match check(data, arch, Path::new("vmlinux")) {
            Ok(true) => "boots".into(),
            Ok(false) => "has no PVH note".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_elf_boots_through_its_pvh_note() {
        assert_eq!(outcome(&elf(62, &[("GNU", 3), ("Xen", 6), ("Xen", 18)]), Arch::X86_64), "boots");
        for notes in [&[("GNU", 18), ("Xen", 6)][..], &[]] {
            let refused = outcome(&elf(62, notes), Arch::X86_64);
            assert!(refused.contains("no PVH note"), "{refused}");
        }
    }

    #[test]
    fn another_architecture_or_format_is_refused_by_name() {
        let arm64 = image(0x38, b"ARM\x64");
        assert_eq!(outcome(&arm64, Arch::Arm64), "boots");
        let expected = [
            (arm64, Arch::X86_64, "an arm64 Image"),
            (elf(62, &[("Xen", 18)]), Arch::Arm64, "an x86_64 ELF"),
            (elf(183, &[]), Arch::Arm64, "an arm64 ELF"),
            (elf(243, &[]), Arch::X86_64, "an ELF of another architecture"),
            (image(0x202, b"HdrS"), Arch::X86_64, "a compressed x86 bzImage"),
            (image(0, &[0x1f, 0x8b]), Arch::Arm64, "a gzip file"),
            (Vec::new(), Arch::X86_64, "no kernel"),
        ];
        for (data, arch, found) in expected {
            let refused = outcome(&data, arch);
            assert!(refused.contains(&format!("is {found}, not ")), "{refused}");
        }
    }
}
