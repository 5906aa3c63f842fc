//! OpenPGP keys made up for a test, right and wrong, and what they sign.

use std::time::{SystemTime, UNIX_EPOCH};

use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, DetachedSignature, KeyType, SecretKeyParamsBuilder,
};
use pgp::composed::{SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, Signature, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::types::{Duration, KeyDetails, Password, SigningKey, Tag, Timestamp};

/// A day in seconds.
pub(crate) const DAY: u32 = 24 * 60 * 60;

/// The present, in seconds since 1970.
pub(crate) fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u32::try_from(since.as_secs()).expect("it is before 2106")
}

/// What is peculiar about a key.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a peculiarity of its own")]
pub(crate) struct Kind {
    /// When it was made.
    pub(crate) created: u32,
    /// After how many seconds it expires; 0 is never.
    pub(crate) expires: u32,
    /// Whether it may sign.
    pub(crate) signs: bool,
    /// Whether its owner revoked it.
    pub(crate) revoked: bool,
    /// Whether it is an RSA key, which can sign by weak hashes too.
    pub(crate) rsa: bool,
    /// The hash of its statement about itself.
    pub(crate) hash: HashAlgorithm,
    /// Whether a subkey does the signing.
    pub(crate) subkey: bool,
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            created: now() - 1000 * DAY,
            expires: 0,
            signs: true,
            revoked: false,
            rsa: false,
            hash: HashAlgorithm::Sha256,
            subkey: false,
        }
    }
}

/// What is peculiar about a signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// When it was made.
    pub(crate) made: u32,
    /// After how many seconds it expires; 0 is never.
    pub(crate) expires: u32,
    /// By which hash.
    pub(crate) hash: HashAlgorithm,
    /// Whether it has a critical part that nobody knows.
    pub(crate) critical: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { made: now() - DAY, expires: 0, hash: HashAlgorithm::Sha512, critical: false }
    }
}

/// A key pair.
pub(crate) struct Key {
    secret: SignedSecretKey,
    public: SignedPublicKey,
}

fn part(data: SubpacketData) -> Subpacket {
    Subpacket::regular(data).expect("a subpacket")
}

fn made(at: u32) -> Subpacket {
    part(SubpacketData::SignatureCreationTime(Timestamp::from_secs(at)))
}

impl Key {
    /// A key without peculiarities.
    pub(crate) fn new() -> Self {
        Self::of(Kind::default())
    }

    /// A key of this kind.
    pub(crate) fn of(kind: Kind) -> Self {
        let key_type = if kind.rsa { KeyType::Rsa(2048) } else { KeyType::Ed25519Legacy };
        let created = Timestamp::from_secs(kind.created);
        let mut builder = SecretKeyParamsBuilder::default();
        builder.key_type(key_type).can_certify(true).can_sign(kind.signs).created_at(created);
        builder.primary_user_id("A Signer <signer@kernel.test>".into());
        if kind.subkey {
            let mut subkey = SubkeyParamsBuilder::default();
            subkey.key_type(KeyType::Ed25519Legacy).can_sign(true).created_at(created);
            builder.subkey(subkey.build().expect("a subkey"));
        }
        let params = builder.build().expect("a key");
        let mut secret = params.generate(rand::thread_rng()).expect("a key");
        let certification = statement(&secret, kind, SignatureType::CertPositive);
        let id = secret.details.users[0].id.clone();
        let (key, no_password) = (&secret.primary_key, Password::empty());
        let own = certification.sign_certification(key, key.public_key(), &no_password, Tag::UserId, &id);
        let revocation = kind.revoked.then(|| {
            let revocation = statement(&secret, kind, SignatureType::KeyRevocation);
            revocation.sign_key(key, &no_password, key.public_key()).expect("a signature")
        });
        let own = own.expect("a signature");
        secret.details.users[0].signatures = vec![own];
        secret.details.revocation_signatures.extend(revocation);
        let public = secret.to_public_key();
        Self { secret, public }
    }

    /// The fingerprint, in upper-case digits.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:X}", self.public.fingerprint())
    }

    /// The public part.
    pub(crate) fn armored(&self) -> String {
        self.public.to_armored_string(ArmorOptions::default()).expect("a key")
    }

    /// A clearsigned document.
    pub(crate) fn clearsign(&self, text: &str, manner: Manner) -> String {
        let config = self.config(SignatureType::Text, manner);
        let no_password = Password::empty();
        let message = match self.secret.secret_subkeys.first() {
            Some(subkey) => CleartextSignedMessage::new(text, config, &subkey.key, &no_password),
            None => CleartextSignedMessage::new(text, config, &self.secret.primary_key, &no_password),
        };
        message.expect("a signature").to_armored_string(ArmorOptions::default()).expect("a document")
    }

    /// A detached signature.
    pub(crate) fn detach(&self, bytes: &[u8], manner: Manner) -> String {
        let config = self.config(SignatureType::Binary, manner);
        let no_password = Password::empty();
        let signature = match self.secret.secret_subkeys.first() {
            Some(subkey) => config.sign(&subkey.key, &no_password, bytes),
            None => config.sign(&self.secret.primary_key, &no_password, bytes),
        };
        armored(signature.expect("a signature"))
    }

    fn config(&self, typ: SignatureType, manner: Manner) -> SignatureConfig {
        fn issuer(key: &impl SigningKey) -> (Subpacket, pgp::crypto::public_key::PublicKeyAlgorithm) {
            (part(SubpacketData::IssuerFingerprint(key.fingerprint())), key.algorithm())
        }
        let (issuer, algorithm) = match self.secret.secret_subkeys.first() {
            Some(subkey) => issuer(&subkey.key),
            None => issuer(&self.secret.primary_key),
        };
        let mut config = SignatureConfig::v4(typ, algorithm, manner.hash);
        config.hashed_subpackets = vec![made(manner.made), issuer];
        if manner.expires > 0 {
            let lasts = Duration::from_secs(manner.expires);
            config.hashed_subpackets.push(part(SubpacketData::SignatureExpirationTime(lasts)));
        }
        if manner.critical {
            let strange = SubpacketData::PolicyURI("https://strange.test".into());
            config.hashed_subpackets.push(Subpacket::critical(strange).expect("a subpacket"));
        }
        config
    }
}

fn statement(secret: &SignedSecretKey, kind: Kind, typ: SignatureType) -> SignatureConfig {
    let key = &secret.primary_key;
    let mut config = SignatureConfig::v4(typ, key.algorithm(), kind.hash);
    config.hashed_subpackets =
        vec![made(kind.created), part(SubpacketData::IssuerFingerprint(key.fingerprint()))];
    if typ == SignatureType::CertPositive {
        let mut flags = KeyFlags::default();
        flags.set_certify(true);
        flags.set_sign(kind.signs);
        config.hashed_subpackets.push(part(SubpacketData::KeyFlags(flags)));
        if kind.expires > 0 {
            let lasts = Duration::from_secs(kind.expires);
            config.hashed_subpackets.push(part(SubpacketData::KeyExpirationTime(lasts)));
        }
    }
    config
}

fn armored(signature: Signature) -> String {
    DetachedSignature::new(signature).to_armored_string(ArmorOptions::default()).expect("a signature")
}
