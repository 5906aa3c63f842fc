//! A whole root volume, booted as Flintlock boots one: raw ext4 disks, the modules volume mounted by cloud-init from vendor
//! data, metadata by a seed URL or on a disk. cloud-init also brings in `report.py`, whose account is the proof.

pub(super) mod account;
pub(super) mod seed;

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::console::Goal;
use super::run::{self, Disk, Guest, Kernel};
use super::{Error, Machine, Plan, Request, attempt, failure, seconds, volume};
use crate::step::{Level, Watch};
pub use account::{Account, Asked, CloudInit, Containerd, FailedUnit, HostKeys};
pub use seed::Wiring;
use seed::{Part, Seed};

/// The root disk's name in the scratch directory: an ext4.
pub const ROOT_DISK: &str = "root.ext4";
/// The modules disk's.
pub const MODULES_DISK: &str = "modules.ext4";
/// Two, since CAPMVM's nodes have no fewer.
const PROCESSORS: u32 = 2;
/// What every Kubernetes node needs in its kernel.
const NODE_MODULES: [&str; 2] = ["overlay", "br_netfilter"];

/// A root volume to boot, and what is wanted of it. The disks lie in the scratch directory.
#[derive(Clone, Debug)]
pub struct Node {
    /// Kernel, modules and limits.
    pub request: Request,
    /// The user's own data for cloud-init.
    pub user_data: Option<Vec<u8>>,
    /// How it is told of itself, where QEMU is to do it in another way than for Firecracker.
    pub wiring: Option<Wiring>,
    /// How far it is to come.
    pub wish: Wish,
}

/// How far a root volume is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Up, and to give an account of itself.
    Account,
    /// To this text on the console.
    Text(String),
}

/// How far a root volume came.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub release: String,
    /// What ran the guest.
    #[serde(flatten)]
    pub machine: Machine,
    /// From the start of the monitor to the kernel's first word.
    pub kernel_seconds: f64,
    /// From the start of the monitor to the start of init.
    pub init_seconds: f64,
    /// From the start of the monitor to the text, or to the account.
    pub reached_seconds: f64,
    /// The text that was waited for.
    pub expected: Option<String>,
    /// What the guest says of itself, unless a text was waited for.
    pub node: Option<Account>,
    /// What the guest asked its metadata service for, in that order; none where that is not ours.
    pub metadata_requests: Option<Vec<String>>,
    /// What is not as it should be on a node.
    pub faults: Vec<String>,
    /// Everything on the console, line by line.
    #[serde(skip)]
    pub console: Vec<String>,
}

/// Fails where kernel, modules and this host do not fit together; the disks need not be there yet.
pub fn fits(request: &Request, watch: &Watch) -> Result<(), Error> {
    prepare(request, watch).map(drop)
}

/// Boots the root volume in `work` and waits until it comes as far as it should.
pub fn boot(node: &Node, work: &Path, watch: &Watch) -> Result<Report, Error> {
    let request = &node.request;
    let Plan { kernel, volume, choice } = prepare(request, watch)?;
    let guest = guest(node, &kernel, volume.as_ref().map(|volume| volume.version.as_str()), work);
    let (machine, run) = attempt(&guest, choice, watch)?;
    if !run.console.is_complete() {
        return Err(failure(&run, &guest, request, "EXT4_FS"));
    }
    let account = run.console.account().filter(|_| node.wish == Wish::Account).cloned();
    let expected = match &node.wish {
        Wish::Account => None,
        Wish::Text(text) => Some(text.clone()),
    };
    let has_modules = request.modules.is_some();
    let since = |moment: Option<std::time::Duration>| seconds(moment.unwrap_or(run.whole));
    Ok(Report {
        release: run.console.release().unwrap_or_default().to_owned(),
        machine,
        kernel_seconds: since(run.banner),
        init_seconds: since(run.first_word),
        reached_seconds: since(run.reached),
        expected,
        faults: account.as_ref().map(|account| account.faults(has_modules)).unwrap_or_default(),
        node: account,
        metadata_requests: run.asked,
        console: run.console.lines().to_vec(),
    })
}

/// Boots the root volume in `work` with the user's terminal as its console.
pub fn converse(node: &Node, work: &Path, watch: &Watch) -> Result<(), Error> {
    let Plan { kernel, volume, choice } = prepare(&node.request, watch)?;
    let guest = guest(node, &kernel, volume.as_ref().map(|volume| volume.version.as_str()), work);
    let mut ended = None;
    for way in &choice.ways {
        if let Some((vmm, status)) = &ended {
            let message = format!("booting under {}: a guest died under {vmm}: {status}", way.vmm.name());
            watch.reporter.note(Level::Info, &message);
        }
        let status = run::converse(&guest, *way, watch)?;
        if status.success() {
            return Ok(());
        }
        ended = Some((way.vmm.name(), status));
    }
    let vmm = choice.ways.last().expect("a choice has a way").vmm;
    let status = ended.map(|(_, status)| status.to_string()).unwrap_or_default();
    let console = format!("{}'s own words are above", vmm.name());
    Err(Error::Ended { vmm, arch: node.request.arch, status, reached_init: false, console })
}

/// The monitor to use, the kernel that it will take, and the modules volume.
fn prepare(request: &Request, watch: &Watch) -> Result<Plan, Error> {
    let plan = super::prepare(request, watch)?;
    volume::wanted(&request.load, plan.volume.as_ref())?;
    Ok(plan)
}

fn guest<'g>(node: &Node, kernel: &'g Kernel, release: Option<&str>, work: &'g Path) -> Guest<'g> {
    let request = &node.request;
    let report = report(&request.load);
    // Without the RSA key, whose making takes longer than all the rest of a boot under TCG.
    let quick = Part { name: "quick.cfg", content: b"#cloud-config\nssh_genkeytypes: [ed25519]\n" };
    let users = node.user_data.as_ref().map(|content| Part { name: "user-data", content });
    let mut parts = vec![users.unwrap_or(quick)];
    let goal = match &node.wish {
        Wish::Account => {
            parts.push(Part { name: "report.py", content: report.as_bytes() });
            Goal::Account
        }
        Wish::Text(text) => Goal::Text(text.clone()),
    };
    let modules = release.map(|_| Disk { file: MODULES_DISK, is_read_only: false });
    Guest {
        arch: request.arch,
        kernel,
        work,
        disks: [Disk { file: ROOT_DISK, is_read_only: false }].into_iter().chain(modules).collect(),
        memory_mib: request.memory_mib,
        processors: PROCESSORS,
        timeout: request.timeout,
        parameters: "",
        acpi: request.acpi,
        seed: Some(Seed::new(release, &parts)),
        wiring: node.wiring,
        goal,
    }
}

/// The program that gives the account, with the modules it shall load.
fn report(load: &[String]) -> String {
    let load: Vec<_> = load.iter().map(|name| name.replace('-', "_")).collect();
    let asked = json!({ "load": load, "node": NODE_MODULES }).to_string();
    include_str!("report.py").replace("@ASKED@", &asked)
}

impl Report {
    /// Fails with what is not as it should be.
    pub fn sound(&self) -> Result<(), Error> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let has_asked = self
            .metadata_requests
            .as_ref()
            .is_none_or(|asked| asked.iter().any(|path| path.ends_with("/vendor-data")));
        let hint = if has_asked {
            "`--console` shows what the guest said, `--interactive` lets you look around in it"
        } else {
            "the guest never asked for its vendor data: cloud-init must be 20.4 or newer, with NoCloud among its datasources"
        };
        Err(Error::Unsound { faults: self.faults.clone(), hint: Some(hint.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_program_is_told_what_to_load() {
        let program = report(&["ip-vs".into(), "nfs".into()]);
        assert!(
            program.contains(r#"json.loads('{"load":["ip_vs","nfs"],"node":["overlay","br_netfilter"]}')"#)
        );
        assert!(!program.contains("@ASKED@"));
    }
}
