//! `imgbuild validate`.

use std::path::PathBuf;

use clap::Args;

use super::inspect::Which;
use super::{Context, Failure, Format};
use crate::inspect::validate::{Verdict, validate};
use crate::oci::layout::Layout;
use crate::step::human;

/// Read every image of an OCI layout back and check it
///
/// Digests and sizes of all blobs, diff ids, platforms against the binaries inside, and what Flintlock, containerd and
/// modprobe rely on in kernel and modules images. All findings are told at once; exit code 5 if there are any.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild validate out
  imgbuild validate out --image kernel-modules:5.10.262 --format json")]
pub(super) struct Validate {
    /// The OCI layout
    #[arg(value_name = "DIR")]
    layout: PathBuf,
    #[command(flatten)]
    which: Which,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Validate {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let layout = Layout::open(&self.layout)?;
        let verdict = validate(&layout, &self.which.selection()?, &context.watch.cancel)?;
        match self.format {
            Format::Text => context.print(&text(&verdict))?,
            Format::Json => context.print_json(&verdict)?,
        }
        match verdict.findings.len() {
            0 => Ok(()),
            count => Err(Failure::Unsound { layout: self.layout.clone(), count }),
        }
    }
}

fn text(verdict: &Verdict) -> String {
    let mut text = String::new();
    verdict.findings.iter().for_each(|finding| text += &format!("{finding}\n"));
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
