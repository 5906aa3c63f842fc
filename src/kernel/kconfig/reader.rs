//! A small reader of the Kconfig language: only what tells why a symbol can be set or not.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;

use super::expr::{Expr, Operand, Tokens};
use super::tree::{Definition, Kind, Tree};

/// Fills an empty tree from its top `Kconfig` down.
pub(super) fn read(tree: Tree) -> io::Result<Tree> {
    let mut reader = Reader { tree, blocks: Vec::new(), target: Target::Nothing };
    reader.file(Path::new("Kconfig"))?;
    Ok(reader.tree)
}

/// A `menu`, `if` or `choice` that is open.
#[derive(Default)]
struct Block {
    conditions: Vec<Arc<Expr>>,
    visible: Vec<Arc<Expr>>,
    choice: Option<usize>,
}

/// What `depends on`, a prompt and the like speak of.
enum Target {
    Nothing,
    Block,
    Config(String),
}

struct Reader {
    tree: Tree,
    blocks: Vec<Block>,
    target: Target,
}

impl Reader {
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let bytes = fs::read(self.tree.root.join(path))?;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let mut line = Cow::Borrowed(line.trim());
            while let Some(begun) = line.strip_suffix('\\') {
                let next = lines.next().map_or("", |(_, next)| next.trim());
                line = format!("{begun} {next}").into();
            }
            if matches!(line.split_whitespace().next(), Some("help" | "---help---")) {
                // A help text ends at the first line that is indented less than its first.
                let mut least = None;
                while let Some((_, line)) = lines.peek() {
                    let indent = indent(line);
                    if indent.is_some_and(|indent| indent == 0 || least.is_some_and(|least| indent < least)) {
                        break;
                    }
                    least = least.or(indent);
                    lines.next();
                }
            } else if !line.is_empty() && !line.starts_with('#') {
                self.statement(&line, path, index + 1)?;
            }
        }
        Ok(())
    }

    fn statement(&mut self, line: &str, path: &Path, number: usize) -> io::Result<()> {
        let (keyword, rest) =
            line.split_at(line.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(line.len()));
        let arch = self.tree.arch;
        let variable = move |name: &str| match name {
            "ARCH" => Some(arch.name().to_owned()),
            "SRCARCH" => Some(arch.srcarch().to_owned()),
            _ => None,
        };
        let mut tokens = Tokens::new(rest, &variable);
        match keyword {
            "config" | "menuconfig" => {
                if let Some(name) = tokens.word() {
                    self.config(name, format!("{}:{number}", path.display()));
                }
            }
            "menu" => self.open(Block::default()),
            "if" => {
                self.open(Block { conditions: vec![Arc::new(tokens.expr())], ..Block::default() });
                self.target = Target::Nothing;
            }
            "choice" => {
                self.tree.choices.push(Vec::new());
                self.open(Block { choice: Some(self.tree.choices.len() - 1), ..Block::default() });
            }
            "endmenu" | "endif" | "endchoice" => {
                self.blocks.pop();
                self.target = Target::Nothing;
            }
            "comment" | "mainmenu" => self.target = Target::Nothing,
            "source" | "osource" | "rsource" | "orsource" => {
                self.target = Target::Nothing;
                let Some(Operand::Word(name) | Operand::Text(name) | Operand::Tools(name)) = tokens.operand()
                else {
                    return Ok(());
                };
                let folder = path.parent().filter(|_| keyword.ends_with("rsource"));
                let path = folder.unwrap_or(Path::new("")).join(name);
                if !keyword.starts_with('o') || self.tree.root.join(&path).exists() {
                    self.file(&path)?;
                }
            }
            "depends" => {
                tokens.word();
                self.depends(tokens.expr());
            }
            "visible" => {
                if let (Target::Block, Some(block), Some(condition)) =
                    (&self.target, self.blocks.last_mut(), tokens.condition())
                {
                    block.visible.push(Arc::new(condition));
                }
            }
            _ => self.attribute(keyword, &mut tokens),
        }
        Ok(())
    }

    fn open(&mut self, block: Block) {
        self.blocks.push(block);
        self.target = Target::Block;
    }

    fn config(&mut self, name: String, place: String) {
        let choice = self.blocks.iter().rev().find_map(|block| block.choice);
        let definition = Definition {
            place,
            depends: self.blocks.iter().flat_map(|block| block.conditions.clone()).collect(),
            prompt: None,
            choice,
            ranges: Vec::new(),
            visible: self.blocks.iter().flat_map(|block| block.visible.clone()).collect(),
        };
        if let Some(choice) = choice {
            self.tree.choices[choice].push(name.clone());
        }
        self.tree.symbols.entry(name.clone()).or_default().definitions.push(definition);
        self.target = Target::Config(name);
    }

    fn depends(&mut self, condition: Expr) {
        let condition = Arc::new(condition);
        if let (Target::Block, Some(block)) = (&self.target, self.blocks.last_mut()) {
            block.conditions.push(condition);
        } else if let Some((_, definition)) = self.current() {
            definition.depends.push(condition);
        }
    }

    /// The symbol being read and its block.
    fn current(&mut self) -> Option<(&mut Option<Kind>, &mut Definition)> {
        let Target::Config(name) = &self.target else { return None };
        let symbol = self.tree.symbols.get_mut(name)?;
        Some((&mut symbol.kind, symbol.definitions.last_mut()?))
    }

    fn attribute(&mut self, keyword: &str, tokens: &mut Tokens<'_>) {
        let kind = match keyword {
            "bool" | "def_bool" => Some(Kind::Bool),
            "tristate" | "def_tristate" => Some(Kind::Tristate),
            "int" => Some(Kind::Int),
            "hex" => Some(Kind::Hex),
            "string" => Some(Kind::String),
            _ => None,
        };
        let prompts = matches!(keyword, "bool" | "tristate" | "int" | "hex" | "string" | "prompt");
        let prompt = prompts.then(|| tokens.operand().map(|_| tokens.condition())).flatten();
        if let (Target::Block, Some(Some(condition))) = (&self.target, &prompt) {
            // A choice whose prompt does not show leaves its members off.
            return self.depends(condition.clone());
        }
        let Target::Config(name) = &self.target else { return };
        if keyword == "select" {
            let by = name.clone();
            if let Some(selected) = tokens.word() {
                let condition = tokens.condition();
                self.tree.selectors.entry(selected).or_default().push((by, condition));
            }
            return;
        }
        let Some((known, definition)) = self.current() else { return };
        *known = known.or(kind);
        if let Some(condition) = prompt {
            let visible = definition.visible.iter().cloned().chain(condition.map(Arc::new));
            definition.prompt = Some(visible.collect());
        }
        if keyword == "range"
            && let (Some(low), Some(high)) = (tokens.operand(), tokens.operand())
        {
            definition.ranges.push((low, high, tokens.condition()));
        }
    }
}

/// How far a line is indented, tabs counting to the next multiple of eight; `None` for a blank one.
fn indent(line: &str) -> Option<usize> {
    let mut columns = 0;
    for c in line.chars() {
        match c {
            ' ' => columns += 1,
            '\t' => columns = (columns & !7) + 8,
            c if c.is_whitespace() => {}
            _ => return Some(columns),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::tree;
    use super::*;
    use crate::arch::Arch;

    fn depends(tree: &Tree, symbol: &str) -> String {
        let definitions = &tree.symbol(symbol).unwrap().definitions;
        let told = |definition: &Definition| {
            definition.depends.iter().map(ToString::to_string).collect::<Vec<_>>().join(" & ")
        };
        definitions.iter().map(told).collect::<Vec<_>>().join(" | ")
    }

    fn prompt(tree: &Tree, symbol: &str) -> Option<String> {
        let prompt = tree.symbol(symbol).unwrap().definitions[0].prompt.as_ref()?;
        Some(prompt.iter().map(ToString::to_string).collect::<Vec<_>>().join(" & "))
    }

    #[test]
    fn blocks_around_a_symbol_are_among_its_dependencies() {
        let tree = tree(&[(
            "Kconfig",
            "mainmenu \"Linux\"\ncomma := ,\n$(error-if,$(success, false),no tool)\n\
             menu \"Outer\"\n\tdepends on NET\n\tvisible if EXPERT\n\
             comment \"not for us\"\n\tdepends on BROKEN\n\
             if INET || \\\n\t  IPV6\n\
             config A\n\tbool \"a prompt with # and if\" if DEBUG\n\tdepends on B && !C # why\n\tdepends on $(cc-option,-m(x))\n\
             endif\n\
             choice\n\tprompt \"Which\" if MANY\n\tdepends on D\n\tdefault E\n\
             config E\n\tbool \"e\"\n\
             config F\n\tbool \"f\"\n\
             endchoice\nendmenu\n\
             config G\n\tdef_tristate m\nconfig A\n\tbool\n\tdepends on X\n",
        )]);
        assert_eq!(depends(&tree, "A"), "NET & INET || IPV6 & B && !C & $(cc-option,-m(x)) | X");
        assert_eq!(prompt(&tree, "A").unwrap(), "EXPERT & DEBUG");
        assert_eq!(tree.symbol("A").unwrap().definitions[0].place, "Kconfig:11");
        assert_eq!(depends(&tree, "E"), "NET & MANY & D");
        assert_eq!(prompt(&tree, "E").unwrap(), "EXPERT");
        let choice = tree.symbol("F").unwrap().definitions[0].choice.unwrap();
        assert_eq!(tree.members(choice), ["E", "F"]);
        assert_eq!((depends(&tree, "G"), prompt(&tree, "G")), (String::new(), None));
        assert_eq!(tree.symbol("G").unwrap().kind, Some(Kind::Tristate));
        assert_eq!(tree.symbol("G").unwrap().definitions[0].choice, None);
    }

    #[test]
    fn help_texts_are_passed_over() {
        let tree = tree(&[(
            "Kconfig",
            "config A\n\tbool \"a\"\n\thelp\n\t  Say Y.\n\n\t  config B\n\t\t  if unsure\n\tdepends on C\n\
             config D\n\tbool\n\t---help---\n\t  config E\n\n\n  \nconfig F\n\tbool\n\thelp\nconfig G\n\tint\n",
        )]);
        // Indented less than the text above it, so the text is over.
        assert_eq!(depends(&tree, "A"), "C");
        for (symbol, there) in [("B", false), ("D", true), ("E", false), ("F", true), ("G", true)] {
            assert_eq!(tree.symbol(symbol).is_some(), there, "{symbol}");
        }
    }

    #[test]
    fn files_are_followed_for_one_architecture() {
        let tree = tree(&[
            (
                "Kconfig",
                "source \"arch/$(SRCARCH)/Kconfig\"\nsource \"net/Kconfig\"\nosource \"gone/Kconfig\"\n",
            ),
            (
                "net/Kconfig",
                "if NET\nrsource \"core/Kconfig\"\nsource \"arch/$SRCARCH/Kconfig.debug\"\nendif\n",
            ),
            ("net/core/Kconfig", "config CORE\n\tbool \"$(ARCH)\"\n\tselect LIB if A && B\n\timply OTHER\n"),
            ("arch/x86/Kconfig", "config X86\n\tdef_bool y\n\tselect LIB\n"),
            ("arch/x86/Kconfig.debug", "config DEBUG_X86\n\tint \"n\"\n\trange 1 64 if X86\n"),
            ("arch/arm64/Kconfig", "config ARM64\n\tdef_bool y\nconfig ARM64_VHE\n\tbool \"v\"\n"),
            ("arch/arm/mm/Kconfig", "config KVM_ARM\n\tbool\n"),
            ("arch/arm64/kvm/Kconfig", "menuconfig KVM_ARM\n\tbool\n"),
        ]);
        assert_eq!(depends(&tree, "CORE"), "NET");
        assert_eq!(tree.symbol("DEBUG_X86").unwrap().definitions[0].ranges.len(), 1);
        let selectors: Vec<_> =
            tree.selectors("LIB").iter().map(|(by, condition)| (by.as_str(), condition.is_some())).collect();
        assert_eq!(selectors, [("X86", false), ("CORE", true)]);
        assert!(tree.symbol("ARM64_VHE").is_none());
        assert_eq!(tree.arches_with("ARM64_VHE"), ["arm64"]);
        assert_eq!(tree.arches_with("KVM_ARM"), ["arm", "arm64"]);
        assert_eq!(tree.arches_with("X86"), [""; 0]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Kconfig"), "source \"gone/Kconfig\"\n").unwrap();
        let error = Tree::read(dir.path(), Arch::Arm64).unwrap_err();
        assert!(error.to_string().contains("gone/Kconfig"), "{error}");
    }
}
