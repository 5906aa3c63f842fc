//! Which units are started at boot, as links in /etc/systemd/system: what `systemctl enable` would make.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;

/// Where the administrator's units and links lie.
pub const DIR: &str = "etc/systemd/system";

/// The links, with their targets, that enable `wanted` units, and those that mask others.
///
/// `texts` has the units by name, `place` tells the directory of each.
pub fn links(
    wanted: &BTreeSet<String>,
    masked: &BTreeSet<String>,
    texts: &BTreeMap<String, String>,
    place: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, String>, Error> {
    let mut links = BTreeMap::new();
    let (mut todo, mut done): (Vec<_>, BTreeSet<String>) =
        (wanted.iter().map(|unit| (unit.clone(), true)).collect(), BTreeSet::new());
    while let Some((unit, is_asked)) = todo.pop() {
        if !done.insert(unit.clone()) {
            continue;
        }
        let (file, instance) = template(&unit);
        let Some(text) = texts.get(&unit).or_else(|| texts.get(&file)) else {
            // What a unit names besides itself may be another package's.
            if is_asked {
                return Err(Error::NoUnit { unit });
            }
            continue;
        };
        let install = install(text);
        let target = format!("/{}/{file}", place(&file));
        let mut any = false;
        for (key, value) in install {
            let value = instance.as_ref().map_or_else(|| value.clone(), |name| value.replace("%i", name));
            any = true;
            match key {
                "WantedBy" => links.insert(format!("{DIR}/{value}.wants/{unit}"), target.clone()),
                "RequiredBy" => links.insert(format!("{DIR}/{value}.requires/{unit}"), target.clone()),
                "Alias" if value != unit => links.insert(format!("{DIR}/{value}"), target.clone()),
                "Also" => {
                    todo.push((value, false));
                    None
                }
                _ => None,
            };
        }
        if is_asked && !any {
            return Err(Error::NotEnabled { unit });
        }
    }
    links.extend(masked.iter().map(|unit| (format!("{DIR}/{unit}"), "/dev/null".to_owned())));
    Ok(links)
}

/// The file of an instance, and the instance's name: `getty@tty1.service` is one of `getty@.service`.
fn template(unit: &str) -> (String, Option<String>) {
    match (unit.split_once('@'), unit.rsplit_once('.')) {
        (Some((stem, rest)), Some((_, kind))) if !rest.starts_with('.') => {
            let instance = rest.strip_suffix(kind).and_then(|rest| rest.strip_suffix('.')).unwrap_or(rest);
            (format!("{stem}@.{kind}"), Some(instance.to_owned()))
        }
        _ => (unit.to_owned(), None),
    }
}

/// What the [Install] section says, one value at a time.
fn install(text: &str) -> Vec<(&'static str, String)> {
    const KEYS: [&str; 4] = ["WantedBy", "RequiredBy", "Alias", "Also"];
    let (mut inside, mut said) = (false, Vec::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[Install]";
        } else if let Some((key, values)) = line.split_once('=').filter(|_| inside)
            && let Some(key) = KEYS.into_iter().find(|known| *known == key.trim())
        {
            said.extend(values.split_whitespace().map(|value| (key, value.to_owned())));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(unit: &str, texts: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let texts = texts.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        let links =
            links(&[unit.to_owned()].into(), &BTreeSet::new(), &texts, |_| "lib/systemd/system".into());
        let line = |(path, target): (String, String)| format!("{} -> {target}", &path[DIR.len() + 1..]);
        links.map(|links| links.into_iter().map(line).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn links_are_systemctls() {
        let network = "[Unit]\nWantedBy=wrong\n[Install]\nWantedBy=multi-user.target\nAlso=net.socket gone.service\nAlias=dbus-net.service\n";
        let socket = "[Install]\nWantedBy=sockets.target\n";
        assert_eq!(
            enabled("net.service", &[("net.service", network), ("net.socket", socket)]).unwrap(),
            [
                "dbus-net.service -> /lib/systemd/system/net.service",
                "multi-user.target.wants/net.service -> /lib/systemd/system/net.service",
                "sockets.target.wants/net.socket -> /lib/systemd/system/net.socket",
            ]
        );
        assert_eq!(
            enabled("getty@ttyS0.service", &[("getty@.service", "[Install]\nWantedBy=getty.target\n")])
                .unwrap(),
            ["getty.target.wants/getty@ttyS0.service -> /lib/systemd/system/getty@.service"]
        );
        assert!(enabled("x.service", &[]).unwrap_err().contains("no unit `x.service`"));
        assert!(
            enabled("x.service", &[("x.service", "[Unit]\n")]).unwrap_err().contains("cannot be enabled")
        );
    }

    #[test]
    fn a_masked_unit_is_a_link_to_nothing() {
        let links =
            links(&BTreeSet::new(), &["x.service".to_owned()].into(), &BTreeMap::new(), |_| String::new());
        assert_eq!(links.unwrap()["etc/systemd/system/x.service"], "/dev/null");
    }
}
