//! Debian's versions compared (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions: epochs as numbers, then what upstream calls them, then Debian's revisions.
pub(in crate::inspect::node) fn compare(one: &str, other: &str) -> Ordering {
    let ([one, other], revisions) = {
        let (one, other) = (Parts::of(one), Parts::of(other));
        match one.epoch.cmp(&other.epoch) {
            Ordering::Equal => {}
            different => return different,
        }
        ([one.upstream, other.upstream], [one.revision, other.revision])
    };
    compare_part(one, other).then_with(|| compare_part(revisions[0], revisions[1]))
}

/// Whether `version relation wanted` holds; none for a relation that there is not.
pub(in crate::inspect::node) fn holds(version: &str, relation: &str, wanted: &str) -> Option<bool> {
    let order = compare(version, wanted);
    Some(match relation {
        "<<" => order.is_lt(),
        // The bare ones are deprecated and mean the same as with `=`.
        "<=" | "<" => order.is_le(),
        "=" => order.is_eq(),
        ">=" | ">" => order.is_ge(),
        ">>" => order.is_gt(),
        _ => return None,
    })
}

struct Parts<'v> {
    epoch: u64,
    upstream: &'v str,
    revision: &'v str,
}

impl<'v> Parts<'v> {
    fn of(version: &'v str) -> Self {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        Self { epoch: epoch.parse().unwrap_or(0), upstream, revision }
    }
}

/// Compares stretches of non-digits and of digits by turns.
fn compare_part(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while !one.is_empty() || !other.is_empty() {
        let words =
            (cut(&mut one, |byte| !byte.is_ascii_digit()), cut(&mut other, |byte| !byte.is_ascii_digit()));
        let end = words.0.len().max(words.1.len());
        // One place further, where both have ended.
        for place in 0..=end {
            match weight(words.0.get(place)).cmp(&weight(words.1.get(place))) {
                Ordering::Equal => {}
                different => return different,
            }
        }
        let numbers = (cut(&mut one, u8::is_ascii_digit), cut(&mut other, u8::is_ascii_digit));
        let significant = |digits: &[u8]| {
            let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
            digits[zeros..].to_vec()
        };
        let (a, b) = (significant(numbers.0), significant(numbers.1));
        match a.len().cmp(&b.len()).then_with(|| a.cmp(&b)) {
            Ordering::Equal => {}
            different => return different,
        }
    }
    Ordering::Equal
}

/// Takes what `fits` off the front.
fn cut<'p>(part: &mut &'p [u8], fits: impl Fn(&u8) -> bool) -> &'p [u8] {
    let length = part.iter().take_while(|byte| fits(byte)).count();
    let (front, rest) = part.split_at(length);
    *part = rest;
    front
}

/// A tilde sorts before the end, that before letters, those before everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_dpkg_sorts_them() {
        let rising = [
            "0~rc1",
            "0",
            "1.0~",
            "1.0~beta1~svc1",
            "1.0~beta1",
            "1.0",
            "1.0-0.1",
            "1.0-1",
            "1.0-1ubuntu1",
            "1.0-1+b1",
            "1.0a",
            "1.0+b",
            "1.2.3",
            "1.2.10",
            "20.1-10-g71af48df-0ubuntu5",
            "20.4-1ubuntu1",
            "1:0.1",
            "2:0.1",
        ];
        for (place, one) in rising.iter().enumerate() {
            for (other_place, other) in rising.iter().enumerate() {
                assert_eq!(compare(one, other), place.cmp(&other_place), "{one} and {other}");
            }
        }
        assert_eq!(compare("1.0", "1.0-0"), Ordering::Equal);
        assert_eq!(compare("0:1.00", "1.0"), Ordering::Equal);
    }

    #[test]
    fn relations_hold_or_not() {
        for (relation, below, same, above) in [
            ("<<", true, false, false),
            ("<=", true, true, false),
            ("=", false, true, false),
            (">=", false, true, true),
            (">>", false, false, true),
        ] {
            let found = ["1.9", "2.0", "2.1"].map(|version| holds(version, relation, "2.0").unwrap());
            assert_eq!(found, [below, same, above], "{relation}");
        }
        assert_eq!(holds("1", "~>", "1"), None);
    }
}
