//! The recorded digests of a catalogue: what builds are compared with, and how they get there.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Error;
use super::images::Platform;
use super::kernel::Plan;
use crate::digests::{Digests, Entry, Verdict};
use crate::recipe::Catalogue;
use crate::step::{Level, Watch};
use crate::store::Store;

/// The file's path in a catalogue.
const DIGESTS: &str = "recipes/digests.toml";

/// The recorded digests of a catalogue; none where it has no such file.
pub fn recorded(catalogue: &Catalogue) -> Result<Digests, Error> {
    match catalogue.read(DIGESTS) {
        Ok(text) => Ok(Digests::parse(&catalogue.name(DIGESTS), &text).map_err(crate::lock::Error::from)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Digests::default()),
        Err(error) => Err(error.into()),
    }
}

/// The file a catalogue's digests are written to.
pub fn file(catalogue: &Catalogue) -> Result<PathBuf, Error> {
    match catalogue {
        Catalogue::Directory(dir) => Ok(dir.join(DIGESTS)),
        _ => Err(Error::BuiltinDigests),
    }
}

/// Builds what is planned, or finds it in the store, and tells what it came to. No image is written anywhere.
pub fn build(plan: &Plan, store: &Store, watch: &Watch) -> Result<Vec<Entry>, Error> {
    let images = plan.build(store, watch)?;
    Ok(images.into_iter().flat_map(|image| image.members).map(|member| member.entry).collect())
}

/// Writes entries into the file at `path`, in the place of those of the same image, platform and toolchain.
pub fn write(path: &Path, recorded: Digests, built: &[Entry]) -> Result<(), Error> {
    // Beside the file, to be renamed over it: a checkout is on one disk.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(recorded.with(built).to_text().as_bytes())?;
    let mode = fs::metadata(path).map_or_else(|_| public(), |meta| meta.permissions());
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn public() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

/// Says which images are not what is recorded; with `locked` that is an error.
pub(super) fn judge(images: &[(&str, &Platform)], locked: bool, watch: &Watch) -> Result<(), Error> {
    let differs = |(name, platform): &(&str, &Platform)| match &platform.recorded {
        Verdict::Differs { recorded, changed } => {
            let why = match &changed[..] {
                [] => "although nothing that decides about it has changed".to_owned(),
                changed => format!("its key has changed in: {}", changed.join(", ")),
            };
            let (architecture, digest) = (platform.architecture, &platform.digest);
            Some(format!("{name} {architecture} is {digest}, recorded is {recorded}: {why}"))
        }
        Verdict::Same | Verdict::None => None,
    };
    let differing: Vec<String> = images.iter().filter_map(differs).collect();
    if locked && !differing.is_empty() {
        return Err(Error::NotRecorded(differing));
    }
    differing.iter().for_each(|sentence| watch.reporter.note(Level::Warning, sentence));
    Ok(())
}
