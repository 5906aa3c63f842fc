use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use flate2::read::MultiGzDecoder;
use proptest::prelude::*;

use super::*;
use crate::step::Watch;

const EPOCH: u64 = 1_785_408_960;

fn gzip(threads: usize) -> Packing {
    Packing { compression: Compression::Gzip, threads }
}

fn entries(file: &Path) -> Vec<Entry> {
    let long = format!("lib/{}/{}", "d".repeat(120), "f".repeat(130));
    vec![
        Entry::symlink("modules.dep", "lib/modules/5.10.262/modules.dep"),
        Entry::directory("lib"),
        Entry::file("lib/file", file),
        Entry::hard_link("lib/name", "lib/file"),
        Entry::new(long, 0o600, Content::Bytes(b"long".to_vec())),
        Entry::symlink("far", "t".repeat(200)),
    ]
}

fn packed(order: impl Fn(&mut Vec<Entry>)) -> (Packed, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("source");
    fs_err::write(&file, "bytes").unwrap();
    fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o4711)).unwrap();
    let mut entries = entries(&file);
    order(&mut entries);
    let target = dir.path().join("layer");
    let packed = write(entries, 1_785_408_960, &target, gzip(2), &Watch::silent()).unwrap();
    (packed, fs_err::read(&target).unwrap())
}

/// Fails if we ever make a change that moves a layer's bytes: then the assembly number has to rise too.
#[test]
fn golden_layer() {
    let (layer, _) = packed(|_| {});
    assert_eq!(layer.diff_id, "694136e4f453a12c75bbb02cccad199c7ae4914fa313baad7295eff5fa466410");
    assert_eq!(layer.digest, "6d0462007eb969018009bbe6b5d021e81fba09ace751d58fba3d32bd7503b106");
    assert_eq!(packed(|entries| entries.reverse()).0, layer, "the order of the caller does not matter");
}

#[test]
fn every_entry_comes_back_as_data_of_the_entry_says() {
    let (_, bytes) = packed(|_| {});
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(&bytes[..]));
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        assert_eq!(header.mtime().unwrap(), 1_785_408_960);
        let mode = header.mode().unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let link = entry.link_name_bytes().map(|link| link.len());
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        seen.push((path.len(), mode, link, text));
    }
    let none = String::new;
    assert_eq!(
        seen,
        [
            (3, 0o777, Some(200), none()),
            (4, 0o755, None, none()),
            (255, 0o600, None, "long".into()),
            (8, 0o644, None, "bytes".into()),
            (8, 0o644, Some(8), none()),
            (11, 0o777, Some(32), none()),
        ]
    );
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let entry = Entry::file("boot/vmlinux", dir.path().join("not-there"));
    let error = write(vec![entry], 0, &dir.path().join("layer"), gzip(1), &Watch::silent()).unwrap_err();
    assert!(error.to_string().contains("not-there"), "{error}");
}

/// Everything a reader sees of an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    path: Vec<u8>,
    kind: u8,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    link: Option<Vec<u8>>,
    device: Option<(u32, u32)>,
    xattrs: BTreeMap<String, Vec<u8>>,
    content: Vec<u8>,
}

/// What is found in a stream.
fn read_back(stream: impl Read) -> Vec<Seen> {
    let mut archive = archive::Archive::new(stream);
    let mut seen = Vec::new();
    while let Some(member) = archive.next_member().unwrap() {
        let mut content = Vec::new();
        archive.read_to_end(&mut content).unwrap();
        let is_device = matches!(member.kind, EntryType::Char | EntryType::Block);
        seen.push(Seen {
            path: member.path,
            kind: member.kind.as_byte(),
            mode: member.mode,
            owner: (member.uid, member.gid),
            mtime: member.mtime,
            link: member.link,
            device: is_device.then_some(member.device),
            xattrs: member.xattrs,
            content,
        });
    }
    seen
}

/// The layer of these entries, as a plain tar, and what became of it.
fn layer(entries: Vec<Entry>, threads: usize) -> (Packed, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("layer");
    let packed = write(entries, EPOCH, &target, gzip(threads), &Watch::silent()).unwrap();
    let mut stream = Vec::new();
    MultiGzDecoder::new(&fs_err::read(&target).unwrap()[..]).read_to_end(&mut stream).unwrap();
    (packed, stream)
}

fn streamed(stream: &[u8]) -> Result<Packed, Error> {
    let dir = tempfile::tempdir().unwrap();
    write_stream(stream, EPOCH, &dir.path().join("layer"), gzip(2), &Watch::silent())
}

/// What the entry should look like when it is read.
fn expected(entry: &Entry) -> Seen {
    let (kind, link, device, content) = match &entry.content {
        Content::Directory => (b'5', None, None, Vec::new()),
        Content::File(_) => unreachable!("these tests have bytes"),
        Content::Bytes(bytes) => (b'0', None, None, bytes.clone()),
        Content::Symlink(target) => (b'2', Some(target.clone()), None, Vec::new()),
        Content::HardLink(target) => (b'1', Some(target.clone()), None, Vec::new()),
        Content::CharacterDevice(major, minor) => (b'3', None, Some((*major, *minor)), Vec::new()),
        Content::BlockDevice(major, minor) => (b'4', None, Some((*major, *minor)), Vec::new()),
        Content::Fifo => (b'6', None, None, Vec::new()),
    };
    let slash: &[u8] = if kind == b'5' { b"/" } else { b"" };
    Seen {
        path: [&entry.path, slash].concat(),
        kind,
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        mtime: entry.mtime.unwrap_or(EPOCH),
        link,
        device,
        xattrs: entry.xattrs.clone(),
        content,
    }
}

#[test]
fn every_kind_of_entry_comes_back_exactly() {
    let capability = b"\x01\0\0\x02\0\x20\0\0\n=\0\0\0\0\0\0\0\0\0\0".to_vec();
    let mut capable = Entry::new("usr/bin/ping", 0o755, Content::Bytes(b"elf".to_vec()));
    capable.xattrs = [("security.capability".into(), capability), ("user.a".into(), b"".to_vec())].into();
    let mut old = Entry::new("var/old", 0o2644, Content::Bytes(Vec::new())).owned_by(101, 4);
    old.mtime = Some(7);
    let far = [&b"usr/"[..], &[b'd'; 120], b"/", &[0xe9; 200]].concat();
    let entries = vec![
        Entry::new("dev/null", 0o666, Content::CharacterDevice(1, 3)),
        Entry::new("dev/vda", 0o660, Content::BlockDevice(254, 0)).owned_by(0, 6),
        Entry::new("run/initctl", 0o600, Content::Fifo),
        capable,
        old,
        Entry::new("home/many", 0o700, Content::Directory).owned_by(3_000_000, 4_294_967_294),
        Entry::whiteout("etc/gone"),
        Entry::whiteout("gone"),
        Entry::new(b"etc/caf\xe9".to_vec(), 0o644, Content::Bytes(b"latin".to_vec())),
        Entry::new(far.clone(), 0o644, Content::Bytes(b"far".to_vec())),
        Entry::hard_link("usr/linked", far),
        Entry::symlink(b"etc/link\xff".to_vec(), [&b"\xfe"[..], &[b'/'; 150]].concat()),
        Entry::new(".", 0o755, Content::Directory),
    ];
    let (packed, stream) = layer(entries.clone(), 3);
    let mut wanted: Vec<_> = entries.iter().map(expected).collect();
    wanted.sort_by(|a, b| {
        let key = |seen: &Seen| seen.path.strip_suffix(b"/").unwrap_or(&seen.path).to_vec();
        key(a).cmp(&key(b))
    });
    assert_eq!(read_back(&stream[..]), wanted);
    let whiteouts: Vec<_> = entries[6..8].iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(whiteouts, [&b"etc/.wh.gone"[..], b".wh.gone"]);
    // Read as a stream, our own layer is the same layer.
    assert_eq!(streamed(&stream).unwrap(), packed);
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let part = prop::collection::vec(any::<u8>().prop_filter("no part", |b| !matches!(b, 0 | b'/')), 1..140)
        .prop_filter("no name", |part| !matches!(&part[..], b"." | b".."));
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join(&b'/'));
    let target = prop::collection::vec(1_u8..=255, 1..160);
    let content = prop_oneof![
        Just(Content::Directory),
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(Content::Bytes),
        target.prop_map(Content::Symlink),
        (0_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| Content::BlockDevice(major, minor)),
        Just(Content::Fifo),
    ];
    let xattrs = prop::collection::btree_map(
        "[a-z]{1,8}\\.[a-z]{1,8}",
        prop::collection::vec(any::<u8>(), 0..40),
        0..3,
    );
    let owner = prop_oneof![0_u64..2000, (1_u64 << 21) - 1..(1 << 21) + 2, 0_u64..1 << 32];
    (path, 0_u32..0o10000, owner.clone(), owner, prop::option::of(0..EPOCH), xattrs, content).prop_map(
        |(path, mode, uid, gid, mtime, xattrs, content)| Entry {
            path,
            mode,
            uid,
            gid,
            mtime,
            xattrs,
            content,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_layer_is_read_back_as_written_whatever_the_order_and_the_threads(
        (entries, shuffled) in prop::collection::btree_map(any::<u32>(), any_entry(), 0..20)
            .prop_map(|entries| entries.into_values().collect::<Vec<_>>())
            .prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
        threads in 1_usize..5,
    ) {
        let mut paths: Vec<_> = entries.iter().map(|entry| entry.path.clone()).collect();
        paths.sort();
        paths.dedup();
        prop_assume!(paths.len() == entries.len());
        let (packed, stream) = layer(entries.clone(), 1);
        prop_assert_eq!(&layer(shuffled, threads).0, &packed);
        prop_assert_eq!(streamed(&stream).unwrap(), packed);
        let (mut wanted, mut seen): (Vec<_>, _) = (entries.iter().map(expected).collect(), read_back(&stream[..]));
        wanted.sort();
        seen.sort();
        prop_assert_eq!(seen, wanted);
    }
}

/// Takes the beginning of a stream and refuses the rest.
#[derive(Default, Clone)]
struct Beginning(Arc<Mutex<Vec<u8>>>);

impl Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = self.0.lock().unwrap();
        if taken.len() > 1 << 12 {
            return Err(io::Error::other("enough"));
        }
        taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_above_8_gib_has_its_size_in_both_ways_and_is_not_read_into_memory() {
    let dir = tempfile::tempdir().unwrap();
    for (size, is_large) in [((1 << 33) - 1, false), (1 << 33, true), (9_876_543_210, true)] {
        let sparse = dir.path().join("sparse");
        File::create(&sparse).unwrap().set_len(size).unwrap();
        let beginning = Beginning::default();
        let builder = tar::Builder::new(BlockWriter::new(beginning.clone(), Compression::Gzip, 2));
        let mut archive = Writer { builder, epoch: EPOCH, cancel: Cancel::default() };
        archive.append(&Entry::file("disk.img", &sparse)).unwrap_err();
        let bytes = beginning.0.lock().unwrap();
        let mut archive = tar::Archive::new(MultiGzDecoder::new(&bytes[..]));
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!((entry.size(), entry.header().entry_size().unwrap()), (size, size));
        let records = entry.pax_extensions().unwrap().into_iter().flatten();
        let records: Vec<_> = records.map(|record| record.unwrap().value().unwrap().to_owned()).collect();
        assert_eq!(records, if is_large { vec![size.to_string()] } else { Vec::new() });
    }
}

#[test]
fn a_full_disk_is_told_as_such_and_not_as_its_consequences() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = dir.path().join("sparse");
    for size in [1_u64, 3 << 20, 64 << 20] {
        File::create(&sparse).unwrap().set_len(size).unwrap();
        let entries = vec![Entry::file("disk.img", &sparse)];
        let error = write(entries, 0, Path::new("/dev/full"), gzip(2), &Watch::silent()).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("cannot write `/dev/full`") && error.contains("No space left"), "{error}");
    }
}

#[test]
fn what_is_no_file_is_refused_by_name_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let pipe = dir.path().join("pipe");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, rustix::fs::Mode::RWXU, 0).unwrap();
    for (source, what) in
        [(&socket, "is a socket"), (&pipe, "is no regular file"), (&dir.path().into(), "no regular")]
    {
        let entry = Entry::file("run/thing", source);
        let error = write(vec![entry], 0, &dir.path().join("layer"), gzip(1), &Watch::silent()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("`run/thing`") && error.contains(what), "{error}");
    }
}

#[test]
fn paths_that_mean_something_else_to_each_reader_are_refused() {
    for path in ["", "/etc", "a/../b", "..", "a//b", "./a", "a/", "a\0b"] {
        let entry = Entry::new(path, 0o644, Content::Fifo);
        let dir = tempfile::tempdir().unwrap();
        let error = write(vec![entry], 0, &dir.path().join("layer"), gzip(1), &Watch::silent()).unwrap_err();
        assert!(error.to_string().contains(&format!("`{path}` cannot be packed")), "{error}");
    }
}

#[test]
fn a_stream_is_taken_as_it_is_but_for_times_after_the_epoch() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: EntryType, mtime| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o100_640);
        header.set_uid(33);
        header.set_gid(34);
        header.set_mtime(mtime);
        header.set_size(0);
        builder.append_data(&mut header, path, io::empty()).unwrap();
    };
    add("./", EntryType::Directory, 5);
    // A long name of GNU's.
    add(&format!("./{}", "n".repeat(300)), EntryType::Regular, EPOCH + 1);
    let stream = builder.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("layer");
    write_stream(&stream[..], EPOCH, &target, gzip(1), &Watch::silent()).unwrap();
    let seen = read_back(MultiGzDecoder::new(&fs_err::read(&target).unwrap()[..]));
    let told: Vec<_> = seen.iter().map(|seen| (seen.path.len(), seen.mode, seen.owner, seen.mtime)).collect();
    assert_eq!(told, [(2, 0o640, (33, 34), 5), (300, 0o640, (33, 34), EPOCH)]);
    // No GNU header is left, and nothing but zeros follows.
    let cut = streamed(&stream[..stream.len() / 2 - 300]);
    assert!(cut.is_err(), "{cut:?}");
}

#[test]
fn a_stream_that_ends_early_or_holds_what_no_layer_can_is_refused() {
    let (_, stream) = layer(vec![Entry::new("a", 0o644, Content::Bytes(vec![b'x'; 5000]))], 1);
    let error = streamed(&stream[..3000]).unwrap_err().to_string();
    assert!(error.contains("it ends within `a`"), "{error}");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::new(b'V'));
    header.set_size(0);
    builder.append_data(&mut header, "volume", io::empty()).unwrap();
    let error = streamed(&builder.into_inner().unwrap()).unwrap_err().to_string();
    assert!(error.contains("`volume` cannot be packed") && error.contains("`V`"), "{error}");
}
