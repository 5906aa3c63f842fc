//! The images of a machine, each where hosts will pull it from, or as near to that as could be looked at.

use std::path::Path;

use oci_spec::image::Descriptor;

use super::{Error, Named, RELEASE, Request, Use};
use crate::arch::Arch;
use crate::oci;
use crate::oci::layout::{Found, Layout};
use crate::registry::reference::{Host, Reference};
use crate::registry::{self, Client, Options};
use crate::step::Watch;
use crate::store::{Store, Work};

/// The label that tells what an image of ours is for.
const ROLE: &str = "io.imgbuild.role";
/// What it says.
const KERNEL: &str = "kernel";
const MODULES: &str = "modules";
const OS: &str = "os";
/// Kernel and modules in one image, as Flintlock to 0.4.0 had them.
const COMBINED: &str = "combined";
const HEADERS: &str = "headers";

/// An image by the name that hosts pull it by.
pub(super) struct Offer {
    /// Where its documents are, and its layers, once they were asked for.
    pub(super) layout: Layout,
    reference: Reference,
    /// Of its index, or its only manifest.
    digest: String,
    /// One per architecture of ours.
    pub(super) members: Vec<Found>,
    /// Whether its layers are at the registry still.
    is_remote: bool,
    /// Scratch space that has to outlive the layout.
    _work: Option<Work>,
}

impl Offer {
    /// The reference, for messages.
    pub(super) fn name(&self) -> String {
        self.reference.to_string()
    }

    /// The reference for a document, with the digest on demand.
    pub(super) fn reference(&self, by_digest: bool) -> String {
        let reference = self.reference.clone();
        let digest = if by_digest { Some(self.digest.clone()) } else { reference.digest };
        Reference { digest, ..reference }.to_string()
    }

    /// A label, the same for all architectures.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.members.iter().find_map(|member| member.labels.get(name)).map(String::as_str)
    }

    /// Its image for one architecture.
    pub(super) fn member(&self, arch: Arch) -> Option<&Found> {
        self.members.iter().find(|member| member.arch == arch)
    }

    /// The architectures it is for.
    pub(super) fn arches(&self) -> Vec<Arch> {
        Arch::ALL.into_iter().filter(|arch| self.member(*arch).is_some()).collect()
    }
}

/// Where offers are made: clients of registries, scratch space, what is to be told.
pub(super) struct Desk<'d> {
    request: &'d Request,
    options: &'d Options,
    store: &'d Store,
    pub(super) watch: &'d Watch,
    clients: Vec<Client>,
    pub(super) warnings: Vec<String>,
}

impl<'d> Desk<'d> {
    pub(super) fn new(
        request: &'d Request,
        options: &'d Options,
        store: &'d Store,
        watch: &'d Watch,
    ) -> Self {
        Self { request, options, store, watch, clients: Vec::new(), warnings: Vec::new() }
    }

    /// The image that is named.
    pub(super) fn offer(&mut self, named: &Named, what: Use) -> Result<Offer, Error> {
        let offer = match named {
            Named::Reference(reference) => self.remote(reference.clone(), None)?,
            Named::Layout(dir, image) => {
                let layout = Layout::open(dir)?;
                let images = layout.images()?;
                let name = pick(dir, image.as_deref(), &images, what)?;
                self.local(dir, layout, &name, images)?
            }
        };
        match offer.label(ROLE) {
            Some(role) if !fits(Some(role), what) => {
                Err(Error::WrongRole { image: offer.name(), what, role: role.to_owned() })
            }
            _ => Ok(offer),
        }
    }

    /// The modules that go with a kernel: those that were built with it and lie in the same layout, or the kernel's own
    /// image, where it is one that has both.
    pub(super) fn beside(&mut self, kernel: &Named, offer: &Offer) -> Result<Option<Offer>, Error> {
        if let Named::Layout(dir, _) = kernel {
            let layout = Layout::open(dir)?;
            let images = layout.images()?;
            let same = |image: &Found, label: &str| {
                image.labels.get(label).map(String::as_str) == offer.label(label)
            };
            let is_theirs = |image: &&Found| {
                role(image) == Some(MODULES) && same(image, "io.imgbuild.flavour") && same(image, RELEASE)
            };
            if let Some(name) = images.iter().find(is_theirs).map(|image| image.name.clone()) {
                return Ok(Some(self.local(dir, layout, &name, images)?));
            }
        }
        if offer.label(ROLE) == Some(COMBINED) {
            return Ok(Some(self.offer(kernel, Use::Kernel)?));
        }
        Ok(None)
    }

    /// The root volume in a kernel's layout, if there is one.
    pub(super) fn root_beside(&mut self, kernel: &Named) -> Result<Option<Offer>, Error> {
        let Named::Layout(dir, _) = kernel else { return Ok(None) };
        let images = Layout::open(dir)?.images()?;
        if !images.iter().any(|image| role(image) == Some(OS)) {
            return Ok(None);
        }
        Ok(Some(self.offer(&Named::Layout(dir.clone(), None), Use::Root)?))
    }

    /// An image of a layout, at the registry it was pushed to.
    fn local(&mut self, dir: &Path, layout: Layout, name: &str, images: Vec<Found>) -> Result<Offer, Error> {
        let no_registry = || Error::NoRegistry { name: name.to_owned(), layout: dir.display().to_string() };
        let reference = self.request.prefix.as_ref().ok_or_else(no_registry)?.join(name)?;
        let names = layout.names()?;
        let descriptor = names.iter().find(|(other, _)| other == name).map(|(_, descriptor)| descriptor);
        let digest = descriptor.map(|descriptor| descriptor.digest().to_string()).unwrap_or_default();
        let members = images.into_iter().filter(|image| image.name == name).collect();
        let local = Offer { layout, reference, digest, members, is_remote: false, _work: None };
        if self.request.offline {
            let reference = &local.reference;
            self.warnings.push(format!(
                "nobody asked whether `{reference}` is there, and the same as in `{}`",
                dir.display()
            ));
            return Ok(local);
        }
        self.remote(local.reference.clone(), Some(local))
    }

    /// An image at a registry; where it is the same as in a layout, that one stands for it.
    fn remote(&mut self, reference: Reference, local: Option<Offer>) -> Result<Offer, Error> {
        if self.request.offline {
            return Err(Error::Unasked(reference.to_string()));
        }
        self.look_at(&reference.host);
        let work = self.store.work()?;
        let layout = Layout::create(&work.path().join("offer"))?;
        let client = self.client(&reference.host)?;
        let pulled = registry::documents(&reference, client, &layout).map_err(|error| match error {
            registry::Error::NotFound(_) => Error::NotPushed(reference.to_string()),
            error => error.into(),
        })?;
        if let Some(local) = local {
            if local.digest == pulled.digest {
                return Ok(local);
            }
            self.warnings.push(format!(
                "`{reference}` is another image than the layout has ({}, not {}): this is about the one that hosts pull",
                short(&pulled.digest),
                short(&local.digest)
            ));
        }
        let members = layout.images()?.into_iter().filter(|image| image.name == pulled.name).collect();
        Ok(Offer { layout, reference, digest: pulled.digest, members, is_remote: true, _work: Some(work) })
    }

    /// Has the layers of an offer's image lie in its layout.
    pub(super) fn bring(&self, offer: &Offer, member: &Found) -> Result<(), Error> {
        let layers: &[Descriptor] = member.manifest.layers();
        let client = self.clients.iter().find(|client| *client.host() == offer.reference.host);
        if let Some(client) = client.filter(|_| offer.is_remote) {
            registry::layers(&offer.reference, layers, client, &offer.layout)?;
        }
        Ok(())
    }

    fn client(&mut self, host: &Host) -> Result<&Client, Error> {
        let at = self.clients.iter().position(|client| client.host() == host);
        let at = at.unwrap_or(self.clients.len());
        if at == self.clients.len() {
            self.clients.push(Client::new(host, self.options, self.watch)?);
        }
        Ok(&self.clients[at])
    }

    /// Tells, once per registry, what stands between it and Flintlock's hosts.
    fn look_at(&mut self, host: &Host) {
        let warning = if host.is_loopback() {
            format!("`{host}` is this machine: another host would look for a registry of its own")
        } else if self.options.plain_http {
            format!("`{host}` is asked without encryption here: Flintlock's hosts ask it by HTTPS alone")
        } else {
            return;
        };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

fn short(digest: &str) -> &str {
    &digest[..digest.len().min("sha256:".len() + 12)]
}

fn role(image: &Found) -> Option<&str> {
    image.labels.get(ROLE).map(String::as_str)
}

/// Whether an image of a role can be used so; one that says nothing may be what it is named for.
fn fits(role: Option<&str>, what: Use) -> bool {
    match what {
        Use::Kernel => role.is_some_and(|role| [KERNEL, COMBINED].contains(&role)),
        Use::Modules => role.is_some_and(|role| [MODULES, COMBINED].contains(&role)),
        Use::Root => role.is_none_or(|role| ![KERNEL, MODULES, COMBINED, HEADERS].contains(&role)),
    }
}

/// The name of the image that is meant. Where none is named, an image that is made for the purpose goes before one
/// that is good for two, and an index before the old name of one of its members.
fn pick(dir: &Path, image: Option<&str>, images: &[Found], what: Use) -> Result<String, Error> {
    let is_meant = |found: &&Found| image.map_or_else(|| fits(role(found), what), |name| found.name == name);
    let mut meant: Vec<&Found> = images.iter().filter(is_meant).collect();
    if image.is_none() {
        if meant.iter().any(|found| role(found) != Some(COMBINED)) {
            meant.retain(|found| role(found) != Some(COMBINED));
        }
        let is_alias = |found: &&Found| {
            let name = found.name.replacen("-arm:", ":", 1);
            name != found.name && images.iter().any(|other| other.name == name)
        };
        meant.retain(|found| !is_alias(found));
    }
    let mut names: Vec<&str> = meant.iter().map(|found| found.name.as_str()).collect();
    names.dedup();
    match names[..] {
        [name] => Ok(name.to_owned()),
        [] => {
            let wanted =
                image.map_or_else(|| what.what().to_owned(), |name| format!("{} `{name}`", what.what()));
            let mut found: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
            found.dedup();
            Err(oci::Error::NoImage { path: dir.to_owned(), wanted, found }.into())
        }
        _ => {
            let names = names.into_iter().map(str::to_owned).collect();
            Err(Error::Several { layout: dir.display().to_string(), what, names })
        }
    }
}
