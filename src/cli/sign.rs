//! `imgbuild sign`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::push::{Transport, tagged};
use super::{Context, Failure, Format};
use crate::attest::PROVENANCE;
use crate::attest::statement::Statement;
use crate::plan::sign::{attach_statement, sign};
use crate::registry::referrers;
use crate::registry::resolve;
use crate::sign::Key;
use crate::step::Unit;

/// Sign images in a registry with a key, as cosign does
///
/// The digest is signed that the reference names now, twice: as a bundle that is attached to the image, which cosign 3
/// reads, and under the tag `sha256-HEX.sig`, which cosign 2 reads. The image itself does not change, and signing once
/// more adds nothing. Signatures do not expire; what has an end are the statements of `imgbuild verify --attest`.
#[derive(Debug, Args)]
#[command(after_help = "\
KEY is cosign's own cosign.key, whose password COSIGN_PASSWORD has, or an ECDSA key over P-256 in PEM:
  cosign generate-key-pair
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out my.key
  openssl pkey -in my.key -pubout -out my.pub

Examples:
  imgbuild sign registry.example/kernels/kernel-bin:5.10.262 --key cosign.key --provenance
  imgbuild verify registry.example/kernels/kernel-bin:5.10.262 --key cosign.pub
  cosign verify --key cosign.pub --insecure-ignore-tlog registry.example/kernels/kernel-bin:5.10.262")]
pub(super) struct SignCommand {
    /// HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<String>,
    /// The private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Sign each platform's manifest too, not the index alone, which names them by digest
    #[arg(long)]
    recursive: bool,
    /// Sign the provenance that is attached, of the image and of each platform, too
    #[arg(long)]
    provenance: bool,
    #[command(flatten)]
    transport: Transport,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl SignCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let key = Key::read(&self.key)?;
        let mut signed = Vec::new();
        for reference in &self.references {
            let reference = tagged(reference)?;
            let client = self.transport.client(&reference, context)?;
            let repository = &reference.repository;
            let progress = context.watch.reporter.begin("sign", &reference.short(), None, Unit::Files);
            // One token for all of it, with the right to write.
            client.will_write(repository);
            let resolved = resolve(&reference, &client)?;
            let members = || resolved.platforms.iter().map(|(_, digest)| digest);
            let mut digests = vec![&resolved.digest];
            digests.extend(members().filter(|digest| **digest != resolved.digest));
            let mut statements = 0;
            for (at, digest) in digests.into_iter().enumerate() {
                if at == 0 || self.recursive {
                    sign(&client, repository, digest, &key)?;
                }
                if !self.provenance {
                    continue;
                }
                for referrer in referrers::list(&client, repository, digest, Some(PROVENANCE))? {
                    let statement = referrers::fetch(&client, repository, &referrer)?;
                    // Nobody's word is signed for another image.
                    Statement::parse(&statement, digest).map_err(crate::plan::attest::Error::from)?;
                    attach_statement(&client, repository, digest, &statement, &key)?;
                    statements += 1;
                }
            }
            if self.provenance && statements == 0 {
                let (reference, what) = (reference.to_string(), "provenance");
                return Err(crate::plan::attest::Error::None { reference, what }.into());
            }
            progress.finish(&resolved.digest);
            signed.push((reference, resolved.digest, statements));
        }
        let id = key.public().id();
        match self.format {
            Format::Text => {
                let lines = signed.iter().map(|(reference, digest, _)| {
                    if reference.digest.is_some() {
                        format!("{reference}\n")
                    } else {
                        format!("{reference}@{digest}\n")
                    }
                });
                context.print(&lines.collect::<String>())
            }
            Format::Json => {
                let image = |(reference, digest, statements): &(
                    crate::registry::reference::Reference,
                    String,
                    usize,
                )| {
                    json!({ "reference": reference.to_string(), "digest": digest, "statements": statements })
                };
                let images: Vec<_> = signed.iter().map(image).collect();
                context.print_json(&json!({ "key": id, "images": images }))
            }
        }
    }
}
