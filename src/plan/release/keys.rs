//! What the cells of a plan are, and what their keys are made of: the recipe and the lock, nothing that is built.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Cell, Desk, Kind};
use crate::arch::Arch;
use crate::lock::ASSEMBLY;
use crate::plan::images::arm_name;
use crate::plan::toolchain::Toolchain;
use crate::plan::{Error, kernel, os};
use crate::recipe::OsRecipe;
use crate::recipe::kernel::Output;
use crate::rootfs::kubernetes;
use crate::step::{Key, Step, hex};

/// The cells of a plan of kernels.
pub(super) fn kernels(plan: &kernel::Plan, desk: &Desk<'_>) -> Result<Vec<Cell>, Error> {
    let mut cells = Vec::new();
    for (pin, made) in &plan.sources {
        for cell in made {
            let (mut keys, mut record) = (Vec::new(), Value::Null);
            for toolchain in toolchains(&cell.toolchain, cell.arch, desk) {
                let identity = toolchain.identity(cell.arch, &desk.watch.cancel)?;
                let nowhere = || unreachable!("only the key is asked for");
                let compile = plan.compile(cell, &identity, &nowhere).record();
                let mut account = json!({
                    "cell": "kernel 1",
                    "assembly": ASSEMBLY,
                    "kernel": Key::of(&compile).to_string(),
                    "images": plan.labelled(pin),
                });
                keys.push(Key::of(&account));
                if record.is_null() {
                    account["kernel"] = compile;
                    // The packages that the tree's key stands for tell more than the key.
                    if let Toolchain::Tree(tree) = &toolchain {
                        account["kernel"]["toolchain"]["tree"] = tree.record();
                    }
                    record = account;
                }
            }
            let version = pin.version.to_string();
            let mut images: Vec<_> = Vec::new();
            for (output, image) in plan.image_names(pin) {
                let image = repository(&image).to_owned();
                let alias =
                    (output == Output::Combined && cell.arch == Arch::Arm64).then(|| arm_name(&image));
                images.extend([image].into_iter().chain(alias));
            }
            cells.push(Cell {
                name: name(Kind::Kernel, &plan.recipe.name, &version, cell.arch),
                kind: Kind::Kernel,
                recipe: plan.recipe.name.clone(),
                version,
                arch: cell.arch,
                is_pinned: cell.toolchain.is_identified(),
                keys,
                images,
                record,
            });
        }
    }
    Ok(cells)
}

/// The toolchain as a machine of the target's architecture has it, then as others do.
fn toolchains(chosen: &Toolchain, target: Arch, desk: &Desk<'_>) -> Vec<Toolchain> {
    let Toolchain::Tree(_) = chosen else { return vec![chosen.clone()] };
    let others = Arch::ALL.into_iter().filter(|arch| *arch != target);
    [target].into_iter().chain(others).map(|host| chosen.on(host, desk.lock, desk.mirrors)).collect()
}

/// The cells of a plan of root volumes.
pub(super) fn systems(plan: &os::Plan, desk: &Desk<'_>) -> Result<Vec<Cell>, Error> {
    let mut cells = Vec::new();
    for set in plan.nodes.iter().flatten() {
        for arch in &plan.arches {
            let base = plan.base(*arch);
            let mut record = json!({
                "cell": "os 1",
                "assembly": ASSEMBLY,
                // What lays the programs out and checks the whole has no number of its own.
                "imgbuild": env!("CARGO_PKG_VERSION"),
                "base": base.record(),
                "programs": plan.programs(set, *arch)?,
                "texts": kubernetes::texts(set, *arch),
                "configuration": configuration(&plan.recipe),
                "labels": plan.labels(Some(set)),
            });
            let image = plan.repository();
            let mut images = vec![image.to_owned()];
            for cell in plan.kernel.iter().flat_map(kernel::Plan::cells).filter(|cell| cell.arch == *arch) {
                let kernels = plan.kernel.iter();
                let compiled =
                    kernels.map(|kernel| compiled(kernel, cell, desk)).collect::<Result<Vec<_>, _>>()?;
                record["modules"] = json!(compiled);
                images.extend((*arch == Arch::Arm64).then(|| arm_name(image)));
            }
            cells.push(Cell {
                name: name(Kind::Os, &plan.recipe.name, &set.version, *arch),
                kind: Kind::Os,
                recipe: plan.recipe.name.clone(),
                version: set.version.clone(),
                arch: *arch,
                is_pinned: base.pin.is_some(),
                keys: vec![Key::of(&record)],
                images,
                record,
            });
        }
    }
    Ok(cells)
}

/// The keys of a kernel by each of the toolchains that may compile it.
fn compiled(plan: &kernel::Plan, cell: &kernel::Cell, desk: &Desk<'_>) -> Result<Vec<String>, Error> {
    let key = |toolchain: Toolchain| {
        let identity = toolchain.identity(cell.arch, &desk.watch.cancel)?;
        let nowhere = || unreachable!("only the key is asked for");
        Ok(plan.compile(cell, &identity, &nowhere).key().to_string())
    };
    toolchains(&cell.toolchain, cell.arch, desk).into_iter().map(key).collect()
}

/// What a recipe says beside its packages.
fn configuration(recipe: &OsRecipe) -> Value {
    let file = |file: &crate::recipe::os::File| {
        let sha256 = hex(&Sha256::digest(&file.bytes));
        json!({ "path": file.path, "sha256": sha256, "mode": file.mode, "owner": file.owner, "replace": file.replace })
    };
    json!({
        "files": recipe.files.values().map(file).collect::<Vec<_>>(),
        "links": recipe.links,
        "directories": recipe.directories,
        "units": recipe.units,
        "enabled": recipe.enabled,
        "masked": recipe.masked,
        "sysctls": recipe.sysctls,
        "modules": recipe.modules,
    })
}

fn name(kind: Kind, recipe: &str, version: &str, arch: Arch) -> String {
    format!("{}/{recipe}/{version}/{}", kind.name(), arch.oci())
}

/// An image's name without its tag.
pub(super) fn repository(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}
