//! What a guest says on its console: the kernel's words, and init's records among them.

use std::fmt;

use serde::Serialize;

use super::node::account::Account;

/// How many of the console's last lines an error shows.
const TAIL: usize = 30;
/// What a record begins with, at the start of its line.
const BEGIN: &str = "@imgbuild ";
/// What ends a record: a line without it was cut off.
const END: &str = " @";
/// What comes before a panic's reason.
const PANIC: &str = "Kernel panic - not syncing: ";
/// What the kernel says first, before its release.
const BANNER: &str = "Linux version ";
/// What the kernel says when it hands over.
const HANDOVER: &str = " as init process";
/// What systemd says when it can go no further; nothing comes after it.
const FROZEN: &str = "Freezing execution";
/// A line that is longer is taken for one: nobody who means well writes such.
const LONGEST: usize = 1 << 20;

/// How a module came to be in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Loaded from the volume now, what it depends on first.
    Loaded,
    /// There already, because another module depends on it.
    AlreadyThere,
    /// Part of the kernel's image.
    BuiltIn,
}

/// What init could not do: a file and the guest's error number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The path in the guest.
    pub path: String,
    /// `errno`, the same numbers on every architecture of ours.
    pub number: i32,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, std::io::Error::from_raw_os_error(self.number))
    }
}

impl Failure {
    /// Reads `failed PATH NUMBER`.
    fn parse(text: &str) -> Option<Self> {
        let (path, number) = text.strip_prefix("failed ")?.rsplit_once(' ')?;
        Some(Self { path: path.to_owned(), number: number.parse().ok()? })
    }
}

/// All that init says when it comes to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Heard {
    pub(super) uptime: f64,
    pub(super) release: String,
    pub(super) machine: String,
    pub(super) root_fs: String,
    pub(super) config_readable: bool,
    pub(super) volume: Option<Result<String, Failure>>,
    pub(super) modules: Vec<(String, Result<Outcome, Failure>)>,
}

/// What a guest is to come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Goal {
    /// The end of our own init's records.
    #[default]
    Init,
    /// The account of a whole root volume.
    Account,
    /// This text, anywhere.
    Text(String),
}

/// A console as it was heard so far.
#[derive(Debug, Default)]
pub(super) struct Console {
    goal: Goal,
    lines: Vec<String>,
    /// A line that has not ended yet: a prompt never does.
    pending: Vec<u8>,
    /// Init's records, key and value.
    records: Vec<(String, String)>,
    release: Option<String>,
    is_handed_over: bool,
    account: Option<Account>,
    has_text: bool,
    panic: Option<String>,
    is_frozen: bool,
}

impl Console {
    /// A console that nothing was heard on yet.
    pub(super) fn new(goal: Goal) -> Self {
        Self { goal, ..Self::default() }
    }

    /// Takes in bytes as they come.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend(part);
            if part.ends_with(b"\n") || self.pending.len() > LONGEST {
                let line = std::mem::take(&mut self.pending);
                self.feed(line.strip_suffix(b"\n").unwrap_or(&line));
            }
        }
        if let Goal::Text(text) = &self.goal {
            self.has_text |= plain(&self.pending).contains(text);
        }
    }

    /// Takes in one line without its newline.
    pub(super) fn feed(&mut self, line: &[u8]) {
        let line = plain(line);
        if line.is_empty() {
            return;
        }
        self.is_handed_over |= line.contains(HANDOVER);
        self.is_frozen |= line.contains(FROZEN);
        if let Goal::Text(text) = &self.goal {
            self.has_text |= line.contains(text);
        }
        if let (None, Some((_, banner))) = (&self.release, line.split_once(BANNER)) {
            self.release = banner.split(' ').next().map(str::to_owned);
        }
        if let Some(record) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)) {
            let (key, value) = record.split_once(' ').unwrap_or((record, ""));
            if key == "account" && self.account.is_none() {
                self.account = Account::parse(value);
            }
            self.records.push((key.to_owned(), value.to_owned()));
        } else if let (None, Some((_, reason))) = (&self.panic, line.split_once(PANIC)) {
            self.panic = Some(reason.to_owned());
        }
        self.lines.push(line);
    }

    /// Every line that was not empty.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The last lines, for an error to show.
    pub(super) fn tail(&self) -> String {
        let pending = plain(&self.pending);
        let mut lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        lines.extend((!pending.is_empty()).then_some(pending.as_str()));
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// The reason of the first panic.
    pub(super) fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    /// Whether systemd gave up.
    pub(super) fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// The release in the kernel's first words, once it has said them.
    pub(super) fn release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    /// What the guest said of itself.
    pub(super) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Whether init has begun: our own has said so, or the kernel says that it starts the root's.
    pub(super) fn is_in_init(&self) -> bool {
        match self.goal {
            Goal::Init => !self.records.is_empty(),
            Goal::Account | Goal::Text(_) => self.is_handed_over,
        }
    }

    /// Whether the guest came to where it was to come.
    pub(super) fn is_complete(&self) -> bool {
        match self.goal {
            Goal::Init => self.records.last().is_some_and(|(key, _)| key == "end"),
            Goal::Account => self.account.is_some(),
            Goal::Text(_) => self.has_text,
        }
    }

    /// What init said, if every record of it arrived.
    pub(super) fn heard(&self) -> Option<Heard> {
        let ((last, count), records) = self.records.split_last()?;
        if last != "end" || count.parse() != Ok(records.len()) {
            return None;
        }
        let mut heard = Heard::default();
        for (key, value) in records {
            let text = value.clone();
            match key.as_str() {
                "init" => heard.uptime = value.parse().ok()?,
                "release" => heard.release = text,
                "machine" => heard.machine = text,
                "root" => heard.root_fs = text,
                "config" => heard.config_readable = value == "yes",
                // A volume that was mounted may still lack its modules.dep: the failure comes later and stays.
                "volume" => heard.volume = Some(Failure::parse(value).map_or(Ok(text), Err)),
                "module" => {
                    let (name, outcome) = value.split_once(' ')?;
                    let outcome = match outcome {
                        "loaded" => Ok(Outcome::Loaded),
                        "already" => Ok(Outcome::AlreadyThere),
                        "builtin" => Ok(Outcome::BuiltIn),
                        failed => Err(Failure::parse(failed)?),
                    };
                    heard.modules.push((name.to_owned(), outcome));
                }
                _ => return None,
            }
        }
        Some(heard)
    }
}

/// A line without its escape sequences, which have no business on our terminal.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut parts = text.split("\x1b[");
    let mut line = parts.next().unwrap_or_default().to_owned();
    // Colours and cursors: digits and semicolons up to a letter.
    parts.for_each(|part| {
        line += part.trim_start_matches(|c: char| matches!(c, '0'..='?')).get(1..).unwrap_or("");
    });
    line.retain(|c| c == '\t' || !c.is_control());
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::node::account::tests as account;

    fn console(text: &str) -> Console {
        let mut console = Console::default();
        text.split('\n').for_each(|line| console.feed(line.as_bytes()));
        console
    }

    const GOOD: &str = "[    0.560014] Run /init as init process\r\n\r\n@imgbuild init 0.580 @\r\n\
        [    0.59] random: crng init done\r\n\r\n@imgbuild release 5.10.262 @\r\n\r\n@imgbuild machine x86_64 @\r\n\
        \r\n@imgbuild root ext2 @\r\n\r\n@imgbuild config yes @\r\n\r\n@imgbuild volume ext4 @\r\n\r\n\
        @imgbuild module overlay loaded @\r\n\r\n@imgbuild module exportfs already @\r\n\r\n\
        @imgbuild module ext2 builtin @\r\n\r\n@imgbuild end 9 @\r\n[    0.616018] reboot: Restarting system";

    #[test]
    fn records_are_found_among_the_kernels_words() {
        let console = console(GOOD);
        assert!(console.is_complete() && console.panic().is_none());
        let module = |name: &str, outcome| (name.to_owned(), Ok(outcome));
        assert_eq!(
            console.heard(),
            Some(Heard {
                uptime: 0.58,
                release: "5.10.262".into(),
                machine: "x86_64".into(),
                root_fs: "ext2".into(),
                config_readable: true,
                volume: Some(Ok("ext4".into())),
                modules: vec![
                    module("overlay", Outcome::Loaded),
                    module("exportfs", Outcome::AlreadyThere),
                    module("ext2", Outcome::BuiltIn),
                ],
            })
        );
    }

    #[test]
    fn failures_carry_the_guests_error() {
        let console = console(
            "@imgbuild volume ext2 @\n@imgbuild volume failed /lib/modules/5/modules.dep 2 @\n\
             @imgbuild module a failed kernel/a b.ko 8 @\n@imgbuild end 3 @",
        );
        let heard = console.heard().unwrap();
        let volume = heard.volume.unwrap().unwrap_err();
        assert_eq!(volume.to_string(), "/lib/modules/5/modules.dep: No such file or directory (os error 2)");
        assert_eq!(heard.modules[0].1, Err(Failure { path: "kernel/a b.ko".into(), number: 8 }));
    }

    #[test]
    fn a_lost_or_broken_record_is_noticed() {
        for (from, to) in [
            ("@imgbuild machine x86_64 @", ""),
            ("@imgbuild machine x86_64 @", "@imgbuild mach[    0.6] noise"),
            ("@imgbuild machine x86_64 @", "[    0.6] noise @imgbuild machine x86_64 @"),
            ("@imgbuild machine x86_64 @", "@imgbuild machine x8"),
            ("module ext2 builtin", "module ext2 mangled"),
            ("init 0.580", "init soon"),
        ] {
            let console = console(&GOOD.replace(from, to));
            assert!(console.is_complete() && console.heard().is_none(), "{from} -> {to}");
        }
    }

    #[test]
    fn a_console_cut_off_is_not_complete() {
        for length in 0..GOOD.find("@imgbuild end 9 @").unwrap() + "@imgbuild end 9 ".len() {
            assert!(!console(&GOOD[..length]).is_complete(), "{length}");
        }
    }

    #[test]
    fn the_first_panic_counts() {
        let console = console(
            "[    1.0] VFS: Cannot open root device \"vda\"\r\n\
             [    1.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n\
             [    1.2] ---[ end Kernel panic - not syncing: another ]---",
        );
        assert_eq!(console.panic(), Some("VFS: Unable to mount root fs on unknown-block(0,0)"));
        assert!(!console.is_in_init() && console.heard().is_none());
    }

    #[test]
    fn a_text_is_found_in_a_line_without_an_end_however_it_arrives() {
        for size in [1, 7, 1000] {
            let mut console = Console::new(Goal::Text("node login:".into()));
            let text = b"[ 0.0] Linux version 5.10.262 (a@b)\r\n[ 1.0] Run /sbin/init as init process\r\n\r\nnode login: ";
            let (before, _) = text.split_at(text.len() - 2);
            before.chunks(size).for_each(|part| console.hear(part));
            assert!(!console.is_complete() && console.is_in_init(), "{size}");
            console.hear(b": ");
            assert!(console.is_complete() && console.is_in_init(), "{size}");
            assert_eq!(
                (console.release(), console.tail().lines().last()),
                (Some("5.10.262"), Some("node login: "))
            );
        }
    }

    #[test]
    fn one_whole_account_of_two_is_enough() {
        let record = account::record(account::GOOD);
        let mut console = Console::new(Goal::Account);
        console.hear(format!("@imgbuild account {} @\r\n", record.replace('a', "b")).as_bytes());
        assert!(!console.is_complete());
        console.hear(format!("@imgbuild account {record} @\r\n").as_bytes());
        assert_eq!(console.account().unwrap().state, "running");
        assert!(console.is_complete());
    }

    #[test]
    fn a_systemd_that_gave_up_is_noticed() {
        let mut console = Console::new(Goal::Account);
        console.hear(b"[!!!!!!] Failed to mount API filesystems.\n[ 1.9] systemd[1]: Freezing execution.\n");
        assert!(console.is_frozen() && !console.is_complete() && console.panic().is_none());
    }

    #[test]
    fn the_tail_is_short_and_plain() {
        let text = "\x1b[0;1;39mline\x1b[0m \u{fffd}\x1b\n\r\n\x1b[K\n".repeat(100);
        let tail = console(&text).tail();
        assert_eq!(tail.lines().count(), TAIL);
        assert_eq!(tail.lines().last(), Some("line \u{fffd}"));
    }
}
