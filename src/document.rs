//! TOML read for people: every mistake of a document at once, each underlined where it stands.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::step::{Class, Diagnose};

/// One thing wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mistake {
    span: Range<usize>,
    message: String,
    help: Option<String>,
}

/// All that is wrong with one document.
#[derive(Debug)]
pub struct Mistakes {
    name: String,
    text: String,
    list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.len() {
            1 => write!(f, "`{}` has a mistake", self.name),
            n => write!(f, "`{}` has {n} mistakes", self.name),
        }
    }
}

impl std::error::Error for Mistakes {}

impl Diagnose for Mistakes {
    fn class(&self) -> Class {
        Class::Recipe
    }

    fn detail(&self) -> Option<String> {
        let renderer = Renderer::plain();
        let parts = self.list.iter().map(|mistake| {
            let end = mistake.span.end.clamp(mistake.span.start, self.text.len());
            let snippet = Snippet::source(&self.text)
                .path(&self.name)
                .annotation(AnnotationKind::Primary.span(mistake.span.start.min(end)..end));
            let mut group = Level::ERROR.primary_title(&mistake.message).element(snippet);
            if let Some(help) = &mistake.help {
                group = group.element(Level::HELP.message(help));
            }
            renderer.render(&[group])
        });
        Some(parts.collect::<Vec<_>>().join("\n"))
    }
}

/// A document being read; mistakes gather here until [`Document::finish`].
#[derive(Debug)]
pub struct Document {
    name: String,
    text: String,
    mistakes: RefCell<Vec<Mistake>>,
}

impl Document {
    /// A document of this name (a path, for messages) and text.
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), mistakes: RefCell::default() }
    }

    /// Parses the text and hands its top table to `read`; mistakes of both are told together.
    pub fn read<T>(self, read: impl FnOnce(&Fields<'_>) -> T) -> Result<T, Mistakes> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        for error in errors {
            self.mistake(error.span().unwrap_or(0..0), error.message(), None);
        }
        // Values read from broken syntax would only add mistakes that are not there.
        let sound = self.mistakes.borrow().is_empty();
        let result = sound.then(|| {
            let fields = Fields::new(&self, table.get_ref(), table.span());
            let value = read(&fields);
            fields.refuse_unknown();
            value
        });
        let mut list = self.mistakes.into_inner();
        list.sort_by_key(|mistake| mistake.span.start);
        match result {
            Some(value) if list.is_empty() => Ok(value),
            _ => Err(Mistakes { name: self.name, text: self.text, list }),
        }
    }

    fn mistake(&self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.mistakes.borrow_mut().push(Mistake { span, message: message.into(), help });
    }
}

/// A string and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The string.
    pub value: String,
    span: Range<usize>,
}

/// The fields of one table. Each access notes the name, so that what was never asked for is a mistake.
#[derive(Debug)]
pub struct Fields<'d> {
    document: &'d Document,
    table: &'d DeTable<'d>,
    span: Range<usize>,
    known: RefCell<Vec<String>>,
}

impl<'d> Fields<'d> {
    fn new(document: &'d Document, table: &'d DeTable<'d>, span: Range<usize>) -> Self {
        Self { document, table, span, known: RefCell::default() }
    }

    fn get(&self, name: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.borrow_mut().push(name.to_owned());
        self.table.get(name)
    }

    fn expect<T>(
        &self,
        name: &str,
        wanted: &str,
        convert: impl FnOnce(&'d DeValue<'d>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        let converted = convert(value.get_ref());
        if converted.is_none() {
            let message = format!("`{name}` must be {wanted}, not {}", article(value.get_ref().type_str()));
            self.document.mistake(value.span(), message, None);
        }
        converted
    }

    /// Says that something about `at` is wrong.
    pub fn mistake(&self, at: &Text, message: impl Into<String>, help: Option<String>) {
        self.document.mistake(at.span.clone(), message, help);
    }

    /// Says that something about the whole table is wrong.
    pub fn mistake_here(&self, message: impl Into<String>, help: Option<String>) {
        self.document.mistake(self.span.clone(), message, help);
    }

    /// Whether a field is written.
    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// An optional string.
    pub fn text(&self, name: &str) -> Option<Text> {
        let span = self.table.get(name).map(Spanned::span);
        let value = self.expect(name, "a string", DeValue::as_str)?;
        Some(Text { value: value.to_owned(), span: span? })
    }

    /// A string that must be there.
    pub fn required(&self, name: &str) -> Option<Text> {
        if !self.table.contains_key(name) {
            self.mistake_here(format!("`{name}` is missing"), None);
        }
        self.text(name)
    }

    /// A string that must be there and parse as `T`.
    pub fn parsed<T>(&self, name: &str) -> Option<T>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        let text = self.required(name)?;
        text.value.parse().map_err(|error: T::Err| self.mistake(&text, error.to_string(), None)).ok()
    }

    /// A boolean, false where it is not written.
    pub fn boolean(&self, name: &str) -> bool {
        self.expect(name, "true or false", DeValue::as_bool).unwrap_or(false)
    }

    /// An optional whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.expect(name, "a whole number", |value| value.as_integer()?.to_string().parse().ok())
    }

    /// An array of strings, empty where it is not written.
    pub fn texts(&self, name: &str) -> Vec<Text> {
        let Some(array) = self.expect(name, "an array of strings", DeValue::as_array) else {
            return Vec::new();
        };
        let each = |value: &Spanned<DeValue<'_>>| {
            if let Some(text) = value.get_ref().as_str() {
                Some(Text { value: text.to_owned(), span: value.span() })
            } else {
                self.document.mistake(value.span(), format!("`{name}` holds strings only"), None);
                None
            }
        };
        array.iter().filter_map(each).collect()
    }

    /// Reads a table of named strings, such as `[places]`.
    pub fn named_texts(&self, name: &str) -> Vec<(String, Text)> {
        self.table(name, |fields| {
            let names: Vec<String> = fields.table.keys().map(|key| key.get_ref().to_string()).collect();
            names.into_iter().filter_map(|name| Some((name.clone(), fields.text(&name)?))).collect()
        })
        .unwrap_or_default()
    }

    /// Reads a table, if it is there.
    pub fn table<T>(&self, name: &str, read: impl FnOnce(&Fields<'d>) -> T) -> Option<T> {
        let span = self.table.get(name).map(Spanned::span);
        let table = self.expect(name, "a table", DeValue::as_table)?;
        let fields = Fields::new(self.document, table, span?);
        let value = read(&fields);
        fields.refuse_unknown();
        Some(value)
    }

    /// Reads each table of a table of tables (`[arch.x86_64]`), with its name.
    pub fn named_tables<T>(&self, name: &str, mut read: impl FnMut(&Text, &Fields<'d>) -> T) -> Vec<T> {
        self.table(name, |outer| {
            let keys: Vec<Text> = outer
                .table
                .keys()
                .map(|key| Text { value: key.get_ref().to_string(), span: key.span() })
                .collect();
            keys.iter().filter_map(|key| outer.table(&key.value, |fields| read(key, fields))).collect()
        })
        .unwrap_or_default()
    }

    /// Reads each table of an array of tables (`[[kernel]]`).
    pub fn tables<T>(&self, name: &str, mut read: impl FnMut(&Fields<'d>) -> T) -> Vec<T> {
        let Some(array) = self.expect(name, "an array of tables", DeValue::as_array) else {
            return Vec::new();
        };
        let mut values = Vec::new();
        for item in array {
            match item.get_ref().as_table() {
                Some(table) => {
                    let fields = Fields::new(self.document, table, item.span());
                    values.push(read(&fields));
                    fields.refuse_unknown();
                }
                None => self.document.mistake(item.span(), format!("`{name}` holds tables only"), None),
            }
        }
        values
    }

    fn refuse_unknown(&self) {
        let known = self.known.borrow();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !known.iter().any(|known| known == name) {
                let help = match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the fields here are {}", list(known.iter().map(String::as_str))),
                };
                self.document.mistake(key.span(), format!("unknown field `{name}`"), Some(help));
            }
        }
    }
}

/// The candidate nearest to a mistyped word, if one is near enough to be meant.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let near = |candidate: &&str| strsim::damerau_levenshtein(word, candidate);
    let best = candidates.into_iter().min_by_key(near)?;
    (near(&best) <= 1.max(word.len() / 3)).then_some(best)
}

/// Words as a list for a sentence: "`a`, `b`, `c`".
pub fn list<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn article(noun: &str) -> String {
    let an = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if an { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Option<String>, bool, Vec<String>), Mistakes> {
        Document::new("a.toml", text).read(|fields| {
            let fragments = fields.texts("fragments").into_iter().map(|text| text.value).collect();
            (fields.required("name").map(|text| text.value), fields.boolean("default"), fragments)
        })
    }

    #[test]
    fn a_right_document_is_read() {
        let value = read("name = 'x'\nfragments = ['a', 'b']\n").unwrap();
        assert_eq!(value, (Some("x".into()), false, vec!["a".into(), "b".into()]));
    }

    #[test]
    fn three_mistakes_are_told_at_once_and_underlined() {
        let mistakes = read("defualt = true\nname = 7\nfragments = ['a', 3]\n").unwrap_err();
        assert_eq!(mistakes.to_string(), "`a.toml` has 3 mistakes");
        let detail = mistakes.detail().unwrap();
        for expected in [
            "unknown field `defualt`",
            "did you mean `default`?",
            "`name` must be a string, not an integer",
            "`fragments` holds strings only",
            "--> a.toml:1:1",
            "--> a.toml:3:19",
            "^^^^^^^",
        ] {
            assert!(detail.contains(expected), "{expected} is not in\n{detail}");
        }
    }

    #[test]
    fn broken_syntax_is_located() {
        let detail = read("name = \nother = 1\n").unwrap_err().detail().unwrap();
        assert!(detail.contains("a.toml:1:"), "{detail}");
    }

    #[test]
    fn a_missing_field_is_named() {
        assert!(read("default = true").unwrap_err().detail().unwrap().contains("`name` is missing"));
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(nearest("fierfox", ["firefox", "tiny"]), Some("firefox"));
        assert_eq!(nearest("zzz", ["firefox", "tiny"]), None);
    }
}
