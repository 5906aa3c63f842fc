//! `imgbuild inspect`.

use clap::Args;
use serde_json::json;

use super::place::Place;
use super::push::Transport;
use super::{Context, Failure, Format};
use crate::arch::Arch;
use crate::inspect::Selection;
use crate::inspect::files::{File, Kind};
use crate::inspect::report::{Layer, Named, Platform, report};
use crate::oci::image::rfc3339;
use crate::step::human;

/// Which images of a layout: shared by the commands that look at some.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// This image alone, such as kernel-bin:5.10.262
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// For one architecture alone: `x86_64` (amd64) or arm64 (aarch64)
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
}

impl Which {
    pub(super) fn selection(&self, place: &Place) -> Result<Selection, Failure> {
        let parsed = self.arch.as_deref().map(str::parse::<Arch>).transpose();
        let arch = parsed.map_err(|error| Failure::Plan(error.into()))?;
        Ok(Selection { image: self.image.clone().or_else(|| place.image.clone()), arch })
    }
}

/// Tell what images hold: platforms, layers, labels, files
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild inspect out
  imgbuild inspect registry.example/kernels/kernel-bin:5.10.262
  imgbuild inspect out --image kernel-bin:5.10.262 --arch arm64 --files")]
pub(super) struct Inspect {
    /// An OCI layout, one image of it, or a reference at a registry
    #[arg(value_name = "DIR[:IMAGE]|REFERENCE")]
    place: String,
    #[command(flatten)]
    transport: Transport,
    #[command(flatten)]
    which: Which,
    /// List the files of the layers too
    #[arg(long)]
    files: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Inspect {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let place = context.place(&self.place, &self.transport)?;
        let images =
            report(&place.layout, &self.which.selection(&place)?, self.files, &context.watch.cancel)?;
        match self.format {
            Format::Json => context.print_json(&json!({ "place": self.place, "images": images })),
            Format::Text if images.is_empty() => context.print(&format!("`{}` holds no image\n", self.place)),
            Format::Text => context.print(&images.iter().map(named).collect::<Vec<_>>().join("\n")),
        }
    }
}

fn named(image: &Named) -> String {
    let mut text = format!("{}\n", image.name);
    if let Some(index) = &image.index {
        text += &format!("  {:<7} {index}\n", "index");
    }
    text + &image.platforms.iter().map(platform).collect::<String>()
}

fn platform(platform: &Platform) -> String {
    let mut text = format!("  {:<7} {}\n", platform.platform, platform.manifest);
    text += &format!("    config  {}\n", platform.config);
    if let Some(created) = &platform.created {
        text += &format!("    created {created}\n");
    }
    for Layer { digest, diff_id, framing, size, files } in &platform.layers {
        text += &format!("    layer   {digest}  {framing}, {}\n", human(*size));
        if let Some(diff_id) = diff_id {
            text += &format!("    diff id {diff_id}\n");
        }
        text += &files.iter().flatten().map(file).collect::<String>();
    }
    for (name, value) in &platform.labels {
        text += &format!("    {name}={value}\n");
    }
    text
}

/// A line as `ls -l` has it.
fn file(file: &File) -> String {
    let bits = |shift: u32| (file.mode >> shift) & 7;
    let special = [file.mode & 0o4000 != 0, file.mode & 0o2000 != 0, file.mode & 0o1000 != 0];
    let mut mode = String::from(file.kind.letter());
    for (set, (shift, letter)) in special.into_iter().zip([(6, 's'), (3, 's'), (0, 't')]) {
        let bits = bits(shift);
        mode.push(if bits & 4 != 0 { 'r' } else { '-' });
        mode.push(if bits & 2 != 0 { 'w' } else { '-' });
        mode.push(match (set, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    let size = file.device.map_or_else(|| file.size.to_string(), |(major, minor)| format!("{major},{minor}"));
    let link = match (&file.link, file.kind) {
        (Some(link), Kind::HardLink) => format!(" link to {link}"),
        (Some(link), _) => format!(" -> {link}"),
        (None, _) => String::new(),
    };
    let xattrs = file.xattrs.keys().fold(String::new(), |text, name| text + " [" + name + "]");
    let (uid, gid, time, path) = (file.uid, file.gid, rfc3339(file.mtime), &file.path);
    format!("      {mode} {uid}:{gid} {size:>10} {time} {path}{link}{xattrs}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::files::Bytes;

    #[test]
    fn a_file_is_listed_as_ls_does() {
        let entry = |kind, mode, link: Option<&str>| File {
            path: Bytes(b"usr/bin/su".to_vec()),
            kind,
            mode,
            uid: 0,
            gid: 42,
            mtime: 0,
            size: 7,
            link: link.map(|link| Bytes(link.into())),
            device: (kind == Kind::CharacterDevice).then_some((1, 3)),
            xattrs: [("security.capability".to_owned(), Bytes(vec![1]))].into(),
        };
        let listed = |kind, mode, link| file(&entry(kind, mode, link)).trim().to_owned();
        let tail = "1970-01-01T00:00:00Z usr/bin/su";
        assert_eq!(
            listed(Kind::File, 0o4755, None),
            format!("-rwsr-xr-x 0:42          7 {tail} [security.capability]")
        );
        assert!(listed(Kind::Directory, 0o1777, None).starts_with("drwxrwxrwt "));
        assert!(listed(Kind::File, 0o2644, None).starts_with("-rw-r-Sr-- "));
        assert!(listed(Kind::Symlink, 0o777, Some("a")).contains(&format!("{tail} -> a")));
        assert!(listed(Kind::CharacterDevice, 0o666, None).contains(" 1,3 "));
    }
}
