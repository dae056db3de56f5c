//! How a program ends: with its error on one line, or without one.

use std::io::{Write as _, stderr};
use std::process::ExitCode;

/// The exit code of the program `name`: 0, or 1 after its error was written to standard error with all causes.
///
/// `main` returns this rather than the error: the standard library would write its `Debug` form, which with
/// `RUST_BACKTRACE=1` is the backtrace of a wrong setting. Panics keep their backtrace.
pub fn exit_code(name: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed, the code is all that is left to say it with.
            writeln!(stderr().lock(), "{}", line(name, &error)).unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

fn line(name: &str, error: &anyhow::Error) -> String {
    format!("{name}: {error:#}")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::line;

    #[test]
    fn an_error_is_written_with_its_causes_on_one_line() {
        let error = Err::<(), _>(std::io::Error::other("no such host")).context("connecting").expect_err("an error");
        assert_eq!(line("ingest", &error), "ingest: connecting: no such host");
    }
}
