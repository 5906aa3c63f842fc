//! Which signatures and keys are good enough.

use std::io::Read;

use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PublicKey, Signature, SignatureType, SignatureVersion, SubpacketData};
use pgp::types::{KeyDetails, Tag};

use super::keyring::Trusted;
use super::{Error, Refusal, Seconds, date};

/// The part of a key that made a signature.
pub(super) enum Component<'k> {
    /// The key itself.
    Primary(&'k PublicKey),
    /// A key bound to it.
    Subkey(&'k SignedPublicSubKey),
}

/// A trusted key and its part that made a signature.
pub(super) struct Found<'k> {
    pub(super) trusted: &'k Trusted,
    pub(super) certificate: &'k SignedPublicKey,
    pub(super) component: Component<'k>,
}

/// Why a signature does not count.
pub(super) enum Rejection {
    /// Something is wrong with it.
    Refusal(Refusal),
    /// Its key is listed, but not there.
    NoMaterial(Box<Error>),
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

/// Whether a signature is over `data`.
pub(super) fn verify(signature: &Signature, key: &Component<'_>, data: impl Read) -> bool {
    match key {
        Component::Primary(key) => signature.verify(*key, data).is_ok(),
        Component::Subkey(key) => signature.verify(*key, data).is_ok(),
    }
}

fn is_strong(hash: HashAlgorithm) -> bool {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha256, Sha384, Sha512};
    matches!(hash, Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512)
}

/// The first critical part of a signature that is not understood.
fn strange(signature: &Signature) -> Option<String> {
    let config = signature.config()?;
    let is_strange = |data: &SubpacketData| {
        !matches!(
            data,
            SubpacketData::SignatureCreationTime(_)
                | SubpacketData::SignatureExpirationTime(_)
                | SubpacketData::KeyExpirationTime(_)
                | SubpacketData::IssuerKeyId(_)
                | SubpacketData::IssuerFingerprint(_)
                | SubpacketData::SignersUserID(_)
                | SubpacketData::KeyFlags(_)
                | SubpacketData::Features(_)
                | SubpacketData::IsPrimary(_)
                | SubpacketData::EmbeddedSignature(_)
                | SubpacketData::PreferredSymmetricAlgorithms(_)
                | SubpacketData::PreferredHashAlgorithms(_)
                | SubpacketData::PreferredCompressionAlgorithms(_)
                | SubpacketData::PreferredAeadAlgorithms(_)
        )
    };
    let mut parts = config.hashed_subpackets().chain(config.unhashed_subpackets());
    let found = parts.find(|part| part.is_critical && is_strange(&part.data))?;
    Some(format!("subpacket {}", found.typ().as_u8(false)))
}

/// When a signature's validity ends.
fn end(signature: &Signature, made: Seconds) -> Option<Seconds> {
    let lasts = signature.signature_expiration_time().map(pgp::types::Duration::as_secs);
    lasts.filter(|lasts| *lasts > 0).map(|lasts| made.saturating_add(lasts))
}

/// Checks a signature by itself, without its key; returns when it was made.
pub(super) fn sound(signature: &Signature, kind: SignatureType, now: Seconds) -> Result<Seconds, Rejection> {
    let config = match (signature.config(), signature.version()) {
        (Some(config), SignatureVersion::V4 | SignatureVersion::V6) => config,
        (_, version) => return Err(Refusal::Kind(format!("version {}", u8::from(version))).into()),
    };
    if config.typ() != kind {
        return Err(Refusal::Kind(format!("{:?}", config.typ())).into());
    }
    if !is_strong(config.hash_alg) {
        return Err(Refusal::WeakHash(config.hash_alg.to_string()).into());
    }
    if let Some(part) = strange(signature) {
        return Err(Refusal::Critical(part).into());
    }
    let Some(made) = signature.created().map(pgp::types::Timestamp::as_secs) else {
        return Err(Refusal::Kind("without a date".into()).into());
    };
    if made > now {
        return Err(Refusal::Future(date(made)).into());
    }
    match end(signature, made) {
        Some(end) if end <= now => Err(Refusal::Expired(date(end)).into()),
        _ => Ok(made),
    }
}

/// Checks that a key could make a signature at `made`, and can be trusted `now`.
pub(super) fn judge(found: &Found<'_>, made: Seconds, now: Seconds) -> Result<(), Refusal> {
    let signer = || found.trusted.name();
    let primary = &found.certificate.primary_key;
    // Any revocation, even one that cannot be checked here (by a key named for that): it only makes us stricter.
    if !found.certificate.details.revocation_signatures.is_empty() {
        return Err(Refusal::KeyRevoked { signer: signer() });
    }
    let born = |key: &dyn KeyDetails| {
        let born = key.created_at().as_secs();
        if made < born { Err(Refusal::BeforeKey { signer: signer() }) } else { Ok(born) }
    };
    let alive = |born: Seconds, statements: &[&Signature]| {
        let lasts =
            |statement: &&Signature| statement.key_expiration_time().map(pgp::types::Duration::as_secs);
        let ends = statements.iter().filter_map(lasts).filter(|lasts| *lasts > 0);
        match ends.map(|lasts| born.saturating_add(lasts)).min() {
            Some(end) if end <= now || end <= made => {
                Err(Refusal::KeyExpired { signer: signer(), date: date(end) })
            }
            _ => Ok(()),
        }
    };
    let statements = own_statements(found.certificate, now);
    if statements.is_empty() {
        return Err(Refusal::NoSelfSignature { signer: signer() });
    }
    alive(born(primary)?, &statements)?;
    let may_sign = match found.component {
        Component::Primary(_) => {
            let latest =
                statements.iter().filter(|statement| has_flags(statement)).max_by_key(|s| s.created());
            latest.is_some_and(|statement| statement.key_flags().sign())
        }
        Component::Subkey(subkey) => {
            let is_revocation = |s: &Signature| s.typ() == Some(SignatureType::SubkeyRevocation);
            if subkey.signatures.iter().any(is_revocation) {
                return Err(Refusal::KeyRevoked { signer: signer() });
            }
            let binding = binding(primary, subkey, now);
            let binding = binding.ok_or_else(|| Refusal::NotForSigning { signer: signer() })?;
            alive(born(&subkey.key)?, &[binding])?;
            binding.key_flags().sign()
        }
    };
    if may_sign { Ok(()) } else { Err(Refusal::NotForSigning { signer: signer() }) }
}

fn has_flags(statement: &Signature) -> bool {
    let is_flags = |part: &pgp::packet::Subpacket| matches!(part.data, SubpacketData::KeyFlags(_));
    statement.config().is_some_and(|config| config.hashed_subpackets().any(is_flags))
}

/// Whether a key's statement about itself can be used: what it says comes from whoever has the fingerprint's key.
fn is_usable(
    statement: &Signature,
    key: &PublicKey,
    now: Seconds,
    is_hash_enough: fn(HashAlgorithm) -> bool,
) -> bool {
    let Some(made) = statement.created().map(pgp::types::Timestamp::as_secs) else { return false };
    matches!(statement.version(), SignatureVersion::V4 | SignatureVersion::V6)
        && statement.hash_alg().is_some_and(is_hash_enough)
        && strange(statement).is_none()
        && made >= key.created_at().as_secs()
        && made <= now
        && end(statement, made).is_none_or(|end| end > now)
}

/// The latest of a key's statements about itself: one made directly and one beside a name.
fn own_statements(certificate: &SignedPublicKey, now: Seconds) -> Vec<&Signature> {
    let key = &certificate.primary_key;
    // SHA-1 is enough here, and only here: key files are part of the repository, so whoever can bring in a forged
    // statement can bring in a forged list as well. Greg Kroah-Hartman's key has no better one.
    let enough = |hash| is_strong(hash) || matches!(hash, HashAlgorithm::Sha1 | HashAlgorithm::Sha224);
    let usable = |statement: &&Signature| is_usable(statement, key, now, enough);
    let direct =
        certificate.details.direct_signatures.iter().filter(usable).filter(|statement| {
            statement.typ() == Some(SignatureType::Key) && statement.verify_key(key).is_ok()
        });
    let named = certificate.details.users.iter().flat_map(|user| {
        let own = |statement: &&Signature| statement.verify_certification(key, Tag::UserId, &user.id).is_ok();
        let is_revocation = |statement: &Signature| statement.typ() == Some(SignatureType::CertRevocation);
        let own: Vec<_> = user.signatures.iter().filter(usable).filter(own).collect();
        let revoked = own.iter().filter(|s| is_revocation(s)).filter_map(|s| s.created()).max();
        own.into_iter().filter(move |s| !is_revocation(s) && revoked.is_none_or(|at| s.created() > Some(at)))
    });
    [direct.max_by_key(|s| s.created()), named.max_by_key(|s| s.created())].into_iter().flatten().collect()
}

/// The latest statement that binds a signing subkey to its key, both ways.
fn binding<'k>(key: &PublicKey, subkey: &'k SignedPublicSubKey, now: Seconds) -> Option<&'k Signature> {
    let holds = |binding: &&Signature| {
        binding.typ() == Some(SignatureType::SubkeyBinding)
            && is_usable(binding, key, now, is_strong)
            && binding.verify_subkey_binding(key, &subkey.key).is_ok()
    };
    let latest = subkey.signatures.iter().filter(holds).max_by_key(|binding| binding.created())?;
    // Only the subkey's own word proves that it did not come from another key.
    let back = latest.embedded_signature()?;
    let sound = back.hash_alg().is_some_and(is_strong) && strange(back).is_none();
    (sound && back.verify_primary_key_binding(&subkey.key, key).is_ok()).then_some(latest)
}
