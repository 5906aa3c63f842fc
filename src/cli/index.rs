//! `imgbuild index`.

use std::str::FromStr;

use clap::Args;

use super::push::Transport;
use super::{Context, Failure};
use crate::registry::join;
use crate::registry::reference::Reference;

/// Join images that were pushed by digest into one multi-architecture image
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild push out --registry registry.example/kernels --by-digest      # on a runner of each architecture
  imgbuild index registry.example/kernels/kernel-bin:5.10.262 sha256:5b51… sha256:77aa…")]
pub(super) struct Index {
    /// HOST[:PORT]/REPOSITORY[:TAG]: where the digests are, and the tag they are joined under
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// The digests of manifests or indexes
    #[arg(value_name = "DIGEST", required = true)]
    digests: Vec<String>,
    #[command(flatten)]
    transport: Transport,
}

impl Index {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let reference = Reference::from_str(&self.reference)?;
        let client = self.transport.client(&reference, context)?;
        let digest = join(&reference, &self.digests, &client)?;
        context.print(&format!("{reference}@{digest}\n"))
    }
}
