//! Commands from a file or another process, one a line.

use std::io::{BufRead, Read};

use super::console::Console;
use super::failure::Failure;

/// More than a command with the longest names; a file without line ends does not fill the memory.
const LINE_LEN_MAX: usize = 64 << 10;

/// Runs the lines until one fails, or all of them; returns the exit code of the first failure.
pub(crate) fn run(console: &mut Console<'_>, script: impl BufRead, keep_going: bool) -> u8 {
    let mut first_failure = 0;
    let mut lines = Lines { script, bytes: Vec::new(), number: 0 };
    while let Some((number, line)) = lines.next() {
        let step = match line {
            Ok(line) => console.line(line, Some(number)),
            // What follows is not known to be the beginning of a line.
            Err(failure) => {
                let exit_code = console.failed(&failure, false, Some(number)).exit_code;
                return if first_failure == 0 { exit_code } else { first_failure };
            }
        };
        if first_failure == 0 {
            first_failure = step.exit_code;
        }
        if step.is_last || (first_failure != 0 && !keep_going) {
            break;
        }
    }
    first_failure
}

/// The lines of a script with their numbers from 1.
struct Lines<R> {
    script: R,
    bytes: Vec<u8>,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Option<(usize, Result<&str, Failure>)> {
        self.bytes.clear();
        self.number += 1;
        let limit = LINE_LEN_MAX as u64 + 1;
        let line = match self.script.by_ref().take(limit).read_until(b'\n', &mut self.bytes) {
            Ok(0) => return None,
            Ok(len) if len > LINE_LEN_MAX => Err(Failure::usage(format!("a line has at most {LINE_LEN_MAX} bytes"))),
            Ok(_) => std::str::from_utf8(&self.bytes).map_err(|_| Failure::usage("the line is not UTF-8")),
            Err(error) => Err(Failure::usage(format!("reading standard input failed: {error}"))),
        };
        Some((self.number, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(script: &[u8]) -> Vec<(usize, Result<String, String>)> {
        let mut lines = Lines { script, bytes: Vec::new(), number: 0 };
        let mut all = vec![];
        while let Some((number, line)) = lines.next() {
            let is_bad = line.is_err();
            all.push((number, line.map(str::to_owned).map_err(|failure| failure.to_string())));
            if is_bad {
                break;
            }
        }
        all
    }

    #[test]
    fn lines_are_numbered_and_the_last_one_needs_no_end() {
        let expected = [(1, Ok("list\n".to_owned())), (2, Ok("\n".to_owned())), (3, Ok("exit".to_owned()))];
        assert_eq!(lines(b"list\n\nexit"), expected);
    }

    #[test]
    fn a_line_is_bounded_text() {
        let long = lines(&vec![b'x'; LINE_LEN_MAX + 1]);
        assert_eq!(long, [(1, Err(format!("a line has at most {LINE_LEN_MAX} bytes")))]);
        assert_eq!(lines(b"\xff\n"), [(1, Err("the line is not UTF-8".to_owned()))]);
    }
}
