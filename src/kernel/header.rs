//! Kernels and modules read back from their headers: what they are, and for which machine.

use object::elf::{self, FileHeader64, NoteType};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, SectionIndex};

use crate::arch::Arch;

/// Type of the note, owned by "Xen", that tells where a PVH boot enters.
const PVH_ENTRY: u32 = 18;
/// Where an arm64 Image has its magic.
const IMAGE_MAGIC: std::ops::Range<usize> = 0x38..0x3c;

/// What a file is, in words.
pub fn describe(data: &[u8]) -> &'static str {
    match elf_arch(data) {
        Some(Some(Arch::X86_64)) => "an x86_64 ELF",
        Some(Some(Arch::Arm64)) => "an arm64 ELF",
        Some(None) => "an ELF of another architecture",
        None if is_arm64_image(data) => "an arm64 Image",
        None if data.get(0x202..0x206) == Some(b"HdrS") => "a compressed x86 bzImage",
        None if data.starts_with(&[0x1f, 0x8b]) => "a gzip file",
        None => "no kernel",
    }
}

/// Whether `data` is a kernel as our images hold it: an ELF with loadable segments on `x86_64`, an Image on arm64.
pub fn is_kernel(data: &[u8], arch: Arch) -> bool {
    match arch {
        Arch::X86_64 => elf_arch(data) == Some(Some(arch)) && loadable(data) > 0,
        Arch::Arm64 => is_arm64_image(data),
    }
}

/// Whether `data` has the magic of an arm64 Image (Documentation/arm64/booting.rst).
pub fn is_arm64_image(data: &[u8]) -> bool {
    data.get(IMAGE_MAGIC) == Some(b"ARM\x64")
}

/// The machine of an ELF: one of ours, or another (`Some(None)`); `None` if `data` is no 64-bit ELF.
pub fn elf_arch(data: &[u8]) -> Option<Option<Arch>> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    Some(match header.e_machine(header.endian().ok()?) {
        machine if machine == elf::EM_X86_64 => Some(Arch::X86_64),
        machine if machine == elf::EM_AARCH64 => Some(Arch::Arm64),
        _ => None,
    })
}

/// How many segments with bytes of their own an ELF would load.
pub fn loadable(data: &[u8]) -> usize {
    let count = || -> object::Result<usize> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let loads = |segment: &&elf::ProgramHeader64<Endianness>| {
            segment.p_type(endian) == elf::PT_LOAD
                && segment.data(endian, data).is_ok_and(|bytes| !bytes.is_empty())
        };
        Ok(header.program_headers(endian, data)?.iter().filter(loads).count())
    };
    count().unwrap_or(0)
}

/// Whether one of an ELF's `PT_NOTE` segments has the entry for PVH, QEMU's only way into an ELF.
pub fn has_pvh_note(data: &[u8]) -> bool {
    let find = || -> object::Result<bool> {
        let header = FileHeader64::<Endianness>::parse(data)?;
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

/// The release in a kernel's banner, `Linux version 5.10.262 (`, if it is there to be read.
pub fn release(data: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = data;
    while let Some(at) = memchr::memmem::find(rest, BANNER) {
        rest = &rest[at + BANNER.len()..];
        let end = rest.iter().take(64).position(|byte| *byte == b' ').unwrap_or(0);
        // Elsewhere in the kernel stands `Linux version %s`.
        if end > 0 && rest[0].is_ascii_digit() && rest.get(end + 1) == Some(&b'(') {
            return String::from_utf8(rest[..end].to_vec()).ok();
        }
    }
    None
}

/// Whether an ELF still has its symbol table.
pub fn has_symbols(data: &[u8]) -> bool {
    section(data, b".symtab").is_some()
}

/// A field of a module's `.modinfo`, such as `vermagic`.
pub fn modinfo<'d>(data: &'d [u8], field: &str) -> Option<&'d str> {
    let mut entries = section(data, b".modinfo")?.split(|byte| *byte == 0);
    entries.find_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix(field)?.strip_prefix('='))
}

fn section<'d>(data: &'d [u8], name: &[u8]) -> Option<&'d [u8]> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let (_, section): (SectionIndex, _) = sections.section_by_name(endian, name)?;
    section.data(endian, data).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ELF of one `PT_NOTE` segment with the given notes.
    pub(crate) fn elf(machine: u16, notes: &[(&str, u32)]) -> Vec<u8> {
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
        file.extend(4_u32.to_le_bytes());
        file.extend(4_u32.to_le_bytes());
        let size = body.len() as u64;
        for word in [120_u64, 0, 0, size, size, 4] {
            file.extend(word.to_le_bytes());
        }
        file.extend(body);
        file
    }

    #[test]
    fn a_pvh_note_is_found_among_others() {
        let (x86, pvh) = (elf::EM_X86_64.0, ("Xen", PVH_ENTRY));
        assert!(has_pvh_note(&elf(x86, &[("GNU", 3), pvh])));
        for notes in [&[][..], &[("GNU", 18)], &[("Xen", 6)], &[("Xenon", 18)]] {
            assert!(!has_pvh_note(&elf(x86, notes)), "{notes:?}");
        }
        let whole = elf(x86, &[pvh]);
        assert!((0..whole.len()).all(|length| !has_pvh_note(&whole[..length])), "a damaged ELF has no note");
    }

    #[test]
    fn a_kernel_tells_its_release() {
        let data = b"ELF\0%s version %s\0Linux version %s\0Linux version 5.10.262-a (me@here) (gcc) #1\n\0";
        assert_eq!(release(data).as_deref(), Some("5.10.262-a"));
        for without in [&b""[..], b"Linux version ", b"Linux version 5.10", b"Linux version 5.10 is old"] {
            assert_eq!(release(without), None);
        }
    }

    #[test]
    fn files_are_told_apart() {
        let mut image = vec![0; 64];
        image[IMAGE_MAGIC].copy_from_slice(b"ARM\x64");
        assert_eq!(describe(&image), "an arm64 Image");
        assert_eq!(describe(&elf(elf::EM_AARCH64.0, &[])), "an arm64 ELF");
        assert_eq!(describe(&elf(elf::EM_PPC64.0, &[])), "an ELF of another architecture");
        assert_eq!(describe(b"\x1f\x8b\x08"), "a gzip file");
        assert_eq!(describe(b""), "no kernel");
        assert!(is_kernel(&image, Arch::Arm64) && !is_kernel(&image, Arch::X86_64));
        // Notes alone load nothing: not a kernel that could run.
        assert!(!is_kernel(&elf(elf::EM_X86_64.0, &[]), Arch::X86_64));
    }
}
