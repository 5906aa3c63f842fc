//! Caches in registries: which ones a command looks into, and whether it writes to one.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::push::Transport;
use super::{Context, Failure};
use crate::plan::remote::Cache;
use crate::registry::Client;
use crate::registry::reference::Reference;
use crate::sign;
use crate::store::{Remote, Store};

/// Shared by the commands that make things.
#[derive(Debug, Args)]
pub(super) struct RemoteCache {
    /// Look into this repository of a registry for what is not in the store: kernels, toolchain trees, base systems
    /// [default: `cache` of the settings]
    #[arg(
        long = "cache",
        value_name = "HOST/REPOSITORY",
        value_delimiter = ',',
        env = "IMGBUILD_CACHE",
        hide_env_values = true
    )]
    caches: Vec<String>,
    /// Put what is made here into the first cache too [default: `cache-write` of the settings]
    #[arg(
        long,
        value_parser = FalseyValueParser::new(),
        env = "IMGBUILD_CACHE_WRITE",
        hide_env_values = true
    )]
    cache_write: bool,
    /// Use entries that this public key has signed, and no others [default: `cache-trust` of the settings, else all]
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        env = "IMGBUILD_CACHE_TRUST",
        hide_env_values = true
    )]
    cache_trust: Vec<PathBuf>,
    /// Sign what is put into the cache with this private key [default: `cache-key` of the settings]
    #[arg(long, value_name = "FILE", env = "IMGBUILD_CACHE_KEY", hide_env_values = true)]
    cache_key: Option<PathBuf>,
}

impl RemoteCache {
    /// The store, with the caches named on the command line, in the environment or in the settings, strongest first.
    pub(super) fn store(&self, transport: &Transport, context: &Context) -> Result<Store, Failure> {
        let named = if self.caches.is_empty() { &context.settings.caches } else { &self.caches };
        let is_meant = |path: &&PathBuf| !path.as_os_str().is_empty();
        let trusted: Vec<_> = self.cache_trust.iter().filter(is_meant).collect();
        let trusted =
            if trusted.is_empty() { context.settings.cache_trust.iter().collect() } else { trusted };
        let trusted =
            trusted.into_iter().map(|path| sign::Public::read(path)).collect::<Result<Vec<_>, _>>()?;
        let key = self.cache_key.as_ref().filter(is_meant).or(context.settings.cache_key.as_ref());
        let is_written = self.cache_write || context.settings.cache_write;
        let mut remotes: Vec<Arc<dyn Remote>> = Vec::new();
        for text in named.iter().filter(|text| !text.is_empty()) {
            let repository = repository(text)?;
            let client = Client::brief(&repository.host, &transport.options(), &context.watch)?;
            let is_written = is_written && remotes.is_empty();
            let key = key.filter(|_| is_written).map(|path| sign::Key::read(path)).transpose()?;
            let cache = Cache::new(repository, client, is_written).trusting(trusted.clone()).signing(key);
            remotes.push(Arc::new(cache));
        }
        if self.cache_write && remotes.is_empty() {
            return Err(Failure::Usage {
                message: "`--cache-write` (IMGBUILD_CACHE_WRITE) says to write to a cache, and none is named".into(),
                hint: "`--cache registry.example/org/cache`, IMGBUILD_CACHE, or `cache = [\"…\"]` in the settings"
                    .into(),
            });
        }
        Ok(context.store()?.with_remotes(remotes))
    }
}

/// A repository, without tag and digest.
fn repository(text: &str) -> Result<Reference, Failure> {
    let reference = Reference::from_str(text)?;
    match reference.wanted() {
        None => Ok(reference),
        Some(_) => Err(Failure::Usage {
            message: format!(
                "`{reference}` is an image: a cache is a repository, which gets a tag for each thing it keeps"
            ),
            hint: format!("`--cache {}/{}`", reference.host, reference.repository),
        }),
    }
}
