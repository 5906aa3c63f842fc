//! The expressions of the Kconfig language: `NET && (INET || IPV6=m) && !$(cc-option,-mfoo)`.

use std::fmt;

/// A symbol or constant in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// A bare word: a symbol, or where none is defined the word itself.
    Word(String),
    /// A quoted constant.
    Text(String),
    /// What only the compiler or another tool can tell: `$(cc-option,…)`.
    Tools(String),
}

/// How two operands are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    Is(Operand),
    Compare(Operand, Comparison, Operand),
    Not(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Operand(Operand),
    Operator(&'static str),
}

/// The longer ones first, as the first that fits is taken.
const OPERATORS: [&str; 13] = ["||", "&&", "!=", "<=", ">=", ":=", "+=", "=", "<", ">", "!", "(", ")"];

/// The tokens of one line; `variable` gives the value of `$(NAME)` and `$NAME` where it is known.
pub(super) struct Tokens<'a> {
    rest: &'a str,
    variable: &'a dyn Fn(&str) -> Option<String>,
    peeked: Option<Token>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(rest: &'a str, variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { rest, variable, peeked: None }
    }

    fn peek(&mut self) -> Option<&Token> {
        if self.peeked.is_none() {
            self.peeked = self.next();
        }
        self.peeked.as_ref()
    }

    /// Takes an operator if it comes next.
    fn take(&mut self, operator: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Operator(next)) if *next == operator);
        if found {
            self.peeked = None;
        }
        found
    }

    /// Takes the operand that comes next.
    pub(super) fn operand(&mut self) -> Option<Operand> {
        match self.peek()? {
            Token::Operand(_) => match self.peeked.take() {
                Some(Token::Operand(operand)) => Some(operand),
                _ => None,
            },
            Token::Operator(_) => None,
        }
    }

    /// Takes the word that comes next.
    pub(super) fn word(&mut self) -> Option<String> {
        match self.operand()? {
            Operand::Word(word) => Some(word),
            Operand::Text(_) | Operand::Tools(_) => None,
        }
    }

    /// Reads an expression. One that the kernel's own reader would refuse counts as true.
    pub(super) fn expr(&mut self) -> Expr {
        self.any().unwrap_or(Expr::Is(Operand::Word("y".into())))
    }

    /// Reads `if EXPR` where it comes next.
    pub(super) fn condition(&mut self) -> Option<Expr> {
        let found = matches!(self.peek(), Some(Token::Operand(Operand::Word(word))) if word == "if");
        found.then(|| {
            self.peeked = None;
            self.expr()
        })
    }

    fn any(&mut self) -> Option<Expr> {
        let mut terms = vec![self.all()?];
        while self.take("||") {
            terms.push(self.all()?);
        }
        Some(if terms.len() == 1 { terms.remove(0) } else { Expr::Any(terms) })
    }

    fn all(&mut self) -> Option<Expr> {
        let mut terms = vec![self.term()?];
        while self.take("&&") {
            terms.push(self.term()?);
        }
        Some(if terms.len() == 1 { terms.remove(0) } else { Expr::All(terms) })
    }

    fn term(&mut self) -> Option<Expr> {
        if self.take("!") {
            return Some(Expr::Not(Box::new(self.term()?)));
        }
        if self.take("(") {
            let inner = self.any();
            self.take(")");
            return inner;
        }
        let left = self.operand()?;
        let comparison = match self.peek() {
            Some(Token::Operator("=")) => Comparison::Equal,
            Some(Token::Operator("!=")) => Comparison::Unequal,
            Some(Token::Operator("<")) => Comparison::Less,
            Some(Token::Operator("<=")) => Comparison::LessEqual,
            Some(Token::Operator(">")) => Comparison::Greater,
            Some(Token::Operator(">=")) => Comparison::GreaterEqual,
            _ => return Some(Expr::Is(left)),
        };
        self.peeked = None;
        Some(Expr::Compare(left, comparison, self.operand()?))
    }

    fn quoted(&mut self, quote: char) -> Operand {
        let mut text = String::new();
        let mut tools = false;
        while let Some(c) = self.rest.chars().next() {
            if c == '$' {
                tools |= !self.expand(&mut text);
                continue;
            }
            self.rest = &self.rest[c.len_utf8()..];
            match c {
                '\\' => {
                    let mut rest = self.rest.chars();
                    text.extend(rest.next());
                    self.rest = rest.as_str();
                }
                c if c == quote => break,
                c => text.push(c),
            }
        }
        if tools { Operand::Tools(format!("\"{text}\"")) } else { Operand::Text(text) }
    }

    /// Takes what begins with `$` and appends its value, or itself where it has none: then the answer is no.
    fn expand(&mut self, text: &mut String) -> bool {
        let end = match self.rest.strip_prefix("$(") {
            Some(inner) => 2 + closing(inner),
            None => 1 + self.rest[1..].find(|c| !is_word(c)).unwrap_or(self.rest.len() - 1),
        };
        let (whole, rest) = self.rest.split_at(end);
        self.rest = rest;
        let name = whole.trim_start_matches(['$', '(']).trim_end_matches(')');
        let value = (self.variable)(name);
        text.push_str(value.as_deref().unwrap_or(whole));
        value.is_some()
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        if let Some(token) = self.peeked.take() {
            return Some(token);
        }
        self.rest = self.rest.trim_start();
        let first = self.rest.chars().next().filter(|c| *c != '#')?;
        if first == '"' || first == '\'' {
            self.rest = &self.rest[1..];
            return Some(Token::Operand(self.quoted(first)));
        }
        if let Some(operator) = OPERATORS.into_iter().find(|operator| self.rest.starts_with(operator)) {
            self.rest = &self.rest[operator.len()..];
            return Some(Token::Operator(operator));
        }
        let (mut text, mut tools) = (String::new(), false);
        loop {
            if self.rest.starts_with('$') {
                tools |= !self.expand(&mut text);
                continue;
            }
            let (word, rest) = self.rest.split_at(self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len()));
            text.push_str(word);
            self.rest = rest;
            if !rest.starts_with('$') {
                break;
            }
        }
        if text.is_empty() {
            // A character that means nothing: the kernel's reader passes over it too.
            self.rest = &self.rest[first.len_utf8()..];
            return self.next();
        }
        Some(Token::Operand(if tools { Operand::Tools(text) } else { Operand::Word(text) }))
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// The length of `text` up to and with the parenthesis that closes one opened before it.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    for (place, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return place + 1;
        }
    }
    text.len()
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Tools(text) => f.write_str(text),
            Self::Text(text) => write!(f, "\"{text}\""),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
        })
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |terms: &[Self], with: &str| {
            let within = |term: &Self| match term {
                Self::Any(_) if with == " && " => format!("({term})"),
                term => term.to_string(),
            };
            terms.iter().map(within).collect::<Vec<_>>().join(with)
        };
        match self {
            Self::Is(operand) => operand.fmt(f),
            Self::Compare(left, comparison, right) => write!(f, "{left}{comparison}{right}"),
            Self::Not(inner) if matches!(**inner, Self::Is(_)) => write!(f, "!{inner}"),
            Self::Not(inner) => write!(f, "!({inner})"),
            Self::All(terms) => f.write_str(&joined(terms, " && ")),
            Self::Any(terms) => f.write_str(&joined(terms, " || ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        (name == "ARCH").then(|| "arm64".to_owned())
    }

    #[test]
    fn expressions_are_read_as_the_kernel_reads_them() {
        let cases = [
            ("NET", "NET"),
            ("A && B || C", "A && B || C"),
            ("A&&(B||C) # why", "A && (B || C)"),
            ("!A=B", "!(A=B)"),
            ("!(A || !B)", "!(A || !B)"),
            ("A!=n && 64BIT", "A!=n && 64BIT"),
            ("GCC_VERSION >= 40800", "GCC_VERSION>=40800"),
            ("\"$(ARCH)\" = \"arm64\"", "\"arm64\"=\"arm64\""),
            ("\"$ARCH\" = 'x'", "\"arm64\"=\"x\""),
            ("$(cc-option,-mx=$(a) -y) && A", "$(cc-option,-mx=$(a) -y) && A"),
            ("\"$(TOOL)\" != \"\"", "\"$(TOOL)\"!=\"\""),
            ("", "y"),
            ("A &&", "y"),
        ];
        for (text, expected) in cases {
            assert_eq!(Tokens::new(text, &variable).expr().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_line_is_taken_apart_piece_by_piece() {
        let mut tokens = Tokens::new("\"Some prompt # \\\"x\\\"\" if EXPERT && $(success,\"(\")", &variable);
        assert_eq!(tokens.operand(), Some(Operand::Text("Some prompt # \"x\"".into())));
        assert_eq!(tokens.condition().unwrap().to_string(), "EXPERT && $(success,\"(\")");
        let mut tokens = Tokens::new("FOO if BAR", &variable);
        assert_eq!(tokens.word().as_deref(), Some("FOO"));
        assert_eq!(tokens.condition().unwrap().to_string(), "BAR");
        assert_eq!(tokens.condition(), None);
    }
}
