//! The cleartext signature framework, read strictly and in one pass.
//!
//! rPGP's own reader searches everything read so far at every line: kernel.org's list has tens of thousands.

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// A clearsigned document in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cleartext {
    /// The text as it was signed: escapes undone, spaces at line ends gone, lines joined by CR LF.
    pub(super) text: String,
    /// The armoured signature.
    pub(super) signature: String,
}

/// Takes a document apart; an error says what it is not.
pub(super) fn split(bytes: &[u8]) -> Result<Cleartext, String> {
    let document = std::str::from_utf8(bytes).map_err(|_| "text".to_owned())?;
    let mut lines = document.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    if lines.next() != Some(BEGIN) {
        return Err("a clearsigned document".into());
    }
    // `Hash` is the only header there may be: text hidden in others would look signed.
    if !lines.by_ref().take_while(|line| !line.is_empty()).all(|line| line.starts_with("Hash: ")) {
        return Err("a clearsigned document with no headers but `Hash`".into());
    }
    let mut text = Vec::new();
    loop {
        match lines.next() {
            None => return Err("a whole clearsigned document: its signature is missing".into()),
            Some(SIGNATURE) => break,
            Some(line) if line.starts_with('-') => match line.strip_prefix("- ") {
                Some(escaped) => text.push(escaped),
                None => return Err("a clearsigned document: a dash is not escaped".into()),
            },
            Some(line) => text.push(line),
        }
    }
    let mut signature = vec![SIGNATURE];
    loop {
        let line = lines.next().ok_or("a whole clearsigned document: its signature is cut off")?;
        signature.push(line);
        if line == END {
            break;
        }
    }
    if !lines.all(|line| line.trim().is_empty()) {
        return Err("a clearsigned document alone: something follows its signature".into());
    }
    let trimmed: Vec<_> = text.iter().map(|line| line.trim_end_matches([' ', '\t'])).collect();
    Ok(Cleartext { text: trimmed.join("\r\n"), signature: signature.join("\n") + "\n" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(body: &str) -> String {
        format!("{BEGIN}\nHash: SHA256\n\n{body}{SIGNATURE}\n\nabc\n{END}\n")
    }

    #[test]
    fn the_text_is_as_it_was_signed() {
        let split = split(document("one  \n- -two\r\n\nthree\n").as_bytes()).unwrap();
        assert_eq!(split.text, "one\r\n-two\r\n\r\nthree");
        assert_eq!(split.signature, format!("{SIGNATURE}\n\nabc\n{END}\n"));
    }

    #[test]
    fn what_is_not_plainly_one_document_is_refused() {
        let right = document("one\n");
        for wrong in [
            String::new(),
            "<html>".into(),
            format!("x\n{right}"),
            format!("{right}more\n"),
            right.replace("Hash: SHA256", "Comment: 0000  linux.tar.xz"),
            right.replace("one", "-one"),
            right.replace("one", BEGIN),
            right.replace(END, ""),
            right.replace(SIGNATURE, ""),
        ] {
            assert!(split(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(split(&[0xff, b'\n']).is_err());
    }
}
