//! Kernel versions: `5.10.262`, and series: `5.10`.

use std::fmt;
use std::str::FromStr;

/// A dotted version of two or three numbers, ordered as numbers; `5.12` and `5.12.0` are the same release.
#[derive(Clone, Debug)]
pub struct Version {
    numbers: [u32; 3],
    text: String,
}

impl Version {
    /// Major and minor number: `5.10` of `5.10.262`.
    pub fn series(&self) -> String {
        format!("{}.{}", self.numbers[0], self.numbers[1])
    }

    /// The three numbers, the last 0 where it is not written.
    pub fn numbers(&self) -> [u32; 3] {
        self.numbers
    }

    /// What `make kernelrelease` says for it: always three numbers.
    pub fn release(&self) -> String {
        let [major, minor, patch] = self.numbers;
        format!("{major}.{minor}.{patch}")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.numbers.cmp(&other.numbers)
    }
}

/// Text that is no version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a kernel version such as 5.10 or 5.10.262")]
pub struct NotAVersion(String);

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let wrong = || NotAVersion(text.to_owned());
        let mut numbers = [0; 3];
        let parts: Vec<_> = text.split('.').collect();
        if !(2..=3).contains(&parts.len()) {
            return Err(wrong());
        }
        for (number, part) in numbers.iter_mut().zip(&parts) {
            let canonical =
                part.chars().all(|c| c.is_ascii_digit()) && (*part == "0" || !part.starts_with('0'));
            *number = if canonical { part.parse().map_err(|_| wrong())? } else { return Err(wrong()) };
        }
        Ok(Self { numbers, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_order_as_numbers() {
        assert!(version("5.10.9") < version("5.10.77"));
        assert!(version("5.9.1") < version("5.10"));
        assert_eq!(version("5.12"), version("5.12.0"));
        assert_eq!(version("5.12").release(), "5.12.0");
        assert_eq!(version("4.19.215").series(), "4.19");
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "5", "5.", "5.10.", "5.10.1.2", "5.x", "05.10", "5.10-rc1", "+5.1", "99999999999.1"]
        {
            assert_eq!(text.parse::<Version>(), Err(NotAVersion(text.to_owned())), "{text}");
        }
    }
}
