use std::collections::BTreeMap;
use std::io;

use pgp::crypto::hash::HashAlgorithm;

use super::*;
use keys::{DAY, Key, Kind, Manner};

#[path = "../../../tests/support/keys.rs"]
mod keys;

/// A keyring of keys with their roles; `None` leaves the material out.
fn keyring(listed: &[(&Key, &str, bool)]) -> Result<Keyring, Error> {
    let mut files = BTreeMap::new();
    let mut roles = String::new();
    for (key, role, there) in listed {
        let fingerprint = key.fingerprint();
        roles += &format!("[[key]]\nrole = '{role}'\nowner = 'Somebody'\nfingerprint = '{fingerprint}'\n");
        if *there {
            files.insert(format!("keys/{fingerprint}.asc"), key.armored());
        }
    }
    files.insert("keys/roles.toml".into(), roles);
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    Keyring::load(str::to_owned, |path| files.get(path).cloned().ok_or_else(missing))
}

const DATA: &[u8] = b"a tarball\r\nwith lines \n";
const TEXT: &str = "one\n- two\n--three\n\n";

fn verdict(kind: Kind, manner: Manner) -> String {
    let key = Key::of(kind);
    let keyring = keyring(&[(&key, "tarball", true)]).unwrap();
    let signature = key.detach(DATA, manner);
    let open = || Ok(DATA);
    match verify_detached("d", signature.as_bytes(), &keyring, Role::Tarball, now(), open) {
        Ok(signer) => {
            assert_eq!(signer.fingerprint, key.fingerprint());
            "right".into()
        }
        Err(error) => {
            assert_eq!(error.class(), Class::Verification);
            error.to_string()
        }
    }
}

#[test]
fn only_sound_signatures_of_living_keys_count() {
    let now = keys::now();
    let (kind, manner) = (Kind::default(), Manner::default());
    for (kind, manner, expected) in [
        (kind, manner, "right"),
        (Kind { subkey: true, signs: false, ..kind }, manner, "right"),
        (Kind { rsa: true, hash: HashAlgorithm::Sha1, ..kind }, manner, "right"),
        (Kind { rsa: true, hash: HashAlgorithm::Md5, ..kind }, manner, "no valid statement of its owner"),
        (Kind { expires: 2000 * DAY, ..kind }, manner, "right"),
        (Kind { expires: 998 * DAY, ..kind }, manner, "expired on"),
        // Valid when the signature was made, and not any more.
        (Kind { expires: 999 * DAY, ..kind }, Manner { made: now - 5 * DAY, ..manner }, "expired on"),
        (Kind { revoked: true, ..kind }, manner, "is revoked"),
        (Kind { signs: false, ..kind }, manner, "is not one for signing"),
        (Kind { created: now - DAY / 2, ..kind }, manner, "older than the key"),
        (kind, Manner { made: now + DAY, ..manner }, "in the future"),
        (kind, Manner { expires: 7, ..manner }, "its signature expired on"),
        (kind, Manner { expires: 2 * DAY, ..manner }, "right"),
        (
            kind,
            Manner { critical: true, ..manner },
            "critical part of a kind that is not known here (subpacket 26)",
        ),
        (Kind { rsa: true, ..kind }, Manner { hash: HashAlgorithm::Sha1, ..manner }, "is by SHA1"),
        (Kind { rsa: true, ..kind }, Manner { hash: HashAlgorithm::Md5, ..manner }, "is by MD5"),
        (Kind { rsa: true, ..kind }, Manner { hash: HashAlgorithm::Ripemd160, ..manner }, "is by RIPEMD160"),
    ] {
        let actual = verdict(kind, manner);
        assert!(actual.contains(expected), "{kind:?} {manner:?}: {actual}");
    }
}

#[test]
fn a_clearsigned_text_comes_back_as_signed_and_not_once_it_is_changed() {
    let key = Key::new();
    let keyring = keyring(&[(&key, "sums", true)]).unwrap();
    let document = key.clearsign(TEXT, Manner::default());
    let verify = |document: &str| verify_cleartext("d", document.as_bytes(), &keyring, Role::Sums, now());
    let (text, signer) = verify(&document).unwrap();
    assert_eq!((text.as_str(), signer.owner.as_str()), ("one\r\n- two\r\n--three\r\n\r\n", "Somebody"));
    // Mirrors may change line ends, nothing else.
    assert_eq!(verify(&document.replace('\n', "\r\n")).unwrap().0, text);
    for (from, to) in [("one", "two"), ("three", "three\nfour"), ("three\n", ""), ("- - two", "- two")] {
        let error = verify(&document.replacen(from, to, 1)).unwrap_err();
        assert!(error.to_string().contains("is not over this content"), "{error}");
    }
    // Of the wrong kind: the same bytes with a signature for files.
    let detached = key.detach(b"one", Manner::default());
    let mixed = format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\none\n{detached}");
    assert!(verify(&mixed).unwrap_err().to_string().contains("of another kind (Binary)"));
}

#[test]
fn only_listed_keys_of_the_role_count() {
    let [ours, theirs, stranger, absent] = [Key::new(), Key::new(), Key::new(), Key::new()];
    let keyring =
        keyring(&[(&ours, "tarball", true), (&theirs, "sums", true), (&absent, "tarball", false)]).unwrap();
    let verify = |signature: &str| {
        verify_detached("d", signature.as_bytes(), &keyring, Role::Tarball, now(), || Ok(DATA))
    };
    let signed = |key: &Key| key.detach(DATA, Manner::default());
    let refused = |key: &Key| verify(&signed(key)).unwrap_err().to_string();
    assert!(refused(&theirs).contains("whose key signs lists of checksums"));
    assert!(refused(&stranger).contains(&format!("{}, a key nobody listed", stranger.fingerprint())));
    let error = verify(&signed(&absent)).unwrap_err();
    assert_eq!(error.class(), Class::Input);
    assert!(error.hint().unwrap().contains(&format!("keys/{}.asc", absent.fingerprint())), "{error}");
    for garbage in ["", "<html>", &ours.armored(), &signed(&ours).replace('=', "!")] {
        assert_eq!(verify(garbage).unwrap_err().class(), Class::Verification, "{garbage}");
    }
    // A failed read is no wrong signature.
    let broken = || Ok(io::Read::chain(&b"a"[..], Failing));
    let error = verify_detached("d", signed(&ours).as_bytes(), &keyring, Role::Tarball, now(), broken);
    assert!(matches!(error, Err(Error::Io(error)) if error.to_string() == "torn"));
}

struct Failing;

impl io::Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("torn"))
    }
}

#[test]
fn a_key_file_is_the_key_it_is_named_after() {
    let [named, other] = [Key::new(), Key::new()];
    let roles = format!("[[key]]\nrole = 'sums'\nowner = 'o'\nfingerprint = '{}'\n", named.fingerprint());
    let load = |content: String| {
        Keyring::load(str::to_owned, |path| {
            Ok(if path.ends_with("toml") { roles.clone() } else { content.clone() })
        })
    };
    assert!(load(named.armored()).is_ok());
    for wrong in [other.armored(), "no key".into(), named.clearsign("a", Manner::default())] {
        let error = load(wrong).unwrap_err();
        assert!(matches!(error, Error::KeyFile { .. }), "{error}");
    }
}

#[test]
fn the_keys_of_the_repository_are_what_their_names_say_and_can_sign_today() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let keyring = Keyring::load(str::to_owned, |path| fs_err::read_to_string(root.join(path))).unwrap();
    keyring.require(Role::Tarball).unwrap();
    let present = keyring.with_material();
    assert!(present.len() >= 3);
    for (trusted, verdict) in present {
        assert_eq!(verdict, Ok(()), "{}", trusted.owner);
    }
}
