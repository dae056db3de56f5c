//! One line per event, also for what other code writes: errors with several lines, and panics.

use std::backtrace::Backtrace;
use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::PanicHookInfo;

/// Escapes the control characters within a line, so that an event is one line and cannot steer a terminal. The formatter writes a
/// whole line at a time.
#[derive(Debug)]
pub(crate) struct OneLine<W> {
    output: W,
    /// Whether the escape sequences of colours stay.
    is_coloured: bool,
}

impl<W> OneLine<W> {
    pub(crate) fn new(output: W, is_coloured: bool) -> Self {
        Self { output, is_coloured }
    }

    fn stays(&self, byte: u8) -> bool {
        const ESCAPE: u8 = 0x1b;
        !byte.is_ascii_control() || byte == b'\t' || (self.is_coloured && byte == ESCAPE)
    }

    fn escaped<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        if line.iter().all(|byte| self.stays(*byte)) {
            return Cow::Borrowed(line);
        }
        let escaped = line.iter().flat_map(|byte| match byte {
            byte if self.stays(*byte) => vec![*byte],
            byte => byte.escape_ascii().collect(),
        });
        Cow::Owned(escaped.collect())
    }
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match event.strip_suffix(b"\n") {
            Some(line) => {
                let mut line = self.escaped(line).into_owned();
                line.push(b'\n');
                // At once, so that no other thread writes in between.
                self.output.write_all(&line)?;
            }
            None => self.output.write_all(&self.escaped(event))?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Logs panics like other events. With `RUST_BACKTRACE` they have their backtrace.
pub(crate) fn log_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !tracing::enabled!(tracing::Level::ERROR) {
            return default(panic);
        }
        let wants_backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
        let backtrace = wants_backtrace.then(|| Backtrace::force_capture().to_string());
        let thread = std::thread::current();
        tracing::error!(
            panic = text(panic),
            location = panic.location().map(ToString::to_string),
            thread = thread.name(),
            backtrace,
            "a thread panicked"
        );
    }));
}

/// The text of a panic; `panic!` makes one of these two types.
fn text<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload_as_str().unwrap_or("without a message")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn written(event: &str, is_coloured: bool) -> String {
        let mut output = Vec::new();
        OneLine::new(&mut output, is_coloured).write_all(event.as_bytes()).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn an_event_is_one_line_without_control_characters() {
        assert_eq!(
            written("WARN reading failed error=\"caf\u{e9}\"\n", false),
            "WARN reading failed error=\"caf\u{e9}\"\n"
        );
        assert_eq!(written("one\ntwo\r\n  three\n", false), "one\\ntwo\\r\\n  three\n");
        assert_eq!(written("\u{1b}[31mred\u{1b}[0m\u{7}\n", false), "\\x1b[31mred\\x1b[0m\\x07\n");
        assert_eq!(written("\u{1b}[31mred\u{1b}[0m\u{7}\n", true), "\u{1b}[31mred\u{1b}[0m\\x07\n");
        assert_eq!(written("a part\n of a line", false), "a part\\n of a line");
    }
}
