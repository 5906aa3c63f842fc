//! `imgbuild digests`.

use clap::Args;

use super::kernel::Selection;
use super::push::Transport;
use super::remote::RemoteCache;
use super::{Context, Failure};
use crate::digests::Verdict;
use crate::plan::digests;

/// Build images and compare them with the recorded digests, or record them
///
/// recipes/digests.toml holds the digest of every image that was built and checked. Images are built as `imgbuild
/// kernel` builds them, or taken from the store, and written nowhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild digests 5.10.262 --flavour tiny --arch all
  imgbuild digests 5.10.262 --flavour tiny --arch all --write")]
pub(super) struct DigestsCommand {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    remote: RemoteCache,
    #[command(flatten)]
    transport: Transport,
    /// Record what was built in recipes/digests.toml of the catalogue
    #[arg(long)]
    write: bool,
}

impl DigestsCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let catalogue = context.catalogue();
        // Refused before an hour of work, not after.
        let path = self.write.then(|| digests::file(&catalogue)).transpose()?;
        let recorded = digests::recorded(&catalogue)?;
        let plan = self.selection.plan(context)?;
        let built = digests::build(&plan, &self.remote.store(&self.transport, context)?, &context.watch)?;
        let mut text = String::new();
        for entry in &built {
            let verdict = match recorded.compare(entry) {
                Verdict::Same => "as recorded".to_owned(),
                Verdict::None => "not recorded yet".to_owned(),
                Verdict::Differs { recorded, .. } => format!("recorded is {recorded}"),
            };
            text += &format!("{:<32} {:<6} {}  {verdict}\n", entry.image, entry.platform, entry.digest);
        }
        if let Some(path) = path {
            digests::write(&path, recorded, &built)?;
            text += &format!("written to `{}`\n", path.display());
        }
        context.print(&text)
    }
}
