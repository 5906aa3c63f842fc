//! The lock's text changed in place: what is not changed stays as it was written, comments and all.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::KernelPin;
use super::node::{NodeSet, Release};
use crate::version::Version;

/// Adds a pin behind the last older one of its place; `comment` is a line to stand above it.
///
/// The text must be a lock that [`super::Lock::parse`] accepts.
pub fn add_kernel(text: &str, pin: &KernelPin, comment: &str) -> Result<String, toml_edit::TomlError> {
    let mut document: DocumentMut = text.parse()?;
    let array = document.entry("kernel").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(array) = array.as_array_of_tables_mut() else {
        unreachable!("a lock's kernels are an array of tables")
    };
    let mut tables: Vec<Table> = array.iter().cloned().collect();
    let text_of = |table: &Table, field: &str| table.get(field).and_then(Item::as_str).map(str::to_owned);
    let of_place = |table: &&Table| text_of(table, "place").as_deref() == Some(&pin.place);
    let is_older = |table: &Table| {
        let version = text_of(table, "version").and_then(|text| text.parse::<Version>().ok());
        of_place(&table) && version.is_some_and(|version| version < pin.version)
    };
    let mut added = table(pin);
    let position = match tables.iter().rposition(is_older) {
        Some(older) => older + 1,
        None => tables.iter().position(|table| of_place(&table)).unwrap_or(tables.len()),
    };
    added.decor_mut().set_prefix(format!("\n# {comment}\n"));
    tables.insert(position, added);
    array.clear();
    array.extend(tables);
    Ok(document.to_string())
}

/// Adds a set behind the last one of an older version, and release files behind those of their program; `comment` is a
/// line to stand above the set.
pub fn add_kubernetes(
    text: &str,
    set: &NodeSet,
    releases: &[Release],
    comment: &str,
) -> Result<String, toml_edit::TomlError> {
    let mut document: DocumentMut = text.parse()?;
    let text_of = |table: &Table, field: &str| table.get(field).and_then(Item::as_str).map(str::to_owned);
    let is_older = |table: &Table, version: &str| {
        text_of(table, "version").is_some_and(|other| numbers(&other) <= numbers(version))
    };
    let mut added = Table::new();
    added.insert("version", value(&set.version));
    added.insert("pause", value(&set.pause));
    let mut arches = Table::new();
    arches.set_implicit(true);
    for (name, arch, version) in set.programs() {
        match arch {
            None => drop(added.insert(name, value(version))),
            Some(arch) => {
                let table = arches.entry(arch.name()).or_insert_with(|| Item::Table(Table::new()));
                table[name] = value(version);
            }
        }
    }
    if !arches.is_empty() {
        added.insert("arch", Item::Table(arches));
    }
    added.decor_mut().set_prefix(format!("\n# {comment}\n"));
    insert(&mut document, "kubernetes", added, |table| is_older(table, &set.version));
    for release in releases {
        let mut table = Table::new();
        let mut field = |name: &str, text: &str| table.insert(name, value(text));
        field("name", &release.name);
        field("version", &release.version);
        field("arch", release.arch.name());
        field("place", &release.file.place);
        field("path", &release.file.path);
        field("sha256", &release.file.sha256);
        table.decor_mut().set_prefix("\n");
        insert(&mut document, "release", table, |table| {
            text_of(table, "name").as_deref() == Some(&release.name) && is_older(table, &release.version)
        });
    }
    Ok(document.to_string())
}

/// Puts a table of an array behind the last one that `is_before` holds for, or to the end.
fn insert(document: &mut DocumentMut, array: &str, added: Table, is_before: impl Fn(&Table) -> bool) {
    let array = document.entry(array).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(array) = array.as_array_of_tables_mut() else {
        unreachable!("a lock's entries are arrays of tables")
    };
    let mut tables: Vec<Table> = array.iter().cloned().collect();
    let position = tables.iter().rposition(is_before).map_or(tables.len(), |last| last + 1);
    tables.insert(position, added);
    array.clear();
    array.extend(tables);
}

/// The numbers of a version, to compare it by.
fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn table(pin: &KernelPin) -> Table {
    let mut table = Table::new();
    let mut field = |name: &str, text: &str| table.insert(name, value(text));
    field("version", &pin.version.to_string());
    field("place", &pin.place);
    field("path", &pin.path);
    field("sha256", &pin.sha256);
    if let Some(homepage) = &pin.homepage {
        field("homepage", homepage);
    }
    if let Some(size) = pin.size.and_then(|size| i64::try_from(size).ok()) {
        table.insert("size", value(size));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Lock;

    const TEXT: &str = include_str!("../../recipes/imgbuild.lock");

    fn pin(version: &str) -> KernelPin {
        KernelPin {
            version: version.parse().unwrap(),
            place: "kernel.org".into(),
            path: format!("linux/kernel/v5.x/linux-{version}.tar.xz"),
            sha256: "0".repeat(64),
            size: Some(7),
            homepage: None,
        }
    }

    #[test]
    fn a_pin_is_added_in_its_order_and_nothing_else_changes() {
        for (version, before) in [
            ("5.10.999", "5.10.265"),
            ("5.10.78", "5.10.77"),
            ("6.99.1", "6.12.104"),
            ("4.19.300", "4.19.215"),
        ] {
            let changed = add_kernel(TEXT, &pin(version), "why").unwrap();
            let entry = format!(
                "\n# why\n[[kernel]]\nversion = \"{version}\"\nplace = \"kernel.org\"\npath = \"linux/kernel/v5.x/linux-{version}.tar.xz\"\nsha256 = \"{}\"\nsize = 7\n",
                "0".repeat(64)
            );
            let (head, rest) = changed.split_once(&entry).unwrap();
            assert_eq!(format!("{head}{rest}"), TEXT);
            let last = head.lines().rfind(|line| line.starts_with("version")).unwrap();
            assert_eq!(last, format!("version = \"{before}\""));
            Lock::parse("l", &changed).unwrap();
        }
    }

    #[test]
    fn the_first_pins_of_a_lock_are_added_too() {
        let places = "assembly = 1 # one\n\n[places]\n\"kernel.org\" = \"https://k.test\" # there\n";
        let one = add_kernel(places, &pin("5.10.2"), "a").unwrap();
        let two = add_kernel(&one, &pin("5.10.1"), "b").unwrap();
        assert!(two.starts_with(places), "{two}");
        let versions: Vec<_> = two.lines().filter(|line| line.starts_with("version")).collect();
        assert_eq!(versions, ["version = \"5.10.1\"", "version = \"5.10.2\""]);
        assert_eq!(Lock::parse("l", &two).unwrap().kernels().len(), 2);
    }
}
