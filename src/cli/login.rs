//! `imgbuild login`.

use std::io::Read;
use std::str::FromStr;

use clap::Args;

use super::push::Transport;
use super::{Context, Failure};
use crate::registry::reference::Host;
use crate::registry::{Client, credentials};

/// How long a password may be, in bytes.
const LIMIT: u64 = 1 << 16;

/// Check a password at a registry and keep it where docker does
#[derive(Debug, Args)]
#[command(after_help = "\
The password goes to docker's config.json, or to podman's auth.json if REGISTRY_AUTH_FILE names one; if that
names a credential helper, to the helper.

Examples:
  pass show registry | imgbuild login registry.example --username bob --password-stdin")]
pub(super) struct Login {
    /// HOST[:PORT]
    #[arg(value_name = "REGISTRY")]
    registry: String,
    /// The user
    #[arg(long, short, value_name = "NAME")]
    username: String,
    /// Read the password from standard input: on the command line everybody could
    #[arg(long, required = true)]
    password_stdin: bool,
    #[command(flatten)]
    transport: Transport,
}

impl Login {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let host = Host::from_str(&self.registry)?;
        let mut text = String::new();
        std::io::stdin().lock().take(LIMIT).read_to_string(&mut text)?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.is_empty() {
            let message = "there is no password on standard input".into();
            return Err(Failure::Usage { message, hint: "`pass show NAME | imgbuild login …`".into() });
        }
        let client = Client::new(&host, &self.transport.options(), &context.watch)?;
        client.log_in(&self.username, password)?;
        let place =
            credentials::keep(&host, &self.username, password).map_err(crate::registry::Error::from)?;
        context.print(&format!("logged in to {host} as {}; kept in {place}\n", self.username))
    }
}
