//! Signatures without keys, by the `cosign` program: who signed is an identity that an issuer vouches for.

use std::process::{Command, Stdio};

use crate::registry::reference::Reference;
use crate::sandbox;
use crate::step::{Class, Diagnose};

/// cosign cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not here.
    #[error("signatures without a key are checked by the `cosign` program, and this host has none")]
    Missing,
    /// It cannot be started.
    #[error("`cosign` cannot be started: {0}")]
    Start(#[from] std::io::Error),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Missing => Class::Input,
            Self::Start(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        Some("install cosign (Debian has it from 13 on) and run this again, or check by key: `--key cosign.pub`".into())
    }
}

/// Whose signature is wanted.
#[derive(Debug, Clone)]
pub struct Identity {
    /// As the certificate names it: a mail address, or the address of a workflow.
    pub name: String,
    /// Who vouches for it: the address of an OIDC issuer.
    pub issuer: String,
}

/// Asks cosign whether the image is signed by this identity; what it says where it is not.
pub fn verify(image: &Reference, identity: &Identity, plain_http: bool) -> Result<Result<(), String>, Error> {
    let program = sandbox::find("cosign").ok_or(Error::Missing)?;
    let mut command = Command::new(program);
    command
        .args(["verify", "--output", "text", "--certificate-identity", &identity.name])
        .args(["--certificate-oidc-issuer", &identity.issuer]);
    if plain_http || image.host.is_loopback() {
        command.arg("--allow-http-registry");
    }
    let output = command.arg(image.to_string()).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("cosign says nothing");
    Ok(Err(said.chars().filter(|c| !c.is_control()).take(300).collect()))
}
