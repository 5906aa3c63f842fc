//! What the user sees while work goes on: bars on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;
use crate::step::{Diagnose, Level, Progress, Reporter, Unit, human};

/// Without a terminal, a long stage says so often that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// The one owner of the terminal.
pub(super) struct Printer {
    bars: MultiProgress,
    terminal: bool,
    verbose: bool,
    quiet: bool,
}

impl Printer {
    pub(super) fn new(verbose: bool, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), terminal, verbose, quiet }
    }

    /// A line on standard error, above the bars if there are any.
    fn line(&self, text: &str) {
        if self.terminal {
            let _ = self.bars.println(text);
        } else {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Takes the bars away.
    pub(super) fn clear(&self) {
        let _ = self.bars.clear();
    }

    /// Says how a command failed: the sentence, what to look at, what to do.
    pub(super) fn failure(&self, failure: &Failure) {
        self.clear();
        let mut text = format!("error: {failure}");
        if let Some(detail) = failure.detail() {
            text += "\n";
            for line in detail.lines() {
                text += format!("\n  {line}").trim_end_matches(' ');
            }
            text += "\n";
        }
        if let Some(hint) = failure.hint() {
            text += &format!("\nhint: {hint}");
        }
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

impl Reporter for Printer {
    fn begin(&self, verb: &str, what: &str, total: Option<u64>, unit: Unit) -> Box<dyn Progress> {
        let head = format!("{verb:>9}  {what}");
        let bar = if self.terminal {
            let bar = self.bars.add(total.map_or_else(ProgressBar::no_length, ProgressBar::new));
            let count = match (unit, total) {
                (Unit::Bytes, Some(_)) => {
                    "{bar:24} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}"
                }
                (Unit::Bytes, None) => "{decimal_bytes}, {decimal_bytes_per_sec}",
                (Unit::Files, Some(_)) => "{bar:24} {human_pos} of about {human_len} files",
                (Unit::Files, None) => "{spinner}",
            };
            let style = ProgressStyle::with_template(&format!("{{msg}}  {count}  {{elapsed}}"));
            bar.set_style(style.expect("the template is right").progress_chars("=> "));
            bar.set_message(head.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            Some(bar)
        } else {
            if !self.quiet && verb == "compile" {
                self.line(&head);
            }
            None
        };
        let now = Instant::now();
        let bars = self.bars.clone();
        Box::new(Stage { head, bar, bars, total, unit, quiet: self.quiet, begun: now, beat: Mutex::new(now) })
    }

    fn note(&self, level: Level, message: &str) {
        match level {
            Level::Detail if self.verbose => self.line(&format!("           {message}")),
            Level::Info if !self.quiet => self.line(&format!("           {message}")),
            Level::Warning => self.line(&format!("warning: {message}")),
            _ => {}
        }
    }
}

/// One running stage.
struct Stage {
    head: String,
    bar: Option<ProgressBar>,
    bars: MultiProgress,
    total: Option<u64>,
    unit: Unit,
    quiet: bool,
    begun: Instant,
    beat: Mutex<Instant>,
}

impl Stage {
    fn count(&self, done: u64) -> String {
        let number = |n| match self.unit {
            Unit::Bytes => human(n),
            Unit::Files => HumanCount(n).to_string(),
        };
        let unit = if self.unit == Unit::Files { " files" } else { "" };
        match self.total {
            Some(total) => format!("{} of about {}{unit}", number(done), number(total)),
            None => format!("{}{unit}", number(done)),
        }
    }
}

impl Progress for Stage {
    fn set(&self, done: u64) {
        if let Some(bar) = &self.bar {
            if bar.length().is_some_and(|total| done > total) {
                bar.set_length(done);
            }
            bar.set_position(done);
        } else if !self.quiet
            && let Ok(mut beat) = self.beat.lock()
            && beat.elapsed() >= HEARTBEAT
        {
            *beat = Instant::now();
            let (count, seconds) = (self.count(done), self.begun.elapsed().as_secs());
            let _ = writeln!(
                std::io::stderr(),
                "{}: {count}, {}",
                self.head,
                duration(Duration::from_secs(seconds))
            );
        }
    }

    fn finish(&self, outcome: &str) {
        let line = format!("{}: {outcome}, {}", self.head, duration(self.begun.elapsed()));
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                let _ = self.bars.println(line);
            }
            None if self.quiet => {}
            None => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar
            && !bar.is_finished()
        {
            // Unfinished: it stays visible as the stage that failed.
            bar.abandon();
        }
    }
}

/// `0.4 s`, `12 s`, `9:32 min`.
pub(super) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds => format!("{}:{:02} min", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (millis, text) in [(0, "0.0 s"), (420, "0.4 s"), (12_000, "12 s"), (572_000, "9:32 min")] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
