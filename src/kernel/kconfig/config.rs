//! A resolved configuration, as the kernel's kconfig writes it.

use std::collections::BTreeMap;

use super::fragment::Value;

/// The symbols of a `.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config(BTreeMap<String, Value>);

impl Config {
    /// Reads the text of a `.config`; what is not a symbol's line is left out.
    pub fn parse(text: &str) -> Self {
        let symbol = |line: &str| -> Option<(String, Value)> {
            if let Some(off) =
                line.strip_prefix("# CONFIG_").and_then(|rest| rest.strip_suffix(" is not set"))
            {
                return Some((off.to_owned(), Value::No));
            }
            let (symbol, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            Some((symbol.to_owned(), Value::read(value).unwrap_or_else(|| Value::Literal(value.to_owned()))))
        };
        Self(text.lines().filter_map(symbol).collect())
    }

    /// The value of `symbol`; one that is not there is off.
    pub fn get(&self, symbol: &str) -> &Value {
        self.0.get(symbol).unwrap_or(&Value::No)
    }

    /// Whether `symbol` is built in or a module.
    pub fn is_on(&self, symbol: &str) -> bool {
        matches!(self.get(symbol), Value::Yes | Value::Module)
    }

    /// The symbols that are built in or modules, sorted.
    pub fn on(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|symbol| self.is_on(symbol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let text = "#\n# Linux/x86 5.10.262 Kernel Configuration\n#\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n\
                    CONFIG_D=64\nCONFIG_E=\"a=\\\"b\"\nCONFIG_F=0x10\n";
        let config = Config::parse(text);
        let values = ["A", "B", "C", "D", "E", "F", "G"].map(|symbol| config.get(symbol).to_string());
        assert_eq!(values, ["y", "m", "n", "64", "\"a=\\\"b\"", "0x10", "n"]);
        assert_eq!(config.on().collect::<Vec<_>>(), ["A", "B"]);
    }
}
