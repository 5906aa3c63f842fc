//! What must not be in an image that others get: private keys, tokens, the builder's own names.

use std::collections::BTreeSet;
use std::io::{self, Read};

use memchr::memmem;

/// How much of a file is looked at in one piece, in bytes.
const PIECE: usize = 1 << 20;
/// No pattern is longer, its context included.
const OVERLAP: usize = 256;
/// How PEM begins every kind of private key, after which its text follows.
const PEM: &[u8] = b"PRIVATE KEY-----";
/// Tokens of services: what they begin with, and how many letters and digits follow at least.
const TOKENS: [(&str, usize, &str); 6] = [
    ("ghp_", 36, "a GitHub token"),
    ("ghs_", 36, "a GitHub token"),
    ("github_pat_", 60, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("AKIA", 16, "an AWS access key"),
    ("xoxb-", 24, "a Slack token"),
];
/// Files that hold secrets whatever is in them.
const NAMES: [&str; 8] = [
    ".docker/config.json",
    ".netrc",
    ".git-credentials",
    ".aws/credentials",
    ".ssh/id_rsa",
    ".ssh/id_ecdsa",
    ".ssh/id_ed25519",
    ".kube/config",
];
/// Where a host's name stands for the host, even if it is a word like any other.
const HOSTS: &str = "etc/hosts";

/// A finding: the file, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret {
    /// The file's path in the image.
    pub path: String,
    /// What was found, in words.
    pub what: String,
}

/// A scan over the files of an image.
#[derive(Debug, Default)]
pub struct Scan {
    found: BTreeSet<Secret>,
    host: Option<String>,
}

impl Scan {
    /// A scan that also looks for the name of this host.
    pub fn new() -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { found: BTreeSet::new(), host: Some(name).filter(|name| name.len() > 3 && name != "localhost") }
    }

    /// Looks at a file while its bytes go by.
    pub fn reader<'s, R: Read>(&'s mut self, path: &str, inner: R) -> Scanned<'s, R> {
        if NAMES.iter().any(|name| path.ends_with(name)) {
            self.found(path, "credentials, by its name");
        }
        Scanned { inner, scan: self, path: path.to_owned(), piece: Vec::new() }
    }

    /// What was found, but for files that `public` says anybody can have.
    pub fn findings(self, public: impl Fn(&str) -> bool) -> Vec<Secret> {
        self.found.into_iter().filter(|secret| !public(&secret.path)).collect()
    }

    fn found(&mut self, path: &str, what: &str) {
        self.found.insert(Secret { path: path.to_owned(), what: what.to_owned() });
    }

    fn look(&mut self, path: &str, bytes: &[u8]) {
        if memmem::find_iter(bytes, PEM).any(|at| is_key(&bytes[at + PEM.len()..])) {
            self.found(path, "a private key");
        }
        for (sign, length, what) in TOKENS {
            let follows = |at: usize| {
                let rest = &bytes[at + sign.len()..];
                let word =
                    rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
                let joined = at > 0 && bytes[at - 1].is_ascii_alphanumeric();
                // Access keys are of one length; documentation's examples say so.
                word >= length
                    && !joined
                    && (sign != "AKIA" || (word == length && !rest[..word].ends_with(b"EXAMPLE")))
            };
            if memmem::find_iter(bytes, sign).any(follows) {
                self.found(path, what);
            }
        }
        if let Some(host) =
            self.host.clone().filter(|host| path == HOSTS || (path.starts_with("etc/") && is_peculiar(host)))
        {
            let whole = |at: usize| {
                let word = |byte: Option<&u8>| {
                    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
                };
                !word(at.checked_sub(1).and_then(|before| bytes.get(before)))
                    && !word(bytes.get(at + host.len()))
            };
            if memmem::find_iter(bytes, host.as_bytes()).any(whole) {
                self.found(path, &format!("the name of the host it was built on, `{host}`"));
            }
        }
    }
}

/// Whether a host's name is no word of a language, which would stand in many files.
fn is_peculiar(name: &str) -> bool {
    name.bytes().any(|byte| !byte.is_ascii_alphabetic())
}

/// Whether what follows the first line of a PEM is a key's text, not a program's next string.
fn is_key(rest: &[u8]) -> bool {
    let Some(text) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) else { return false };
    if text.starts_with(b"Proc-Type:") {
        return true;
    }
    let base64 = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(**byte, b'+' | b'/' | b'=');
    text.iter().take_while(base64).count() >= 40
}

/// A file that is scanned while it is read.
pub struct Scanned<'s, R> {
    inner: R,
    scan: &'s mut Scan,
    path: String,
    piece: Vec<u8>,
}

impl<R: Read> Read for Scanned<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.piece.extend_from_slice(&buffer[..n]);
        if self.piece.len() >= PIECE {
            self.scan.look(&self.path, &self.piece);
            self.piece.drain(..self.piece.len() - OVERLAP);
        }
        Ok(n)
    }
}

impl<R> Drop for Scanned<'_, R> {
    fn drop(&mut self) {
        self.scan.look(&self.path, &self.piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, bytes: &[u8]) -> Vec<String> {
        let mut scan = Scan { host: Some("anvil-7".into()), ..Scan::default() };
        io::copy(&mut scan.reader(path, bytes), &mut io::sink()).unwrap();
        scan.findings(|_| false).into_iter().map(|secret| secret.what).collect()
    }

    #[test]
    fn keys_and_tokens_are_found_wherever_they_stand() {
        let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n", "b3Blbn".repeat(12));
        assert_eq!(found("x", key.as_bytes()), ["a private key"]);
        for before in [PIECE - 60, PIECE - 10, PIECE - 1] {
            let bytes = [&vec![0; before][..], key.as_bytes(), &vec![0; 400][..]].concat();
            assert_eq!(found("x", &bytes), ["a private key"], "{before}");
        }
        let token = format!("token: ghp_{}", "a1".repeat(18));
        assert_eq!(found("x", token.as_bytes()), ["a GitHub token"]);
        assert_eq!(found("root/.netrc", b""), ["credentials, by its name"]);
        assert_eq!(
            found("etc/hosts", b"127.0.1.1 anvil-7\n"),
            ["the name of the host it was built on, `anvil-7`"]
        );
    }

    #[test]
    fn what_only_looks_so_is_left_alone() {
        for text in [
            "-----BEGIN RSA PRIVATE KEY-----\0-----END RSA PRIVATE KEY-----",
            "AKIAIOSFODNN7EXAMPLE",
            "ghp_short",
            "anvil-70 and xanvil-7",
        ] {
            assert_eq!(found("etc/x", text.as_bytes()), Vec::<String>::new(), "{text}");
        }
        assert!(found("usr/x", b"anvil-7").is_empty());
        let mut scan = Scan { host: Some("server".into()), ..Scan::default() };
        io::copy(&mut scan.reader("etc/ssh/sshd_config", &b"the server"[..]), &mut io::sink()).unwrap();
        io::copy(&mut scan.reader("etc/hosts", &b"127.0.1.1 server"[..]), &mut io::sink()).unwrap();
        assert_eq!(scan.findings(|_| false).len(), 1);
    }

    #[test]
    fn what_a_package_ships_is_no_secret() {
        let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n", "A".repeat(64));
        let mut scan = Scan::default();
        io::copy(&mut scan.reader("usr/lib/test.pem", key.as_bytes()), &mut io::sink()).unwrap();
        assert!(scan.findings(|path| path == "usr/lib/test.pem").is_empty());
    }
}
