//! A plan told before it is carried out: its steps, what is done already, and why the rest is not.

use serde::Serialize;
use serde_json::Value;

use super::Error;
use super::headers::HeadersLayer;
use super::images::arm_name;
use super::kernel::{Cell, Plan, read_facts};
use super::pack::{Pack, Role};
use crate::fetch;
use crate::kernel::headers::Symbols;
use crate::recipe::kernel::Output;
use crate::step::{Key, Step, Watch};
use crate::store::{Store, Why};

/// One step of a plan.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Line {
    /// The step: fetch, compile, pack, assemble.
    pub step: &'static str,
    /// What it works on.
    pub what: String,
    /// Its key, or the sha256 of what it fetches; none where it hangs on a step that is still to be done.
    pub key: Option<String>,
    /// Where it comes from, or what goes into it.
    pub input: String,
    /// Whether it is in the store.
    pub cached: bool,
    /// The cache in a registry that has it, where the store has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
    /// The account of all that can change its result, of which the key is the digest; asked for by `--explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Value>,
    /// Why it is not in the store, compared with how the step of this name was last made or found here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<Why>,
}

impl Line {
    pub(super) fn plain(
        step: &'static str,
        what: String,
        key: Option<String>,
        input: String,
        cached: bool,
    ) -> Self {
        Self { step, what, key, input, cached, elsewhere: None, record: None, missed: None }
    }
}

impl Plan {
    /// What would be done, and what is done already; with `explain`, the layers too, each step with its record.
    pub fn outline(&self, explain: bool, store: &Store, watch: &Watch) -> Result<Vec<Line>, Error> {
        let toolchains = self.toolchains(store, watch)?;
        let mut lines = Vec::new();
        for (pin, cells) in &self.sources {
            let file = pin.path.rsplit('/').next().unwrap_or(&pin.path).to_owned();
            let input = self.lock.source_url(pin).unwrap_or_else(|| pin.place.clone());
            let cached = fetch::is_cached(&store.downloads(), &pin.file());
            lines.push(Line::plain("fetch", file, Some(pin.sha256.clone()), input, cached));
            for cell in cells {
                let nowhere = || unreachable!("an outline runs no step");
                let step = self.compile(cell, &toolchains[&cell.tools()], &nowhere);
                let (what, asked) =
                    (format!("Linux {} {}", pin.version, cell.arch), cell.requested.requests().len());
                let (recipe, toolchain) = (&self.recipe, cell.toolchain.name());
                let input =
                    format!("{asked} symbols of {} on {}, with {toolchain}", recipe.name, recipe.base);
                lines.push(line("compile", what, input, &step, explain, store));
                if explain {
                    lines.extend(self.layers(cell, step.kind(), step.key(), store)?);
                }
                if self.outputs.contains(&Output::Headers) {
                    let symbols = &Symbols {
                        compile: self.compile(cell, &toolchains[&cell.tools()], &nowhere),
                        built: None,
                    };
                    let step = HeadersLayer { compile: step, symbols, packing: self.packing(), store };
                    let what = format!("headers {} {}", cell.pin.version, cell.arch);
                    let input = "the configured source, and what the kernel exports".into();
                    lines.push(line("pack", what, input, &step, explain, store));
                }
            }
            for (output, name) in self.image_names(pin) {
                let platforms: Vec<_> = cells.iter().map(|cell| cell.arch.oci()).collect();
                let what = match output {
                    Output::Combined => "kernel and modules",
                    other => other.name(),
                };
                let input = format!("the {what} of {}", platforms.join(" and "));
                let alias = (output == Output::Combined && platforms.contains(&"arm64"))
                    .then(|| Line::plain("name", arm_name(&name), None, format!("arm64 of {name}"), false));
                lines.push(Line::plain("assemble", name, None, input, false));
                lines.extend(alias);
            }
        }
        Ok(lines)
    }

    /// The layers of a kernel: their keys depend on its files, so they are known once it is there.
    fn layers(&self, cell: &Cell, kind: &str, key: Key, store: &Store) -> Result<Vec<Line>, Error> {
        let kernel = store.look(kind, key);
        let mut lines = Vec::new();
        let is_packed = |role: Role| {
            let has = |output| self.outputs.contains(&output);
            has(Output::Combined)
                || match role {
                    Role::Kernel => has(Output::Kernel),
                    Role::Modules => has(Output::Modules),
                }
        };
        for role in [Role::Kernel, Role::Modules].into_iter().filter(|role| is_packed(*role)) {
            let what = format!("{} {} {}", role.name(), cell.pin.version, cell.arch);
            let Some((path, content)) = &kernel else {
                let input = "the kernel, when it is compiled".into();
                lines.push(Line::plain("pack", what, None, input, false));
                continue;
            };
            let facts = read_facts(path)?;
            if role == Role::Modules && !facts.modules {
                continue;
            }
            let (kernel, content, flavour) = (path.as_path(), *content, self.recipe.name.as_str());
            let step = Pack {
                kernel,
                content,
                facts: &facts,
                arch: cell.arch,
                flavour,
                role,
                packing: self.packing(),
            };
            lines.push(line("pack", what, format!("kernel {}", key.short()), &step, true, store));
        }
        Ok(lines)
    }
}

/// A line of a step.
pub(super) fn line<S: Step>(
    verb: &'static str,
    what: String,
    input: String,
    step: &S,
    explain: bool,
    store: &Store,
) -> Line {
    let record = step.record();
    let key = Key::of(&record);
    let cached = store.peek(step.kind(), key);
    let missed = if explain && !cached { store.why(step.kind(), &step.name(), &record) } else { None };
    let plain = Line::plain(verb, what, Some(key.to_string()), input, cached);
    let elsewhere = if cached { None } else { store.elsewhere(step, key) };
    Line { elsewhere, record: explain.then_some(record), missed, ..plain }
}
