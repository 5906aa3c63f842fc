//! The guest's disks: ext2 images made from directories, no root needed.

use std::path::Path;

use fs_err as fs;

use super::Error;
use crate::arch::Arch;
use crate::sandbox::{self, Command};
use crate::step::Watch;

/// The root disk's name in the scratch directory, QEMU's working directory.
pub(super) const ROOT: &str = "root.ext2";
/// The modules disk's.
pub(super) const MODULES: &str = "modules.ext2";

/// Block size of the images.
const BLOCK: u64 = 4096;
/// Inodes and blocks beyond those counted, for lost+found and for what the guest writes.
const SPARE: u64 = 512;
/// Bytes of one inode.
const INODE: u64 = 256;

/// `mke2fs`: Debian has it where an ordinary user's `PATH` does not look.
pub(super) fn mke2fs() -> &'static str {
    let system = "/usr/sbin/mke2fs";
    if sandbox::find("mke2fs").is_none() && fs::metadata(system).is_ok() { system } else { "mke2fs" }
}

/// Makes the root disk: init, the mount points, and the modules it shall load if there is a volume.
pub(super) fn root(
    arch: Arch,
    wanted: Option<&Vec<String>>,
    work: &Path,
    watch: &Watch,
) -> Result<(), Error> {
    let tree = work.join("root");
    for dir in ["dev", "proc", "sys", "lib/modules", "etc/imgbuild"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    let list = tree.join("etc/imgbuild/modules");
    match wanted {
        Some(names) => fs::write(&list, names.join("\n"))?,
        None if list.exists() => fs::remove_file(&list)?,
        None => {}
    }
    compile(arch, &tree.join("init"), watch)?;
    make(&tree, &work.join(ROOT), watch)
}

/// Compiles init for the guest.
fn compile(arch: Arch, out: &Path, watch: &Watch) -> Result<(), Error> {
    let source = out.with_extension("c");
    fs::write(&source, include_str!("init.c"))?;
    let flags = "-static -nostdlib -nostartfiles -ffreestanding -fno-stack-protector -fno-pie -no-pie -Os \
                 -fno-tree-loop-distribute-patterns -Wall -Wextra -o";
    let gcc = Command::new(format!("{}gcc", arch.cross_compile())).args(flags.split_whitespace());
    gcc.arg(out).arg(&source).output(&watch.cancel)?;
    Ok(())
}

/// Makes an ext2 image that holds what `tree` holds; links stay links.
pub(super) fn make(tree: &Path, image: &Path, watch: &Watch) -> Result<(), Error> {
    let (blocks, inodes) = needs(tree)?;
    let inodes = inodes + SPARE;
    // Indirect blocks are one in a thousand; the inode tables come on top.
    let blocks = blocks + blocks / 100 + inodes * INODE / BLOCK + SPARE;
    Command::new(mke2fs())
        .args(["-q", "-F", "-t", "ext2", "-m", "0", "-E", "root_owner=0:0"])
        .args(["-b".into(), BLOCK.to_string(), "-N".into(), inodes.to_string(), "-d".into()])
        .args([tree, image])
        .arg(blocks.to_string())
        .output(&watch.cancel)?;
    Ok(())
}

/// How many blocks and inodes a tree takes.
fn needs(path: &Path) -> Result<(u64, u64), std::io::Error> {
    let meta = fs::symlink_metadata(path)?;
    let mut needs = (meta.len().div_ceil(BLOCK).max(1), 1);
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            let (blocks, inodes) = self::needs(&entry?.path())?;
            needs = (needs.0 + blocks, needs.1 + inodes);
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Watch;

    #[test]
    fn init_compiles_without_a_warning_for_every_arch_there_is_a_compiler_for() {
        let dir = tempfile::tempdir().unwrap();
        for arch in Arch::ALL {
            if sandbox::find(&format!("{}gcc", arch.cross_compile())).is_none() {
                continue;
            }
            let init = dir.path().join("init");
            compile(arch, &init, &Watch::silent()).unwrap();
            let machine = fs::read(&init).unwrap()[18];
            assert_eq!(machine, if arch == Arch::X86_64 { 62 } else { 183 });
        }
    }

    #[test]
    fn a_disk_is_large_enough_for_many_small_files_and_for_a_large_one() {
        if sandbox::find(mke2fs()).is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("many/deep")).unwrap();
        for n in 0..3000 {
            fs::write(tree.join(format!("many/deep/{n}")), "x").unwrap();
        }
        fs::write(tree.join("large"), vec![7; 60 << 20]).unwrap();
        std::os::unix::fs::symlink("many/deep", tree.join("link")).unwrap();
        let image = dir.path().join("image");
        make(&tree, &image, &Watch::silent()).unwrap();
        assert!(fs::metadata(&image).unwrap().len() < 85 << 20);
    }
}
