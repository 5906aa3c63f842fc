//! `imgbuild cache`.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, Failure, Format};
use crate::step::human;
use crate::store::{Collected, Item, Limits};

/// Look at the store, clean it up, check it
#[derive(Debug, Args)]
pub(super) struct Cache {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the entries with size and last use, least recently used first
    Ls {
        /// How the result is printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Remove what is beyond a limit, least recently used first, and leftovers that nobody needs
    #[command(after_help = "\
What a running imgbuild uses stays. Without a limit only leftovers go: lock files that nobody holds, and logs
and broken-off downloads older than a week.

Examples:
  imgbuild cache gc --max-size 10GB
  imgbuild cache gc --max-age 30d --dry-run")]
    Gc {
        /// Let the entries be so large together: 500MB, 10GB, 10GiB
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
        /// Let entries be unused for so long: 12h, 30d, 8w
        #[arg(long, value_name = "AGE", value_parser = age)]
        max_age: Option<Duration>,
        /// Say what would go, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Hash every entry again and drop the damaged ones; exits with 5 if there were any
    Verify {
        /// How the result is printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

impl Cache {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        match &self.verb {
            Verb::Ls { format } => list(context, *format),
            Verb::Gc { max_size, max_age, dry_run, format } => {
                let limits = Limits { max_size: *max_size, max_age: *max_age };
                collect(context, &limits, *dry_run, *format)
            }
            Verb::Verify { format } => verify(context, *format),
        }
    }
}

fn list(context: &Context, format: Format) -> Result<(), Failure> {
    let store = context.store()?;
    let items = store.items()?;
    let caches = store.tool_caches()?;
    let total: u64 = items.iter().map(|item| item.size).chain(caches.iter().map(|(_, size)| *size)).sum();
    let names = Names::of(context);
    match format {
        Format::Json => {
            let entries: Vec<_> = items.iter().map(|item| names.json(item)).collect();
            let caches: Vec<_> =
                caches.iter().map(|(name, size)| json!({"name": name, "size": size})).collect();
            context.print_json(&json!({
                "store": store.root(), "entries": entries, "caches": caches, "size": total,
            }))
        }
        Format::Text => {
            let mut text: String = items.iter().map(|item| names.line(item)).collect();
            for (name, size) in &caches {
                text += &format!("{name:<23}  {:<48} {:>9}\n", "(has a limit of its own)", human(*size));
            }
            text += &format!("{} in {}\n", counted(items.len()), store.root().display());
            context.print(&format!("{text}{} in all\n", human(total)))
        }
    }
}

fn collect(context: &Context, limits: &Limits, dry_run: bool, format: Format) -> Result<(), Failure> {
    let Collected { items, in_use, leftovers, left } = context.store()?.collect(limits, dry_run)?;
    let freed =
        items.iter().map(|item| item.size).chain(leftovers.iter().map(|leftover| leftover.size)).sum();
    let names = Names::of(context);
    if format == Format::Json {
        let all = |items: &[Item]| items.iter().map(|item| names.json(item)).collect::<Vec<_>>();
        let other = |of: &crate::store::Leftover| json!({"kind": of.kind, "path": of.path, "size": of.size});
        let leftovers: Vec<_> = leftovers.iter().map(other).collect();
        return context.print_json(&json!({
            "dry_run": dry_run, "removed": all(&items), "in_use": all(&in_use), "leftovers": leftovers,
            "freed": freed, "left": left,
        }));
    }
    let mut text: String = items.iter().map(|item| names.line(item)).collect();
    for leftover in leftovers.iter().filter(|leftover| leftover.kind != "lock file") {
        let file = leftover.path.file_name().unwrap_or_default().display();
        text += &format!("{:<16} {file}  {}\n", leftover.kind, human(leftover.size));
    }
    let verb = if dry_run { "would be removed" } else { "removed" };
    let locks = leftovers.iter().filter(|leftover| leftover.kind == "lock file").count();
    let others = leftovers.len() - locks;
    text += &format!(
        "{verb}: {}, {others} logs and broken-off downloads, {locks} lock files; {} freed, {} left\n",
        counted(items.len()),
        human(freed),
        human(left)
    );
    if !in_use.is_empty() {
        text += &format!("{} beyond the limit stay: a running imgbuild uses them\n", counted(in_use.len()));
    }
    context.print(&text)
}

fn verify(context: &Context, format: Format) -> Result<(), Failure> {
    let verified = context.store()?.verify(&context.watch)?;
    let names = Names::of(context);
    let told = |(item, wrong): &(Item, String)| {
        let mut value = names.json(item);
        value["wrong"] = wrong.as_str().into();
        value
    };
    match format {
        Format::Json => {
            let damaged: Vec<_> = verified.damaged.iter().map(told).collect();
            context.print_json(&json!({
                "checked": verified.checked, "size": verified.size, "damaged": damaged,
            }))?;
        }
        Format::Text => {
            let mut text = String::new();
            for (item, wrong) in &verified.damaged {
                text += &format!("{} {}  {wrong}; dropped\n", item.kind, names.name(item));
            }
            let (checked, size) = (counted(verified.checked), human(verified.size));
            text += &format!("{checked} read, {size}; {} damaged\n", verified.damaged.len());
            context.print(&text)?;
        }
    }
    match verified.damaged.len() {
        0 => Ok(()),
        count => Err(Failure::Damaged { count }),
    }
}

/// What downloads are called: the store knows them by their hash, the lock by their file.
struct Names(Vec<(String, String)>);

impl Names {
    /// Without a lock that can be read, downloads go by their hash.
    fn of(context: &Context) -> Self {
        let lock = context.lock(&context.catalogue());
        let name = |pin: &crate::lock::KernelPin| {
            (pin.sha256.clone(), pin.path.rsplit('/').next().unwrap_or_default().to_owned())
        };
        Self(lock.map(|lock| lock.kernels().iter().map(name).collect()).unwrap_or_default())
    }

    fn name<'n>(&'n self, item: &'n Item) -> &'n str {
        let pinned = || self.0.iter().find(|(sha256, _)| *sha256 == item.key).map(|(_, name)| name.as_str());
        item.name.as_deref().or_else(pinned).unwrap_or("(not named)")
    }

    fn json(&self, item: &Item) -> Value {
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let used = crate::oci::image::rfc3339(since(item.used).as_secs());
        json!({"kind": item.kind, "key": item.key, "name": self.name(item), "size": item.size, "used": used})
    }

    fn line(&self, item: &Item) -> String {
        let (kind, key, name) = (&item.kind, &item.key[..12.min(item.key.len())], self.name(item));
        let used = ago(item.used.elapsed().unwrap_or_default());
        format!("{kind:<9} {key}  {name:<48} {:>9}  {used}\n", human(item.size))
    }
}

fn counted(entries: usize) -> String {
    if entries == 1 { "1 entry".into() } else { format!("{entries} entries") }
}

/// How long ago something was, in its largest unit.
fn ago(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match minutes {
        0 => "now".into(),
        1..60 => format!("{minutes} min ago"),
        60..2880 => format!("{} h ago", minutes / 60),
        _ => format!("{} days ago", minutes / 1440),
    }
}

/// A number and its unit.
fn parts(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

/// `10GB`, `500MB`, `2GiB`.
fn size(text: &str) -> Result<u64, String> {
    let scale = |unit: &str| {
        Some(match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" | "k" => 1_000,
            "mb" | "m" => 1_000_000,
            "gb" | "g" => 1_000_000_000,
            "tb" | "t" => 1_000_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            _ => return None,
        })
    };
    let parsed = parts(text).and_then(|(number, unit)| number.checked_mul(scale(unit)?));
    parsed.ok_or_else(|| "write a size as 500MB, 10GB or 10GiB".into())
}

/// `30d`, `12h`, `8w`.
fn age(text: &str) -> Result<Duration, String> {
    let scale = |unit: &str| {
        Some(match unit {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "w" => 7 * 24 * 60 * 60,
            _ => return None,
        })
    };
    let seconds = parts(text).and_then(|(number, unit)| number.checked_mul(scale(unit)?));
    seconds.map(Duration::from_secs).ok_or_else(|| "write an age as 12h, 30d or 8w".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_read() {
        assert_eq!(size("10GB"), Ok(10_000_000_000));
        assert_eq!(size("2 GiB"), Ok(2 << 30));
        assert_eq!(size("17"), Ok(17));
        for wrong in ["", "GB", "1.5GB", "10 parsecs", "99999999999TB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(age("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(age("8w"), Ok(Duration::from_secs(4_838_400)));
        for wrong in ["", "30", "d", "-1d", "1y"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_told_in_their_largest_unit() {
        for (seconds, text) in [(3, "now"), (600, "10 min ago"), (7200, "2 h ago"), (260_000, "3 days ago")] {
            assert_eq!(ago(Duration::from_secs(seconds)), text);
        }
    }
}
