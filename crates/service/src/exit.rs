//! The end of a program: its exit code, and its error on one line.

use std::io::{Write as _, stderr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the error is an event of the log.
static IS_LOGGED: AtomicBool = AtomicBool::new(false);

/// From now on the error is an event of the log, so that every line has the log's format.
pub(crate) fn log_the_error() {
    IS_LOGGED.store(true, Ordering::Relaxed);
}

/// Returns the exit code of the program `name`: 0, or 1 after its error was written to standard error with all causes.
///
/// `main` returns this and not the error: the standard library would write the error's `Debug` form, which with
/// `RUST_BACKTRACE=1` has a backtrace even for a wrong setting. Panics keep their backtrace.
pub fn exit_code(name: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if IS_LOGGED.load(Ordering::Relaxed) && tracing::enabled!(tracing::Level::ERROR) => {
            tracing::error!(program = name, error = format!("{error:#}"), "the program ended with an error");
            ExitCode::FAILURE
        }
        Err(error) => {
            // If standard error is closed, only the exit code reports the error.
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
    fn writes_an_error_with_its_causes_on_one_line() {
        let error = Err::<(), _>(std::io::Error::other("no such host")).context("connecting").expect_err("an error");
        assert_eq!(line("ingest", &error), "ingest: connecting: no such host");
    }
}
