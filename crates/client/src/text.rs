//! Text from other systems: line ends, and Unicode normalisation.
//!
//! [`Lines`] reads sessions, scripts and CSV files. [`nfc`] converts names to Unicode NFC before they are hashed to ids,
//! compared or sent, so that a letter with an accent is the same however a system composes it.

use std::borrow::Cow;
use std::io::{self, BufRead, ErrorKind};

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// The maximum length of a line: longer than a command with the longest names. It bounds the memory for a file without line
/// ends.
pub(crate) const LINE_LEN_MAX: usize = 64 << 10;

/// The byte order mark. Editors on Windows write it at the start of a file; in joined files it is at the start of a later line.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Converts a text to Unicode NFC; does not copy text that is already in it.
pub(crate) fn nfc(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// Why a line can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Longer than any command.
    #[error("the line has more than {LINE_LEN_MAX} bytes")]
    TooLong,
    /// It is in another encoding, or damaged.
    #[error("the line is not UTF-8 (its byte {place} is 0x{byte:02x}); save the file as UTF-8")]
    NotUtf8 {
        /// The position of the first invalid byte, from 1.
        place: usize,
        byte: u8,
    },
    /// Reading failed. There is no next line.
    #[error("reading failed: {0}")]
    Read(io::Error),
}

/// The lines of a text, without their ends, numbered from 1.
///
/// LF, CR LF and CR each end a line. A byte order mark at the start of a line is skipped.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    bytes: Vec<u8>,
    number: u64,
    /// The last line ended with CR. A following LF belongs to it. It is not waited for, since a terminal does not send it.
    is_after_cr: bool,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, bytes: Vec::new(), number: 0, is_after_cr: false }
    }

    /// Reads the next line and returns its number. After [`LineError::TooLong`] and [`LineError::NotUtf8`] the next line can
    /// be read.
    pub(crate) fn next(&mut self) -> Option<(u64, Result<&str, LineError>)> {
        let read = self.read();
        if matches!(read, Ok(false)) {
            return None;
        }
        self.number += 1;
        let line = read.map_err(LineError::Read).and_then(|_| self.text());
        Some((self.number, line))
    }

    fn text(&self) -> Result<&str, LineError> {
        if self.bytes.len() > LINE_LEN_MAX {
            return Err(LineError::TooLong);
        }
        let text = std::str::from_utf8(&self.bytes).map_err(|error| {
            let at = error.valid_up_to();
            LineError::NotUtf8 { place: at + 1, byte: self.bytes[at] }
        })?;
        Ok(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))
    }

    /// Reads a line's bytes, at most one more than allowed; returns false at the end.
    fn read(&mut self) -> io::Result<bool> {
        self.bytes.clear();
        let mut has_begun = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok([]) => return Ok(has_begun),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if std::mem::take(&mut self.is_after_cr) && chunk[0] == b'\n' {
                self.reader.consume(1);
                continue;
            }
            has_begun = true;
            let end = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let line = &chunk[..end.unwrap_or(chunk.len())];
            let room = LINE_LEN_MAX + 1 - self.bytes.len();
            self.bytes.extend_from_slice(&line[..line.len().min(room)]);
            let Some(end) = end else {
                let len = chunk.len();
                self.reader.consume(len);
                continue;
            };
            self.is_after_cr = chunk[end] == b'\r';
            self.reader.consume(end + 1);
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    fn lines(reader: impl BufRead) -> Vec<(u64, Result<String, String>)> {
        let mut lines = Lines::new(reader);
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next() {
            let is_last = matches!(line, Err(LineError::Read(_)));
            all.push((number, line.map(str::to_owned).map_err(|error| error.to_string())));
            if is_last {
                break;
            }
        }
        all
    }

    fn good(text: &[u8]) -> Vec<String> {
        lines(text).into_iter().map(|(_, line)| line.expect("a good line")).collect()
    }

    #[test]
    fn recognises_every_kind_of_line_end() {
        for text in ["list\n\nexit", "list\r\n\r\nexit", "list\r\rexit", "list\n\nexit\n", "list\r\n\r\nexit\r\n"] {
            assert_eq!(good(text.as_bytes()), ["list", "", "exit"], "{text:?}");
            // With reads of any size.
            let slow = BufReader::with_capacity(1, text.as_bytes());
            let numbers: Vec<_> = lines(slow).into_iter().map(|(number, line)| (number, line.expect("good"))).collect();
            assert_eq!(numbers, [(1, "list".to_owned()), (2, String::new()), (3, "exit".to_owned())], "{text:?}");
        }
        for (text, expected) in [("exit\r", &["exit"][..]), ("a\n\rb", &["a", "", "b"]), ("", &[]), ("\r\n", &[""])] {
            assert_eq!(good(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn skips_a_byte_order_mark_at_the_start_of_a_line() {
        assert_eq!(good("\u{feff}list\n\u{feff}exit\nadd a\u{feff}b".as_bytes()), ["list", "exit", "add a\u{feff}b"]);
        assert_eq!(good("\u{feff}".as_bytes()), [""]);
    }

    #[test]
    fn reads_on_after_a_line_that_is_not_utf8() {
        let not_utf8 = |place, byte| Err(LineError::NotUtf8 { place, byte }.to_string());
        assert_eq!(
            lines(&b"list\ncaf\xe9\nexit"[..]),
            [(1, Ok("list".to_owned())), (2, not_utf8(4, 0xe9)), (3, Ok("exit".to_owned()))]
        );
        // UTF-16, as some spreadsheets save it.
        assert_eq!(lines(&b"\xff\xfel\0"[..]), [(1, not_utf8(1, 0xff))]);
        // Cut within a character.
        assert_eq!(lines(&b"caf\xc3"[..]), [(1, not_utf8(4, 0xc3))]);
    }

    #[test]
    fn a_line_is_bounded() {
        let longest = vec![b'x'; LINE_LEN_MAX];
        assert_eq!(good(&longest), [String::from_utf8(longest.clone()).expect("text")]);
        let text = [&longest[..], &longest, b"\nexit"].concat();
        assert_eq!(lines(&text[..]), [(1, Err(LineError::TooLong.to_string())), (2, Ok("exit".to_owned()))]);
    }

    #[test]
    fn ends_where_reading_fails() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let reader = BufReader::new(b"list\nchec".chain(Broken));
        assert_eq!(lines(reader), [(1, Ok("list".to_owned())), (2, Err("reading failed: broken".to_owned()))]);
    }

    #[test]
    fn nfc_gives_each_letter_one_form() {
        for (text, expected) in [
            ("cafe\u{301}", "caf\u{e9}"),
            ("caf\u{e9}", "caf\u{e9}"),
            ("Jose\u{301}", "Jos\u{e9}"),
            // The sign for angstrom, and a Korean syllable in its parts.
            ("\u{212b}", "\u{c5}"),
            ("\u{1112}\u{1161}\u{11ab}", "\u{d55c}"),
            // Marks in another order.
            ("q\u{307}\u{323}", "q\u{323}\u{307}"),
            // Not NFKC: characters that only look alike stay different.
            ("\u{fb01}", "\u{fb01}"),
            ("red mug", "red mug"),
        ] {
            assert_eq!(nfc(text), expected, "{text:?}");
        }
        assert!(matches!(nfc("Rosé"), Cow::Borrowed(_)));
    }

    proptest::proptest! {
        #[test]
        fn lines_do_not_depend_on_the_sizes_of_reads(text in "[a\r\n]{0,20}", len in 1_usize..5) {
            let unified = text.replace("\r\n", "\n").replace('\r', "\n");
            let expected: Vec<_> = unified.lines().map(str::to_owned).collect();
            let read: Vec<_> = lines(BufReader::with_capacity(len, text.as_bytes())).into_iter().map(|(_, line)| line.expect("text")).collect();
            proptest::prop_assert_eq!(read, expected);
        }
    }
}
