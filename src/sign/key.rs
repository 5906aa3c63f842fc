//! Key pairs, read from PEM.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::spki::SubjectPublicKeyInfoRef;
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, PrivateKeyInfo};
use p256::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};

use super::{Error, cosign};
use crate::step::hex;

/// The variable that has the password of an encrypted key; cosign's own.
pub const PASSWORD: &str = "COSIGN_PASSWORD";
/// What begins a PEM block.
const BEGIN: &str = "-----BEGIN ";

/// A private key.
pub struct Key(SigningKey);

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    /// The file it is from.
    name: String,
    key: VerifyingKey,
    /// sha256 of its `SubjectPublicKeyInfo`.
    fingerprint: [u8; 32],
}

impl Key {
    /// Reads a private key: PKCS#8 or SEC1 as openssl writes it, or cosign's own, opened with `COSIGN_PASSWORD`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let password = std::env::var(PASSWORD).ok();
        Self::parse(&path.display().to_string(), &fs::read(path)?, password.as_deref())
    }

    /// The same from the file's bytes.
    pub fn parse(name: &str, pem: &[u8], password: Option<&str>) -> Result<Self, Error> {
        let (label, der) = block(name, pem)?;
        let none =
            |error: &dyn std::fmt::Display| Error::NoKey { name: name.into(), reason: error.to_string() };
        let pkcs8 = |der: &[u8]| match SecretKey::from_pkcs8_der(der) {
            Ok(key) => Ok(key),
            Err(error) => match PrivateKeyInfo::try_from(der) {
                Ok(info) => Err(of_kind(name, &info.algorithm.oid.to_string(), &error)),
                Err(error) => Err(none(&error)),
            },
        };
        let secret = match label.as_str() {
            "PRIVATE KEY" => pkcs8(&der)?,
            "EC PRIVATE KEY" => SecretKey::from_sec1_der(&der).map_err(|error| none(&error))?,
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                let password = password.ok_or_else(|| Error::NoPassword { name: name.into() })?;
                pkcs8(&cosign::open(name, &der, password)?)?
            }
            "PUBLIC KEY" => {
                return Err(Error::Half { name: name.into(), found: "public", wanted: "private" });
            }
            label => return Err(Error::Kind { name: name.into(), kind: format!("a `{label}`") }),
        };
        Ok(Self(secret.into()))
    }

    /// The public half.
    pub fn public(&self) -> Public {
        Public::of("", *self.0.verifying_key())
    }

    /// The signature of bytes: DER, the same each time.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(bytes);
        signature.to_der().as_bytes().to_vec()
    }
}

impl Public {
    /// Reads a public key: PEM, as cosign and openssl write it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&path.display().to_string(), &fs::read(path)?)
    }

    /// The same from the file's bytes.
    pub fn parse(name: &str, pem: &[u8]) -> Result<Self, Error> {
        let (label, der) = block(name, pem)?;
        match label.as_str() {
            "PUBLIC KEY" => {}
            label if label.ends_with("PRIVATE KEY") => {
                return Err(Error::Half { name: name.into(), found: "private", wanted: "public" });
            }
            label => return Err(Error::Kind { name: name.into(), kind: format!("a `{label}`") }),
        }
        match PublicKey::from_public_key_der(&der) {
            Ok(key) => Ok(Self::of(name, key.into())),
            Err(error) => match SubjectPublicKeyInfoRef::try_from(&der[..]) {
                Ok(info) => Err(of_kind(name, &info.algorithm.oid.to_string(), &error)),
                Err(error) => Err(Error::NoKey { name: name.into(), reason: error.to_string() }),
            },
        }
    }

    /// Reads all public keys of a file, or of the files `*.pub` and `*.pem` in a directory. There is at least one.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, Error> {
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
            files = entries.collect::<Result<_, _>>()?;
            files.retain(|file| file.extension().is_some_and(|ending| ending == "pub" || ending == "pem"));
            files.sort();
        }
        let mut keys = Vec::new();
        for file in files {
            let text = fs::read(&file)?;
            let text = String::from_utf8_lossy(&text);
            // Before the first block may stand what people write there.
            let blocks: Vec<_> = text.match_indices(BEGIN).map(|(at, _)| &text[at..]).collect();
            let name = file.display().to_string();
            if blocks.is_empty() {
                return Err(Error::NoKey { name, reason: "it has no PEM block".into() });
            }
            for block in blocks {
                keys.push(Self::parse(&name, block.as_bytes())?);
            }
        }
        if keys.is_empty() {
            let name = path.display().to_string();
            return Err(Error::NoKey { name, reason: "no file in it is named `*.pub` or `*.pem`".into() });
        }
        Ok(keys)
    }

    fn of(name: &str, key: VerifyingKey) -> Self {
        let der = PublicKey::from(key).to_public_key_der().expect("a point of the curve can be written");
        Self { name: name.to_owned(), key, fingerprint: Sha256::digest(der.as_bytes()).into() }
    }

    /// The file it is from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells it from all others: `sha256:` and the digits of its `SubjectPublicKeyInfo`'s hash.
    pub fn id(&self) -> String {
        format!("sha256:{}", hex(&self.fingerprint))
    }

    /// The same as cosign hints at it.
    pub fn hint(&self) -> String {
        STANDARD.encode(self.fingerprint)
    }

    /// Whether `signature`, DER, is this key's over `bytes`.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        Signature::from_der(signature).is_ok_and(|signature| self.key.verify(bytes, &signature).is_ok())
    }
}

/// Whether a file holds a private key, by what its first PEM block says.
pub fn is_private(pem: &[u8]) -> bool {
    pem_label(pem).is_some_and(|label| label.ends_with("PRIVATE KEY"))
}

/// What the first PEM block of a file says it is; none if there is no block.
fn pem_label(pem: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once(BEGIN)?;
    Some(rest.split_once("-----")?.0.to_owned())
}

/// The first PEM block of a file: its label and its content.
fn block(name: &str, pem: &[u8]) -> Result<(String, Vec<u8>), Error> {
    let none = |reason: &str| Error::NoKey { name: name.into(), reason: reason.into() };
    let label = pem_label(pem).ok_or_else(|| none("it has no PEM block"))?;
    let text = String::from_utf8_lossy(pem);
    let end = format!("-----END {label}-----");
    let (_, rest) =
        text.split_once(&format!("{BEGIN}{label}-----")).ok_or_else(|| none("it has no PEM block"))?;
    let (body, _) = rest.split_once(&end).ok_or_else(|| none("its PEM block does not end"))?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    let content = STANDARD.decode(body).map_err(|_| none("its PEM block is garbled"))?;
    Ok((label, content))
}

/// The error for a key that could be read, and is of another kind.
fn of_kind(name: &str, algorithm: &str, error: &dyn std::fmt::Display) -> Error {
    let kind = match algorithm {
        "1.2.840.113549.1.1.1" => "an RSA key",
        "1.3.101.112" => "an Ed25519 key",
        "1.2.840.10045.2.1" => "an ECDSA key of another curve, or a damaged one",
        _ => return Error::NoKey { name: name.into(), reason: error.to_string() },
    };
    Error::Kind { name: name.into(), kind: kind.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::pkcs8::{EncodePrivateKey, LineEnding};

    fn key(seed: u8) -> Key {
        Key(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    fn pem(seed: u8) -> String {
        SecretKey::from_slice(&[seed; 32]).unwrap().to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
    }

    #[test]
    fn a_signature_is_its_keys_over_its_bytes_alone() {
        let (ours, theirs) = (key(1), key(2));
        let signature = ours.sign(b"this");
        assert_eq!(signature, ours.sign(b"this"));
        assert!(ours.public().verify(b"this", &signature));
        assert!(!ours.public().verify(b"that", &signature));
        assert!(!theirs.public().verify(b"this", &signature));
        assert!(!ours.public().verify(b"this", &signature[1..]));
        assert!(!ours.public().verify(b"this", b""));
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let read = Key::parse("k", pem(1).as_bytes(), None).unwrap();
        assert_eq!(read.public(), key(1).public());
        let der = PublicKey::from(*key(1).0.verifying_key()).to_public_key_pem(LineEnding::LF).unwrap();
        let public = Public::parse("k.pub", der.as_bytes()).unwrap();
        assert_eq!((public.id(), public.name()), (key(1).public().id(), "k.pub"));
    }

    #[test]
    fn what_is_no_key_is_told_from_what_is_another() {
        let rsa = "-----BEGIN PUBLIC KEY-----\nMCwwDQYJKoZIhvcNAQEBBQADGwAwGAIRAOEMdVb2Yk2Sl4oZ2zVQ1nECAwEAAQ==\n-----END PUBLIC KEY-----";
        let ed = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----";
        for (text, said) in [
            (rsa, "holds an RSA key"),
            (ed, "holds an Ed25519 key"),
            (&pem(1), "holds a private key, and a public one is wanted"),
            ("", "no PEM block"),
            ("-----BEGIN PUBLIC KEY-----\nMFkw", "does not end"),
            ("-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----", "garbled"),
            ("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----", "holds no key"),
            ("-----BEGIN CERTIFICATE-----\nMFkw\n-----END CERTIFICATE-----", "holds a `CERTIFICATE`"),
        ] {
            let error = Public::parse("k", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        let error = |text: &str| Key::parse("k", text.as_bytes(), None).err().unwrap().to_string();
        assert!(error(ed).contains("holds a public key, and a private one is wanted"));
        assert!(error(&pem(1)[..80]).contains("does not end"));
    }
}
