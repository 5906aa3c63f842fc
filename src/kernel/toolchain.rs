//! The compilers and tools that turn kernel source into a kernel: what is needed, and which ones are here.

use serde_json::{Value, json};

use crate::arch::Arch;
use crate::host::Tool;
use crate::sandbox::{self, Command};
use crate::step::Cancel;

/// The programs that building a kernel for `arch` needs on this host.
pub fn requirements(arch: Arch) -> Vec<Tool> {
    let tool = |program: &'static str, package: &'static str, why| Tool::new(program, package, why);
    let mut tools = vec![
        tool("make", "make", "drives the kernel's build"),
        tool("gcc", "gcc", "compiles the kernel and its build tools"),
        tool("ld", "binutils", "links the kernel"),
        tool("/usr/include/stdio.h", "libc6-dev", "the kernel's build tools include it"),
        tool("flex", "flex", "generates kconfig's lexer"),
        tool("bison", "bison", "generates kconfig's parser"),
        tool("bc", "bc", "computes the kernel's time constants"),
        tool("perl", "perl-base", "runs some of the kernel's scripts"),
        tool("depmod", "kmod", "indexes the modules"),
        tool("gzip", "gzip", "packs the kernel's own configuration"),
    ];
    if arch == Arch::X86_64 {
        tools.push(tool("/usr/include/libelf.h", "libelf-dev", "objtool includes it"));
    }
    if Arch::host() != Some(arch) {
        tools.extend(match arch {
            Arch::X86_64 => [
                tool("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu", "compiles for x86_64"),
                tool("x86_64-linux-gnu-ld", "binutils-x86-64-linux-gnu", "links for x86_64"),
            ],
            Arch::Arm64 => [
                tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "compiles for arm64"),
                tool("aarch64-linux-gnu-ld", "binutils-aarch64-linux-gnu", "links for arm64"),
            ],
        });
    }
    tools
}

/// Which tools will shape the kernel's bytes, as the first line each says about its version.
pub fn identity(arch: Arch, cancel: &Cancel) -> Result<Value, sandbox::Error> {
    let cross = arch.cross_compile();
    let version = |program: &str| -> Result<Value, sandbox::Error> {
        let output = Command::new(program).arg("--version").output(cancel)?;
        Ok(String::from_utf8_lossy(&output).lines().next().unwrap_or_default().into())
    };
    Ok(json!({
        "host": Arch::host().map(Arch::name),
        "gcc": version(&format!("{cross}gcc"))?,
        "ld": version(&format!("{cross}ld"))?,
        "depmod": version("depmod")?,
        "gzip": version("gzip")?,
    }))
}
