//! `imgbuild diff`.

use clap::Args;
use serde_json::json;

use super::push::Transport;
use super::{Context, Failure, Format};
use crate::inspect::diff::{Difference, Side, diff};

/// Tell in which files, and how, images differ
///
/// The images of two OCI layouts are compared by name and platform; one image (DIR:IMAGE, or a reference at a registry)
/// with one of any name. Exit code 9 if anything differs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild diff out /mnt/other/out
  imgbuild diff out:kernel-bin:5.10.77 out:kernel-bin:5.10.262
  imgbuild diff out:kernel-bin:5.10.262 registry.example/kernels/kernel-bin:5.10.262")]
pub(super) struct Diff {
    /// An OCI layout, one image of it, or a reference at a registry
    #[arg(value_name = "DIR[:IMAGE]|REFERENCE")]
    a: String,
    /// The other
    #[arg(value_name = "DIR[:IMAGE]|REFERENCE")]
    b: String,
    #[command(flatten)]
    transport: Transport,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Diff {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let a = context.place(&self.a, &self.transport)?;
        let b = context.place(&self.b, &self.transport)?;
        let [one, other] = [&a, &b].map(|place| Side { source: &place.layout, image: place.image.clone() });
        let differences = diff(&one, &other, &context.watch.cancel)?;
        let (a, b) = (&self.a, &self.b);
        match self.format {
            Format::Json => context.print_json(&json!({ "a": a, "b": b, "differences": differences }))?,
            Format::Text if differences.is_empty() => {
                context.print(&format!("`{a}` and `{b}` hold the same images\n"))?;
            }
            Format::Text => context.print(&text(&differences))?,
        }
        match differences.len() {
            0 => Ok(()),
            count => Err(Failure::Differ { a: a.clone(), b: b.clone(), count }),
        }
    }
}

fn text(differences: &[Difference]) -> String {
    let mut text = String::new();
    let mut last = None;
    for difference in differences {
        let place = (&difference.image, &difference.platform);
        if last != Some(place) {
            let platform = difference.platform.as_deref().unwrap_or_default();
            text += &format!("{} {platform}\n", difference.image);
            last = Some(place);
        }
        text += &format!("  {}\n", line(difference));
    }
    text
}

/// A difference in one line.
pub(super) fn line(difference: &Difference) -> String {
    let Difference { path, what, a, b, offset, .. } = difference;
    let whom = path.as_ref().map_or_else(String::new, |path| format!("{path}: "));
    match (what.as_str(), a, b, offset) {
        ("presence", Some(_), None, _) => format!("{whom}only in A"),
        ("presence", ..) => format!("{whom}only in B"),
        (_, Some(a), Some(b), Some(offset)) => {
            format!("{whom}{what} differ from offset {offset} ({a} in A, {b} in B)")
        }
        (_, a, b, _) => {
            let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
            format!("{whom}{what}: {} in A, {} in B", told(a), told(b))
        }
    }
}
