//! Network interfaces for monitors that take nothing but a tap of the host: in a network namespace of the guest's own, where
//! an ordinary user may have one and which leads nowhere. The monitor makes the taps itself.

use std::process::Command;

use fs_err as fs;

use super::Error;
use super::vmm::Vmm;
use crate::sandbox;
use crate::step::{Diagnose, Watch};

/// The taps of a guest's interfaces, in the order of the guest's addresses.
pub(super) const NAMES: [&str; 2] = ["imgbuild0", "imgbuild1"];
/// What opens a tap.
const DEVICE: &str = "/dev/net/tun";

/// The program, started in a namespace of its own; says what this host would have to allow.
pub(super) fn command(program: &str, vmm: Vmm, watch: &Watch) -> Result<Command, Error> {
    let refuse = |why: String| Error::Network { vmm, why };
    let device = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    device.map_err(|error| refuse(error.to_string()))?;
    // Root needs no user namespace, which a host may forbid.
    let is_root = rustix::process::geteuid().is_root();
    let ways: &[&[&str]] = if is_root { &[&["--net"], &USER] } else { &[&USER] };
    let mut why = String::new();
    for words in ways {
        let tried = sandbox::Command::new("unshare").args(words.iter().copied()).arg("true");
        match tried.output(&watch.cancel) {
            Ok(_) => {
                let mut command = Command::new("unshare");
                command.args(*words).arg(program);
                return Ok(command);
            }
            Err(sandbox::Error::Cancelled) => return Err(sandbox::Error::Cancelled.into()),
            Err(error) => why = error.detail().unwrap_or_else(|| error.to_string()),
        }
    }
    Err(refuse(why.trim().to_owned()))
}

/// For whoever is not root.
const USER: [&str; 3] = ["--user", "--map-root-user", "--net"];
