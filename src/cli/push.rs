//! `imgbuild push`, and where the commands that build push to.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use oci_spec::image::Descriptor;
use serde_json::json;

use super::gate::RequireBoot;
use super::{Context, Failure, Format, attest};
use crate::document::list;
use crate::oci::layout::Layout;
use crate::plan::images::Built;
use crate::registry::reference::{Prefix, Reference};
use crate::registry::{self, Client, Known, Options, Pushed, Source};

/// How registries are spoken to: shared by the commands that do.
#[derive(Debug, Args)]
pub(super) struct Transport {
    /// Speak HTTP without encryption, to other hosts than this one too
    #[arg(long)]
    plain_http: bool,
}

impl Transport {
    /// A client for the registry of `reference`.
    pub(super) fn client(&self, reference: &Reference, context: &Context) -> Result<Client, Failure> {
        Ok(Client::new(&reference.host, &self.options(), &context.watch)?)
    }

    /// Whether HTTP without encryption was asked for.
    pub(super) fn is_plain(&self) -> bool {
        self.plain_http
    }

    pub(super) fn options(&self) -> Options {
        Options { plain_http: self.plain_http }
    }
}

/// Where images are pushed to, and how.
#[derive(Debug, Args)]
pub(super) struct Destination {
    /// Where images go, under their names: HOST[:PORT][/PATH] [default: `registry` of the settings]
    #[arg(long, value_name = "REGISTRY", env = "IMGBUILD_REGISTRY", hide_env_values = true)]
    registry: Option<String>,
    /// Keep the platforms that a tag has and the image has not
    #[arg(long)]
    append: bool,
    /// Push under the digest alone, without a tag: `imgbuild index` joins what was pushed so
    #[arg(long, conflicts_with = "append")]
    by_digest: bool,
    #[command(flatten)]
    gate: RequireBoot,
    /// Attach SBOM and provenance to what is pushed; the store has to be the one it was built with
    #[arg(long)]
    attest: bool,
    #[command(flatten)]
    pub(super) transport: Transport,
}

impl Destination {
    /// The registry named on the command line, in the environment or in the settings, strongest first.
    pub(super) fn prefix(&self, context: &Context) -> Result<Option<Prefix>, Failure> {
        prefix(self.registry.as_ref(), context)
    }

    /// The registry, which has to be named.
    pub(super) fn required(&self, context: &Context) -> Result<Prefix, Failure> {
        self.prefix(context)?.ok_or_else(|| Failure::Usage {
            message: "nothing says which registry to push to".into(),
            hint:
                "`--registry registry.example/org`, IMGBUILD_REGISTRY, or `registry = \"…\"` in the settings"
                    .into(),
        })
    }

    /// Fails if something is said about a push that is not asked for.
    pub(super) fn refuse(&self) -> Result<(), Failure> {
        if !self.append && !self.by_digest && !self.gate.require_boot && !self.attest {
            return Ok(());
        }
        let message =
            "`--append`, `--by-digest`, `--require-boot` and `--attest` say how to push, and nothing is \
                       pushed"
                .into();
        Err(Failure::Usage { message, hint: "add `--push`".into() })
    }

    /// Pushes what was built into a layout, and no other image of it.
    pub(super) fn push_built(
        &self,
        output: &Path,
        prefix: &Prefix,
        built: &[Built],
        context: &Context,
    ) -> Result<Vec<Pushed>, Failure> {
        let layout = Layout::open(output)?;
        let mut images = Vec::new();
        for (name, root) in layout.names()? {
            if built.iter().any(|built| built.name == name && root.digest().as_ref() == built.digest) {
                images.push((root, prefix.join(&name)?));
            }
        }
        self.push(&layout, images, context)
    }

    /// Pushes images of a layout.
    pub(super) fn push(
        &self,
        layout: &Layout,
        images: Vec<(Descriptor, Reference)>,
        context: &Context,
    ) -> Result<Vec<Pushed>, Failure> {
        self.gate.pass(layout, &images, &self.transport, context)?;
        let (mut clients, mut pushed) = (Vec::<Client>::new(), Vec::new());
        let known = Known::default();
        // What cannot be told of an image is known before the first one is pushed.
        let documents = |(root, _): &(Descriptor, Reference)| {
            if self.attest { attest::gather(layout, root.digest().as_ref(), context) } else { Ok(Vec::new()) }
        };
        let documents = images.iter().map(documents).collect::<Result<Vec<_>, _>>()?;
        for ((root, mut target), documents) in images.into_iter().zip(documents) {
            if self.by_digest {
                target = target.at(root.digest().as_ref());
            }
            let known_host = clients.iter().position(|client| *client.host() == target.host);
            let at = known_host.unwrap_or(clients.len());
            if known_host.is_none() {
                clients.push(self.transport.client(&target, context)?);
            }
            let source = Source::Layout(layout);
            let image = registry::push(&source, &root, &target, &clients[at], &known, self.append)?;
            attest::attach(&documents, &target.repository, &clients[at])?;
            if self.attest && !self.by_digest {
                attest::attach_to_index(&target, &image.digest, &clients[at])?;
            }
            pushed.push(image);
        }
        Ok(pushed)
    }
}

/// The registry that is named, or that of the settings.
pub(super) fn prefix(named: Option<&String>, context: &Context) -> Result<Option<Prefix>, Failure> {
    let named = named.filter(|text| !text.is_empty()).or(context.settings.registry.as_ref());
    Ok(named.map(|text| Prefix::from_str(text)).transpose()?)
}

/// One line per image: its name in the registry with its digest.
pub(super) fn lines(pushed: &[Pushed]) -> String {
    let line = |pushed: &Pushed| {
        let digest =
            if pushed.reference.contains('@') { String::new() } else { format!("@{}", pushed.digest) };
        format!("{}{digest}\n", pushed.reference)
    };
    pushed.iter().map(line).collect()
}

/// Push images of a layout to a registry
#[derive(Debug, Args)]
#[command(after_help = "\
Each IMAGE is a name in the layout, which goes to the registry under that name; or a whole reference, to which
the image of the same name and tag goes; or NAME=REFERENCE. Blobs that are there are not sent again, and a tag
is moved last.

Examples:
  imgbuild push out --registry registry.example/kernels
  imgbuild push out registry.example/kernels/kernel-bin:5.10.262
  imgbuild push out kernel-bin:5.10.262=registry.example/linux:stable
  imgbuild push out --registry registry.example/kernels --append")]
pub(super) struct Push {
    /// The OCI layout the images are in
    #[arg(value_name = "DIR")]
    layout: PathBuf,
    /// Which images, and where to [default: every image of the layout]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    destination: Destination,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Push {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let layout = Layout::open(&self.layout)?;
        let named = layout.names()?;
        let mut images = Vec::new();
        if self.images.is_empty() {
            let prefix = self.destination.required(context)?;
            for (name, root) in &named {
                images.push((root.clone(), prefix.join(name)?));
            }
        }
        for image in &self.images {
            images.push(self.find(image, &named, context)?);
        }
        if images.is_empty() {
            let message = format!("`{}` holds no image with a name", self.layout.display());
            return Err(Failure::Usage {
                message,
                hint: "`imgbuild kernel VERSION --output DIR` puts some there".into(),
            });
        }
        let pushed = self.destination.push(&layout, images, context)?;
        match self.format {
            Format::Text => context.print(&lines(&pushed)),
            Format::Json => context.print_json(&json!({ "images": pushed })),
        }
    }

    /// The image that an argument names, and where it goes.
    fn find(
        &self,
        image: &str,
        named: &[(String, Descriptor)],
        context: &Context,
    ) -> Result<(Descriptor, Reference), Failure> {
        let of = |name: &str| named.iter().find(|(other, _)| other == name).map(|(_, root)| root.clone());
        if let Some(root) = of(image) {
            return Ok((root, self.destination.required(context)?.join(image)?));
        }
        if let Some((name, reference)) = image.split_once('=') {
            let root = of(name).ok_or_else(|| self.no_image(name, named))?;
            return Ok((root, tagged(reference)?));
        }
        // What is no name of the layout has to be a reference: a name that is missing is told as such.
        let reference = match tagged(image) {
            Ok(reference) => reference,
            Err(_) if !image.contains('/') => return Err(self.no_image(image, named)),
            Err(error) => return Err(error),
        };
        let path = format!("{}:{}", reference.repository, reference.tag.as_deref().unwrap_or_default());
        let fits = |name: &str| path == name || path.ends_with(&format!("/{name}"));
        match named.iter().find(|(name, _)| fits(name)) {
            Some((_, root)) => Ok((root.clone(), reference)),
            None => match named {
                [(_, root)] => Ok((root.clone(), reference)),
                _ => Err(self.no_image(&reference.short(), named)),
            },
        }
    }

    fn no_image(&self, name: &str, named: &[(String, Descriptor)]) -> Failure {
        let found = list(named.iter().map(|(name, _)| name.as_str()));
        Failure::Usage {
            message: format!("`{}` holds no `{name}`; it holds {found}", self.layout.display()),
            hint: "`NAME=REFERENCE` pushes an image under another name".into(),
        }
    }
}

/// A reference with a tag or a digest.
pub(super) fn tagged(text: &str) -> Result<Reference, Failure> {
    let reference = Reference::from_str(text)?;
    if reference.wanted().is_some() {
        return Ok(reference);
    }
    let message = format!("`{reference}` has neither tag nor digest");
    Err(Failure::Usage { message, hint: format!("add one: `{reference}:TAG`") })
}
