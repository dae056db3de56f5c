//! One look after the other, until their reader has left.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;

use super::table::View;
use super::text::Status;
use crate::operate::time;

/// Clears a terminal from its upper left corner on.
const CLEAR: &str = "\x1b[H\x1b[J";

/// How each look is printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// One object per line.
    pub(super) as_json: bool,
    pub(super) each_partition: bool,
    /// A look replaces the one before: the output is a terminal.
    pub(super) is_in_place: bool,
}

impl Form {
    fn of(self, status: &Status) -> anyhow::Result<String> {
        if self.as_json {
            return Ok(serde_json::to_string(status)?);
        }
        let columns = if self.is_in_place { columns() } else { None };
        let text = status.text(View { each_partition: self.each_partition, columns });
        Ok(if self.is_in_place { format!("{CLEAR}{text}") } else { text })
    }
}

/// Prints each look to `out`; ends when that is closed by its reader. A look that fails, since a server is away, ends nothing: its reason
/// is printed, to `errors` where `out` is for looks only.
pub(super) async fn watch(
    form: Form,
    interval: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Status>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> anyhow::Result<()> {
    loop {
        let is_read = match look().await {
            Ok(status) => print(out, &form.of(&status)?)?,
            Err(error) => {
                let now = time(Utc::now());
                let reason = format!("{now} cartctl status: {error:#}; the next look is in {} s", interval.as_secs());
                if form.is_in_place {
                    print(out, &format!("{CLEAR}{reason}"))?
                } else {
                    // A reader that leaves is noticed at the next look.
                    writeln!(errors, "{reason}").unwrap_or_default();
                    true
                }
            }
        };
        if !is_read {
            return Ok(());
        }
        tokio::time::sleep(interval).await;
    }
}

/// Writes a text. Returns whether it still has a reader.
pub(super) fn print(out: &mut impl Write, text: &str) -> anyhow::Result<bool> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("writing the status"),
    }
}

/// The columns of the terminal now: somebody may have resized it.
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    // A terminal of 0 columns does not know how many it has.
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::bail;
    use chrono::DateTime;

    use super::*;
    use crate::status::audit::Audit;

    /// A reader that leaves after so many looks.
    struct Reader {
        read: String,
        left: usize,
    }

    impl Write for Reader {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.read.push_str(&String::from_utf8_lossy(text));
            Ok(text.len())
        }

        /// Behind each look.
        fn flush(&mut self) -> io::Result<()> {
            self.left = self.left.saturating_sub(1);
            Ok(())
        }
    }

    fn status() -> Status {
        Status {
            at: DateTime::UNIX_EPOCH,
            partitions: vec![],
            skipped: vec![],
            discarded: vec![],
            parked_carts: Some(vec![]),
            parked_rows: Some(vec![]),
            audit: Audit::NotAsked,
            unknown: vec![],
        }
    }

    /// The output and the reasons of a watch of which every other look fails, from the first on.
    async fn watched(form: Form) -> (String, String) {
        let (mut out, mut errors, mut looks) = (Reader { read: String::new(), left: 2 }, Vec::<u8>::new(), 0);
        let look = async || {
            looks += 1;
            if looks % 2 == 1 {
                bail!("broker {looks} is away");
            }
            Ok(status())
        };
        watch(form, Duration::ZERO, look, &mut out, &mut errors).await.expect("it ends with its reader");
        (out.read, String::from_utf8(errors).expect("text"))
    }

    #[tokio::test]
    async fn a_look_that_fails_does_not_end_the_watch() {
        let form = Form { as_json: true, each_partition: false, is_in_place: false };
        let (looks, reasons) = watched(form).await;
        let lines: Vec<serde_json::Value> =
            looks.lines().map(|line| serde_json::from_str(line).expect("an object per line")).collect();
        assert_eq!(lines.len(), 2, "{looks}");
        for (reason, broker) in reasons.lines().zip([1, 3, 5]) {
            let expected = format!(" cartctl status: broker {broker} is away; the next look is in 0 s");
            assert!(reason.ends_with(&expected), "{reasons}");
        }
        assert_eq!(reasons.lines().count(), 3, "{reasons}");
    }

    #[tokio::test]
    async fn a_terminal_shows_the_last_look_or_why_there_is_none() {
        let form = Form { as_json: false, each_partition: false, is_in_place: true };
        let (looks, reasons) = watched(form).await;
        let shown: Vec<&str> = looks.split(CLEAR).collect();
        assert_eq!((shown.len(), reasons.as_str()), (3, ""), "{looks:?}");
        assert!(
            shown[1].contains("broker 1 is away") && shown[2].contains("no cart and no row is parked"),
            "{looks:?}"
        );
    }
}
