//! What hosts rely on in the images of a machine, read from the images themselves.

use std::collections::BTreeSet;

use super::offer::{Desk, Offer};
use super::{Error, RELEASE};
use crate::arch::Arch;
use crate::document::list;
use crate::kernel::header;
use crate::oci::root::{Kind, Root};

/// Where modules lie.
const MODULES: &str = "lib/modules";

/// The architectures that all images are for, or the one asked for.
pub(super) fn common(
    offers: &[&Offer],
    asked: Option<Arch>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Arch>, Error> {
    if let Some(wanted) = asked {
        let lacking = offers.iter().find(|offer| offer.member(wanted).is_none());
        return match lacking {
            Some(offer) => Err(Error::NoPlatform { image: offer.name(), wanted, found: offer.arches() }),
            None => Ok(vec![wanted]),
        };
    }
    let has_all = |arch: &Arch| offers.iter().all(|offer| offer.member(*arch).is_some());
    let arches: Vec<Arch> = Arch::ALL.into_iter().filter(has_all).collect();
    let spelled = |offer: &&Offer| {
        format!("`{}` is for {}", offer.name(), list(offer.arches().iter().map(|arch| arch.name())))
    };
    if arches.is_empty() {
        return Err(Error::NothingCommon(offers.iter().map(spelled).collect::<Vec<_>>().join(", ")));
    }
    let narrow = offers.iter().filter(|offer| offer.arches() == arches);
    let all: BTreeSet<Arch> = offers.iter().flat_map(|offer| offer.arches()).collect();
    if all.len() > arches.len() {
        let named = list(arches.iter().map(|arch| arch.name()));
        let because = narrow.map(spelled).collect::<Vec<_>>().join(", ");
        warnings.push(format!("this fits {named} hosts alone: {because}"));
    }
    Ok(arches)
}

/// The release of the kernel, the same for all architectures; none where nothing tells it.
pub(super) fn kernel(
    offer: &Offer,
    filename: &str,
    arches: &[Arch],
    desk: &Desk<'_>,
) -> Result<Option<String>, Error> {
    let mut release = None;
    for arch in arches {
        let root = read(offer, *arch, desk)?;
        let data = kernel_file(offer, filename, *arch, &root, desk)?;
        let labelled = || offer.label(RELEASE).map(str::to_owned);
        let found = header::release(&data).or_else(labelled);
        if let (Some(ours), Some(theirs)) = (&release, &found)
            && ours != theirs
        {
            let (image, filename) = (offer.name(), filename.to_owned());
            let what = format!("it is Linux {theirs}, for the other architecture {ours}");
            return Err(Error::NotAKernel { image, arch: *arch, filename, what });
        }
        release = release.or(found);
    }
    Ok(release)
}

/// The file that a VMM is to start.
fn kernel_file(
    offer: &Offer,
    filename: &str,
    arch: Arch,
    root: &Root,
    desk: &Desk<'_>,
) -> Result<Vec<u8>, Error> {
    let wrong =
        |what: String| Error::NotAKernel { image: offer.name(), arch, filename: filename.to_owned(), what };
    let Some(found) = root.find(filename.as_bytes(), false) else {
        let (image, filename) = (offer.name(), filename.to_owned());
        return Err(Error::NoKernel { image, arch, found: neighbours(root, &filename), filename });
    };
    let inode = &root.inodes[found.inode];
    if !matches!(inode.kind, Kind::File { .. }) {
        return Err(wrong(
            "it is no regular file: a link is followed on the host, where it leads astray".into(),
        ));
    }
    if inode.mode & 0o004 == 0 {
        return Err(wrong(format!("its mode is {:04o}: a VMM that is not root cannot read it", inode.mode)));
    }
    let mut data = Vec::new();
    let member = offer.member(arch).expect("the architecture is one of the offer's");
    root.fill(&offer.layout, member.manifest.layers(), &desk.watch.cancel, &mut |inode, _, bytes| {
        if inode == found.inode {
            bytes.read_to_end(&mut data)?;
        }
        Ok(())
    })?;
    let (fits, wanted) = match arch {
        Arch::X86_64 => (header::elf_arch(&data) == Some(Some(arch)), "an uncompressed x86_64 ELF"),
        Arch::Arm64 => (header::is_arm64_image(&data), "an uncompressed arm64 Image"),
    };
    if fits { Ok(data) } else { Err(wrong(format!("it is {}, not {wanted}", header::describe(&data)))) }
}

/// What the directory has in which a file was looked for.
fn neighbours(root: &Root, filename: &str) -> String {
    let dir = filename.rsplit_once('/').map_or("", |(dir, _)| dir);
    let names = names(root, dir);
    let shown = if dir.is_empty() { "its root" } else { dir };
    if names.is_empty() {
        format!("it has nothing in {shown}")
    } else {
        format!("{shown} has {}", list(names.iter().map(String::as_str)))
    }
}

/// The release that a modules image is for, the same for all architectures.
pub(super) fn release(offer: &Offer, arches: &[Arch], desk: &mut Desk<'_>) -> Result<String, Error> {
    let mut known: Option<String> = None;
    for arch in arches {
        let root = read(offer, *arch, desk)?;
        let found = releases(&root);
        let release = match &found[..] {
            [release] if known.as_ref().is_none_or(|known| known == release) => release.clone(),
            [release] => {
                let found =
                    format!("modules of {release}, and of another release for the other architecture");
                return Err(Error::NoModules { image: offer.name(), arch: *arch, found });
            }
            [] => {
                return Err(Error::NoModules {
                    image: offer.name(),
                    arch: *arch,
                    found: format!("nothing in {MODULES}"),
                });
            }
            _ => {
                let found = format!("modules of {}", list(found.iter().map(String::as_str)));
                return Err(Error::NoModules { image: offer.name(), arch: *arch, found });
            }
        };
        if root.find(b"modules.dep", true).is_none() {
            let warning = format!(
                "`{}` has nothing at its root: mounted at /{MODULES}/{release}, its modules lie in {MODULES}/{release} once more, where modprobe does not look",
                offer.name()
            );
            if !desk.warnings.contains(&warning) {
                desk.warnings.push(warning);
            }
        }
        known = Some(release);
    }
    known.ok_or_else(|| Error::NothingCommon(offer.name()))
}

/// The image of an offer for one architecture.
fn read(offer: &Offer, arch: Arch, desk: &Desk<'_>) -> Result<Root, Error> {
    let member = offer.member(arch).expect("the architecture is one of the offer's");
    desk.bring(offer, member)?;
    Ok(Root::read(&offer.layout, member.manifest.layers(), &desk.watch.cancel, &mut |_| ())?)
}

/// The releases that an image has modules of.
fn releases(root: &Root) -> Vec<String> {
    names(root, MODULES)
}

fn names(root: &Root, dir: &str) -> Vec<String> {
    let Some(found) = root.find(dir.as_bytes(), true) else { return Vec::new() };
    match &root.inodes[found.inode].kind {
        Kind::Directory(names) => {
            names.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        }
        _ => Vec::new(),
    }
}
