//! Records compared: which field gave a step another key than before.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// How much of a value is shown.
const SHOWN: usize = 48;

/// One field in which two records differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The field's path: `toolchain.gcc`.
    pub field: String,
    /// Its value in the earlier record; none if it was not there.
    pub before: Option<Value>,
    /// Its value in the later record; none if it is not there any more.
    pub after: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.field, told(self.before.as_ref()), told(self.after.as_ref()))
    }
}

/// The fields in which two records differ, sorted by path.
pub fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", Some(before), Some(after), &mut found);
    found
}

fn compare(field: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (before, after) {
        let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let path = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
            compare(&path, old.get(name), new.get(name), found);
        }
        return;
    }
    found.push(Difference { field: field.to_owned(), before: before.cloned(), after: after.cloned() });
}

/// A value for people: strings bare, long ones cut.
fn told(value: Option<&Value>) -> String {
    let text = match value {
        None => return "nothing".into(),
        Some(Value::String(text)) if text.is_empty() => "\"\"".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_the_innermost_field() {
        let before =
            json!({"arch": "x86_64", "requested": {"A": "y", "B": "m"}, "toolchain": {"gcc": "gcc 10"}});
        let after =
            json!({"arch": "x86_64", "requested": {"A": "m", "C": "1"}, "toolchain": {"gcc": "gcc 12"}});
        let told: Vec<_> = differences(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "requested.A: y → m",
                "requested.B: m → nothing",
                "requested.C: nothing → 1",
                "toolchain.gcc: gcc 10 → gcc 12"
            ]
        );
        assert!(differences(&after, &after).is_empty());
    }

    #[test]
    fn other_kinds_of_values_and_long_ones_are_told() {
        let found = differences(&json!({"a": [1], "b": ""}), &json!({"a": {"x": 1}, "b": "ö".repeat(60)}));
        assert_eq!(found[0].to_string(), "a: [1] → {\"x\":1}");
        assert_eq!(found[1].to_string(), format!("b: \"\" → {}…", "ö".repeat(48)));
    }
}
