//! Tar streams read member by member, as layers have them: ustar, PAX records whatever their bytes, GNU's long names.
//!
//! The tar crate reads them too, but takes the records of a PAX header for lines: an attribute with a newline in it,
//! as a file capability may have, breaks it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};

use tar::{EntryType, Header};

/// Bytes per block of a tar.
const BLOCK: usize = 512;
/// No honest header of headers is larger: Linux allows 64 KiB per attribute, and paths of 4 KiB.
const RECORDS: u64 = 1 << 20;

/// A member of an archive, without its bytes.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its path as it is written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// Permission bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// Its time in seconds since 1970.
    pub mtime: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Where a link points to.
    pub link: Option<Vec<u8>>,
    /// Major and minor number; 0 where they are left blank.
    pub device: (u32, u32),
    /// Extended attributes by their whole names.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Reads an archive. Between two calls of [`Archive::next_member`], reading it yields the bytes of the member.
pub struct Archive<R> {
    inner: R,
    left: u64,
    padding: u64,
}

impl<R: Read> Archive<R> {
    /// Reads the archive that `inner` yields.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next member; none at the archive's end. What was not read of the last one is skipped.
    pub fn next_member(&mut self) -> io::Result<Option<Member>> {
        let (mut records, mut long_path, mut long_link) = (BTreeMap::new(), None, None);
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return match (records.is_empty(), &long_path, &long_link) {
                    (true, None, None) => Ok(None),
                    _ => Err(malformed("it ends after the header of a header")),
                };
            };
            let kind = header.entry_type();
            self.set_size(header.entry_size()?);
            match kind {
                EntryType::XHeader => records = parse(&self.whole()?)?,
                EntryType::XGlobalHeader => drop(self.whole()?),
                EntryType::GNULongName => long_path = Some(until_zero(self.whole()?)),
                EntryType::GNULongLink => long_link = Some(until_zero(self.whole()?)),
                _ => return self.member(&header, records, long_path, long_link).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        mut records: BTreeMap<Vec<u8>, Vec<u8>>,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Member> {
        let path = records.remove(&b"path"[..]).or(long_path);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records.remove(&b"linkpath"[..]).or(long_link);
        let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        if header.entry_type() == EntryType::GNUSparse
            || records.keys().any(|key| key.starts_with(b"GNU.sparse."))
        {
            let name = String::from_utf8_lossy(&path).into_owned();
            return Err(malformed(&format!(
                "`{name}` is sparse in a way of GNU's, which layers do not have"
            )));
        }
        let mut number = |name: &str, otherwise: u64| match records.remove(name.as_bytes()) {
            // A time may have a fraction.
            Some(value) => std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.split('.').next()?.parse().ok())
                .ok_or_else(|| malformed(&format!("its record `{name}` is no number"))),
            None => Ok(otherwise),
        };
        let size = number("size", self.left)?;
        let fields = header.as_old();
        let uid = number("uid", or_blank(&fields.uid, header.uid())?)?;
        let gid = number("gid", or_blank(&fields.gid, header.gid())?)?;
        let mtime = number("mtime", or_blank(&fields.mtime, header.mtime())?)?;
        let mode = or_blank(&fields.mode, header.mode().map(u64::from))?;
        self.set_size(size);
        let device = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
        let xattrs = records.into_iter().filter_map(|(key, value)| {
            Some((String::from_utf8_lossy(key.strip_prefix(b"SCHILY.xattr.")?).into_owned(), value))
        });
        Ok(Member {
            path,
            kind: header.entry_type(),
            mode: u32::try_from(mode & 0o7777).expect("twelve bits"),
            uid,
            gid,
            mtime,
            size,
            link,
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: xattrs.collect(),
        })
    }

    fn set_size(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        if io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())? < rest {
            return Err(early());
        }
        Ok(())
    }

    /// The next header; none at the end, which is a block of zeros, or of the stream.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let mut block = Vec::with_capacity(BLOCK);
        (&mut self.inner).take(BLOCK as u64).read_to_end(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if block.len() < BLOCK {
            return Err(early());
        }
        header.as_mut_bytes().copy_from_slice(&block);
        // The sum is taken with its own field blank.
        let sum = block
            .iter()
            .enumerate()
            .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }));
        if header.cksum().ok() != Some(sum.sum()) {
            return Err(malformed("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn whole(&mut self) -> io::Result<Vec<u8>> {
        if self.left > RECORDS {
            return Err(malformed("a header of a header is too large to be meant"));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match self.inner.read(&mut buffer[..wanted])? {
            0 => Err(early()),
            n => {
                self.left -= n as u64;
                Ok(n)
            }
        }
    }
}

/// The records of a PAX header: `LENGTH KEY=VALUE\n`, where the length counts all of it.
fn parse(mut bytes: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let one = || -> Option<(usize, &[u8], &[u8])> {
            let space = bytes.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some((length, &record[..equals], &record[equals + 1..]))
        };
        let (length, key, value) = one().ok_or_else(|| malformed("a PAX record cannot be read"))?;
        records.insert(key.to_vec(), value.to_vec());
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// A number of a header; 0 where its field is left blank.
fn or_blank(field: &[u8], number: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0) } else { number }
}

fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn early() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "it ends early")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> String {
        match Archive::new(bytes).next_member() {
            Ok(member) => member.map_or("none".into(), |member| String::from_utf8(member.path).unwrap()),
            Err(error) => error.to_string(),
        }
    }

    /// A member whose PAX header is `records`.
    fn with_records(records: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, data) in [(EntryType::XHeader, records), (EntryType::Regular, &b"data"[..])] {
            let mut header = Header::new_ustar();
            header.set_path("short").unwrap();
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn records_are_taken_by_their_length() {
        assert_eq!(first(&with_records(b"15 path=a\nb 3=\n")), "a\nb 3=");
        assert_eq!(first(&with_records(b"")), "short");
        for records in
            [&b"15 path=a\n"[..], b"path=a\n", b"9 patha\n\n", b"10 path=ab", b"99999999999999999999 a=\n"]
        {
            assert_eq!(first(&with_records(records)), "a PAX record cannot be read", "{records:?}");
        }
        assert_eq!(first(&with_records(b"10 size=x\n")), "its record `size` is no number");
        assert!(first(&with_records(b"22 GNU.sparse.major=1\n")).contains("is sparse in a way of GNU's"));
    }

    #[test]
    fn a_size_of_pax_alone_is_the_size() {
        let mut bytes = with_records(b"10 size=4\n");
        // As Go writes it: nothing in the header.
        let at = 2 * BLOCK;
        let mut header = Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&bytes[at..at + BLOCK]);
        header.set_size(0);
        header.set_cksum();
        bytes[at..at + BLOCK].copy_from_slice(header.as_bytes());
        let mut archive = Archive::new(&bytes[..]);
        assert_eq!(archive.next_member().unwrap().unwrap().size, 4);
        let mut data = String::new();
        archive.read_to_string(&mut data).unwrap();
        assert_eq!(data, "data");
        assert!(archive.next_member().unwrap().is_none());
    }

    #[test]
    fn damage_is_told() {
        let sound = with_records(b"10 path=a\n");
        assert_eq!(first(&sound), "a");
        assert_eq!(first(b""), "none");
        assert_eq!(first(&sound[..700]), "it ends early");
        assert_eq!(first(&sound[..1024]), "it ends after the header of a header");
        for at in (0..BLOCK).chain(2 * BLOCK..3 * BLOCK) {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x40;
            assert_ne!(first(&bytes), "a", "byte {at}");
        }
    }
}
