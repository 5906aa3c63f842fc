//! Whether QEMU can boot a kernel at all, from its header.

use std::path::Path;

use object::elf::{self, FileHeader64, NoteType};
use object::read::elf::{FileHeader, ProgramHeader};

use super::Error;
use crate::arch::Arch;

/// Type of the note, owned by "Xen", that tells where a PVH boot enters.
const PVH_ENTRY: u32 = 18;

/// Refuses what QEMU would not boot as a kernel of `arch`.
pub(super) fn check(data: &[u8], arch: Arch, path: &Path) -> Result<(), Error> {
    let (wanted, fits) = match arch {
        Arch::X86_64 => ("an uncompressed x86_64 ELF", elf_machine(data) == Some(elf::EM_X86_64.0)),
        Arch::Arm64 => ("an uncompressed arm64 Image", is_arm64_image(data)),
    };
    if !fits {
        return Err(Error::WrongKernel { path: path.to_owned(), wanted, found: describe(data) });
    }
    if arch == Arch::X86_64 && !has_pvh_note(data) {
        return Err(Error::NoPvh { path: path.to_owned() });
    }
    Ok(())
}

/// What a file is, in words.
fn describe(data: &[u8]) -> &'static str {
    match elf_machine(data) {
        Some(machine) if machine == elf::EM_X86_64.0 => "an x86_64 ELF",
        Some(machine) if machine == elf::EM_AARCH64.0 => "an arm64 ELF",
        Some(_) => "an ELF of another architecture",
        None if is_arm64_image(data) => "an arm64 Image",
        None if data.get(0x202..0x206) == Some(b"HdrS") => "a compressed x86 bzImage",
        None if data.starts_with(&[0x1f, 0x8b]) => "a gzip file",
        None => "no kernel",
    }
}

fn is_arm64_image(data: &[u8]) -> bool {
    data.get(0x38..0x3c) == Some(b"ARM\x64")
}

fn elf_machine(data: &[u8]) -> Option<u16> {
    let header = FileHeader64::<object::Endianness>::parse(data).ok()?;
    Some(header.e_machine(header.endian().ok()?).0)
}

/// Whether one of the ELF's `PT_NOTE` segments has the entry for PVH, QEMU's only way into an ELF.
fn has_pvh_note(data: &[u8]) -> bool {
    let find = || -> object::Result<bool> {
        let header = FileHeader64::<object::Endianness>::parse(data)?;
        let endian = header.endian()?;
        for segment in header.program_headers(endian, data)? {
            let Some(mut notes) = segment.notes(endian, data)? else { continue };
            while let Some(note) = notes.next()? {
                if note.name() == b"Xen" && note.n_type(endian) == NoteType(PVH_ENTRY) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    };
    find().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF of one `PT_NOTE` segment with the given notes.
    fn elf(machine: u16, notes: &[(&str, u32)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, kind) in notes {
            for word in [u32::try_from(name.len()).unwrap() + 1, 8, *kind] {
                body.extend(word.to_le_bytes());
            }
            body.extend(name.as_bytes());
            body.resize((body.len() + 4) & !3, 0);
            body.extend(0x0100_0000_u64.to_le_bytes());
        }
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
        file.extend(machine.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        for word in [0_u64, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        file.extend([4_u32, 4].map(u32::to_le_bytes).concat());
        let size = body.len() as u64;
        file.extend([120_u64, 0, 0, size, size, 4].map(u64::to_le_bytes).concat());
        file.extend(body);
        file
    }

    fn image(at: usize, magic: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 0x400];
        file[at..at + magic.len()].copy_from_slice(magic);
        file
    }

    fn outcome(data: &[u8], arch: Arch) -> String {
        check(data, arch, Path::new("vmlinux")).map_or_else(|error| error.to_string(), |()| "boots".into())
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
    fn a_damaged_elf_has_no_note() {
        let whole = elf(62, &[("Xen", 18)]);
        for length in 0..whole.len() {
            assert_ne!(outcome(&whole[..length], Arch::X86_64), "boots", "{length}");
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
