//! A small reader of a kernel tree's Kconfig files, for one architecture: who depends on what, and who selects whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fs_err as fs;

use super::expr::{Expr, Operand, Tokens};
use crate::arch::Arch;

/// A symbol's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Tristate,
    Int,
    Hex,
    String,
}

/// One `config` block.
#[derive(Debug)]
pub(super) struct Definition {
    /// `file:line` below the tree's root.
    pub(super) place: String,
    /// What must all hold: its own dependencies and those of the blocks around it.
    pub(super) depends: Vec<Arc<Expr>>,
    /// What must hold besides for its prompt to show; `None` where it has no prompt.
    pub(super) prompt: Option<Vec<Arc<Expr>>>,
    /// The choice it is a member of.
    pub(super) choice: Option<usize>,
    /// Bounds of a number, and when they apply.
    pub(super) ranges: Vec<(Operand, Operand, Option<Expr>)>,
    /// What `visible if` around it asks of any prompt.
    visible: Vec<Arc<Expr>>,
}

/// All that is said of one symbol.
#[derive(Debug, Default)]
pub(super) struct Symbol {
    pub(super) kind: Option<Kind>,
    pub(super) definitions: Vec<Definition>,
}

impl Symbol {
    /// Whether a user can ever decide about it.
    pub(super) fn has_prompt(&self) -> bool {
        self.definitions.iter().any(|definition| definition.prompt.is_some())
    }
}

/// The Kconfig files of one tree, as one architecture sees them.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    arch: Arch,
    symbols: HashMap<String, Symbol>,
    selectors: HashMap<String, Vec<(String, Option<Expr>)>>,
    choices: Vec<Vec<String>>,
    /// Which `arch/` directories define a symbol; read when first asked for.
    elsewhere: OnceLock<HashMap<String, BTreeSet<String>>>,
}

impl Tree {
    /// Reads the tree at `root`.
    pub(super) fn read(root: &Path, arch: Arch) -> io::Result<Self> {
        let tree = Self {
            root: root.to_owned(),
            arch,
            symbols: HashMap::new(),
            selectors: HashMap::new(),
            choices: Vec::new(),
            elsewhere: OnceLock::new(),
        };
        let mut reader = Reader { tree, blocks: Vec::new(), target: Target::Nothing };
        reader.file(Path::new("Kconfig"))?;
        Ok(reader.tree)
    }

    pub(super) fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.get(name)
    }

    /// The symbols that select `name`, each with its condition.
    pub(super) fn selectors(&self, name: &str) -> &[(String, Option<Expr>)] {
        self.selectors.get(name).map_or(&[], Vec::as_slice)
    }

    /// The members of a choice.
    pub(super) fn members(&self, choice: usize) -> &[String] {
        &self.choices[choice]
    }

    /// The other architectures that define `name` below their `arch/` directory.
    pub(super) fn arches_with(&self, name: &str) -> Vec<String> {
        let elsewhere = self.elsewhere.get_or_init(|| elsewhere(&self.root, self.arch).unwrap_or_default());
        elsewhere.get(name).map(|arches| arches.iter().cloned().collect()).unwrap_or_default()
    }

    /// The symbol whose name is most like `name`, if any is like it at all.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        let allowed = (name.len() / 4).clamp(1, 3);
        let near = self.symbols.iter().filter(|(other, _)| other.len().abs_diff(name.len()) <= allowed);
        near.map(|(other, symbol)| (distance(name, other), !symbol.has_prompt(), other.as_str()))
            .filter(|(distance, ..)| *distance <= allowed)
            .min()
            .map(|(.., other)| other)
    }
}

/// How many letters must be put in, left out, replaced or swapped with their neighbour to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = [vec![0; b.len() + 1], vec![0; b.len() + 1], (0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        rows.rotate_left(1);
        rows[2][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[1][j] + 1).min(rows[2][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = least;
        }
    }
    rows[2][b.len()]
}

/// Every symbol defined below `arch/` outside `arch`'s own directory.
fn elsewhere(root: &Path, arch: Arch) -> io::Result<HashMap<String, BTreeSet<String>>> {
    let mut found = HashMap::<String, BTreeSet<String>>::new();
    for entry in fs::read_dir(root.join("arch"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == arch.srcarch() || !entry.file_type()?.is_dir() {
            continue;
        }
        let mut folders = vec![entry.path()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name().to_string_lossy().starts_with("Kconfig") {
                    for line in String::from_utf8_lossy(&fs::read(entry.path())?).lines() {
                        let mut words = line.split_whitespace();
                        if let (Some("config" | "menuconfig"), Some(symbol)) = (words.next(), words.next()) {
                            found.entry(symbol.to_owned()).or_default().insert(name.clone());
                        }
                    }
                }
            }
        }
    }
    Ok(found)
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
            let mut line = std::borrow::Cow::Borrowed(line.trim());
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
        let (keyword, rest) = line.split_at(line.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(line.len()));
        let (arch, root) = (self.tree.arch, self.tree.root.clone());
        let variable = move |name: &str| match name {
            "ARCH" => Some(arch.name().to_owned()),
            "SRCARCH" => Some(arch.srcarch().to_owned()),
            "srctree" => Some(root.to_string_lossy().into_owned()),
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
                let Some(Operand::Word(name) | Operand::Text(name) | Operand::Tools(name)) = tokens.operand() else {
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
                if let (Target::Block, Some(block), Some(condition)) = (&self.target, self.blocks.last_mut(), tokens.condition()) {
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
        match &self.target {
            Target::Nothing => {}
            Target::Block => self.blocks.last_mut().into_iter().for_each(|block| block.conditions.push(condition.clone())),
            Target::Config(_) => {
                if let Some((_, definition)) = self.current() {
                    definition.depends.push(condition);
                }
            }
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
        if keyword == "range" && let (Some(low), Some(high)) = (tokens.operand(), tokens.operand()) {
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
pub(super) mod tests {
    use super::*;

    /// A tree of these files, read for `x86_64`.
    pub(in super::super) fn tree(files: &[(&str, &str)]) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), text).unwrap();
        }
        let tree = Tree::read(dir.path(), Arch::X86_64).unwrap();
        // The other architectures are read when first asked about; by then the directory is gone.
        if dir.path().join("arch").exists() {
            tree.arches_with("");
        }
        tree
    }

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
        assert_eq!(tree.symbol("A").unwrap().definitions[0].place, "Kconfig:10");
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
            "config A\n\tbool \"a\"\n\thelp\n\t  Say Y.\n\n\tconfig B\n\t\tdepends on\n\t  if unsure\n\tdepends on C\n\
             config D\n\tbool\n\t---help---\n\t  config E\n\n\n  \nconfig F\n\tbool\n\thelp\nconfig G\n\tint\n",
        )]);
        for symbol in ["A", "D", "F", "G"] {
            assert!(tree.symbol(symbol).is_some(), "{symbol}");
        }
        assert!(tree.symbol("E").is_none());
        // Indented less than the text above, so the text is over, as it is for the kernel.
        assert!(tree.symbol("B").is_some());
    }

    #[test]
    fn files_are_followed_for_one_architecture() {
        let tree = tree(&[
            ("Kconfig", "source \"arch/$(SRCARCH)/Kconfig\"\nsource \"net/Kconfig\"\nosource \"gone/Kconfig\"\n"),
            ("net/Kconfig", "if NET\nrsource \"core/Kconfig\"\nsource \"arch/$SRCARCH/Kconfig.debug\"\nendif\n"),
            ("net/core/Kconfig", "config CORE\n\tbool \"$(ARCH)\"\n\tselect LIB if A && B\n\timply OTHER\n"),
            ("arch/x86/Kconfig", "config X86\n\tdef_bool y\n\tselect LIB\n"),
            ("arch/x86/Kconfig.debug", "config DEBUG_X86\n\tint \"n\"\n\trange 1 64 if X86\n"),
            ("arch/arm64/Kconfig", "config ARM64\n\tdef_bool y\nconfig ARM64_VHE\n\tbool \"v\"\n"),
            ("arch/arm/mm/Kconfig", "config KVM_ARM\n\tbool\n"),
            ("arch/arm64/kvm/Kconfig", "menuconfig KVM_ARM\n\tbool\n"),
        ]);
        assert_eq!(depends(&tree, "CORE"), "NET");
        assert_eq!(tree.symbol("DEBUG_X86").unwrap().definitions[0].ranges.len(), 1);
        let selectors: Vec<_> = tree.selectors("LIB").iter().map(|(by, condition)| (by.as_str(), condition.is_some())).collect();
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

    #[test]
    fn the_nearest_name_is_found() {
        let tree = tree(&[("Kconfig", "config BTRFS_FS\n\tbool\nconfig NETFILTER_XT_MATCH_COMMENT\n\tbool\nconfig XFS_FS\n\tbool\n")]);
        let cases = [
            ("BTRFS_SF", Some("BTRFS_FS")),
            ("NETFILTER_XT_MATCH_COMENT", Some("NETFILTER_XT_MATCH_COMMENT")),
            ("XFS", None),
            ("SOMETHING_ELSE", None),
        ];
        for (name, expected) in cases {
            assert_eq!(tree.nearest(name), expected, "{name}");
        }
    }
}
