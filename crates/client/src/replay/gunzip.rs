//! Reads a gzip file: several members, as `cat` joins them, with the padding that tapes and block devices add.

use std::io::{self, BufRead, ErrorKind, Read};

use flate2::bufread::GzDecoder;

/// The first two bytes of every gzip member (RFC 1952, 2.3.1).
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The text of a gzip file. NUL bytes after a member are padding, as for `gzip`; other bytes there are an error.
#[derive(Debug)]
pub(super) struct Gunzip<R> {
    /// `None` at the end.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(file: R) -> Self {
        Self { member: Some(GzDecoder::new(file)) }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let len = member.read(into)?;
            if len > 0 {
                return Ok(len);
            }
            let rest = self.member.take().map(GzDecoder::into_inner);
            self.member = rest.map(skip_padding).transpose()?.flatten().map(GzDecoder::new);
        }
        Ok(0)
    }
}

/// Reads over the padding, to the next member if there is one.
fn skip_padding<R: BufRead>(mut file: R) -> io::Result<Option<R>> {
    loop {
        let chunk = match file.fill_buf() {
            Ok([]) => return Ok(None),
            Ok(chunk) => chunk,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let padding = chunk.iter().take_while(|byte| **byte == 0).count();
        let is_over = padding < chunk.len();
        file.consume(padding);
        if is_over {
            return Ok(Some(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).expect("memory takes it");
        gzip.finish().expect("memory takes it")
    }

    fn text(file: &[u8]) -> io::Result<String> {
        let mut whole = String::new();
        Gunzip::new(file).read_to_string(&mut whole)?;
        // The result does not depend on the sizes of the reads.
        let mut slow = String::new();
        Gunzip::new(BufReader::with_capacity(1, file)).read_to_string(&mut slow)?;
        assert_eq!(slow, whole);
        Ok(whole)
    }

    #[test]
    fn joins_members_with_and_without_padding() {
        let (one, two, nothing) = (gzip("one\n"), gzip("two\n"), gzip(""));
        let padding = vec![0; 100_000];
        for (file, expected) in [
            (vec![&one[..]], "one\n"),
            (vec![&one, &two], "one\ntwo\n"),
            (vec![&one, &[0]], "one\n"),
            (vec![&one, &padding], "one\n"),
            (vec![&one, &nothing, &two, &[0; 512]], "one\ntwo\n"),
            (vec![&one, &[0; 512], &two], "one\ntwo\n"),
            (vec![&nothing], ""),
        ] {
            assert_eq!(text(&file.concat()).expect("a good file"), expected);
        }
    }

    #[test]
    fn rejects_other_bytes_after_a_member() {
        let one = gzip("one\n");
        let mut wrong_sum = one.clone();
        let at = wrong_sum.len() - 8;
        wrong_sum[at] ^= 1;
        for file in [
            [&one[..], b"x"].concat(),
            [&one[..], b"\n"].concat(),
            [&one[..], &[0; 512], b"garbage, and more of it"].concat(),
            [&one[..], &one[..5]].concat(),
            one[..one.len() - 1].to_vec(),
            one[..one.len() - 9].to_vec(),
            wrong_sum,
            MAGIC.to_vec(),
        ] {
            assert!(text(&file).is_err(), "{file:?}");
        }
    }
}
