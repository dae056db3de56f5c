//! Commands from a file or another process, one a line.

use std::io::BufRead;

use super::console::Console;
use super::failure::Failure;
use crate::text::{LineError, Lines};

/// Runs the lines until one fails, or all of them; returns the exit code of the first failure.
pub(crate) fn run(console: &mut Console<'_>, script: impl BufRead, keep_going: bool) -> u8 {
    let mut first_failure = 0;
    let mut lines = Lines::new(script);
    while let Some((number, line)) = lines.next() {
        let is_readable = !matches!(line, Err(LineError::Read(_)));
        let step = match line {
            Ok(line) => console.line(line, Some(number)),
            Err(error) => console.failed(&Failure::usage(error.to_string()), false, Some(number)),
        };
        if first_failure == 0 {
            first_failure = step.exit_code;
        }
        if step.is_last || !is_readable || (first_failure != 0 && !keep_going) {
            break;
        }
    }
    first_failure
}
