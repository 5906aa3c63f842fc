//! `imgbuild diff`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Context, Failure, Format};
use crate::inspect::diff::{Difference, Side, diff};
use crate::oci::layout::Layout;

/// Tell in which files, and how, the images of two OCI layouts differ
///
/// Images are compared by name and platform; DIR:IMAGE compares one, whose name may differ on the other side. Exit code
/// 9 if anything differs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild diff out /mnt/other/out
  imgbuild diff out:kernel-bin:5.10.77 out:kernel-bin:5.10.262")]
pub(super) struct Diff {
    /// An OCI layout, or one image of it
    #[arg(value_name = "DIR[:IMAGE]")]
    a: String,
    /// The other
    #[arg(value_name = "DIR[:IMAGE]")]
    b: String,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Diff {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let ((dir_a, image_a), (dir_b, image_b)) = (place(&self.a), place(&self.b));
        let (a, b) = (Layout::open(&dir_a)?, Layout::open(&dir_b)?);
        let side = |source, image| Side { source, image };
        let differences = diff(&side(&a, image_a), &side(&b, image_b), &context.watch.cancel)?;
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

/// Splits `DIR:IMAGE`. Both may have colons: the shortest beginning that is a directory is the directory.
fn place(argument: &str) -> (PathBuf, Option<String>) {
    let whole = (PathBuf::from(argument), None);
    if whole.0.is_dir() {
        return whole;
    }
    let splits = argument.match_indices(':').map(|(at, _)| (&argument[..at], &argument[at + 1..]));
    let mut splits = splits.filter(|(dir, image)| !dir.is_empty() && !image.is_empty());
    let first = splits.clone().next();
    let split = splits.find(|(dir, _)| PathBuf::from(dir).is_dir()).or(first);
    split.map_or(whole, |(dir, image)| (dir.into(), Some(image.to_owned())))
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

fn line(difference: &Difference) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_an_image_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let both = |dir: &str, image: &str| (PathBuf::from(dir), Some(image.to_owned()));
        assert_eq!(place(dir), (PathBuf::from(dir), None));
        assert_eq!(place(&format!("{dir}:kernel:5.10")), both(dir, "kernel:5.10"));
        fs_err::create_dir(format!("{dir}:x")).unwrap();
        assert_eq!(place(&format!("{dir}:x")), (PathBuf::from(format!("{dir}:x")), None));
        fs_err::remove_dir(format!("{dir}:x")).unwrap();
        assert_eq!(place("not/there:kernel:5.10"), both("not/there", "kernel:5.10"));
        assert_eq!(place("not/there"), (PathBuf::from("not/there"), None));
    }
}
