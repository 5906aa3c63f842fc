//! `imgbuild copy`.

use clap::Args;

use super::push::{Transport, lines, tagged};
use super::{Context, Failure, Format};
use crate::registry::{copy, referrers, resolve, sidecar};
use crate::step::Unit;

/// Copy an image from one registry to another, or within one
#[derive(Debug, Args)]
#[command(after_help = "\
Within one registry no blob is sent. What is attached to an image (signatures, SBOM, provenance) is copied with
--referrers, that of its platforms too.

Examples:
  imgbuild copy registry.example/test/kernel-bin:5.10.262 registry.example/kernel-bin:5.10.262 --referrers
  imgbuild copy registry.example/test/kernel-bin:5.10.262 registry.example/kernel-bin:5.10.262")]
pub(super) struct Copy {
    /// HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "FROM")]
    from: String,
    /// HOST[:PORT]/REPOSITORY:TAG
    #[arg(value_name = "TO")]
    to: String,
    /// Copy what is attached to the image, too
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    transport: Transport,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Copy {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let (from, to) = (tagged(&self.from)?, tagged(&self.to)?);
        let (reader, writer) = (self.transport.client(&from, context)?, self.transport.client(&to, context)?);
        let copied = copy(&from, &reader, &to, &writer)?;
        if self.referrers {
            let progress = context.watch.reporter.begin("attach", &to.short(), None, Unit::Files);
            let resolved = resolve(&to.at(&copied.digest), &writer)?;
            let members = resolved.platforms.iter().map(|(_, digest)| digest);
            let mut count = 0;
            for digest in members.filter(|digest| **digest != copied.digest).chain([&copied.digest]) {
                let (source, target) = ((&reader, &*from.repository), (&writer, &*to.repository));
                count += referrers::copy(source, target, digest)? + sidecar::copy(source, target, digest)?;
            }
            progress.finish(&format!("{count} attached"));
        }
        match self.format {
            Format::Text => context.print(&lines(&[copied])),
            Format::Json => context.print_json(&copied),
        }
    }
}
