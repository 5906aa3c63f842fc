//! The bracket at the start of a fragment line's comment: for which kernels the line counts.

use std::fmt;

use crate::arch::Arch;
use crate::version::Version;

/// When a request applies; all that is named must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `>=X.Y`
    pub from: Option<Version>,
    /// `<X.Y`
    pub below: Option<Version>,
    /// `x86_64` or `arm64`
    pub arch: Option<Arch>,
    /// `if-known`: only where the kernel tree defines the symbol.
    pub if_known: bool,
}

impl Condition {
    /// Reads a trailing comment's bracket, if it begins with one.
    pub fn read(comment: &str) -> Result<Self, String> {
        let mut condition = Self::default();
        let Some(rest) = comment.strip_prefix('[') else { return Ok(condition) };
        let (words, _) = rest.split_once(']').ok_or("the condition does not end: close it with `]`")?;
        for word in words.split(',').map(str::trim) {
            let twice = if let Some(version) = word.strip_prefix(">=") {
                condition
                    .from
                    .replace(version.parse().map_err(|error| format!("in `[{words}]`: {error}"))?)
                    .is_some()
            } else if let Some(version) = word.strip_prefix('<').filter(|rest| !rest.starts_with('=')) {
                condition
                    .below
                    .replace(version.parse().map_err(|error| format!("in `[{words}]`: {error}"))?)
                    .is_some()
            } else if word == "if-known" {
                std::mem::replace(&mut condition.if_known, true)
            } else {
                match word.parse::<Arch>() {
                    Ok(arch) if arch.name() == word => condition.arch.replace(arch).is_some(),
                    other => {
                        let meant = other.map_or(String::new(), |arch| format!(": did you mean `{arch}`?"));
                        return Err(format!(
                            "`{word}` is not a condition{meant} (`>=X.Y`, `<X.Y`, `x86_64`, `arm64`, `if-known` are)"
                        ));
                    }
                }
            };
            if twice {
                return Err(format!("`[{words}]` says two things of one kind: put them on two lines"));
            }
        }
        Ok(condition)
    }

    /// Whether all but `if-known`, which only a kernel tree can tell, hold.
    pub fn holds(&self, version: &Version, arch: Arch) -> bool {
        self.from.as_ref().is_none_or(|from| version >= from)
            && self.below.as_ref().is_none_or(|below| version < below)
            && self.arch.is_none_or(|only| only == arch)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.from.as_ref().map(|version| format!(">={version}")),
            self.below.as_ref().map(|version| format!("<{version}")),
            self.arch.map(|arch| arch.to_string()),
            self.if_known.then(|| "if-known".to_owned()),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}
