//! Until when the publishers mend what is released: data of the catalogue, and what is said about it.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use jiff::civil::Date;

use super::Kind;
use crate::document::{Document, Fields, Mistakes};
use crate::lock;
use crate::plan::Error;
use crate::recipe::Catalogue;

/// The file's path in a catalogue.
const FILE: &str = "recipes/end-of-life.toml";
/// An end is near for so many days.
const NEAR: i32 = 90;

/// The last days of series, by kind and series.
#[derive(Debug, Default)]
pub struct Lives(BTreeMap<(Kind, String), Date>);

impl Lives {
    /// The ends that a catalogue knows; none where it has no such file.
    pub fn read(catalogue: &Catalogue) -> Result<Option<Self>, Error> {
        match catalogue.read(FILE) {
            Ok(text) => Ok(Some(Self::parse(&catalogue.name(FILE), &text).map_err(lock::Error::from)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn parse(name: &str, text: &str) -> Result<Self, Mistakes> {
        let entry = |fields: &Fields<'_>| {
            let (series, ends) = (fields.required("series"), fields.required("ends"));
            let ends = ends?;
            let Ok(date) = ends.value.parse::<Date>() else {
                let message = format!("`{}` is no day such as 2026-12-31", ends.value);
                fields.mistake(&ends, message, None);
                return None;
            };
            Some((series?.value, date))
        };
        Document::new(name, text).read(|top| {
            let mut lives = BTreeMap::new();
            for (kind, table) in [(Kind::Kernel, "kernel"), (Kind::Os, "kubernetes")] {
                let entries = top.tables(table, entry).into_iter().flatten();
                lives.extend(entries.map(|(series, ends)| ((kind, series), ends)));
            }
            Self(lives)
        })
    }

    /// What is to be said about a series on a day; nothing where its end is far.
    pub fn warning(&self, kind: Kind, series: &str, today: Date) -> Option<String> {
        let what = format!("{} {series}", if kind == Kind::Kernel { "Linux" } else { "Kubernetes" });
        let Some(end) = self.0.get(&(kind, series.to_owned())) else {
            return Some(format!("{what}: `{FILE}` does not know when it ends; add its date there"));
        };
        let left = (*end - today).get_days();
        match left {
            ..0 => Some(format!(
                "{what} has had no security fixes since {end}: plan for a newer series, and take it out of the recipe"
            )),
            0..=NEAR => Some(format!("{what} ends on {end}, in {}: add a newer series", days(left))),
            _ => None,
        }
    }
}

fn days(count: i32) -> String {
    if count == 1 { "1 day".into() } else { format!("{count} days") }
}

/// The day it is, in UTC.
pub fn today() -> Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Diagnose;

    #[test]
    fn ends_that_are_past_near_far_and_unknown_are_told_apart() {
        let text = "[[kernel]]\nseries = '5.10'\nends = '2026-12-31'\n[[kubernetes]]\nseries = '1.22'\nends = '2022-10-28'\n";
        let lives = Lives::parse("l", text).unwrap();
        let said = |kind, series: &str, today: &str| lives.warning(kind, series, today.parse().unwrap());
        assert_eq!(said(Kind::Kernel, "5.10", "2026-10-01"), None);
        for (today, words) in [
            ("2026-10-02", "ends on 2026-12-31, in 90 days"),
            ("2026-12-30", "in 1 day"),
            ("2026-12-31", "in 0 days"),
            ("2027-01-01", "no security fixes since 2026-12-31"),
        ] {
            let said = said(Kind::Kernel, "5.10", today).unwrap();
            assert!(said.starts_with("Linux 5.10 ") && said.contains(words), "{today}: {said}");
        }
        assert!(said(Kind::Os, "1.22", "2026-01-01").unwrap().starts_with("Kubernetes 1.22 has had no"));
        assert!(said(Kind::Os, "1.99", "2026-01-01").unwrap().contains("does not know"));
    }

    #[test]
    fn the_shipped_file_knows_all_that_is_released() {
        let catalogue = Catalogue::Builtin;
        let lives = Lives::read(&catalogue).unwrap().unwrap();
        for flavour in catalogue.flavours().unwrap() {
            for version in catalogue.flavour(&flavour).unwrap().released {
                assert!(lives.0.contains_key(&(Kind::Kernel, version.series())), "{version}");
            }
        }
        for system in catalogue.systems().unwrap() {
            for version in catalogue.system(&system).unwrap().kubernetes {
                assert!(lives.0.contains_key(&(Kind::Os, super::super::series(&version))), "{version}");
            }
        }
    }

    #[test]
    fn a_day_that_is_none_is_told() {
        let text = "[[kernel]]\nseries = '5.10'\nends = 'soon'\n";
        let detail = Lives::parse("l", text).unwrap_err().detail().unwrap();
        assert!(detail.contains("`soon` is no day"), "{detail}");
    }
}
