//! How two images, or two places full of them, differ: file by file, and in what their documents say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom};

use serde::Serialize;
use serde_json::Value;

use super::files::{self, Bytes, File, Kind, Tree};
use super::{Error, Image, Selection, sound_images};
use crate::oci::source::{Framing, Source};
use crate::step::Cancel;

/// One side of the comparison.
pub struct Side<'s> {
    /// Where its images are.
    pub source: &'s dyn Source,
    /// The one that is meant, if one is.
    pub image: Option<String>,
}

/// Something that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The image's name, on side A where the sides have different ones.
    pub image: String,
    /// Its platform; none where the whole image is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The file; none where the image itself is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Bytes>,
    /// What differs: `bytes`, `mode`, `owner`, `time`, `link`, `kind`, `device`, `xattr NAME`, `presence`, `layer N`,
    /// or the place in the configuration or the manifest (`config/Labels/a`).
    pub what: String,
    /// How it is in A; none where it is not.
    pub a: Option<String>,
    /// How it is in B; none where it is not.
    pub b: Option<String>,
    /// The first byte that differs, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// Compares the images of two sides: by name and platform, or the two that are named.
pub fn diff(a: &Side<'_>, b: &Side<'_>, cancel: &Cancel) -> Result<Vec<Difference>, Error> {
    // Named on one side alone, the same name is meant on the other.
    let name = |side: &Side<'_>, other: &Side<'_>| side.image.clone().or_else(|| other.image.clone());
    let (name_a, name_b) = (name(a, b), name(b, a));
    let read = |side: &Side<'_>, name: &Option<String>| {
        let images = sound_images(side.source, &Selection { image: name.clone(), arch: None })?;
        Ok::<_, Error>(by_place(images, name_a.as_deref()))
    };
    let (left, right) = (read(a, &name_a)?, read(b, &name_b)?);
    let mut found = Vec::new();
    let places: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for place in places {
        let mut pair = Pair { place, found: &mut found };
        match (left.get(place), right.get(place)) {
            (Some(x), Some(y)) if x.descriptor.digest() == y.descriptor.digest() => {}
            (Some(x), Some(y)) => pair.images([(a.source, x), (b.source, y)], cancel)?,
            (x, _) => pair.presence(None, x.is_some()),
        }
    }
    Ok(found)
}

/// Name and platform.
type Place = (String, String);

/// Images by name and platform. Where one image was named on each side, both go by the name of A's.
fn by_place(images: Vec<Image>, name: Option<&str>) -> BTreeMap<Place, Image> {
    let place = |image: &Image| (name.unwrap_or(&image.name).to_owned(), image.platform());
    images.into_iter().map(|image| (place(&image), image)).collect()
}

struct Pair<'p> {
    place: &'p Place,
    found: &'p mut Vec<Difference>,
}

impl Pair<'_> {
    fn add(&mut self, path: Option<&Bytes>, what: impl Into<String>, a: Option<String>, b: Option<String>) {
        let (image, platform) = self.place.clone();
        let (path, what, platform) = (path.cloned(), what.into(), Some(platform));
        self.found.push(Difference { image, platform, path, what, a, b, offset: None });
    }

    fn presence(&mut self, path: Option<&Bytes>, in_a: bool) {
        let there = || Some("there".to_owned());
        let (a, b) = if in_a { (there(), None) } else { (None, there()) };
        self.add(path, "presence", a, b);
    }

    fn images(&mut self, sides: [(&dyn Source, &Image); 2], cancel: &Cancel) -> Result<(), Error> {
        let before = self.found.len();
        let mut trees = Vec::new();
        for (source, image) in sides {
            trees.push(files::tree(source, image, cancel, &mut |_, sums| sums.map(drop))?);
        }
        let mut contents = BTreeSet::new();
        let paths: BTreeSet<_> = trees[0].keys().chain(trees[1].keys()).collect();
        for path in paths {
            match (trees[0].get(path), trees[1].get(path)) {
                (Some(x), Some(y)) => {
                    self.entries(&x.file, &y.file);
                    if x.file.kind == Kind::File && y.file.kind == Kind::File && x.sha256 != y.sha256 {
                        contents.insert(path.clone());
                    }
                }
                (x, _) => self.presence(Some(path), x.is_some()),
            }
        }
        self.contents(sides, &trees, &contents, cancel)?;
        self.documents(sides.map(|(_, image)| image), self.found.len() > before);
        self.found[before..].sort_by(|x, y| (x.path.is_none(), &x.path).cmp(&(y.path.is_none(), &y.path)));
        Ok(())
    }

    fn entries(&mut self, x: &File, y: &File) {
        let path = Some(&x.path);
        let mut compare = |what: &str, a: String, b: String| {
            if a != b {
                self.add(path, what, Some(a), Some(b));
            }
        };
        compare("kind", name(x.kind), name(y.kind));
        compare("mode", format!("{:04o}", x.mode), format!("{:04o}", y.mode));
        compare("owner", format!("{}:{}", x.uid, x.gid), format!("{}:{}", y.uid, y.gid));
        let time = |file: &File| crate::oci::image::rfc3339(file.mtime);
        compare("time", time(x), time(y));
        let device =
            |file: &File| file.device.map_or_else(String::new, |(major, minor)| format!("{major}:{minor}"));
        compare("device", device(x), device(y));
        let text = |bytes: Option<&Bytes>| bytes.map(ToString::to_string);
        if x.link != y.link {
            self.add(path, "link", text(x.link.as_ref()), text(y.link.as_ref()));
        }
        let names: BTreeSet<_> = x.xattrs.keys().chain(y.xattrs.keys()).collect();
        for name in names {
            let (a, b) = (x.xattrs.get(name), y.xattrs.get(name));
            if a != b {
                self.add(path, format!("xattr {name}"), text(a), text(b));
            }
        }
    }

    /// Finds the first byte in which files differ: A's are put aside, B's compared with them as they come.
    fn contents(
        &mut self,
        sides: [(&dyn Source, &Image); 2],
        trees: &[Tree],
        paths: &BTreeSet<Bytes>,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        if paths.is_empty() {
            return Ok(());
        }
        let mut aside = BufWriter::new(tempfile::tempfile()?);
        let mut starts = BTreeMap::new();
        let mut next = 0;
        files::show(sides[0], &trees[0], paths, cancel, &mut |path, bytes| {
            starts.insert(path.clone(), next);
            next += std::io::copy(bytes, &mut aside)?;
            Ok(())
        })?;
        let mut aside = aside.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let mut offsets = BTreeMap::new();
        files::show(sides[1], &trees[1], paths, cancel, &mut |path, bytes| {
            aside.seek(SeekFrom::Start(starts[path]))?;
            let mine = BufReader::new((&aside).take(trees[0][path].file.size));
            offsets.insert(path.clone(), first_difference(mine, BufReader::new(bytes))?);
            Ok(())
        })?;
        for path in paths {
            let size = |tree: &Tree| Some(format!("{} B", tree[path].file.size));
            self.add(Some(path), "bytes", size(&trees[0]), size(&trees[1]));
            let last = self.found.last_mut().expect("it was just added");
            last.offset = offsets.get(path).copied();
        }
        Ok(())
    }

    /// What configurations and manifests say, but for digests and sizes that follow from what was told already.
    fn documents(&mut self, images: [&Image; 2], told: bool) {
        let before = self.found.len();
        for (number, document) in ["manifest", "config"].iter().enumerate() {
            let [a, b] = images.map(|image| flat(&image.documents[number]));
            let places: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for place in places.into_iter().filter(|place| !follows(document, place)) {
                let (a, b) = (a.get(place), b.get(place));
                if a != b {
                    let label = place.strip_prefix("/config/Labels/").map(|label| format!("label {label}"));
                    let what = label.unwrap_or_else(|| format!("{document}{place}"));
                    self.add(None, what, a.cloned(), b.cloned());
                }
            }
        }
        if told || self.found.len() > before {
            return;
        }
        // The same files, in layers that are not the same: order, framing, or headers that say the same otherwise.
        let [a, b] = images.map(|image| image.manifest.layers());
        for number in 0..a.len().max(b.len()) {
            let layer = |layers: &[oci_spec::image::Descriptor]| {
                let layer = layers.get(number)?;
                let framing = Framing::of(layer.media_type()).map_or("no layer", Framing::name);
                Some(format!("{} ({framing}, {} B)", layer.digest(), layer.size()))
            };
            let (a, b) = (layer(a), layer(b));
            if a != b {
                self.add(None, format!("layer {number}, not its files"), a, b);
            }
        }
        if self.found.len() == before {
            let digest = |image: &Image| Some(image.descriptor.digest().to_string());
            self.add(None, "manifest as written", digest(images[0]), digest(images[1]));
        }
    }
}

/// How many bytes two readers have in common at their beginning.
fn first_difference(mut a: impl BufRead, mut b: impl BufRead) -> std::io::Result<u64> {
    let mut same = 0;
    loop {
        let (x, y) = (a.fill_buf()?, b.fill_buf()?);
        let shorter = x.len().min(y.len());
        let common = x.iter().zip(y).take_while(|(x, y)| x == y).count();
        same += common as u64;
        if common < shorter || shorter == 0 {
            return Ok(same);
        }
        a.consume(common);
        b.consume(common);
    }
}

/// Whether a place in a document holds what follows from the files and the other documents.
fn follows(document: &str, place: &str) -> bool {
    match document {
        "manifest" => {
            (place.starts_with("/config/") || place.starts_with("/layers/"))
                && (place.ends_with("/digest") || place.ends_with("/size"))
        }
        _ => place.starts_with("/rootfs/diff_ids/"),
    }
}

/// The values of a document by where they stand.
fn flat(document: &Value) -> BTreeMap<String, String> {
    fn gather(at: String, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                fields.iter().for_each(|(name, value)| gather(format!("{at}/{name}"), value, found));
            }
            Value::Array(items) if !items.is_empty() => {
                items.iter().enumerate().for_each(|(n, value)| gather(format!("{at}/{n}"), value, found));
            }
            Value::String(text) => drop(found.insert(at, text.clone())),
            other => drop(found.insert(at, other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    gather(String::new(), document, &mut found);
    found
}

fn name(kind: Kind) -> String {
    serde_json::to_value(kind).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found_in_the_bytes_or_at_the_shorter_ones_end() {
        let first = |a: &str, b: &str| first_difference(a.as_bytes(), b.as_bytes()).unwrap();
        assert_eq!([first("abc", "abd"), first("abc", "ab"), first("", "x"), first("x", "yx")], [2, 2, 0, 0]);
    }

    #[test]
    fn documents_are_compared_place_by_place() {
        let flat = flat(&serde_json::json!({"a": {"b": [1, "x"], "c": {}}, "d": null}));
        let flat: Vec<_> = flat.iter().map(|(place, value)| format!("{place}={value}")).collect();
        assert_eq!(flat, ["/a/b/0=1", "/a/b/1=x", "/a/c={}", "/d=null"]);
        assert!(follows("manifest", "/layers/0/digest") && !follows("manifest", "/layers/0/mediaType"));
    }
}
