//! `imgbuild config`.

use std::path::PathBuf;

use clap::Args;

use super::kernel::Selection;
use super::{Context, Failure};
use crate::plan::config::{Checked, check};

/// Resolve and check a kernel configuration, without compiling
#[derive(Debug, Args)]
#[command(after_help = "\
Prints what the recipe leaves off although the kernel's defaults have it on, with the recipe's reasons.

Examples:
  imgbuild config 5.10.262 --recipe my.toml
  imgbuild config 5.10.262 --arch all --output configs")]
pub(super) struct Config {
    #[command(flatten)]
    selection: Selection,
    /// Also write each resolved configuration to DIR/config-VERSION-ARCH
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Config {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let plan = self.selection.plan(context)?;
        let checked = check(&plan, &context.store()?, &context.watch)?;
        for one in &checked {
            context.print(&table(one))?;
            if let Some(dir) = &self.output {
                fs_err::create_dir_all(dir)?;
                let path = dir.join(format!("config-{}-{}", one.version, one.arch));
                fs_err::write(&path, &one.configured.text)?;
                context.print(&format!("written to `{}`\n", path.display()))?;
            }
        }
        Ok(())
    }
}

fn table(checked: &Checked) -> String {
    let on = checked.configured.config.on().count();
    let mut text = format!("Linux {} {}: every symbol as asked, {on} on\n", checked.version, checked.arch);
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (symbol, reason) in &checked.explained {
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, symbols)) => symbols.push(symbol),
            None => reasons.push((reason, vec![symbol])),
        }
    }
    if !checked.unexplained.is_empty() {
        let symbols = checked.unexplained.iter().map(String::as_str).collect();
        reasons.insert(
            0,
            ("no reason given: ask for them in a fragment, or accept them with an [[absent]] entry", symbols),
        );
    }
    if !reasons.is_empty() {
        text += "off although alldefconfig with the same fragments has them on:\n";
    }
    for (reason, symbols) in reasons {
        text += &format!("  {reason}\n");
        let mut line = String::from("   ");
        for symbol in symbols {
            if line.len() + symbol.len() > 108 {
                text += &format!("{line}\n");
                line = String::from("   ");
            }
            line += &format!(" {symbol}");
        }
        text += &format!("{line}\n");
    }
    text
}
