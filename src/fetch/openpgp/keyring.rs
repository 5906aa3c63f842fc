//! Whose signatures count for what: `keys/roles.toml`, and the public keys beside it.

use std::fmt;
use std::io;
use std::str::FromStr;

use pgp::composed::{Deserializable, SignedPublicKey};
use pgp::packet::Signature;
use pgp::types::KeyDetails;
use sha2::{Digest, Sha256};

use super::policy::{Component, Found, Rejection};
use super::{Error, Refusal, Signer};
use crate::document::{Document, Fields};
use crate::step::hex;

/// The list's path in a catalogue.
const ROLES: &str = "keys/roles.toml";

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// kernel.org's lists of checksums.
    Sums,
    /// Kernel tarballs.
    Tarball,
    /// A Debian archive's lists.
    Archive,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sums => "lists of checksums (role `sums`)",
            Self::Tarball => "kernel tarballs (role `tarball`)",
            Self::Archive => "an archive's lists",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sums" => Ok(Self::Sums),
            "tarball" => Ok(Self::Tarball),
            _ => Err(format!("unknown role `{text}`; the roles are `sums` and `tarball`")),
        }
    }
}

/// A key that may sign something.
#[derive(Debug, Clone)]
pub struct Trusted {
    /// What it may sign.
    pub role: Role,
    /// Whose it is.
    pub owner: String,
    /// Its fingerprint: 40 upper-case digits (64 for a version 6 key).
    pub fingerprint: String,
    /// Its public part, if its file is there.
    pub(super) certificate: Option<SignedPublicKey>,
}

impl Trusted {
    /// Who signs with it.
    pub fn signer(&self) -> Signer {
        Signer { fingerprint: self.fingerprint.clone(), owner: self.owner.clone() }
    }

    /// Fingerprint and owner, for messages.
    pub(super) fn name(&self) -> String {
        format!("{} ({})", self.fingerprint, self.owner)
    }
}

/// All keys whose signatures count.
#[derive(Debug)]
pub struct Keyring {
    place: String,
    keys: Vec<Trusted>,
    digest: String,
}

impl Keyring {
    /// Reads the list and the keys of a catalogue: `read` yields a file of it, `name` what messages call it.
    pub fn load(
        name: impl Fn(&str) -> String,
        read: impl Fn(&str) -> io::Result<String>,
    ) -> Result<Self, Error> {
        let text = match read(ROLES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoRoles { path: name(ROLES) });
            }
            Err(error) => return Err(error.into()),
        };
        let mut digest = Sha256::new_with_prefix(&text);
        let listed = Document::new(&name(ROLES), &text).read(|top| top.tables("key", entry))?;
        let mut keys: Vec<Trusted> = listed.into_iter().flatten().collect();
        for key in &mut keys {
            let path = format!("keys/{}.asc", key.fingerprint);
            match read(&path) {
                Ok(armored) => {
                    digest.update(&armored);
                    let wrong = |reason| Error::KeyFile { path: name(&path), reason };
                    key.certificate = Some(certificate(&armored, &key.fingerprint).map_err(wrong)?);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { place: name("keys"), keys, digest: hex(&digest.finalize()) })
    }

    /// The keys of a Debian archive, as the package with its keyring installs them: any of them may sign its lists.
    pub fn of_archive(path: &str, bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |reason: String| Error::KeyFile { path: path.to_owned(), reason };
        let (certificates, _) = SignedPublicKey::from_reader_many(bytes)
            .map_err(|error| wrong(format!("no keyring: {error}")))?;
        let trusted = |certificate: SignedPublicKey| {
            let owner = certificate.details.users.first();
            Trusted {
                role: Role::Archive,
                owner: owner
                    .map_or_else(String::new, |user| String::from_utf8_lossy(user.id.id()).into_owned()),
                fingerprint: hex(certificate.fingerprint().as_bytes()).to_uppercase(),
                certificate: Some(certificate),
            }
        };
        // A key of a kind not known here signs nothing that counts here.
        let keys: Vec<_> = certificates.flatten().map(trusted).collect();
        if keys.is_empty() {
            return Err(wrong("it holds no public key".into()));
        }
        Ok(Self { place: path.to_owned(), keys, digest: hex(&Sha256::digest(bytes)) })
    }

    /// A digest of the list and of all keys: what was verified by another set is verified again.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Fails unless there is a key that can verify what `role` signs.
    pub fn require(&self, role: Role) -> Result<(), Error> {
        let mut of_role = self.keys.iter().filter(|key| key.role == role);
        if of_role.clone().any(|key| key.certificate.is_some()) {
            return Ok(());
        }
        let path = of_role.clone().next().map_or("FINGERPRINT", |key| key.fingerprint.as_str());
        let path = format!("{}/{path}.asc", self.place);
        Err(Error::NoMaterial { role, missing: of_role.by_ref().map(Trusted::signer).collect(), path })
    }

    /// The key that a signature says it is by, if it is one for `role`.
    pub(super) fn signer_of(&self, signature: &Signature, role: Role) -> Result<Found<'_>, Rejection> {
        let fingerprints = signature.issuer_fingerprint();
        let key_ids = signature.issuer_key_id();
        // A fingerprint is the better name; a key id alone is what older signatures have.
        let is_named = |key: &dyn KeyDetails| match &fingerprints[..] {
            [] => key_ids.contains(&&key.legacy_key_id()),
            named => named.contains(&&key.fingerprint()),
        };
        let named = fingerprints.first().map(|named| hex(named.as_bytes()).to_uppercase());
        let named = named.or_else(|| key_ids.first().map(|id| hex(id.as_ref()).to_uppercase()));
        let Some(named) = named else { return Err(Refusal::Anonymous.into()) };
        let found = self.keys.iter().filter_map(|trusted| {
            let certificate = trusted.certificate.as_ref()?;
            let subkey = || certificate.public_subkeys.iter().find(|subkey| is_named(*subkey));
            let component = if is_named(&certificate.primary_key) {
                Component::Primary(&certificate.primary_key)
            } else {
                Component::Subkey(subkey()?)
            };
            Some(Found { trusted, certificate, component })
        });
        let (ours, theirs): (Vec<_>, Vec<_>) = found.partition(|found| found.trusted.role == role);
        if let Some(found) = ours.into_iter().next() {
            return Ok(found);
        }
        if let Some(found) = theirs.first() {
            let (signer, theirs) = (found.trusted.name(), found.trusted.role);
            return Err(Refusal::OtherRole { signer, theirs, ours: role }.into());
        }
        let is_absent = |key: &&Trusted| key.certificate.is_none() && key.fingerprint.ends_with(&named);
        match self.keys.iter().find(is_absent) {
            Some(key) if key.role == role => {
                let path = format!("{}/{}.asc", self.place, key.fingerprint);
                let error = Error::NoMaterial { role, missing: vec![key.signer()], path };
                Err(Rejection::NoMaterial(Box::new(error)))
            }
            _ => Err(Refusal::UnknownSigner(named).into()),
        }
    }
}

fn entry(fields: &Fields<'_>) -> Option<Trusted> {
    let (role, owner) = (fields.parsed("role"), fields.required("owner"));
    let fingerprint = fields.required("fingerprint");
    if let Some(text) = &fingerprint
        && !(matches!(text.value.len(), 40 | 64)
            && text.value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')))
    {
        fields.mistake(text, "a fingerprint is 40 upper-case hexadecimal digits", None);
    }
    Some(Trusted { role: role?, owner: owner?.value, fingerprint: fingerprint?.value, certificate: None })
}

/// The one public key of a file, which has this fingerprint.
fn certificate(armored: &str, fingerprint: &str) -> Result<SignedPublicKey, String> {
    let (mut keys, _) =
        SignedPublicKey::from_string_many(armored).map_err(|error| format!("no public key: {error}"))?;
    let first = keys.next().ok_or("it holds no public key")?;
    let certificate = first.map_err(|error| format!("no public key: {error}"))?;
    if keys.next().is_some() {
        return Err("it holds more than one key".into());
    }
    let actual = hex(certificate.fingerprint().as_bytes()).to_uppercase();
    if actual != fingerprint {
        return Err(format!("its fingerprint is {actual}, but should be {fingerprint}"));
    }
    Ok(certificate)
}

#[cfg(test)]
impl Keyring {
    /// The keys that are there, and whether they could sign something now.
    pub(super) fn with_material(&self) -> Vec<(&Trusted, Result<(), Refusal>)> {
        let judged = |trusted: &'_ Trusted| {
            let certificate = trusted.certificate.as_ref()?;
            let component = Component::Primary(&certificate.primary_key);
            let found = Found { trusted, certificate, component };
            Some(super::policy::judge(&found, super::now(), super::now()))
        };
        self.keys.iter().filter_map(|trusted| Some((trusted, judged(trusted)?))).collect()
    }
}
