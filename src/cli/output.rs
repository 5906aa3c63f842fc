//! Where the commands that build put their images, and how they tell of them.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::push::{Destination, lines};
use super::remote::RemoteCache;
use super::{Context, Failure, Format};
use crate::digests::Verdict;
use crate::oci::compression::Compression;
use crate::plan::images::Built;
use crate::registry::reference::Prefix;
use crate::step::human;
use crate::store::Store;

/// How images are packed: shared by the commands that build some, and by those that tell how.
#[derive(Debug, Args)]
pub(super) struct Packing {
    /// How layers are compressed: gzip, zstd or zstd:LEVEL (1 to 22) [default: gzip, which every consumer reads]
    #[arg(long, value_name = "NAME[:LEVEL]", default_value_t, hide_default_value = true)]
    pub(super) compression: Compression,
}

/// Shared by the commands that build images.
#[derive(Debug, Args)]
pub(super) struct Output {
    #[command(flatten)]
    pub(super) packing: Packing,
    /// The OCI layout the images are put into
    #[arg(long = "output", short = 'o', value_name = "DIR", default_value = "out")]
    pub(super) layout: PathBuf,
    /// Push the images too
    #[arg(long)]
    push: bool,
    #[command(flatten)]
    destination: Destination,
    #[command(flatten)]
    remote: RemoteCache,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

impl Output {
    /// Where the images are pushed to, if they are: what can be refused is refused before the work.
    pub(super) fn prefix(&self, context: &Context) -> Result<Option<Prefix>, Failure> {
        if self.push {
            return Ok(Some(self.destination.required(context)?));
        }
        self.destination.refuse()?;
        Ok(None)
    }

    /// The store, with the caches that are looked into.
    pub(super) fn store(&self, context: &Context) -> Result<Store, Failure> {
        self.remote.store(&self.destination.transport, context)
    }

    /// Pushes what was built, if asked for, and tells of it; `next` is the command to go on with, without the layout.
    pub(super) fn tell(
        &self,
        images: &[Built],
        prefix: Option<&Prefix>,
        next: &str,
        context: &Context,
    ) -> Result<(), Failure> {
        let push = |prefix| self.destination.push_built(&self.layout, prefix, images, context);
        let pushed = prefix.map(push).transpose()?;
        match self.format {
            Format::Text => {
                let pushed = pushed.map_or(String::new(), |pushed| format!("\npushed:\n{}", lines(&pushed)));
                context
                    .print(&format!("{}{pushed}", text(images, self.packing.compression, &self.layout, next)))
            }
            Format::Json => {
                let mut result = json!({ "layout": self.layout, "images": images });
                pushed.into_iter().for_each(|pushed| result["pushed"] = json!(pushed));
                context.print_json(&result)
            }
        }
    }
}

/// What was built, for people, and what to do next.
fn text(images: &[Built], compression: Compression, output: &Path, next: &str) -> String {
    let mut text = String::new();
    for image in images {
        text += &format!("{}\n", image.name);
        if image.platforms.iter().all(|platform| platform.digest != image.digest) {
            text += &format!("  {:<7} {}\n", "index", image.digest);
        }
        for platform in &image.platforms {
            let recorded = match platform.recorded {
                Verdict::Same => "as recorded",
                Verdict::None if compression != Compression::Gzip => {
                    "not compared: digests are recorded for gzip"
                }
                Verdict::None => "no digest recorded to compare with",
                Verdict::Differs { .. } => "NOT as recorded",
            };
            let size = human(platform.size);
            text += &format!("  {:<7} {}  {size}  {recorded}\n", platform.architecture, platform.digest);
        }
    }
    let dir = output.display();
    text + &format!("\nwritten to `{dir}`, an OCI layout; next: {next} {dir}\n")
}
