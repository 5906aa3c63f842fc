//! `imgbuild validate`.

use clap::Args;
use serde_json::json;

use super::inspect::Which;
use super::push::Transport;
use super::{Context, Failure, Format};
use crate::document::list;
use crate::inspect::roles::judged::{Demand, Judged};
use crate::inspect::roles::{self, kernel::Modules};
use crate::inspect::validate::{Verdict, validate};
use crate::inspect::{Selection, sound_images};
use crate::step::human;
use crate::version::Version;

/// How many symbols of a kind a line names.
const NAMES: usize = 4;

/// Read images back and check them
///
/// Digests and sizes of all blobs, diff ids, platforms against the binaries inside, and what Flintlock, containerd and
/// modprobe rely on in kernel and modules images; in root volumes (`io.imgbuild.role=os`) also the programs with their
/// libraries, dpkg's database, units, owners and leftovers, and what kubelet says its version is. All findings are told at once; exit code 5 if there are any.
///
/// Of each kernel it is also told which virtual machine monitors and roles it is fit for, from its own configuration and
/// the modules image beside it. That is for information, unless --role or --kubernetes demands it.
#[derive(Debug, Args)]
#[command(after_help = "\
Fitness: `needs` are symbols without which it does not work; `late` are modules that are wanted before the modules
volume is mounted; -v tells what each symbol is for and who says so. `imgbuild list roles` tells the roles.

Examples:
  imgbuild validate out
  imgbuild validate registry.example/kernels/kernel-bin:5.10.262
  imgbuild validate out --image kernel-modules:5.10.262 --format json
  imgbuild validate out --role kubeadm,firecracker --kubernetes 1.34.1")]
pub(super) struct Validate {
    /// An OCI layout, one image of it, or a reference at a registry
    #[arg(value_name = "DIR[:IMAGE]|REFERENCE")]
    place: String,
    /// Fail unless every kernel is fit for these: firecracker, firecracker-no-acpi, cloud-hypervisor, qemu-microvm, flintlock, kubeadm, cilium, ipvs
    #[arg(long = "role", value_name = "NAME", value_delimiter = ',')]
    roles: Vec<String>,
    /// Fail unless every kernel is fit for a node of this Kubernetes version [default: tell of the versions of the place's root volumes]
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    kubernetes: Vec<String>,
    /// The kernel's modules, where they are not beside it
    #[arg(long, value_name = "DIR[:IMAGE]|REFERENCE")]
    modules: Option<String>,
    #[command(flatten)]
    transport: Transport,
    #[command(flatten)]
    which: Which,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Validate {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let demand = self.demand()?;
        let named = self.modules.as_ref().map(|place| self.named(place, context)).transpose()?;
        let place = context.place(&self.place, &self.transport)?;
        let mut verdict = validate(&place.layout, &self.which.selection(&place)?, &context.watch.cancel)?;
        verdict.parts.named = named.unwrap_or_default();
        let strangers = verdict.parts.strangers();
        verdict.findings.extend(strangers);
        let judged = verdict.parts.judge(&demand);
        match self.format {
            Format::Text => context.print(&text(&verdict, &judged, context.global.verbose))?,
            Format::Json => {
                let mut whole = json!(verdict);
                whole["kernels"] = json!(judged);
                context.print_json(&whole)?;
            }
        }
        match verdict.findings.len() {
            0 => self.met(&demand, &judged),
            count => Err(Failure::Unsound { place: self.place.clone(), count }),
        }
    }

    fn demand(&self) -> Result<Demand, Failure> {
        let version = |text: &String| {
            text.strip_prefix('v').unwrap_or(text).parse::<Version>().map_err(|_| Failure::Usage {
                message: format!("`--kubernetes {text}` is not a version of Kubernetes"),
                hint: "such as 1.34.1, or 1.34".into(),
            })
        };
        Ok(Demand {
            roles: self.roles.iter().map(|name| roles::role(name)).collect::<Result<_, _>>()?,
            kubernetes: self.kubernetes.iter().map(version).collect::<Result<_, _>>()?,
        })
    }

    /// The modules at the place that is named for them.
    fn named(&self, argument: &str, context: &Context) -> Result<Vec<Modules>, Failure> {
        let place = context.place(argument, &self.transport)?;
        let selection = Selection { image: place.image.clone(), arch: None };
        let mut named = Vec::new();
        for image in sound_images(&place.layout, &selection)? {
            named.extend(roles::kernel::read_modules(&place.layout, &image, &context.watch.cancel)?);
        }
        if named.is_empty() {
            return Err(Failure::Usage {
                message: format!("`--modules {argument}` has no modules: nothing in lib/modules"),
                hint: "name the modules image of the kernel: `imgbuild inspect` tells what a place holds"
                    .into(),
            });
        }
        Ok(named)
    }

    /// Whether what was demanded is so.
    fn met(&self, demand: &Demand, judged: &[Judged]) -> Result<(), Failure> {
        if !demand.is_some() {
            return Ok(());
        }
        if judged.is_empty() {
            return Err(Failure::Usage {
                message: format!("`{}` holds no kernel that could be fit for anything", self.place),
                hint: "leave --role and --kubernetes out, or name another image".into(),
            });
        }
        let mut lines = Vec::new();
        for kernel in judged {
            let head = format!("{} {}", kernel.image, kernel.platform);
            if let Some(why) = &kernel.unjudged {
                lines.push(format!("{head}: cannot be told: {why}"));
            }
            let unmet = demand.unmet(kernel);
            lines.extend(
                unmet
                    .iter()
                    .map(|fitness| format!("{head}: {}: {}", fitness.title(), fitness.line(usize::MAX))),
            );
            let missing = demand.roles.iter().filter(|role| !judged_for(judged, &role.name));
            if kernel.unjudged.is_none() {
                lines.extend(
                    missing.map(|role| format!("{head}: {}: no guests of this architecture", role.name)),
                );
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let versions = demand.kubernetes.iter().map(|version| format!("kubeadm {version}"));
        let wanted: Vec<_> = demand.roles.iter().map(|role| role.name.clone()).chain(versions).collect();
        let wanted = list(wanted.iter().map(String::as_str));
        Err(Failure::Unfit { place: self.place.clone(), wanted, lines })
    }
}

/// Whether any kernel was judged for a role: one for another architecture is judged for none.
fn judged_for(judged: &[Judged], role: &str) -> bool {
    judged.iter().any(|kernel| kernel.fitness.iter().any(|fitness| fitness.role == role))
}

fn text(verdict: &Verdict, judged: &[Judged], verbose: bool) -> String {
    let mut text = String::new();
    verdict.findings.iter().for_each(|finding| text += &format!("{finding}\n"));
    verdict.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    for read in &verdict.images {
        let broken = |finding: &&crate::inspect::Finding| {
            finding.image.as_ref() == Some(&read.image) && finding.platform.as_ref() == Some(&read.platform)
        };
        let count = verdict.findings.iter().filter(broken).count();
        let state = if count == 0 { "sound".to_owned() } else { format!("NOT sound ({count})") };
        let (files, size) = (read.files, human(read.size));
        text += &format!("{:<32} {:<7} {state}: {files} files, {size}\n", read.image, read.platform);
        let kernels = judged.iter().filter(|one| one.image == read.image && one.platform == read.platform);
        kernels.for_each(|one| text += &fitness(one, verbose));
    }
    if verdict.images.is_empty() && verdict.findings.is_empty() {
        text += "no image, and nothing wrong with it\n";
    }
    text
}

/// What a kernel is fit for, a line per role.
fn fitness(judged: &Judged, verbose: bool) -> String {
    if let Some(why) = &judged.unjudged {
        return format!("  what it is fit for cannot be told: {why}\n");
    }
    let mut text = String::new();
    if judged.modules.is_none() {
        text += "  no modules image beside it: each =m is taken to be there; --modules names one\n";
    }
    for one in &judged.fitness {
        let most = if verbose { usize::MAX } else { NAMES };
        text += &format!("  {:<20} {}\n", one.title(), one.line(most));
        if verbose {
            let lacks = one.needs.iter().map(|lack| ("needs", lack));
            let late = one.late.iter().map(|lack| ("late", lack));
            let optional = one.optional.iter().map(|lack| ("optional", lack));
            for (what, lack) in lacks.chain(late).chain(optional) {
                text += &format!("    {what:<8} {lack}: {} ({})\n", lack.purpose, lack.source);
            }
        }
    }
    text
}
