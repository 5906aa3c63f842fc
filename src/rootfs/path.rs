//! Paths in an image once the links of lower layers are followed.

use std::collections::BTreeMap;

/// How many links one path may lead through, as Linux counts them.
const LINKS: usize = 40;

/// Where a path leads when the directories on its way may be links; its last part is taken as it is.
///
/// A layer that wrote to `lib/x` over a base with `lib -> usr/lib` would replace the link by a directory.
pub fn resolve(path: &str, links: &BTreeMap<String, String>) -> Result<String, &'static str> {
    let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let (mut done, mut followed) = (Vec::<String>::new(), 0);
    while let Some(part) = todo.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                done.pop().ok_or("leads out of the image's root by way of a link")?;
                continue;
            }
            _ => done.push(part),
        }
        let Some(target) = links.get(&done.join("/")).filter(|_| !todo.is_empty()) else { continue };
        followed += 1;
        if followed > LINKS {
            return Err("leads through links without an end");
        }
        done.pop();
        if target.starts_with('/') {
            done.clear();
        }
        todo.extend(target.split('/').rev().map(str::to_owned));
    }
    Ok(done.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_on_the_way_are_followed() {
        let links = [
            ("lib", "usr/lib"),
            ("a", "/b/c"),
            ("b/c", "../d"),
            ("up", "../../x"),
            ("loop", "loop"),
            ("etc/l", "x"),
        ];
        let links: BTreeMap<_, _> =
            links.into_iter().map(|(path, target)| (path.into(), target.into())).collect();
        assert_eq!(resolve("lib/systemd/x", &links), Ok("usr/lib/systemd/x".into()));
        assert_eq!(resolve("a/f", &links), Ok("d/f".into()));
        assert_eq!(resolve("etc/l", &links), Ok("etc/l".into()));
        assert!(resolve("up/f", &links).unwrap_err().contains("out of the image"));
        assert!(resolve("loop/f", &links).unwrap_err().contains("without an end"));
    }
}
