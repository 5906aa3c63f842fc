//! Fragments: plain kconfig lines, each with its reason behind it and, in brackets, when it applies.

use std::fmt;

pub use super::condition::Condition;

/// What is asked of a symbol, or what a resolved configuration has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Built in.
    Yes,
    /// A module.
    Module,
    /// Off.
    No,
    /// A number, a hexadecimal number or a quoted string, as `.config` writes it.
    Literal(String),
}

impl Value {
    /// Reads what stands behind `=` in a `.config`, as far as it is well-formed.
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let number =
            digits.bytes().all(|c| c.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        let hex = text
            .strip_prefix("0x")
            .is_some_and(|t| !t.is_empty() && t.bytes().all(|c| c.is_ascii_hexdigit()));
        match text {
            "y" => Some(Self::Yes),
            "m" => Some(Self::Module),
            "n" => Some(Self::No),
            _ if string_end(text) == Some(text.len()) || hex || (number && !digits.is_empty()) => {
                Some(Self::Literal(text.to_owned()))
            }
            _ => None,
        }
    }

    /// Whether an absent symbol says the same: off, or the empty string.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::No) || *self == Self::Literal("\"\"".into())
    }

    /// The value as a sentence names it: `=m`, `off`.
    pub fn told(&self) -> String {
        if *self == Self::No { "off".into() } else { format!("={self}") }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "y",
            Self::Module => "m",
            Self::No => "n",
            Self::Literal(text) => text,
        })
    }
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The fragment's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One line of a fragment that asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The symbol, without `CONFIG_`.
    pub symbol: String,
    /// What is asked of it.
    pub value: Value,
    /// When.
    pub condition: Condition,
    /// Who asks.
    pub origin: Origin,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(&self.symbol, &self.value))?;
        if self.condition == Condition::default() { Ok(()) } else { write!(f, " # [{}]", self.condition) }
    }
}

/// The line of a `.config` that gives `symbol` this value.
pub(super) fn line(symbol: &str, value: &Value) -> String {
    match value {
        Value::No => format!("# CONFIG_{symbol} is not set"),
        value => format!("CONFIG_{symbol}={value}"),
    }
}

/// A line that is neither a request nor a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands.
    pub origin: Origin,
    /// The line.
    pub text: String,
    /// What is wrong, and the way out.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: {}", self.origin, self.text, self.message)
    }
}

/// Reads a fragment; `file` is only its name. All its mistakes come at once.
pub fn parse(file: &str, text: &str) -> Result<Vec<Request>, Vec<Mistake>> {
    let (mut requests, mut mistakes) = (Vec::new(), Vec::new());
    for (index, text) in text.lines().enumerate() {
        let origin = Origin { file: file.to_owned(), line: index + 1 };
        match parse_line(text) {
            Ok(None) => {}
            Ok(Some((symbol, value, condition))) => {
                requests.push(Request { symbol: symbol.to_owned(), value, condition, origin });
            }
            Err(message) => mistakes.push(Mistake { origin, text: text.trim().to_owned(), message }),
        }
    }
    if mistakes.is_empty() { Ok(requests) } else { Err(mistakes) }
}

fn parse_line(line: &str) -> Result<Option<(&str, Value, Condition)>, String> {
    let trimmed = line.trim();
    let (symbol, value, rest) = if let Some((symbol, rest)) = asked_off(line)? {
        (symbol, Value::No, rest)
    } else if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(None);
    } else {
        assignment(line)?
    };
    let rest = rest.trim();
    match rest.strip_prefix('#') {
        None if rest.is_empty() => Ok(Some((symbol, value, Condition::default()))),
        None => Err(format!(
            "`{rest}` stands behind the value: a comment begins with `#`, a string stands in `\"`"
        )),
        Some(comment) => Ok(Some((symbol, value, Condition::read(comment.trim())?))),
    }
}

/// Splits `# CONFIG_X is not set`. What all but says so is a mistake, as a comment would be passed over in silence.
fn asked_off(line: &str) -> Result<Option<(&str, &str)>, String> {
    let meant = || {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("CONFIG_")?;
        let (symbol, rest) = split_symbol(rest);
        Some((symbol, rest.trim_start().strip_prefix("is not set")?))
    };
    let Some((symbol, rest)) = meant() else { return Ok(None) };
    let exact = format!("# CONFIG_{symbol} is not set");
    let comment = rest.trim_start();
    if line.starts_with(&exact) && (comment.is_empty() || comment.starts_with('#')) {
        Ok(Some((symbol, rest)))
    } else {
        Err(format!(
            "did you mean `{exact}`? (a comment behind it begins with `#`; prose must begin otherwise)"
        ))
    }
}

/// Splits `CONFIG_X=value`.
fn assignment(line: &str) -> Result<(&str, Value, &str), String> {
    let shape = "a line is `CONFIG_X=value`, `# CONFIG_X is not set` or a comment behind `#`";
    let trimmed = line.trim_start();
    let (name, rest) = split_symbol(trimmed);
    let Some(value) = rest.trim_start().strip_prefix('=').map(str::trim_start).filter(|_| !name.is_empty())
    else {
        return Err(shape.to_owned());
    };
    let symbol = match name.strip_prefix("CONFIG_") {
        Some("") => return Err(shape.to_owned()),
        Some(symbol) => symbol,
        None => return Err(format!("did you mean `CONFIG_{name}={value}`?")),
    };
    if value.is_empty() || value.starts_with('#') {
        return Err(meant_value(""));
    }
    if !line.starts_with(&format!("{name}={value}")) {
        return Err(format!(
            "no space may stand before the name or round `=`: did you mean `{name}={value}`?"
        ));
    }
    let end = if value.starts_with('"') {
        string_end(value).ok_or("the string does not end: close it with `\"`")?
    } else {
        value.find(|c: char| c.is_whitespace() || c == '#').unwrap_or(value.len())
    };
    let (word, rest) = value.split_at(end);
    match Value::read(word) {
        Some(value) => Ok((symbol, value, rest)),
        None => Err(meant_value(word)),
    }
}

/// What a value that is none was probably meant to be.
fn meant_value(word: &str) -> String {
    let plain = word.trim_matches('\'');
    let number = plain.trim_start_matches('0');
    let meant = match plain.to_ascii_lowercase().as_str() {
        "" => return "nothing stands behind `=`: y, m, n, a number or a \"string\" may".to_owned(),
        "y" | "yes" | "on" | "true" => "y".to_owned(),
        "m" | "mod" | "module" => "m".to_owned(),
        "n" | "no" | "off" | "false" => "n".to_owned(),
        hex if hex.starts_with("0x") && Value::read(hex).is_some() => hex.to_owned(),
        _ if Value::read(number).is_some_and(|value| matches!(value, Value::Literal(_))) => number.to_owned(),
        _ => format!("\"{}\"", plain.trim_matches('"')),
    };
    format!("did you mean `{meant}`? (y, m, n, a number or a \"string\")")
}

/// Splits off the longest prefix that can be a symbol.
fn split_symbol(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len()))
}

/// The length of the quoted string that `text` begins with.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    let close = text.strip_prefix('"')?.find(|c| match c {
        _ if escaped => {
            escaped = false;
            false
        }
        '\\' => {
            escaped = true;
            false
        }
        c => c == '"',
    })?;
    Some(close + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arch::Arch;
    use crate::version::Version;

    fn parsed(text: &str) -> Vec<String> {
        parse("f", text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let cases = [
            ("CONFIG_MEMCG=y                  # kubeadm preflight requires it", "CONFIG_MEMCG=y"),
            ("CONFIG_IP_VS=m", "CONFIG_IP_VS=m"),
            ("CONFIG_VT=n", "# CONFIG_VT is not set"),
            ("# CONFIG_VT_CONSOLE is not set  # the serial line", "# CONFIG_VT_CONSOLE is not set"),
            ("CONFIG_NR_CPUS=64", "CONFIG_NR_CPUS=64"),
            ("CONFIG_X=-1 # below zero", "CONFIG_X=-1"),
            ("CONFIG_START=0x1000000", "CONFIG_START=0x1000000"),
            ("CONFIG_H=\"(none)\" # a name", "CONFIG_H=\"(none)\""),
            ("CONFIG_H=\"a # \\\" b\" # [arm64]", "CONFIG_H=\"a # \\\" b\" # [arm64]"),
            ("CONFIG_H=\"\"", "CONFIG_H=\"\""),
            ("CONFIG_A=y # [<5.17] part of nf_tables since", "CONFIG_A=y # [<5.17]"),
            (
                "CONFIG_A=y # [if-known,x86_64 , >=4.19.3, <6.0] why",
                "CONFIG_A=y # [>=4.19.3, <6.0, x86_64, if-known]",
            ),
            ("# CONFIG_A is not set # [arm64]", "# CONFIG_A is not set # [arm64]"),
            ("CONFIG_A=y # see [1]", "CONFIG_A=y"),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), [expected], "{text}");
        }
        for comment in
            ["", "   ", "# prose", "#prose", "  # prose", "# CONFIG_A=y", "# CONFIG_A was once here"]
        {
            assert_eq!(parsed(comment), [""; 0], "{comment}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_way_out() {
        let cases = [
            ("MEMCG=y", "did you mean `CONFIG_MEMCG=y`?"),
            ("CONFIG_=y", "a line is `CONFIG_X=value`"),
            ("CONFIG_A=Y", "did you mean `y`?"),
            ("CONFIG_A=yes", "did you mean `y`?"),
            ("CONFIG_A=M # x", "did you mean `m`?"),
            ("CONFIG_A=No", "did you mean `n`?"),
            ("CONFIG_A=(none)", "did you mean `\"(none)\"`?"),
            ("CONFIG_A='it'", "did you mean `\"it\"`?"),
            ("CONFIG_A=0X1F", "did you mean `0x1f`?"),
            ("CONFIG_A=007", "did you mean `7`?"),
            ("CONFIG_A=-", "did you mean `\"-\"`?"),
            ("CONFIG_A=", "nothing stands behind `=`"),
            ("CONFIG_A= # c", "nothing stands behind `=`"),
            ("CONFIG_A = y", "did you mean `CONFIG_A=y`?"),
            ("CONFIG_A =y", "no space may stand"),
            (" CONFIG_A=y", "did you mean `CONFIG_A=y`?"),
            ("CONFIG_A=\"open", "close it with `\"`"),
            ("CONFIG_A=y z", "`z` stands behind the value"),
            ("CONFIG_A=\"b\"c", "`c` stands behind the value"),
            ("CONFIG_A", "a line is `CONFIG_X=value`"),
            ("CONFIG_A-B=y", "a line is `CONFIG_X=value`"),
            ("prose", "a line is `CONFIG_X=value`"),
            ("#CONFIG_A is not set", "did you mean `# CONFIG_A is not set`?"),
            ("# CONFIG_A  is not set", "did you mean `# CONFIG_A is not set`?"),
            ("# CONFIG_A is not set [arm64]", "did you mean `# CONFIG_A is not set`?"),
            ("CONFIG_A=y # [arm]", "`arm` is not a condition"),
            ("CONFIG_A=y # [aarch64]", "did you mean `arm64`?"),
            ("CONFIG_A=y # [<=5.10]", "`<=5.10` is not a condition"),
            ("CONFIG_A=y # [>=5]", "`5` is not a kernel version"),
            ("CONFIG_A=y # []", "`` is not a condition"),
            ("CONFIG_A=y # [arm64", "close it with `]`"),
            ("CONFIG_A=y # [>=5.4,>=5.10]", "two things of one kind"),
            ("CONFIG_A=y # [arm64, x86_64]", "two things of one kind"),
        ];
        let whole = cases.map(|(text, _)| text).join("\n");
        let mistakes = parse("a.config", &whole).unwrap_err();
        assert_eq!(mistakes.len(), cases.len());
        for (index, (mistake, (text, message))) in mistakes.iter().zip(cases).enumerate() {
            let told = mistake.to_string();
            assert!(told.starts_with(&format!("a.config:{}: `{}`: ", index + 1, text.trim())), "{told}");
            assert!(told.contains(message), "{told}");
        }
    }

    fn a_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Yes),
            Just(Value::Module),
            Just(Value::No),
            any::<i64>().prop_map(|number| Value::Literal(number.to_string())),
            any::<u64>().prop_map(|number| Value::Literal(format!("{number:#x}"))),
            "[ -~]{0,12}".prop_map(|text| {
                Value::Literal(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
            }),
        ]
    }

    fn a_version() -> impl Strategy<Value = Option<Version>> {
        let text = (2..9u32, 0..40u32, proptest::option::of(0..300u32));
        let text = text.prop_map(|(a, b, c)| c.map_or(format!("{a}.{b}"), |c| format!("{a}.{b}.{c}")));
        proptest::option::of(text.prop_map(|text| text.parse().unwrap()))
    }

    fn a_request() -> impl Strategy<Value = Request> {
        let arch = proptest::option::of(prop_oneof![Just(Arch::X86_64), Just(Arch::Arm64)]);
        let condition = (a_version(), a_version(), arch, any::<bool>())
            .prop_map(|(from, below, arch, if_known)| Condition { from, below, arch, if_known });
        ("[A-Za-z0-9_]{1,20}", a_value(), condition).prop_map(|(symbol, value, condition)| Request {
            symbol,
            value,
            condition,
            origin: Origin { file: "f".into(), line: 0 },
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(mut requests in proptest::collection::vec(a_request(), 0..20)) {
            for (index, request) in requests.iter_mut().enumerate() {
                request.origin.line = index + 1;
            }
            let text = requests.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(parse("f", &text), Ok(requests));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
            let _ = parse("f", &text);
        }
    }
}
