//! Names of images in registries: `HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`, after the OCI distribution specification 1.1.
//!
//! No name is completed: what has no registry host is refused, since two tools complete it differently.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// A registry's address: `registry.example`, `127.0.0.1:5000`, `[::1]:5000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

impl Host {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without the port, and without an IPv6 address's brackets.
    pub fn name(&self) -> &str {
        match self.0.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => self.0.split(':').next().unwrap_or(&self.0),
        }
    }

    /// Whether it is this machine itself: `localhost`, `127.0.0.0/8`, `::1`.
    pub fn is_loopback(&self) -> bool {
        let address = self.name().parse::<std::net::IpAddr>();
        self.name() == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |reason| Error::reference(text, reason);
        let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => {
                address
                    .parse::<std::net::Ipv6Addr>()
                    .map_err(|_| refuse("what stands in brackets is no IPv6 address"))?;
                ("", if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or("?")) })
            }
            None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
        };
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return Err(refuse("the registry's port is no number from 1 to 65535"));
        }
        let is_part = |part: &str| {
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && ends(part.chars().next())
                && ends(part.chars().last())
        };
        if !text.starts_with('[') && !name.split('.').all(is_part) {
            return Err(refuse("a registry is HOST or HOST:PORT, without a scheme"));
        }
        if !name.contains('.') && port.is_none() && name != "localhost" && !text.starts_with('[') {
            return Err(refuse("it has no registry host"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// The name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it is.
    pub host: Host,
    /// `org/kernel-bin`.
    pub repository: String,
    /// `5.10.262`.
    pub tag: Option<String>,
    /// `sha256:` and 64 digits.
    pub digest: Option<String>,
}

impl Reference {
    /// What the registry is asked for: the digest if there is one, else the tag.
    pub fn wanted(&self) -> Option<&str> {
        self.digest.as_deref().or(self.tag.as_deref())
    }

    /// The same repository by digest.
    #[must_use]
    pub fn at(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }

    /// What a layout calls it: the repository's last part with tag or digest, `kernel-bin:5.10.262`.
    pub fn short(&self) -> String {
        let last = self.repository.rsplit('/').next().unwrap_or(&self.repository);
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{last}:{tag}"),
            (None, Some(digest)) => format!("{last}@{digest}"),
            (None, None) => last.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |reason| Error::reference(text, reason);
        if text.contains("://") {
            return Err(refuse("it is a URL: leave the scheme out"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (host, path) = rest.split_once('/').ok_or_else(|| refuse("it has no registry host"))?;
        let host = Host::from_str(host).map_err(|error| match error {
            Error::Reference { reason, .. } => refuse(reason),
            error => error,
        })?;
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if !is_repository(repository) {
            return Err(refuse(
                "a repository is lower-case letters and digits, with single `.`, `_`, `-` or `/` between",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("a tag is up to 128 letters, digits, `_`, `.` and `-`"));
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(refuse("a digest is `sha256:` and 64 hexadecimal digits"));
        }
        Ok(Self {
            host,
            repository: repository.to_owned(),
            tag: tag.map(Into::into),
            digest: digest.map(Into::into),
        })
    }
}

/// Where a layout's images go: `HOST[:PORT][/PATH]`, to which their names are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// The reference of an image that a layout calls `name`.
    pub fn join(&self, name: &str) -> Result<Reference, Error> {
        let reference = Reference::from_str(&format!("{}/{name}", self.0))?;
        match reference.wanted() {
            Some(_) => Ok(reference),
            None => Err(Error::reference(&reference.to_string(), "it has neither tag nor digest")),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let trimmed = text.trim_end_matches('/');
        // Any image's name shows what is wrong with it.
        let reference = Reference::from_str(&format!("{trimmed}/x"));
        reference.map_err(|error| match error {
            Error::Reference { reason, .. } => Error::reference(text, reason),
            error => error,
        })?;
        Ok(Self(trimmed.to_owned()))
    }
}

fn is_repository(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |text: &str| matches!(text, "." | "_" | "__") || text.chars().all(|c| c == '-');
    let is_part = |part: &str| {
        part.starts_with(plain)
            && part.ends_with(plain)
            && part.split(plain).filter(|between| !between.is_empty()).all(separator)
    };
    text.len() <= 255 && text.split('/').all(is_part)
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// Whether this is a digest we can check: `sha256:` and 64 lower-case digits.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64 && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart_and_written_again() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, host, repository, tag) in [
            ("registry.example/kernel-bin:5.10.262", "registry.example", "kernel-bin", Some("5.10.262")),
            ("127.0.0.1:5000/org/kernel__bin", "127.0.0.1:5000", "org/kernel__bin", None),
            ("localhost/a--b.c:T_1", "localhost", "a--b.c", Some("T_1")),
            ("[::1]:5000/a/b/c:x", "[::1]:5000", "a/b/c", Some("x")),
            ("host:1/a", "host:1", "a", None),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!((reference.host.as_str(), &*reference.repository), (host, repository));
            assert_eq!(reference.tag.as_deref(), tag);
            let both = format!("{text}@{digest}");
            let reference: Reference = both.parse().unwrap();
            assert_eq!((reference.to_string(), reference.wanted()), (both, Some(&*digest)));
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        for (text, reason) in [
            ("kernel-bin:5.10", "no registry host"),
            ("org/kernel-bin:5.10", "no registry host"),
            ("https://registry.example/a", "leave the scheme out"),
            ("registry.example/Kernel", "lower-case"),
            ("registry.example/", "lower-case"),
            ("registry.example/a//b", "lower-case"),
            ("registry.example/../a", "lower-case"),
            ("registry.example/a___b", "lower-case"),
            ("registry.example/a:", "a tag is"),
            ("registry.example/a:-x", "a tag is"),
            ("registry.example/a:b:c", "a tag is"),
            ("registry.example/a@sha256:12", "a digest is"),
            ("registry.example/a@sha512:12", "a digest is"),
            ("registry.example:0/a", "port"),
            ("registry.example:99999/a", "port"),
            ("user:pass@registry.example/a", "no registry host"),
            ("-x.example/a", "HOST"),
            ("[::g]/a", "IPv6"),
            ("[::1]5000/a", "port"),
            ("", "no registry host"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (host, loopback) in [
            ("localhost", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("127.0.0.1.example", false),
            ("localhost.example", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(host.parse::<Host>().unwrap().is_loopback(), loopback, "{host}");
        }
    }

    #[test]
    fn a_prefix_takes_names() {
        let prefix: Prefix = "127.0.0.1:5000/org/".parse().unwrap();
        let reference = prefix.join("kernel-bin:5.10.262").unwrap();
        assert_eq!(reference.to_string(), "127.0.0.1:5000/org/kernel-bin:5.10.262");
        assert_eq!(reference.short(), "kernel-bin:5.10.262");
        assert!(prefix.join("theirs").unwrap_err().to_string().contains("neither tag nor digest"));
        assert!("org".parse::<Prefix>().is_err());
        assert!("h.example/x:1".parse::<Prefix>().is_err());
    }
}
