//! `imgbuild pull`.

use std::path::PathBuf;

use clap::Args;

use super::push::{Transport, tagged};
use super::{Context, Failure, Format};
use crate::oci::layout::Layout;
use crate::plan;
use crate::registry::pull;

/// Pull an image from a registry into a layout, every digest checked
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild pull registry.example/kernels/kernel-bin:5.10.262 out
  imgbuild pull registry.example/kernels/kernel-bin:5.10.262 out --arch arm64")]
pub(super) struct Pull {
    /// HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// The OCI layout the image is put into
    #[arg(value_name = "DIR")]
    layout: PathBuf,
    /// `x86_64` (amd64) or arm64 (aarch64) alone [default: every platform]
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    #[command(flatten)]
    transport: Transport,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Pull {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let reference = tagged(&self.reference)?;
        let arches = match &self.arch {
            Some(arch) => plan::arches(std::slice::from_ref(arch), &[])?,
            None => Vec::new(),
        };
        if arches.len() > 1 {
            let message = "one architecture can be named".into();
            return Err(Failure::Usage { message, hint: "leave `--arch` out for all".into() });
        }
        Layout::check_output(&self.layout)?;
        let client = self.transport.client(&reference, context)?;
        let layout = Layout::create(&self.layout)?;
        let pulled = pull(&reference, arches.first().copied(), &client, &layout)?;
        match self.format {
            Format::Text => context.print(&format!("{}\n  {}\n", pulled.name, pulled.digest)),
            Format::Json => context.print_json(&pulled),
        }
    }
}
