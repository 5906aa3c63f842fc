//! Programs asked for the versions that labels say they have: run shut in, with nothing of the volume but what they load.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use fs_err as fs;
use serde_json::Value;

use super::content::{Content, Found, write_program};
use super::{Report, Volume, programs};
use crate::arch::Arch;
use crate::inspect::Error;
use crate::oci;
use crate::sandbox::{self, PROGRAM, Sandbox};
use crate::step::Cancel;

/// What is run, and the label that has the version it should be.
pub(super) const PROGRAMS: [(&str, &str); 5] = [
    ("kubelet", super::KUBERNETES),
    ("kubeadm", super::KUBERNETES),
    ("kubectl", super::KUBERNETES),
    ("containerd", "io.imgbuild.containerd.version"),
    ("runc", "io.imgbuild.runc.version"),
];
/// How long a program may take to say its version, emulated and on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the emulator is inside: a directory of the sandbox's own.
const EMULATOR: &str = "/tmp/emulator";

/// Checks that the programs have the versions that the image was asked for.
pub(super) fn check(
    volume: &Volume<'_>,
    content: &Content,
    report: &mut Report,
    cancel: &Cancel,
) -> Result<(), Error> {
    for (name, label) in PROGRAMS {
        let Some(version) = volume.label(label) else { continue };
        // That it is missing, or for another machine, is told already.
        let Some(program) = content.program(name) else { continue };
        if content.elf(program.inode).is_some_and(|elf| elf.arch != Some(content.arch)) {
            continue;
        }
        match ask(name, &program, volume, content, cancel)? {
            Ok(found) if found.trim_start_matches('v') == version.trim_start_matches('v') => {}
            Ok(found) => {
                report.at(&program.path, format!("it is {name} {found}, the label {label} says {version}"));
            }
            Err(Mute::Host(why)) => {
                report.note(format!("the version of {name} could not be asked for: {why}"));
            }
            Err(Mute::Program(why)) => {
                report.at(&program.path, format!("it does not tell its version: {why}"));
            }
        }
    }
    Ok(())
}

/// Why a program told nothing.
enum Mute {
    /// This host cannot run it.
    Host(String),
    /// It ran, and was no good.
    Program(String),
}

fn ask(
    name: &str,
    program: &Found,
    volume: &Volume<'_>,
    content: &Content,
    cancel: &Cancel,
) -> Result<Result<String, Mute>, Error> {
    if sandbox::find(PROGRAM).is_none() {
        return Ok(Err(Mute::Host("bubblewrap is missing, `imgbuild doctor` says how to install it".into())));
    }
    let tree = content.copies().join(format!("{name}-tree"));
    fs::create_dir_all(&tree)?;
    let mut words = unpack(program, &tree, volume, content, cancel)?;
    let mut sandbox = Sandbox::tree(&tree).bare();
    if Arch::host() != Some(content.arch) {
        let names = match content.arch {
            Arch::X86_64 => ["qemu-x86_64-static", "qemu-x86_64"],
            Arch::Arm64 => ["qemu-aarch64-static", "qemu-aarch64"],
        };
        let Some(emulator) = names.into_iter().find_map(sandbox::find) else {
            let why =
                format!("it is for {}, and {} is missing: install qemu-user-static", content.arch, names[0]);
            return Ok(Err(Mute::Host(why)));
        };
        sandbox = sandbox.read_only(fs::canonicalize(emulator)?, EMULATOR);
        words.insert(0, EMULATOR.into());
    }
    let arguments: &[&str] = match name {
        "kubeadm" => &["version", "--output=json"],
        "kubectl" => &["version", "--client", "--output=json"],
        _ => &["--version"],
    };
    words.extend(arguments.iter().map(OsString::from));
    let command = sandbox.command(words.remove(0)).args(words);
    Ok(match run(command, cancel)? {
        Ok(output) => told(&String::from_utf8_lossy(&output)).ok_or_else(|| {
            let output = String::from_utf8_lossy(&output);
            Mute::Program(format!("it printed `{}`", output.lines().next().unwrap_or_default()))
        }),
        Err(mute) => Err(mute),
    })
}

/// Lays out what is needed to run a program, and returns the words that do: a loader with its libraries where it has
/// one, so that no path of the tree matters.
fn unpack(
    program: &Found,
    tree: &std::path::Path,
    volume: &Volume<'_>,
    content: &Content,
    cancel: &Cancel,
) -> Result<Vec<OsString>, Error> {
    let mut words: Vec<OsString> = vec!["/program".into()];
    let mut wanted = Vec::new();
    match content.copy(program.inode) {
        Some(copy) => drop(fs::copy(copy, tree.join("program"))?),
        // Its bytes are under another name.
        None => wanted.push((program.inode, "program".to_owned())),
    }
    // A script's interpreter is what is loaded.
    let mut loaded = program.clone();
    if let Some([interpreter, arguments @ ..]) = content.script(program.inode)
        && let Some(found) = content.file(interpreter)
    {
        wanted.push((found.inode, "interpreter".to_owned()));
        words.splice(0..0, arguments.iter().map(OsString::from));
        words.insert(0, "/interpreter".into());
        loaded = found;
    }
    if let Some(elf) = content.elf(loaded.inode)
        && let Some(loader) = elf.interpreter.as_ref().and_then(|loader| content.file(loader))
    {
        fs::create_dir_all(tree.join("libraries"))?;
        wanted.push((loader.inode, "loader".to_owned()));
        let libraries = programs::libraries(&loaded, content).found;
        wanted.extend(libraries.into_iter().map(|(name, found)| {
            (found.inode, format!("libraries/{}", String::from_utf8_lossy(&name).replace('/', "_")))
        }));
        words.splice(0..0, ["/loader", "--library-path", "/libraries"].map(OsString::from));
    }
    if !wanted.is_empty() {
        content.root.fill(volume.source, volume.layers, cancel, &mut |inode, _, bytes| {
            let names = wanted.iter().filter(|(number, _)| *number == inode);
            let mut whole = Vec::new();
            for (number, (_, name)) in names.enumerate() {
                if number == 0 {
                    bytes.read_to_end(&mut whole)?;
                }
                write_program(&tree.join(name), &whole)?;
            }
            Ok(())
        })?;
    }
    Ok(words)
}

/// Runs a command for its output, for so long and no longer.
fn run(command: sandbox::Command, cancel: &Cancel) -> Result<Result<Vec<u8>, Mute>, Error> {
    let own = Cancel::default();
    let begun = Instant::now();
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| command.output(&own));
        while !running.is_finished() {
            if cancel.is_cancelled() || begun.elapsed() > PATIENCE {
                own.cancel();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        running.join().expect("a command that fails does so by an error")
    });
    Ok(Err(match output {
        Ok(output) => return Ok(Ok(output)),
        Err(sandbox::Error::Cancelled) if cancel.is_cancelled() => return Err(oci::Error::Cancelled.into()),
        Err(sandbox::Error::Cancelled) => Mute::Program(format!("it has not ended after {PATIENCE:?}")),
        Err(sandbox::Error::Failed { status, output, .. }) => {
            Mute::Program(format!("{status}: {}", output.lines().last().unwrap_or_default()))
        }
        // Said by bubblewrap too, but of the program, not of the host.
        Err(sandbox::Error::Forbidden { reason })
            if reason.starts_with("execvp") && !reason.contains(EMULATOR) =>
        {
            Mute::Program(reason)
        }
        Err(sandbox::Error::Io(error)) => return Err(error.into()),
        Err(error) => Mute::Host(error.to_string()),
    }))
}

/// The version in what a program printed: a JSON document's `gitVersion`, or the first word that looks like one.
fn told(output: &str) -> Option<String> {
    let json: Option<Value> = serde_json::from_str(output).ok();
    let git = json.as_ref().and_then(|json| json.get("clientVersion")?.get("gitVersion")?.as_str());
    let is_version = |word: &&str| {
        let word = word.trim_start_matches('v');
        word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.')
    };
    let word = || output.lines().next()?.split_whitespace().find(is_version);
    git.or_else(word).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_is_printed() {
        let json = r#"{"clientVersion": {"major": "1", "gitVersion": "v1.22.8"}}"#;
        let containerd = "containerd github.com/containerd/containerd v1.22.8 1e5ef943eb";
        for output in [json, "Kubernetes v1.22.8\n", "v1.22.8", containerd] {
            assert_eq!(told(output).as_deref(), Some("v1.22.8"), "{output}");
        }
        for output in ["", "{}", "no version\n", r#"{"clientVersion": 1}"#] {
            assert_eq!(told(output), None, "{output}");
        }
    }
}
