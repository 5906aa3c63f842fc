//! `imgbuild validate`.

use clap::Args;

use super::inspect::Which;
use super::push::Transport;
use super::{Context, Failure, Format};
use crate::inspect::validate::{Verdict, validate};
use crate::step::human;

/// Read images back and check them
///
/// Digests and sizes of all blobs, diff ids, platforms against the binaries inside, and what Flintlock, containerd and
/// modprobe rely on in kernel and modules images; in root volumes (`io.imgbuild.role=os`) also the programs with their
/// libraries, dpkg's database, units, owners and leftovers, and what kubelet says its version is. All findings are told at once; exit code 5 if there are any.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild validate out
  imgbuild validate registry.example/kernels/kernel-bin:5.10.262
  imgbuild validate out --image kernel-modules:5.10.262 --format json")]
pub(super) struct Validate {
    /// An OCI layout, one image of it, or a reference at a registry
    #[arg(value_name = "DIR[:IMAGE]|REFERENCE")]
    place: String,
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
        let place = context.place(&self.place, &self.transport)?;
        let verdict = validate(&place.layout, &self.which.selection(&place)?, &context.watch.cancel)?;
        match self.format {
            Format::Text => context.print(&text(&verdict))?,
            Format::Json => context.print_json(&verdict)?,
        }
        match verdict.findings.len() {
            0 => Ok(()),
            count => Err(Failure::Unsound { place: self.place.clone(), count }),
        }
    }
}

fn text(verdict: &Verdict) -> String {
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
    }
    if verdict.images.is_empty() && verdict.findings.is_empty() {
        text += "no image, and nothing wrong with it\n";
    }
    text
}
