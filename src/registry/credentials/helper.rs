//! `docker-credential-NAME`: a program that keeps credentials. Speaks JSON on its standard input and output.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Credential;

/// How long a helper may take: it may have to ask the user for a password of its own.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the helper keeps for `server`; none if it has nothing. An error says what went wrong, and nothing it printed.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credential>, String> {
    let (good, output) = run(name, "get", server)?;
    if !good {
        // The protocol's sentence for what is no failure.
        let nothing = output.to_ascii_lowercase().contains("credentials not found");
        return if nothing { Ok(None) } else { Err("failed to get credentials".into()) };
    }
    let document: Value = serde_json::from_str(&output).unwrap_or_default();
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    match (text("Username"), text("Secret")) {
        (_, Some(secret)) if secret.is_empty() => Ok(None),
        (Some(username), Some(secret)) if username == "<token>" => {
            Ok(Some(Credential::IdentityToken(secret)))
        }
        (Some(username), Some(password)) => Ok(Some(Credential::Password { username, password })),
        _ => Err("answered something else than credentials".into()),
    }
}

/// Has the helper keep a password.
pub(super) fn store(name: &str, server: &str, username: &str, password: &str) -> Result<(), String> {
    let document = json!({ "ServerURL": server, "Username": username, "Secret": password });
    match run(name, "store", &document.to_string())? {
        (true, _) => Ok(()),
        (false, _) => Err("failed to keep the credentials".into()),
    }
}

fn run(name: &str, verb: &str, input: &str) -> Result<(bool, String), String> {
    // It comes from a file and becomes a program's name: no path may hide in it.
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err("has no name that a helper can have".into());
    }
    let failed = |error: std::io::Error| format!("cannot be run: {error}");
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let input = input.to_owned();
    // A helper may end without reading.
    std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
    let reader = std::thread::spawn(move || {
        let mut output = String::new();
        stdout.map(|stdout| stdout.take(1 << 20).read_to_string(&mut output));
        output
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("has not answered in {} s", PATIENCE.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    Ok((status.success(), reader.join().unwrap_or_default()))
}
