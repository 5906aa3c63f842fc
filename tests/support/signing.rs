//! Keys made for the tests alone, and cosign, which reads what we sign and signs what we read.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::Place;

/// The password of cosign's key.
pub(crate) const PASSWORD: &str = "pw";

/// Key pairs by name: of openssl in two forms, of cosign, and of kinds that are not taken.
const PAIRS: [(&str, &str, &str); 6] = [
    ("a", include_str!("signing/a.private.pem"), include_str!("signing/a.public.pem")),
    ("b", include_str!("signing/b.private.pem"), include_str!("signing/b.public.pem")),
    ("sec1", include_str!("signing/sec1.private.pem"), include_str!("signing/sec1.public.pem")),
    ("cosign", include_str!("signing/cosign.private.pem"), include_str!("signing/cosign.public.pem")),
    ("rsa", include_str!("signing/rsa.private.pem"), include_str!("signing/rsa.public.pem")),
    ("p384", include_str!("signing/p384.private.pem"), include_str!("signing/p384.public.pem")),
];

/// Puts all keys into a place: `a.key`, `a.pub` and so on.
pub(crate) fn keys(place: &Place) {
    for (name, private, public) in PAIRS {
        place.write(&format!("{name}.key"), private);
        place.write(&format!("{name}.pub"), public);
    }
}

/// cosign 2 or 3, which scripts/readers brings.
pub(crate) fn cosign(generation: u8) -> PathBuf {
    let name = format!("target/readers/cosign-{generation}");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    assert!(program.is_file(), "there is no {}: run scripts/readers", program.display());
    program
}

/// Runs a cosign in a place.
pub(crate) fn run_cosign(place: &Place, generation: u8, words: &str, last: impl AsRef<OsStr>) -> Output {
    let mut command = Command::new(cosign(generation));
    command.args(words.split_whitespace()).arg(last).current_dir(place.work());
    command.env("HOME", place.home()).env("COSIGN_PASSWORD", PASSWORD);
    command.output().expect("cosign can be started")
}
