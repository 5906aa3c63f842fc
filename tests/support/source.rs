//! A made-up kernel: a source tree that answers `make` as a kernel's does and is compiled in a moment, and the
//! catalogue around it: lock, recipe and fragment.

use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Place, sha256};

/// The version most tests build.
pub(crate) const VERSION: &str = "5.10.1";
/// The time of the newest file in the tree, and of all others.
pub(crate) const EPOCH: u64 = 1_600_000_777;
const OLDER: u64 = 1_500_000_000;

/// What is wrong with the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A function is called that nobody declared, in a file that is compiled beside others.
    Compile,
    /// make stops with a complaint of its own.
    Make,
    /// The kernel is for the other architecture.
    WrongArch,
    /// The kernel is a gzip file.
    Gzip,
    /// A note that PVH asks for is not there.
    NoNote,
    /// The module is for the other architecture.
    ModuleArch,
    /// The module says that it was made for another release.
    Vermagic,
    /// The kernel calls itself `5.10.1-dirty`.
    Release,
    /// depmod is not run.
    NoDepmod,
}

/// The tree before it is packed.
#[derive(Clone)]
pub(crate) struct Source {
    version: String,
    fault: Option<Fault>,
    prepare: String,
    load: Option<String>,
    cry: bool,
    extra: Vec<(String, Vec<u8>)>,
    top: String,
}

impl Source {
    /// A tree without a fault.
    pub(crate) fn new() -> Self {
        let top = format!("linux-{VERSION}");
        Self {
            version: VERSION.into(),
            fault: None,
            prepare: ":".into(),
            load: None,
            cry: false,
            extra: Vec::new(),
            top,
        }
    }

    /// Of another version.
    pub(crate) fn version(self, version: &str) -> Self {
        Self { version: version.into(), top: format!("linux-{version}"), ..self }
    }

    /// With a fault.
    pub(crate) fn fault(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    /// Has the compilation run a line of shell before everything else, in which `$(O)` is the build directory.
    pub(crate) fn prepare(self, shell: &str) -> Self {
        Self { prepare: shell.replace('$', "$$").replace("$$(O)", "$(O)"), ..self }
    }

    /// Has the compilation note in `gate` that it began, and wait with a child of its own for as long as the gate's
    /// `closed` is there.
    pub(crate) fn gate(self, gate: &Gate) -> Self {
        let Gate(dir) = gate;
        let dir = dir.display();
        self.prepare(&format!(
            "echo begun >> {dir}/begun; if [ -e {dir}/closed ]; then sleep 1000 & echo $! > {dir}/child; \
             while [ -e {dir}/closed ]; do sleep 0.02; done; kill $!; fi"
        ))
    }

    /// Has the kernel load the bytes of a file of the tree.
    pub(crate) fn load(self, path: &str) -> Self {
        Self { load: Some(path.into()), ..self }
    }

    /// Has the kernel write `text` to its first serial line before it halts (`x86_64`, under a PVH entry).
    pub(crate) fn cry(self, text: &str) -> Self {
        Self { cry: true, ..self.file("init/cry", format!("{text}\0")) }
    }

    /// With one more file.
    pub(crate) fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.extra.push((path.into(), content.into()));
        self
    }

    fn makefile(&self) -> String {
        let fault = |fault| self.fault == Some(fault);
        let pick =
            |is: bool, then: &str, otherwise: &str| if is { then.into() } else { String::from(otherwise) };
        let other = "$(if $(filter arm64,$(ARCH)),@X86@gcc,@ARM@gcc)";
        let foreign = format!("{other} -nostdlib -static -o $(O)/vmlinux -x c - < /dev/null");
        let vmlinux = [
            (Fault::Compile, "$(CC) -Werror $(FLAGS) -c init/broken.c -o $(O)/init/broken.o".to_owned()),
            (Fault::Make, "$(MAKE) no-such-target".to_owned()),
            (Fault::WrongArch, foreign),
            (Fault::NoNote, "$(CC) -nostdlib -static -Wl,-e,0 -o $(O)/vmlinux $(O)/init/main.o".to_owned()),
        ];
        let vmlinux = vmlinux.into_iter().find(|(of, _)| fault(*of)).map_or(":".into(), |(_, line)| line);
        let gzip = "gzip -c Makefile > $(O)/arch/arm64/boot/Image";
        let module_cc = "if $(filter arm64,$(ARCH)),@X86@gcc,@ARM@gcc";
        let vermagic = pick(fault(Fault::Vermagic), "5.10.2", "$(RELEASE)");
        let fields = [
            ("RELEASE_SUFFIX", pick(fault(Fault::Release), "-dirty", "")),
            ("RELEASE", self.version.clone()),
            ("CRY", pick(self.cry, "-DCRY", "")),
            ("LOAD", self.load.as_ref().map_or_else(String::new, |path| format!("'-DLOAD=\"{path}\"'"))),
            ("PREPARE", self.prepare.clone()),
            ("VMLINUX", vmlinux),
            ("IMAGE", pick(fault(Fault::Gzip), gzip, ":")),
            ("MODULE_CC", pick(fault(Fault::ModuleArch), module_cc, "CC")),
            ("VERMAGIC", vermagic),
            // strip would refuse what is not of its architecture before imgbuild looks at it.
            ("STRIP", pick(fault(Fault::ModuleArch), ":", "$(CROSS_COMPILE)strip")),
            ("DEPMOD", pick(fault(Fault::NoDepmod), ":", "depmod -b $(INSTALL_MOD_PATH) $(RELEASE)")),
            ("X86", if cfg!(target_arch = "x86_64") { "" } else { "x86_64-linux-gnu-" }.into()),
            ("ARM", if cfg!(target_arch = "aarch64") { "" } else { "aarch64-linux-gnu-" }.into()),
        ];
        let makefile = include_str!("tree/Makefile").to_owned();
        fields.iter().fold(makefile, |text, (name, value)| text.replace(&format!("@{name}@"), value))
    }

    /// The tarball, `.tar.xz`.
    pub(crate) fn tarball(&self) -> Vec<u8> {
        let mut files: Vec<(String, Vec<u8>)> = [
            ("Makefile", self.makefile().as_str()),
            ("Kconfig", include_str!("tree/Kconfig")),
            ("arch/x86/Kconfig", "config PVH\n\tbool \"An entry for PVH\"\n"),
            ("arch/arm64/Kconfig", "config ARM64_TOY\n\tbool \"A toy of arm64\"\n"),
            ("scripts/kconfig.awk", include_str!("tree/kconfig.awk")),
            ("init/main.c", include_str!("tree/main.c")),
            ("init/broken.c", "int broken(void)\n{\n\treturn not_declared(7);\n}\n"),
            ("init/head-x86.S", include_str!("tree/head-x86.S")),
            ("init/head-arm64.S", include_str!("tree/head-arm64.S")),
            ("init/vmlinux.lds", include_str!("tree/vmlinux.lds")),
            ("drivers/toy.c", include_str!("tree/toy.c")),
            ("include/linux/toy.h", "int toy(void);\n"),
            ("arch/x86/include/asm/toy.h", "#define X86 1\n"),
            ("arch/arm64/include/asm/toy.h", "#define ARM64 1\n"),
        ]
        .map(|(path, text)| (path.to_owned(), text.into()))
        .into();
        files.extend(self.extra.iter().cloned());
        let named = files.iter().map(|(path, content)| (format!("{}/{path}", self.top), content.as_slice()));
        tar_xz(named, |path| if path.ends_with("toy.c") { EPOCH } else { OLDER })
    }

    /// Puts tarball, lock, recipe and fragment into the place's working directory, which makes it a catalogue of
    /// one flavour, `toy`. The tarball is in the mirror that the environment names. Returns its sha256.
    pub(crate) fn install(&self, place: &mut Place) -> String {
        let tarball = self.tarball();
        let file = format!("linux-{}.tar.xz", self.version);
        let mirror = place.write(&format!("mirror/v5.x/{file}"), &tarball);
        let base = mirror.ancestors().nth(2).expect("it lies two deep");
        place.set("IMGBUILD_MIRROR_TEST", base);
        // What is made up is compiled in a moment by whatever is here.
        place.set("IMGBUILD_TOOLCHAIN", "host");
        let sha256 = sha256(&tarball);
        let lock = place.path("recipes/imgbuild.lock");
        let before = fs::read_to_string(&lock).unwrap_or_else(|_| PLACES.into());
        place.write("recipes/imgbuild.lock", before + &pin(&self.version, &file, &sha256));
        place.write("recipes/kernel/toy.toml", RECIPE);
        place.write("kconfigs/toy.config", FRAGMENT);
        sha256
    }
}

/// Where a compilation tells that it began, and may be held.
pub(crate) struct Gate(PathBuf);

impl Gate {
    /// A gate in the place's directory, closed.
    pub(crate) fn closed(place: &Place) -> Self {
        let closed = place.write("gate/closed", "");
        Self(closed.parent().expect("it lies in the gate").to_owned())
    }

    /// A gate that is open.
    pub(crate) fn open_in(place: &Place) -> Self {
        let gate = Self::closed(place);
        gate.open();
        gate
    }

    /// Lets compilations through.
    pub(crate) fn open(&self) {
        fs::remove_file(self.0.join("closed")).expect("the gate is closed");
    }

    /// How many compilations began.
    pub(crate) fn begun(&self) -> usize {
        fs::read_to_string(self.0.join("begun")).unwrap_or_default().lines().count()
    }

    /// The process that a held compilation started, once there is one.
    pub(crate) fn child(&self) -> Option<String> {
        let text = fs::read_to_string(self.0.join("child")).ok()?;
        text.ends_with('\n').then(|| text.trim().to_owned())
    }
}

const PLACES: &str = "assembly = 1\n[places]\ntest = \"https://kernel.test/pub\"\n";

/// The recipe of the flavour `toy`.
pub(crate) const RECIPE: &str = r#"kind = "kernel"
name = "toy"
default = true
series = ["5.10"]
fragments = ["toy.config"]

[[absent]]
symbols = ["EXTRA", "SECOND_*"]
reason = "toys are small"
"#;

/// The fragment of the flavour `toy`.
pub(crate) const FRAGMENT: &str =
    "CONFIG_MODULES=y\nCONFIG_TOY=m\nCONFIG_NUMBER=3\nCONFIG_PVH=y # [x86_64]\n";

/// One entry of a lock.
pub(crate) fn pin(version: &str, file: &str, sha256: &str) -> String {
    format!(
        "\n[[kernel]]\nversion = \"{version}\"\nplace = \"test\"\npath = \"v5.x/{file}\"\nsha256 = \"{sha256}\"\n"
    )
}

/// A lock whose one place is `test`, with one pin: of these bytes.
pub(crate) fn lock(content: &[u8]) -> String {
    PLACES.to_owned() + &pin(VERSION, &format!("linux-{VERSION}.tar.xz"), &sha256(content))
}

/// Packs files, each with the time `mtime` gives it.
pub(crate) fn tar_xz<'f>(
    files: impl IntoIterator<Item = (String, &'f [u8])>,
    mtime: impl Fn(&str) -> u64,
) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(mtime(&path));
        builder.append_data(&mut header, Path::new(&path), content).expect("tar in memory");
    }
    let plain = builder.into_inner().expect("tar in memory");
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(&plain).expect("xz in memory");
    encoder.finish().expect("xz in memory")
}
