//! cosign's encrypted private keys: scrypt and a secret box of `NaCl`'s around PKCS#8.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use serde::Deserialize;

use super::Error;

/// How much memory opening a key may take, in bytes; cosign's own take 64 MiB.
const MEMORY: u64 = 1 << 30;

/// What the PEM block holds.
#[derive(Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// The PKCS#8 document in an encrypted key.
pub(super) fn open(name: &str, block: &[u8], password: &str) -> Result<Vec<u8>, Error> {
    let garbled = |reason: String| Error::NoKey { name: name.to_owned(), reason };
    let sealed: Sealed = serde_json::from_slice(block).map_err(|error| garbled(error.to_string()))?;
    let Sealed { kdf, cipher, ciphertext } = sealed;
    if (kdf.name.as_str(), cipher.name.as_str()) != ("scrypt", "nacl/secretbox") {
        return Err(garbled(format!("it is encrypted with {} and {}", kdf.name, cipher.name)));
    }
    let Params { n, r, p } = kdf.params;
    let memory = n.saturating_mul(128).saturating_mul(u64::from(r));
    if !n.is_power_of_two() || memory > MEMORY {
        return Err(garbled(format!("its scrypt parameters are N={n}, r={r}, p={p}")));
    }
    let log_n = u8::try_from(n.trailing_zeros()).expect("a u64 has 64 bits");
    let params = scrypt::Params::new(log_n, r, p, 32).map_err(|error| garbled(error.to_string()))?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|error| garbled(error.to_string()));
    let mut key = [0; 32];
    scrypt::scrypt(password.as_bytes(), &decode(&kdf.salt)?, &params, &mut key)
        .map_err(|error| garbled(error.to_string()))?;
    let nonce: [u8; 24] =
        decode(&cipher.nonce)?.try_into().map_err(|_| garbled("its nonce does not have 24 bytes".into()))?;
    XSalsa20Poly1305::new(&key.into())
        .decrypt(&nonce.into(), &decode(&ciphertext)?[..])
        .map_err(|_| Error::WrongPassword { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::{Key, Public};

    /// As cosign 2.5 made them, with the password `pw`; cosign 3.1 makes the same form.
    const KEY: &str = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiI3Y2ttd0FLTWJWenIrcjBIalh2NWhXa3d6NU5mWHpl
QUFocEh5V1FaK3ZrPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJqc1ZCV2k1WHdlQUJoTWlxeWQ0bERlUmRjZzVveENDVyJ9LCJj
aXBoZXJ0ZXh0IjoiYlBpV0pYMkkyZTlqcGFaVnRWWnRCbVRNNkFBWWtqVWpxSDlO
Wm8zODJOY2twcmFQTHNnYkVrajZGU1YwTlZ3bWF2SGdqeGJBbjEzRUFDOWhOSTIx
anF4L20xN01tWm5XTVRDUVY3d3BaeVpGY0FSVER4b1FPa2xwWWlSK1NUK2U0MHdO
SHBZTTF1SXhRVElDT201d1dhdGk3bEo1UG9CMEczN21iQXJvVi9wWVVLWmNROCtF
aHdBS1pxalh4MEh3ekllWEFmemxJTGxTQUE9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFh+lpLoUqX2By6Q+17bn6QFTWs9Z
9F4AhldA4uBmf7h62rWocZCKacF3cAiGZFAdxpgi7+a1IxZ2mzfYxHL2NQ==
-----END PUBLIC KEY-----
";

    #[test]
    fn a_key_of_cosigns_opens_with_its_password_alone() {
        let parse = |password| Key::parse("cosign.key", KEY.as_bytes(), password);
        let public = Public::parse("cosign.pub", PUBLIC.as_bytes()).unwrap();
        assert_eq!(parse(Some("pw")).unwrap().public().id(), public.id());
        assert!(parse(Some("other")).err().unwrap().to_string().contains("the password is wrong"));
        assert!(parse(None).err().unwrap().to_string().contains("COSIGN_PASSWORD is not set"));
    }

    #[test]
    fn what_would_take_all_memory_is_refused() {
        for (kdf, said) in [
            (r#"{"name":"scrypt","params":{"N":1099511627776,"r":8,"p":1},"salt":""}"#, "scrypt parameters"),
            (r#"{"name":"scrypt","params":{"N":65535,"r":8,"p":1},"salt":""}"#, "scrypt parameters"),
            (r#"{"name":"argon2","params":{"N":2,"r":8,"p":1},"salt":""}"#, "encrypted with argon2"),
        ] {
            let block =
                format!(r#"{{"kdf":{kdf},"cipher":{{"name":"nacl/secretbox","nonce":""}},"ciphertext":""}}"#);
            let error = open("k", block.as_bytes(), "").unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
