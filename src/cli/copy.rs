//! `imgbuild copy`.

use clap::Args;

use super::push::{Transport, lines, tagged};
use super::{Context, Failure, Format};
use crate::registry::copy;

/// Copy an image from one registry to another, or within one
#[derive(Debug, Args)]
#[command(after_help = "\
Within one registry no blob is sent.

Examples:
  imgbuild copy registry.example/test/kernel-bin:5.10.262 registry.example/kernel-bin:5.10.262")]
pub(super) struct Copy {
    /// HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "FROM")]
    from: String,
    /// HOST[:PORT]/REPOSITORY:TAG
    #[arg(value_name = "TO")]
    to: String,
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
        match self.format {
            Format::Text => context.print(&lines(&[copied])),
            Format::Json => context.print_json(&copied),
        }
    }
}
