//! The disk that tells a guest of itself where there is no metadata service: a FAT32 labelled `cidata`, as Flintlock makes
//! one for Cloud Hypervisor. No root and no program is needed.

use std::io::Write;
use std::path::Path;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};

use super::Error;
use super::node::seed::{File, Wiring};
use super::run::Disk;

/// The disk's name in the scratch directory.
pub(super) const DISK: &str = "cidata.img";
/// The smallest FAT32 has 65,525 clusters. Flintlock's has fewer, in 8 MB, which Linux reads as well; this one is sparse.
const SIZE: u64 = 64 << 20;
/// The label, padded as the file system has it.
const LABEL: [u8; 11] = *b"cidata     ";

/// A guest's disks with this one where it belongs: right after the root, at /dev/vdb, as Flintlock has it.
pub(super) fn among(disks: &[Disk], wiring: Option<Wiring>) -> Vec<Disk> {
    let mut disks = disks.to_vec();
    if wiring == Some(Wiring::Cidata) {
        disks.insert(1.min(disks.len()), Disk { file: DISK, is_read_only: true });
    }
    disks
}

/// Writes the disk into the scratch directory. No clock is asked: the same files give the same disk.
pub(super) fn write(files: &[File], work: &Path) -> Result<(), Error> {
    let mut options = fs_err::OpenOptions::new();
    let mut disk = options.read(true).write(true).create(true).truncate(true).open(work.join(DISK))?;
    disk.set_len(SIZE)?;
    let format = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512);
    fatfs::format_volume(&mut disk, format.volume_label(LABEL).volume_id(0x6369_6461))?;
    let volume = FileSystem::new(disk, FsOptions::new())?;
    for (name, content) in files {
        volume.root_dir().create_file(name)?.write_all(content)?;
    }
    Ok(volume.unmount()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn written() -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let files = [("meta-data", b"instance-id: a\n".to_vec()), ("network-config", vec![b'n'; 3000])];
        write(&files, dir.path()).unwrap();
        let bytes = fs_err::read(dir.path().join(DISK)).unwrap();
        (dir, bytes)
    }

    #[test]
    fn the_files_are_read_back_and_the_label_is_where_blkid_looks() {
        let (dir, bytes) = written();
        assert_eq!((&bytes[71..82], &bytes[82..90]), (&LABEL[..], &b"FAT32   "[..]));
        let volume = FileSystem::new(std::io::Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(volume.read_volume_label_from_root_dir().unwrap().unwrap(), "cidata");
        let names: Vec<_> = volume.root_dir().iter().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["meta-data", "network-config"]);
        let mut text = String::new();
        volume.root_dir().open_file("network-config").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "n".repeat(3000));
        // A second run in the same place begins anew.
        write(&[("user-data", vec![])], dir.path()).unwrap();
        assert_ne!(fs_err::read(dir.path().join(DISK)).unwrap(), written().1);
    }

    #[test]
    fn the_same_files_give_the_same_disk() {
        assert!(written().1 == written().1);
    }

    #[test]
    fn it_comes_right_after_the_root() {
        let disks = ["root", "modules"].map(|file| Disk { file, is_read_only: false });
        let files = |wiring| among(&disks, wiring).iter().map(|disk| disk.file).collect::<Vec<_>>();
        assert_eq!(files(Some(Wiring::Cidata)), ["root", DISK, "modules"]);
        assert_eq!(files(Some(Wiring::Url)), ["root", "modules"]);
        assert_eq!(files(None), ["root", "modules"]);
    }
}
