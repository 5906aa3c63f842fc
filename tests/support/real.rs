//! Real kernels: 5.10.262 in the flavour `tiny`, compiled once per checkout and shared by all tests.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;

use super::layout::Layout;
use super::{Place, shared_store};

/// The version.
pub(crate) const VERSION: &str = "5.10.262";
/// Its pinned sha256, under which the store keeps the download.
pub(crate) const SHA256: &str = "e03766e4b2c246a20c9e2770aa599ee25c336d33b31c0980950230634e195339";
/// The kernel image.
pub(crate) const KERNEL: &str = "kernel-bin-tiny:5.10.262";
/// The modules image.
pub(crate) const MODULES: &str = "kernel-modules-tiny:5.10.262";

/// One compilation at a time: two would only share the processors.
static COMPILER: Mutex<()> = Mutex::new(());

/// Held by a test that compiles, or runs a guest.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    COMPILER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place with the images of both architectures in `out`.
pub(crate) fn tiny() -> (Place, Layout) {
    let _alone = alone();
    let place = Place::with_shared_store();
    place.imgbuild("kernel 5.10.262 --flavour tiny --arch x86_64,arm64").run().succeeds();
    let layout = Layout::at(place.path("out"));
    (place, layout)
}

/// The verified download of 5.10.262 in the shared store; fetched if it is not there yet.
pub(crate) fn download() -> PathBuf {
    let path = shared_store().join("downloads").join(SHA256);
    if !path.is_file() {
        Place::with_shared_store().imgbuild("fetch 5.10.262").run().succeeds();
    }
    fs::canonicalize(path).expect("it was fetched")
}
