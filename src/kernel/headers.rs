//! What modules of other people are compiled against: headers, Kbuild's files, and what the kernel exports.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Value, json};

use super::kconfig::Config;
use super::{Compile, Error, Site};
use crate::arch::Arch;
use crate::step::{Level, Step, Unit, Watch};

/// What the build calls the list of exported symbols, each with the module that has it.
pub const SYMBOLS: &str = "Module.symvers";
/// What makes the programs that are not in the tree, on the machine that uses it.
pub const PROGRAMS: &str = include_str!("GNUmakefile");

/// Keeps what a kernel exports, which is known once all of it is compiled. The artifact: [`SYMBOLS`].
pub struct Symbols<'a, E> {
    /// The kernel.
    pub compile: Compile<'a, E>,
    /// The build directory it was compiled in, where it was compiled just now: else it is compiled once more.
    pub built: Option<PathBuf>,
}

impl<E: From<Error>> Step for Symbols<'_, E> {
    type Error = E;

    fn kind(&self) -> &'static str {
        "symbols"
    }

    fn record(&self) -> Value {
        json!({ "step": "symbols 1", "kernel": self.compile.record() })
    }

    fn name(&self) -> String {
        self.compile.name()
    }

    fn is_shared(&self) -> bool {
        self.compile.is_shared()
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), E> {
        let symbols = if let Some(built) = &self.built {
            fs::read_to_string(built.join(SYMBOLS)).map_err(Error::from)?
        } else {
            let what = self.compile.what();
            let message = format!("what {what} exports is not in the store: it is compiled for that");
            watch.reporter.note(Level::Info, &message);
            let site = (self.compile.site)()?;
            let configured = self.compile.configure(&site, watch)?;
            self.compile.make_kernel(&site, &configured.config, watch)?;
            fs::read_to_string(site.build.join(SYMBOLS)).map_err(Error::from)?
        };
        // modpost takes any order, and has one of its own at each version.
        let mut lines: Vec<_> = symbols.lines().collect();
        lines.sort_unstable();
        let text: String = lines.iter().flat_map(|line| [*line, "\n"]).collect();
        fs::write(out.join(SYMBOLS), text).map_err(Error::from)?;
        Ok(())
    }
}

/// A file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where its bytes are.
    pub source: Source,
    /// Whether it is run.
    pub is_program: bool,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// On this disk.
    Path(PathBuf),
    /// Here.
    Text(&'static str),
}

/// Makes what is made in a build directory of its own; returns the files of the tree, by path. `symbols` is the
/// artifact of [`Symbols`].
pub fn tree<E>(
    compile: &Compile<'_, E>,
    site: &Site,
    symbols: &Path,
    watch: &Watch,
) -> Result<BTreeMap<String, File>, Error> {
    let configured = compile.configure(site, watch)?;
    let progress = watch.reporter.begin("prepare", &compile.what(), None, Unit::Files);
    // From 5.3 on headers_install needs rsync, which is no part of a toolchain, to copy what `headers` makes.
    let headers = if compile.version.numbers() < [5, 3, 0] { "headers_install" } else { "headers" };
    compile.make(site, ["modules_prepare", headers], progress.as_ref(), watch)?;
    let files = collect(&site.source, &site.build, symbols, compile.arch, &configured.config)?;
    progress.finish(&format!("{} files", files.len()));
    Ok(files)
}

/// The files of the tree: what Kbuild reads when it compiles an external module, out of source and build directory.
fn collect(
    source: &Path,
    build: &Path,
    symbols: &Path,
    arch: Arch,
    config: &Config,
) -> Result<BTreeMap<String, File>, Error> {
    let arch = format!("arch/{}", if arch == Arch::X86_64 { "x86" } else { "arm64" });
    let mut tree = Tree { files: BTreeMap::new() };
    for name in ["Makefile", "Kbuild", "COPYING"] {
        tree.one(source, name)?;
    }
    for dir in ["include", "scripts"] {
        tree.all(source, dir, &|_| true)?;
    }
    let begins = |path: &str, with: &str| path[arch.len() + 1..].starts_with(with);
    tree.all(source, &arch, &|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let inside = |dir: &str| begins(path, &dir[1..]) || path.contains(dir);
        begins(path, "Makefile")
            || ["Kbuild.platforms", "Platform", "module.lds"].contains(&name)
            || inside("/include/")
            || inside("/scripts/")
    })?;
    // objtool's own sources.
    if config.is_on("STACK_VALIDATION") || config.is_on("OBJTOOL") {
        for dir in ["build", "include", "objtool", "scripts", "lib/subcmd", &arch] {
            tree.all(source, &format!("tools/{dir}"), &|_| true)?;
        }
        tree.all(source, "tools/lib", &|path| path.matches('/').count() == 2)?;
    }
    for dir in ["include", "scripts", &format!("{arch}/include"), "usr/include"] {
        tree.all(build, dir, &is_text)?;
    }
    tree.one(build, ".config")?;
    tree.one(symbols, SYMBOLS)?;
    tree.files.insert("GNUmakefile".into(), File { source: Source::Text(PROGRAMS), is_program: false });
    // Programs of the machine that built this, and what it noted about itself.
    let mut foreign = Vec::new();
    for (path, file) in &tree.files {
        if let Source::Path(source) = &file.source
            && source.starts_with(build)
            && fs::read(source)?.starts_with(b"\x7fELF")
        {
            foreign.push(path.clone());
        }
    }
    foreign.iter().for_each(|path| drop(tree.files.remove(path)));
    Ok(tree.files)
}

/// Whether a file of the build directory is one that others read: not make's notes, and no object.
fn is_text(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    !name.starts_with('.') && !["cmd", "o", "a", "d", "s"].contains(&extension)
}

struct Tree {
    files: BTreeMap<String, File>,
}

impl Tree {
    /// Adds a file, if it is there.
    fn one(&mut self, root: &Path, path: &str) -> Result<(), Error> {
        let source = root.join(path);
        // Links lead to other files of the source, or to directories of it that are not here.
        let meta = match fs::metadata(&source) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            meta => meta?,
        };
        if meta.is_file() {
            let is_program = meta.permissions().mode() & 0o100 != 0;
            self.files.insert(path.to_owned(), File { source: Source::Path(source), is_program });
        }
        Ok(())
    }

    /// Adds the files below `dir` that are wanted, if there is such a directory.
    fn all(&mut self, root: &Path, dir: &str, wanted: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        let entries = match fs::read_dir(root.join(dir)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = format!("{dir}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.all(root, &path, wanted)?;
            } else if wanted(&path) {
                self.one(root, &path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_machine_made_for_itself_is_left_out() {
        let kept = ["include/generated/autoconf.h", "include/config/auto.conf", "scripts/module.lds"];
        assert!(kept.iter().all(|path| is_text(path)));
        let dropped = [
            "scripts/mod/modpost.o",
            "scripts/basic/.fixdep.cmd",
            "include/config/auto.conf.cmd",
            "scripts/mod/.x.d",
        ];
        assert!(!dropped.iter().any(|path| is_text(path)));
    }
}
