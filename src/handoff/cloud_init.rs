//! What a guest of Flintlock's finds out about itself: cloud-init's meta-data and user-data.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Error, Images, Machine, yaml};

/// As much as Firecracker's metadata service holds, in bytes of JSON.
pub(super) const LIMIT: usize = 51_200;
/// What Flintlock adds to it, at most: an instance's id, and vendor data that mounts one volume.
pub(super) const ADDED: usize = 512;

/// The instance. Flintlock adds an `instance_id` of its own where there is none.
#[derive(Serialize)]
struct MetaData<'m> {
    // Flintlock's templates know it by this name, cloud-init's NoCloud by the other.
    local_hostname: &'m str,
    #[serde(rename = "local-hostname")]
    hostname: &'m str,
    platform: &'static str,
}

/// cloud-config.
#[derive(Serialize)]
struct UserData<'u> {
    hostname: &'u str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<User<'u>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_root: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<[String; 6]>,
}

#[derive(Serialize)]
struct User<'u> {
    name: &'u str,
    ssh_authorized_keys: &'u [String],
}

/// Texts by the names that Flintlock gives to the metadata service.
pub(super) fn metadata(
    machine: &Machine,
    images: &Images,
    name: &str,
) -> Result<BTreeMap<&'static str, String>, Error> {
    let meta = MetaData { local_hostname: name, hostname: name, platform: "liquid_metal" };
    let user = match &machine.user_data {
        Some(text) => text.clone(),
        None => user_data(machine, images, name)?,
    };
    Ok([("meta-data", yaml(&meta)?), ("user-data", user)].into())
}

fn user_data(machine: &Machine, images: &Images, name: &str) -> Result<String, Error> {
    let users: Vec<_> =
        machine.ssh.iter().map(|(name, keys)| User { name, ssh_authorized_keys: keys }).collect();
    let data = UserData {
        hostname: name,
        // Ubuntu's cloud-init would have root told to log in as somebody else.
        disable_root: users.iter().any(|user| user.name == "root").then_some(false),
        users,
        mounts: mounts(machine, images).into_iter().collect(),
    };
    Ok(format!("#cloud-config\n{}", yaml(&data)?))
}

/// Under Cloud Hypervisor the disk of cloud-init comes before the modules, and Flintlock does not count it.
pub(super) fn mounts(machine: &Machine, images: &Images) -> Option<[String; 6]> {
    let modules = images.modules.as_ref().filter(|_| machine.is_cloud_hypervisor())?;
    let fields = ["vdc", &modules.mount_point(), "auto", "defaults,nofail", "0", "2"];
    Some(fields.map(str::to_owned))
}
