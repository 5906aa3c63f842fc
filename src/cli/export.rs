//! `imgbuild export`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use fs_err::File;

use super::place::Place;
use super::push::Transport;
use super::{Context, Failure};
use crate::arch::Arch;
use crate::export::{self, Export, Exported, Room};
use crate::inspect::{self, Image, Selection};
use crate::step::human;
use crate::{document, oci, plan};

/// Write an image's root file system as one file: a disk to boot from, or a tar
///
/// Layers are applied one above the other, with owners, modes, times, links, devices and extended attributes as they are;
/// no root is needed, nor any other program. The same image gives the same bytes, whoever exports it wherever and whenever.
#[derive(Debug, Args)]
#[command(after_help = "\
ext4 is a file system without a partition table, which a guest mounts as root=/dev/vda rw. It is made for Linux 4.19 and
newer, can be grown (`truncate --size 20G FILE`, then `resize2fs` here or in the guest), and is sparse: what is free takes
no room on this disk.

erofs is read-only and not compressed. The kernels built here have it as a module, so it is for additional volumes, or for
kernels of your own with EROFS_FS=y.

Examples:
  imgbuild export out:node:1.22.8 root.ext4
  imgbuild export registry.example/os/node:1.22.8 root.ext4 --size 4G --arch arm64
  imgbuild export out:kernel-modules:5.10.262 modules.erofs --format erofs
  imgbuild export out:node:1.22.8 - --format tar | tar --list")]
pub(super) struct ExportCommand {
    /// An OCI layout of one image, one image of it, or a reference at a registry
    #[arg(value_name = "DIR[:IMAGE]|REFERENCE")]
    place: String,
    /// The file to write, which must not be there yet; `-` is standard output, for a tar
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the file is
    #[arg(long, value_enum, default_value_t = Kind::Ext4)]
    format: Kind,
    /// How large an ext4 is in all, such as 512M or 2G (powers of 1024) [default: the content and half as much again, at
    /// least 256M more]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// `x86_64` (amd64) or arm64 (aarch64) [default: the host's]
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    transport: Transport,
}

/// What the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A disk to be read and written
    Ext4,
    /// A sorted archive
    Tar,
    /// A read-only disk
    Erofs,
}

impl ExportCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let format = match (self.format, self.size) {
            (Kind::Ext4, None) => export::Format::Ext4(Room::Default),
            (Kind::Ext4, Some(size)) => export::Format::Ext4(Room::Whole(size)),
            (Kind::Tar, None) => export::Format::Tar,
            (Kind::Erofs, None) => export::Format::Erofs,
            (Kind::Tar | Kind::Erofs, Some(_)) => {
                let message = "a tar and an erofs are as large as their content".into();
                return Err(Failure::Usage { message, hint: "`--size` goes with `--format ext4`".into() });
            }
        };
        let is_stdout = self.file == Path::new("-");
        if !is_stdout {
            export::check_output(&self.file, self.force)?;
        } else if format != export::Format::Tar {
            let message = "a disk has holes, which standard output cannot have".into();
            return Err(Failure::Usage { message, hint: "name a file, or ask for `--format tar`".into() });
        } else if std::io::stdout().is_terminal() {
            let message = "standard output is a terminal".into();
            return Err(Failure::Usage { message, hint: "send it to a program, or name a file".into() });
        }
        let names: Vec<String> = self.arch.iter().cloned().collect();
        let arch = plan::arches(&names, &[])?.first().copied().ok_or_else(|| Failure::Usage {
            message: "one disk has one architecture".into(),
            hint: format!("name it: `--arch {}` or `--arch {}`", Arch::X86_64, Arch::Arm64),
        })?;
        let place = context.place_for(&self.place, &self.transport, Some(arch))?;
        let image = self.image(&place, arch)?;
        let export = Export {
            source: &place.layout,
            manifest: &image.descriptor,
            layers: image.manifest.layers(),
            format,
        };
        if is_stdout {
            let work = context.store()?.work()?;
            let path = work.path().join("tar");
            export.create(&path, false, &context.watch)?;
            return print_file(&path, context);
        }
        let exported = export.create(&self.file, self.force, &context.watch)?;
        context.print(&self.text(&image, &exported))
    }

    /// The one image that is meant.
    fn image(&self, place: &Place, arch: Arch) -> Result<Image, Failure> {
        let selection = Selection { image: place.image.clone(), arch: None };
        let (mut fitting, mut others, mut broken) = (Vec::new(), Vec::new(), None);
        for image in inspect::images(&place.layout, &selection)? {
            match image {
                Ok(image) if !image.is_image() => {}
                Ok(image) if image.platform() == arch.oci() => fitting.push(image),
                Ok(image) => others.push(format!("{} ({})", image.name, image.platform())),
                Err(finding) => broken = broken.or(Some(finding)),
            }
        }
        if fitting.len() > 1 {
            let names = document::list(fitting.iter().map(|image| image.name.as_str()));
            let message = format!("`{}` holds {names} for {arch}: which one?", self.place);
            let hint = format!("name it: `{}:{}`", self.place, fitting[0].name);
            return Err(Failure::Usage { message, hint });
        }
        match (fitting.pop(), broken) {
            (Some(image), _) => Ok(image),
            (None, Some(finding)) => Err(inspect::Error::Broken(finding).into()),
            (None, None) => {
                let wanted = format!("image for {arch}");
                Err(oci::Error::NoImage { path: self.place.clone().into(), wanted, found: others }.into())
            }
        }
    }

    fn text(&self, image: &Image, exported: &Exported) -> String {
        let Exported { size, digest, files } = exported;
        let format = self.format.to_possible_value().expect("no format is hidden");
        format!(
            "{}\n  {:<7} {}, {size} bytes, {files} files\n  {:<7} {} {}\n  digest  {digest}\n",
            self.file.display(),
            format.get_name(),
            human(*size),
            image.platform(),
            image.name,
            image.descriptor.digest(),
        )
    }
}

/// Copies a file to standard output.
fn print_file(path: &Path, context: &Context) -> Result<(), Failure> {
    context.printer.clear();
    let mut stdout = std::io::stdout().lock();
    match std::io::copy(&mut File::open(path)?, &mut stdout).and_then(|_| stdout.flush()) {
        // Whoever reads us has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// `512M`, `2G`: powers of 1024, as `truncate` and `mke2fs` count.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, power) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 1),
        Some(b'M') => (&text[..text.len() - 1], 2),
        Some(b'G') => (&text[..text.len() - 1], 3),
        Some(b'T') => (&text[..text.len() - 1], 4),
        _ => (text, 0),
    };
    let number = digits.parse::<u64>().ok().filter(|_| !digits.starts_with('+'));
    number
        .and_then(|number| number.checked_mul(1024_u64.pow(power)))
        .ok_or_else(|| "write a number with K, M, G or T behind it, such as `2G`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, size) in
            [("4096", 4096), ("2k", 2048), ("512M", 512 << 20), ("2G", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "G", "2GB", "-1", "+1G", "1.5G", "99999999999T", "2é"] {
            assert!(parse_size(text).unwrap_err().contains("such as `2G`"), "{text}");
        }
    }
}
