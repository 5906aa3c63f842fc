//! Kernel images read for their configuration, and modules images for their names.

use std::collections::BTreeSet;
use std::io::Read;

use memchr::memmem;

use super::super::files::{self, Bytes, File, Kind};
use super::super::{Error, Image};
use crate::arch::Arch;
use crate::kernel::kconfig::Config;
use crate::kernel::kconfig::fragment::Value;
use crate::oci::source::{Framing, Source, blob_error};
use crate::step::Cancel;
use crate::version::Version;

/// Where kernels lie in images: ours, and those that others make.
const KERNELS: [&str; 4] = ["boot/vmlinux", "boot/vmlinux.bin", "boot/image", "boot/Image"];
/// A configuration beside a kernel.
const CONFIG: &str = "boot/config-";
/// No configuration is that large.
const LARGEST: u64 = 4 << 20;
/// What stands before the gzip file with the configuration in a kernel that has `IKCONFIG`, and behind it.
const START: &[u8] = b"IKCFG_ST";
const END: &[u8] = b"IKCFG_ED";

/// What a kernel image says about the kernel in it.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The image's name.
    pub image: String,
    /// Its platform: `amd64`.
    pub platform: String,
    /// What it runs on.
    pub arch: Arch,
    /// The flavour, where a label tells it.
    pub flavour: Option<String>,
    /// The digest of the configuration, where a label tells it.
    pub config_digest: Option<String>,
    /// The release: `5.10.262`.
    pub release: Option<String>,
    /// The modules that lie in it, as they do in legacy images.
    pub modules: Option<Modules>,
    file: Option<(String, String)>,
    embedded: Option<(String, String)>,
}

/// The modules of an image.
#[derive(Debug, Clone)]
pub struct Modules {
    /// The image's name.
    pub image: String,
    /// Its platform: `amd64`.
    pub platform: String,
    /// The flavour, where a label tells it.
    pub flavour: Option<String>,
    /// The digest of the configuration, where a label tells it.
    pub config_digest: Option<String>,
    /// The release they are for.
    pub release: String,
    /// Their names, with `_` for `-`.
    pub names: BTreeSet<String>,
}

/// A configuration, and where it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// `boot/config-5.10.262`, or the kernel that it is embedded in.
    pub place: String,
    /// It.
    pub config: Config,
    /// The kernel's version.
    pub version: Version,
}

impl Kernel {
    /// Its configuration; why there is none to judge by, otherwise.
    pub fn config(&self) -> Result<Found, String> {
        let (place, text) = match (&self.file, &self.embedded) {
            (Some((path, text)), _) => (path.clone(), text),
            (None, Some((path, text))) => (format!("embedded in {path}"), text),
            (None, None) => {
                return Err(format!(
                    "there is no {CONFIG}RELEASE, and the kernel has none embedded (CONFIG_IKCONFIG)"
                ));
            }
        };
        if let Some(flaw) = flaw(text) {
            return Err(format!("{place} {flaw}"));
        }
        let own = self.release.as_deref().and_then(version);
        let version = own.or_else(|| heading(text).and_then(|(_, release)| version(&release)));
        let version = version.ok_or_else(|| format!("{place} does not say which kernel it is of"))?;
        Ok(Found { place, config: Config::parse(text), version })
    }

    /// What does not go together: the path, and what is wrong with it.
    pub fn contradictions(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if let Some((path, text)) = &self.file {
            if let Some(flaw) = flaw(text) {
                found.push((path.clone(), format!("it {flaw}")));
            } else if let Some((kernel, embedded)) = &self.embedded
                && Config::parse(embedded) != Config::parse(text)
            {
                found.push((path.clone(), format!("it is not the configuration that {kernel} has embedded")));
            }
        }
        found.extend(self.headings(|own, other| own.series() != other.series()));
        found
    }

    /// What is odd and may be meant: a configuration that an earlier release of the same series wrote.
    pub fn oddities(&self) -> Vec<(String, String)> {
        self.headings(|own, other| own != other && own.series() == other.series())
    }

    /// The configurations that say they are of another version, of which `is` holds, or for another architecture.
    fn headings(&self, is: impl Fn(&Version, &Version) -> bool) -> Vec<(String, String)> {
        let own = self.release.as_deref().and_then(version);
        let mut found = Vec::new();
        for (path, text) in self.file.iter().chain(&self.embedded) {
            let Some((arch, release)) = heading(text) else { continue };
            let other = version(&release);
            let versions = own.as_ref().zip(other.as_ref());
            let is_foreign = arch.is_some_and(|arch| arch != self.arch);
            if versions.is_some_and(|(own, other)| is(own, other)) || is_foreign {
                let (arch, here) = (arch.map_or("?", Arch::name), self.arch);
                let own = self.release.as_deref().unwrap_or("a kernel");
                let what =
                    format!("it is a configuration of Linux {release} for {arch}, beside {own} for {here}");
                found.push((path.clone(), what));
            }
        }
        found
    }
}

/// Whether these are the paths of an image with a kernel.
pub fn is_one<'p>(mut paths: impl Iterator<Item = &'p Bytes>) -> bool {
    paths.any(|path| KERNELS.iter().any(|kernel| path.0 == kernel.as_bytes()))
}

/// Reads the kernel of an image; none where it has none.
pub fn read(source: &dyn Source, image: &Image, cancel: &Cancel) -> Result<Option<Kernel>, Error> {
    let Ok(arch) = image.config.architecture().to_string().parse::<Arch>() else { return Ok(None) };
    let mut kernel = Kernel {
        image: image.name.clone(),
        platform: image.platform(),
        arch,
        flavour: image.label("io.imgbuild.flavour").map(str::to_owned),
        config_digest: image.label("io.imgbuild.kernel.config").map(str::to_owned),
        release: image.label("io.imgbuild.kernel.release").map(str::to_owned),
        modules: None,
        file: None,
        embedded: None,
    };
    let (mut has_kernel, mut paths) = (false, Vec::new());
    for descriptor in image.manifest.layers() {
        if Framing::of(descriptor.media_type()).is_none() {
            continue;
        }
        files::visit(source, descriptor, cancel, &mut |file, bytes| {
            let unreadable =
                |error| blob_error(source, descriptor, format!("cannot be read as a layer: {error}"));
            let path = file.path.to_string();
            if file.kind == Kind::File && path.starts_with(CONFIG) {
                let mut text = Vec::new();
                bytes.take(LARGEST).read_to_end(&mut text).map_err(unreadable)?;
                kernel.file = Some((path.clone(), String::from_utf8_lossy(&text).into_owned()));
            } else if KERNELS.contains(&path.as_str()) && matches!(file.kind, Kind::File | Kind::HardLink) {
                has_kernel = true;
                if file.kind == Kind::File
                    && let Some(text) = embedded(bytes).map_err(unreadable)?
                {
                    kernel.embedded = Some((path.clone(), text));
                }
            }
            paths.push(file.clone());
            Ok(())
        })?;
    }
    if !has_kernel {
        return Ok(None);
    }
    if kernel.release.is_none() {
        let of_name = kernel.file.as_ref().map(|(path, _)| path[CONFIG.len()..].to_owned());
        let of_text =
            || kernel.embedded.as_ref().and_then(|(_, text)| heading(text)).map(|(_, release)| release);
        kernel.release = of_name.or_else(of_text);
    }
    kernel.modules = modules(image, paths.iter());
    Ok(Some(kernel))
}

/// Reads the modules of an image; none where it has none.
pub fn read_modules(source: &dyn Source, image: &Image, cancel: &Cancel) -> Result<Option<Modules>, Error> {
    let mut found = Vec::new();
    for descriptor in image.manifest.layers() {
        if Framing::of(descriptor.media_type()).is_some() {
            files::visit(source, descriptor, cancel, &mut |file, _| {
                found.push(file.clone());
                Ok(())
            })?;
        }
    }
    Ok(modules(image, found.iter()))
}

/// The modules among the files of an image; none where it has none.
pub fn modules<'f>(image: &Image, files: impl Iterator<Item = &'f File>) -> Option<Modules> {
    let (mut release, mut names) = (None, BTreeSet::new());
    for file in files {
        let path = file.path.to_string();
        let path = path.strip_prefix("usr/").unwrap_or(&path);
        let Some((top, rest)) = path.strip_prefix("lib/modules/").and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        release.get_or_insert_with(|| top.to_owned());
        let name = rest.rsplit('/').next().unwrap_or(rest);
        if file.kind == Kind::File
            && let Some((name, "" | ".gz" | ".xz" | ".zst")) = name.split_once(".ko")
        {
            names.insert(name.replace('-', "_"));
        }
    }
    Some(Modules {
        image: image.name.clone(),
        platform: image.platform(),
        flavour: image.label("io.imgbuild.flavour").map(str::to_owned),
        config_digest: image.label("io.imgbuild.kernel.config").map(str::to_owned),
        release: release?,
        names,
    })
}

/// The configuration that a kernel has embedded, where it has one that can be read.
fn embedded(kernel: &mut dyn Read) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut window = vec![0; 1 << 20];
    let mut start = None;
    // What is before the start is let go of as soon as it is read.
    loop {
        let count = kernel.read(&mut window)?;
        bytes.extend_from_slice(&window[..count]);
        if start.is_none() {
            start = memmem::find(&bytes, START);
            let cut = start.map_or(bytes.len().saturating_sub(START.len()), |at| at + START.len());
            bytes.drain(..cut);
        }
        let end = start.and_then(|_| memmem::find(&bytes, END));
        if let Some(end) = end {
            let mut text = String::new();
            let packed = flate2::read::GzDecoder::new(&bytes[..end]);
            return Ok(packed.take(LARGEST).read_to_string(&mut text).is_ok().then_some(text));
        }
        if count == 0 || bytes.len() as u64 > LARGEST {
            return Ok(None);
        }
    }
}

/// What shows that a text is no whole configuration.
fn flaw(text: &str) -> Option<String> {
    let is_line = |line: &str| {
        line.is_empty() || line.starts_with('#') || line.starts_with("CONFIG_") && line.contains('=')
    };
    if !text.contains("CONFIG_") {
        return Some("is no kernel configuration: there is no symbol in it".into());
    }
    // Some are kept without the end of their last line.
    let last = text.lines().last().filter(|_| !text.ends_with('\n'));
    let is_whole = |line: &str| match line.strip_prefix("# CONFIG_") {
        Some(rest) => rest.ends_with(" is not set"),
        None => {
            line.starts_with("# end of ")
                || line.split_once('=').is_some_and(|(_, it)| Value::read(it).is_some())
        }
    };
    if let Some(last) = last.filter(|last| !is_whole(last)) {
        return Some(format!("is cut off: it ends in `{last}`"));
    }
    let wrong = text.lines().position(|line| !is_line(line))?;
    Some(format!("is no kernel configuration: line {} is neither a symbol nor a comment", wrong + 1))
}

/// Architecture and version that kconfig writes at the top: `# Linux/x86 5.10.262 Kernel Configuration`.
fn heading(text: &str) -> Option<(Option<Arch>, String)> {
    let line = text.lines().take(5).find_map(|line| line.strip_prefix("# Linux/"))?;
    let (arch, release) = line.strip_suffix(" Kernel Configuration")?.split_once(' ')?;
    let arch = if arch == "x86" { Some(Arch::X86_64) } else { arch.parse().ok() };
    Some((arch, release.to_owned()))
}

/// The version that a release begins with: `5.10.77` of `5.10.77-custom`.
fn version(release: &str) -> Option<Version> {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    release[..end].trim_end_matches('.').parse().ok()
}
