//! What an ELF says about what it needs: read from its segments, as the dynamic loader does.

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

use crate::arch::Arch;
use crate::kernel::header;

/// An ELF, without its bytes.
#[derive(Debug, Default)]
pub(super) struct Elf {
    /// What it runs on, if that is one of ours.
    pub(super) arch: Option<Arch>,
    /// In words.
    pub(super) what: &'static str,
    /// Whether it is for the kernel's own machine, which every architecture has.
    pub(super) is_bpf: bool,
    /// The program that loads it.
    pub(super) interpreter: Option<Vec<u8>>,
    /// The libraries it needs, in its order.
    pub(super) needed: Vec<Vec<u8>>,
    /// Where it looks for libraries, also on behalf of those it loads.
    pub(super) rpath: Vec<Vec<u8>>,
    /// Where it looks for its own libraries.
    pub(super) runpath: Vec<Vec<u8>>,
}

impl Elf {
    /// Reads one. What is damaged says nothing: that it is an ELF of the right kind is all that is known then.
    pub(super) fn read(data: &[u8]) -> Self {
        let machine = header::elf_arch(data);
        let what = if machine.is_none() { "a 32-bit ELF" } else { header::describe(data) };
        let mut elf = Self { arch: machine.flatten(), what, ..Self::default() };
        // A damaged part leaves what was read before it.
        let _ = elf.read_segments(data);
        elf
    }

    fn read_segments(&mut self, data: &[u8]) -> object::Result<()> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        self.is_bpf = header.e_machine(endian) == elf::EM_BPF;
        let segments = header.program_headers(endian, data)?;
        for segment in segments {
            if let Some(interpreter) = segment.interpreter(endian, data)? {
                self.interpreter = Some(interpreter.to_vec());
            }
        }
        let Some(entries) = segments.iter().find_map(|segment| segment.dynamic(endian, data).transpose())
        else {
            return Ok(());
        };
        let entries: Vec<_> = entries?
            .iter()
            .map(|entry| (entry.tag(endian), entry.val(endian)))
            .take_while(|(tag, _)| *tag != elf::DT_NULL)
            .collect();
        let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
        let (Some(table), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else { return Ok(()) };
        let mut strings: &[u8] = &[];
        for segment in segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD) {
            if let Ok(Some(found)) = segment.data_range(endian, data, table, size) {
                strings = found;
            }
        }
        let text = |offset: u64| {
            let rest = strings.get(usize::try_from(offset).ok()?..)?;
            Some(rest.split(|byte| *byte == 0).next()?.to_vec())
        };
        let list = |wanted| {
            let text = value(wanted).and_then(text).unwrap_or_default();
            text.split(|byte| *byte == b':').filter(|dir| !dir.is_empty()).map(<[u8]>::to_vec).collect()
        };
        self.needed = entries
            .iter()
            .filter(|(tag, _)| *tag == elf::DT_NEEDED)
            .filter_map(|(_, offset)| text(*offset))
            .collect();
        self.rpath = list(elf::DT_RPATH);
        self.runpath = list(elf::DT_RUNPATH);
        Ok(())
    }
}
