//! What a recipe itself says: files, units and what is enabled, kernel parameters, modules, links.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Error;
use super::clean::Contents;
use super::overlay::Upper;
use super::units::{self, DIR};
use crate::oci::layer::{Content, Entry};
use crate::recipe::OsRecipe;

/// What messages call the layer.
pub const LAYER: &str = "the configuration layer";

/// Where the units of a base lie, once its links are followed.
const BASE_UNITS: &str = "lib/systemd/system";

/// Everything of the layer.
pub fn entries(recipe: &OsRecipe, base: &Contents) -> Result<Vec<Upper>, Error> {
    let text =
        |path: String, text: String| Upper::from(Entry::new(path, 0o644, Content::Bytes(text.into_bytes())));
    let mut uppers = Vec::new();
    for file in recipe.files.values() {
        let content = Content::Bytes(file.bytes.clone());
        let entry = Entry::new(file.path.as_bytes(), file.mode, content).owned_by(file.owner.0, file.owner.1);
        uppers.push(Upper { entry, replace: file.replace });
    }
    for (name, unit) in &recipe.units {
        uppers.push(text(format!("{DIR}/{name}"), unit.clone()));
    }
    uppers.extend(recipe.directories.iter().map(|path| Entry::directory(path.as_str()).into()));
    let mut texts = base.units.clone();
    texts.extend(recipe.units.clone());
    let place = |unit: &str| if recipe.units.contains_key(unit) { DIR } else { BASE_UNITS }.to_owned();
    let enabled = units::links(&recipe.enabled, &recipe.masked, &texts, place)?;
    let links: BTreeMap<_, _> = enabled.into_iter().chain(recipe.links.clone()).collect();
    uppers.extend(links.into_iter().map(|(path, target)| {
        // A recipe's link is meant, whatever a package's script made there.
        Upper { entry: Entry::symlink(path, target), replace: true }
    }));
    if !recipe.sysctls.is_empty() {
        let parameters = recipe.sysctls.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name} = {value}");
            text
        });
        uppers.push(text("etc/sysctl.d/90-imgbuild.conf".into(), parameters));
    }
    if !recipe.modules.is_empty() {
        uppers.push(text("etc/modules-load.d/imgbuild.conf".into(), recipe.modules.join("\n") + "\n"));
    }
    Ok(uppers)
}
