//! A recipe's text changed in place: one more version in a list, all else as it was written.

use toml_edit::{Array, DocumentMut, Item, TomlError, Value};

/// Puts a version into the list `field`, which is kept in the order of versions where it is in it. None where the list has
/// the version; where the recipe has no such list, it gets one behind `after`.
pub fn add_version(text: &str, field: &str, after: &str, version: &str) -> Result<Option<String>, TomlError> {
    let mut document: DocumentMut = text.parse()?;
    if let Some(array) = document.get_mut(field).and_then(Item::as_array_mut) {
        if array.iter().any(|value| value.as_str() == Some(version)) {
            return Ok(None);
        }
        let is_newer = |value: &Value| value.as_str().is_some_and(|other| numbers(other) > numbers(version));
        let newer = array.iter().position(is_newer);
        match newer {
            None => array.push(version),
            Some(position) => {
                // What stood there first keeps no place in front of it, and the new one takes it over.
                let before = array.get(position).map(|value| value.decor().clone()).unwrap_or_default();
                array.insert(position, version);
                for (at, decor) in [(position, before), (position + 1, toml_edit::Decor::new(" ", ""))] {
                    if let Some(value) = array.get_mut(at) {
                        *value.decor_mut() = decor;
                    }
                }
            }
        }
        return Ok(Some(document.to_string()));
    }
    let mut array = Array::new();
    array.push(version);
    let line = format!("{field} = {}\n", Value::from(array).to_string().trim());
    // A line of its own behind the one of `after`, wherever that ends.
    let spans = toml_edit::Document::parse(text)?;
    let end = spans.get(after).and_then(Item::span).map_or(0, |span| span.end);
    let end = text[end..].find('\n').map_or(text.len(), |newline| end + newline + 1);
    Ok(Some(format!("{}{line}{}", &text[..end], &text[end..])))
}

fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_put_in_its_place() {
        let text = "a = 1 # one\nlist = [\"1.21.8\", \"1.23.5\"] # two\n# three\nb = 2\n";
        let with = |version: &str| add_version(text, "list", "a", version).unwrap();
        let list = |list: &str| Some(text.replace("\"1.21.8\", \"1.23.5\"", list));
        assert_eq!(with("1.24.17"), list("\"1.21.8\", \"1.23.5\", \"1.24.17\""));
        assert_eq!(with("1.22.3"), list("\"1.21.8\", \"1.22.3\", \"1.23.5\""));
        assert_eq!(with("1.9.9"), list("\"1.9.9\", \"1.21.8\", \"1.23.5\""));
        assert_eq!(with("1.23.5"), None);
    }

    #[test]
    fn a_recipe_without_the_list_gets_one() {
        let text = "kind = \"kernel\"\nseries = [\n  \"5.10\",\n] # here\nb = 2\n";
        let added = add_version(text, "released", "series", "5.10.9").unwrap().unwrap();
        assert_eq!(added, text.replace("# here\n", "# here\nreleased = [\"5.10.9\"]\n"));
    }
}
