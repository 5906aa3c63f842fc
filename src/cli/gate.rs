//! `--require-boot`, for every command that pushes what is in a layout.

use clap::Args;
use oci_spec::image::Descriptor;

use super::place::Place;
use super::push::Transport;
use super::{Context, Failure};
use crate::oci::layout::Layout;
use crate::plan::gate::Gate;
use crate::registry::reference::Reference;

/// What has to boot before it is pushed.
#[derive(Debug, Args)]
pub(super) struct RequireBoot {
    /// Push nothing unless all of it boots: kernels with a small init and their modules, root volumes with a kernel
    #[arg(long)]
    pub(super) require_boot: bool,
    /// The kernel to boot root volumes with: a layout, one image of it, or a reference [default: the one in the same layout]
    #[arg(long, value_name = "DIR[:IMAGE]|REFERENCE", requires = "require_boot")]
    boot_kernel: Option<String>,
}

impl RequireBoot {
    /// Boots these images of a layout, if that is asked for.
    pub(super) fn pass(
        &self,
        layout: &Layout,
        images: &[(Descriptor, Reference)],
        transport: &Transport,
        context: &Context,
    ) -> Result<(), Failure> {
        if !self.require_boot {
            return Ok(());
        }
        let is_meant = |root: &Descriptor| images.iter().any(|(image, _)| image.digest() == root.digest());
        let names = layout.names()?.into_iter().filter(|(_, root)| is_meant(root));
        let names: Vec<String> = names.map(|(name, _)| name).collect();
        let kernel = self.boot_kernel.as_ref().map(|place| context.place(place, transport)).transpose()?;
        let kernel = kernel.as_ref().map(Place::part);
        let place = layout.dir().display().to_string();
        Ok(Gate { place: &place, layout, names: &names, kernel }.pass(&context.store()?, &context.watch)?)
    }
}
