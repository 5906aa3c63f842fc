//! The two architectures we build for, and the names each community gives them.

use std::fmt;
use std::str::FromStr;

/// A target architecture, spelled as `uname -m` spells the first and Debian the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// 64-bit x86; `amd64` to Debian, Go and OCI.
    X86_64,
    /// 64-bit Arm; `aarch64` to gcc and QEMU.
    Arm64,
}

impl Arch {
    /// Both, in the order images list them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// The architecture imgbuild itself runs on, if it is one of ours.
    pub fn host() -> Option<Self> {
        std::env::consts::ARCH.parse().ok()
    }

    /// Our own name, also the kernel's `ARCH=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// The kernel's directory below `arch/`.
    pub fn srcarch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86",
            Self::Arm64 => "arm64",
        }
    }

    /// The name in an OCI platform, Debian's too.
    pub fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The prefix of the GNU tools for it, as in `aarch64-linux-gnu-gcc`.
    pub fn triplet(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// The kernel's `CROSS_COMPILE=` on this host: empty for its own architecture.
    pub fn cross_compile(self) -> String {
        if Self::host() == Some(self) { String::new() } else { format!("{}-", self.triplet()) }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown architecture `{0}`: x86_64 (or amd64) and arm64 (or aarch64) are known")]
pub struct UnknownArch(String);

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(text: &str) -> Result<Self, UnknownArch> {
        match text {
            "x86_64" | "amd64" => Ok(Self::X86_64),
            "arm64" | "aarch64" => Ok(Self::Arm64),
            other => Err(UnknownArch(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_parses() {
        for (text, arch) in [
            ("x86_64", Arch::X86_64),
            ("amd64", Arch::X86_64),
            ("arm64", Arch::Arm64),
            ("aarch64", Arch::Arm64),
        ] {
            assert_eq!(text.parse(), Ok(arch));
        }
        assert!("i386".parse::<Arch>().is_err());
        assert!("".parse::<Arch>().is_err());
    }
}
