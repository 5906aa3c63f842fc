//! The plan of root volumes told before it is carried out.

use super::layers::{ConfigurationLayer, paths};
use super::{Plan, releases};
use crate::fetch;
use crate::lock::node::NodeSet;
use crate::plan::Error;
use crate::plan::images::arm_name;
use crate::plan::outline::{Line, line};
use crate::rootfs::base::{Base, Made, MakeBase};
use crate::rootfs::overlay::Overlay;
use crate::rootfs::{configuration, kubernetes};
use crate::step::{Key, Step, Watch};
use crate::store::Store;

impl Plan {
    /// What would be done, and what is done already; with `explain`, each step with its record.
    pub fn outline(&self, explain: bool, store: &Store) -> Result<Vec<Line>, Error> {
        let mut lines = Vec::new();
        if let Some(kernel) = &self.kernel {
            let steps = kernel.outline(explain, store, &Watch::silent())?;
            lines.extend(steps.into_iter().filter(|line| ["fetch", "compile"].contains(&line.step)));
        }
        for arch in &self.arches {
            let base = self.base(*arch);
            let nowhere = || unreachable!("an outline runs no step");
            let step: MakeBase<'_, Error> = MakeBase { base: &base, lock: self.lock.name(), place: &nowhere };
            let (kind, key) = (step.kind(), step.key());
            let pinned = base.pin.as_ref().map_or_else(
                || format!("{} as of {}, not pinned", base.archive.place, base.archive.snapshot),
                |pin| format!("{} pinned packages of {}", pin.packages.len(), base.archive.place),
            );
            let what = |what: &str| format!("{what} {arch}");
            lines.push(line("base", what(&base.name), pinned, &step, explain, store));
            let found = store.look(kind, key);
            let made = found
                .as_ref()
                .map(|(path, content)| Ok::<_, Error>((Made::of(path)?, *content)))
                .transpose()?;
            if let Some((made, content)) = &made {
                let step = self.base_layer(&base, *content, made);
                lines.push(line(
                    "pack",
                    what(&base.name),
                    "shared by every version".into(),
                    &step,
                    explain,
                    store,
                ));
            } else {
                lines.push(Line::plain(
                    "pack",
                    what(&base.name),
                    None,
                    "the base, when it is made".into(),
                    false,
                ));
            }
            for node in &self.nodes {
                self.outline_node(node.as_ref(), &base, made.as_ref(), explain, store, &mut lines)?;
            }
        }
        for (pin, cells) in self.kernel.iter().flat_map(|kernel| &kernel.sources) {
            lines.extend(cells.iter().map(|cell| {
                let what = format!("modules {} {} in the root", pin.version, cell.arch);
                Line::plain("pack", what, None, "the kernel's modules, over the base".into(), false)
            }));
        }
        for node in &self.nodes {
            let platforms: Vec<_> = self.arches.iter().map(|arch| arch.oci()).collect();
            let input = format!("the layers for {}", platforms.join(" and "));
            let name = self.image_name(node.as_ref());
            let has_alias = self.kernel.is_some() && platforms.contains(&"arm64");
            let alias = has_alias
                .then(|| Line::plain("name", arm_name(&name), None, format!("arm64 of {name}"), false));
            lines.push(Line::plain("assemble", name, None, input, false));
            lines.extend(alias);
        }
        Ok(lines)
    }

    fn outline_node(
        &self,
        node: Option<&NodeSet>,
        base: &Base,
        made: Option<&(Made, Key)>,
        explain: bool,
        store: &Store,
        lines: &mut Vec<Line>,
    ) -> Result<(), Error> {
        let (arch, epoch) = (base.arch, base.archive.epoch());
        let mut overlay = made.map(|(made, _)| Overlay::new(&made.contents));
        if let Some(set) = node {
            for release in releases(set, arch, &self.lock)? {
                let cached = fetch::is_cached(&store.downloads(), &release.file);
                let what = format!("{} {} {arch}", release.name, release.version);
                let input = format!("{} of {}", release.file.name(), release.file.place);
                lines.push(Line::plain("fetch", what, Some(release.file.sha256.clone()), input, cached));
            }
            let what = format!("Kubernetes {} {arch}", set.version);
            if let Some((made, content)) = made {
                let step = self.kubernetes_layer(set, arch, epoch, *content, &made.contents, store)?;
                let input = format!(
                    "containerd {}, runc {}",
                    set.version_of("containerd", arch),
                    set.version_of("runc", arch)
                );
                lines.push(line("pack", what, input, &step, explain, store));
                if let (Some(overlay), Some((path, _))) = (&mut overlay, store.look(step.kind(), step.key()))
                {
                    overlay.take(kubernetes::LAYER, &paths(&path)?);
                }
            } else {
                lines.push(Line::plain("pack", what, None, "the programs, over the base".into(), false));
            }
        }
        let what = format!("configuration of {} {arch}", self.recipe.name);
        if let (Some(mut overlay), Some((made, _))) = (overlay, made) {
            let entries =
                overlay.add(configuration::LAYER, configuration::entries(&self.recipe, &made.contents)?)?;
            let count = format!("{} entries of the recipe", entries.len());
            let step =
                ConfigurationLayer { name: &self.recipe.name, arch, entries, epoch, packing: self.packing };
            lines.push(line("pack", what, count, &step, explain, store));
        } else {
            lines.push(Line::plain("pack", what, None, "the recipe, over the base".into(), false));
        }
        Ok(())
    }
}
