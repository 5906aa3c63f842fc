//! Which images are made of a kernel, and what has to be so for it.

use super::Error;
use super::images::arm_name;
use super::kernel::Cell;
use crate::kernel::kconfig::fragment::Value;
use crate::recipe::KernelRecipe;
use crate::recipe::kernel::Output;

/// The images that are meant, sorted: those asked for, or the recipe's. No two have one name.
pub(super) fn meant(asked: &[Output], recipe: &KernelRecipe) -> Result<Vec<Output>, Error> {
    let mut outputs = if asked.is_empty() { recipe.outputs().to_vec() } else { asked.to_vec() };
    outputs.sort_unstable();
    outputs.dedup();
    let mut names: Vec<(String, String)> = Vec::new();
    for output in &outputs {
        let name = recipe.image(*output);
        let alias = (*output == Output::Combined)
            .then(|| (arm_name(name), format!("{}'s other name for arm64", output.name())));
        for (name, what) in [(name.to_owned(), output.name().to_owned())].into_iter().chain(alias) {
            if let Some((name, first)) = names.iter().find(|(other, _)| *other == name) {
                let (recipe, name, outputs) = (recipe.name.clone(), name.clone(), [first.clone(), what]);
                return Err(Error::SameName { recipe, name, outputs });
            }
            names.push((name, what));
        }
    }
    Ok(outputs)
}

/// Fails if images of modules are named and nothing asks for modules: Kconfig has them off by itself.
pub(super) fn require_modules(outputs: &[Output], recipe: &KernelRecipe, cell: &Cell) -> Result<(), Error> {
    let are_asked = cell.requested.get("MODULES").is_some_and(|request| request.value == Value::Yes);
    let outputs: Vec<_> = outputs.iter().copied().filter(|output| *output != Output::Kernel).collect();
    if are_asked || outputs.is_empty() {
        return Ok(());
    }
    let (version, arch, flavour) = (cell.pin.version.clone(), cell.arch, recipe.name.clone());
    Err(Error::NoModules { version, arch, flavour, outputs })
}
