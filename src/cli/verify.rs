//! `imgbuild verify`.

use std::num::NonZero;
use std::path::PathBuf;

use clap::Args;
use fs_err as fs;
use serde_json::json;

use super::push::{Transport, tagged};
use super::{Context, Failure, Format};
use crate::arch::Arch;
use crate::attest::statement::Statement;
use crate::inspect::diff::Side;
use crate::inspect::{Image, Selection, sound_images};
use crate::plan::rebuild::Recorded;
use crate::plan::sign::attach_statement;
use crate::plan::verify::keyless::{self, Identity};
use crate::plan::verify::{self, Beside, Check, State, rebuilders};
use crate::registry::reference::Reference;
use crate::registry::{Client, resolve};
use crate::sign::{self, Key, Public, is_private};
use crate::step::{Level, Unit};

/// Check what is claimed of an image in a registry
///
/// Checked are: the signature over its digest, in either form of cosign's, with the keys given; that each platform has a
/// provenance, and that it is about this very image; that each platform's SBOM says what is in its layers. What cannot be
/// checked (a signature without a key) is told, and not counted as good. With --rebuild every platform is built again from
/// what its provenance records, and has to come out with the same digest.
///
/// Exit code 5 if a check fails, 9 if all but a rebuild is well.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild verify registry.example/kernels/kernel-bin:5.10.262 --key cosign.pub
  imgbuild verify registry.example/kernels/kernel-bin:5.10.262 --rebuild --arch x86_64
  imgbuild verify registry.example/kernels/kernel-bin:5.10.262 --rebuild --attest --key mine.key --as example.org
  imgbuild verify registry.example/kernels/kernel-bin:5.10.262 --quorum 2 --trust rebuilders/
  imgbuild verify registry.example/kernels/kernel-bin:5.10.262 \\
    --identity https://github.com/ORG/REPO/.github/workflows/release.yml@refs/heads/main \\
    --issuer https://token.actions.githubusercontent.com")]
pub(super) struct VerifyCommand {
    /// HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// A public key, one of which the signatures have to be by; with --attest also the private key to sign with
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// One platform alone: `x86_64` (amd64) or arm64 (aarch64) [default: all]
    #[arg(long, value_name = "ARCH")]
    arch: Option<Arch>,
    /// Build every platform again from what its provenance records, and compare
    #[arg(long)]
    rebuild: bool,
    /// How many processes compile at once [default: all processors]
    #[arg(long, short, value_name = "N", requires = "rebuild")]
    jobs: Option<NonZero<usize>>,
    /// Publish the statement, signed, that the same came out
    #[arg(long, requires = "rebuild")]
    attest: bool,
    /// Who built again, in that statement [default: this host's name]
    #[arg(long = "as", value_name = "NAME", requires = "attest")]
    rebuilder: Option<String>,
    /// For how many days that statement counts
    #[arg(long, value_name = "DAYS", default_value_t = 180, requires = "attest", value_parser = clap::value_parser!(u16).range(1..))]
    valid: u16,
    /// Have at least so many trusted rebuilders say that the same came out, of each platform
    #[arg(long, value_name = "N")]
    quorum: Option<NonZero<usize>>,
    /// Whom to trust: a file of public keys, or a directory of such files (*.pub, *.pem) [default: those of --key]
    #[arg(long, value_name = "PATH", requires = "quorum")]
    trust: Vec<PathBuf>,
    /// Who has to have signed without a key; the `cosign` program checks it
    #[arg(long, value_name = "NAME", requires = "issuer")]
    identity: Option<String>,
    /// Who vouches for that identity: an OIDC issuer's address
    #[arg(long, value_name = "URL", requires = "identity")]
    issuer: Option<String>,
    #[command(flatten)]
    transport: Transport,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// The keys that were named, read.
struct Keys {
    /// Signatures have to be by one of these.
    public: Vec<Public>,
    /// Statements are signed with this one.
    private: Option<Key>,
    /// Rebuilders that count.
    trusted: Vec<Public>,
}

impl VerifyCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let keys = self.keys()?;
        let reference = tagged(&self.reference)?;
        let client = self.transport.client(&reference, context)?;
        if keys.private.is_some() {
            client.will_write(&reference.repository);
        }
        let root = resolve(&reference, &client)?;
        let exact = reference.at(&root.digest);
        let mut checks = Vec::new();
        if let (Some(name), Some(issuer)) = (&self.identity, &self.issuer) {
            let identity = Identity { name: name.clone(), issuer: issuer.clone() };
            let answer = keyless::verify(&exact, &identity, self.transport.is_plain());
            let answer = answer.map_err(verify::Error::from)?;
            checks.push(match answer {
                Ok(()) => Check::new("identity", State::Passed, format!("signed by {name}, cosign says")),
                Err(said) => Check::new("identity", State::Failed, format!("cosign says: {said}")),
            });
        }
        let beside =
            Beside::read(&client, &reference.repository, &root.digest).map_err(verify::Error::from)?;
        checks.push(verify::signature(&beside, &keys.public));
        if root.is_index() {
            let (check, _) = verify::provenance(&beside, &keys.public);
            // Each platform's own is what counts.
            let is_there = check.state == State::Passed;
            checks.push(if is_there { check } else { Check { state: State::Unchecked, ..check } });
        }
        let place = context.place_for(&exact.to_string(), &self.transport, self.arch)?;
        let images = sound_images(&place.layout, &Selection { image: place.image.clone(), arch: None })?;
        let original = Side { source: &place.layout, image: place.image.clone() };
        let images: Vec<_> = images.into_iter().filter(Image::is_image).collect();
        if images.is_empty() {
            checks.push(Check::new("image", State::Failed, "it holds none"));
        }
        for image in &images {
            let one = One { client: &client, reference: &exact, keys: &keys, image, original: &original };
            let own;
            let beside = if image.descriptor.digest().as_ref() == root.digest {
                &beside
            } else {
                let digest = image.descriptor.digest().as_ref();
                own = Beside::read(&client, &reference.repository, digest).map_err(verify::Error::from)?;
                &own
            };
            self.one(&one, beside, context, &mut checks)?;
        }
        if reference.digest.is_none() {
            let now = resolve(&reference, &client)?.digest;
            if now != root.digest {
                checks.push(Check::new("tag", State::Failed, format!("moved meanwhile, to {now}")));
            }
        }
        self.tell(&reference, &root.digest, &checks, context)
    }

    /// Checks one platform.
    fn one(
        &self,
        one: &One<'_>,
        beside: &Beside,
        context: &Context,
        checks: &mut Vec<Check>,
    ) -> Result<(), Failure> {
        let (platform, cancel) = (one.image.platform(), &context.watch.cancel);
        let mut add = |check: Check| checks.push(check.of(Some(&platform)));
        let (check, provenance) = verify::provenance(beside, &one.keys.public);
        add(check);
        add(verify::sbom(beside, one.original.source, one.image, cancel)?);
        match (self.rebuild, &provenance) {
            (false, _) => {}
            (true, None) => {
                add(Check::new("rebuild", State::Failed, "there is no provenance to build it from"));
            }
            (true, Some(statement)) => {
                let check = self.rebuild(one, statement, context)?;
                let is_same = check.state == State::Passed;
                add(check);
                if let (Some(key), true) = (&one.keys.private, is_same) {
                    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
                    let rebuilder = self.rebuilder.clone().unwrap_or(own);
                    let bytes = rebuilders::statement(
                        &beside.digest,
                        statement,
                        &rebuilder,
                        &key.public(),
                        self.valid,
                    );
                    let repository = &one.reference.repository;
                    let digest = attach_statement(one.client, repository, &beside.digest, &bytes, key)?;
                    let message = format!("attached the statement that {platform} was built again: {digest}");
                    context.watch.reporter.note(Level::Info, &message);
                }
            }
        }
        if let Some(wanted) = self.quorum {
            // What was attached a moment ago counts too.
            let fresh;
            let beside = if one.keys.private.is_some() {
                fresh = Beside::read(one.client, &one.reference.repository, &beside.digest)
                    .map_err(verify::Error::from)?;
                &fresh
            } else {
                beside
            };
            add(rebuilders::quorum(beside, &one.keys.trusted, wanted.get()));
        }
        Ok(())
    }

    /// Builds one platform again.
    fn rebuild(&self, one: &One<'_>, statement: &Statement, context: &Context) -> Result<Check, Failure> {
        let digest = one.image.descriptor.digest().as_ref();
        let recorded = Recorded::of(statement, digest).map_err(verify::Error::from)?;
        let mirrors = context.mirrors(&recorded.lock().map_err(verify::Error::from)?)?;
        let jobs = self.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let name = format!("{} {}", one.image.name, one.image.platform());
        let progress = context.watch.reporter.begin("rebuild", &name, None, Unit::Files);
        let rebuilt = recorded.rebuild(&context.store()?, mirrors, jobs, &context.watch);
        let rebuilt = rebuilt.map_err(verify::Error::from)?;
        progress.finish(&rebuilt.digest);
        Ok(verify::rebuilt(&rebuilt, digest, one.original, &context.watch.cancel)?)
    }

    fn keys(&self) -> Result<Keys, Failure> {
        let mut keys = Keys { public: Vec::new(), private: None, trusted: Vec::new() };
        for path in &self.keys {
            let is_signing = self.attest && is_private(&fs::read(path).map_err(sign::Error::from)?);
            if !is_signing {
                keys.public.push(Public::read(path)?);
            } else if keys.private.replace(Key::read(path)?).is_some() {
                return Err(Failure::Usage {
                    message: "two private keys are named, and a statement is signed with one".into(),
                    hint: "name one `--key` that is private; public ones check signatures".into(),
                });
            }
        }
        if self.attest && keys.private.is_none() {
            return Err(Failure::Usage {
                message: "`--attest` publishes a signed statement, and no private key is named".into(),
                hint: "`--key cosign.key`, with its password in COSIGN_PASSWORD".into(),
            });
        }
        for path in &self.trust {
            keys.trusted.extend(Public::read_all(path)?);
        }
        if self.trust.is_empty() {
            keys.trusted.clone_from(&keys.public);
        }
        if self.quorum.is_some() && keys.trusted.is_empty() {
            return Err(Failure::Usage {
                message: "`--quorum` counts trusted rebuilders, and nobody is trusted".into(),
                hint: "`--trust PATH` names a file of public keys, or a directory of such files".into(),
            });
        }
        Ok(keys)
    }

    fn tell(
        &self,
        reference: &Reference,
        digest: &str,
        checks: &[Check],
        context: &Context,
    ) -> Result<(), Failure> {
        let failed = |check: &&Check| check.state == State::Failed;
        let (rebuilds, others): (Vec<_>, Vec<_>) = checks
            .iter()
            .filter(failed)
            .partition(|check| check.check == "rebuild" && check.difference.is_some());
        let is_verified = rebuilds.is_empty() && others.is_empty();
        match self.format {
            Format::Json => context.print_json(&json!({
                "reference": reference.to_string(), "digest": digest, "verified": is_verified, "checks": checks,
            }))?,
            Format::Text => context.print(&text(reference, digest, checks))?,
        }
        let reference = reference.to_string();
        match (rebuilds.len(), others.len()) {
            (0, 0) => Ok(()),
            (_, 0) => Err(Failure::NotRebuilt { reference }),
            (_, count) => Err(Failure::Unverified { reference, count }),
        }
    }
}

/// One platform, and what it is checked with.
struct One<'a> {
    client: &'a Client,
    reference: &'a Reference,
    keys: &'a Keys,
    image: &'a Image,
    original: &'a Side<'a>,
}

fn text(reference: &Reference, digest: &str, checks: &[Check]) -> String {
    let mut text =
        if reference.digest.is_some() { format!("{reference}\n") } else { format!("{reference}@{digest}\n") };
    for check in checks {
        let platform = check.platform.as_deref().unwrap_or("image");
        let state = match check.state {
            State::Passed => "ok",
            State::Failed => "FAILED",
            State::Unchecked => "-",
        };
        text += &format!("  {platform:<7} {:<10}  {state:<6}  {}\n", check.check, check.said);
        if let Some(difference) = &check.difference {
            text += &format!(
                "{:30}first difference (A published, B built again): {}\n",
                "",
                super::diff::line(difference)
            );
        }
    }
    text
}
