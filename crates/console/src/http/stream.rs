//! The stream of frames of one viewer.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;
use tokio::sync::watch;

use crate::audience::Seat;

/// A viewer that has not taken a frame for so long does not read any more.
const STALL_MAX: Duration = Duration::from_secs(30);

/// When the stream of a connection was last asked for a frame; nothing while it has no stream.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Option<Asked>>);

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// It waits for the next frame, however long that takes.
    is_waiting: bool,
}

impl Progress {
    fn set(&self, asked: Option<Asked>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = asked;
    }

    fn is_waiting(&self, is_waiting: bool) {
        self.set(Some(Asked { at: Instant::now(), is_waiting }));
    }

    /// Whether the viewer has stopped reading.
    pub(crate) fn has_stalled(&self) -> bool {
        let asked = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.is_some_and(|asked| !asked.is_waiting && asked.at.elapsed() > STALL_MAX)
    }
}

/// Sets the progress back when the stream ends.
struct Guard(std::sync::Arc<Progress>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// Frames as Server-Sent Events, always the newest: between two calls older ones are dropped.
pub(crate) fn events(
    frames: watch::Receiver<Bytes>,
    seat: Seat,
    progress: std::sync::Arc<Progress>,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let guard = Guard(progress);
    let mut frames = frames;
    // One that comes later than a second after the last is the newest anyway.
    frames.mark_changed();
    futures::stream::unfold((frames, seat, guard), async |(mut frames, seat, guard)| {
        guard.0.is_waiting(true);
        let event = loop {
            frames.changed().await.ok()?;
            let frame = frames.borrow_and_update().clone();
            if !frame.is_empty() {
                break event(&frame);
            }
        };
        guard.0.is_waiting(false);
        Some((Ok(event), (frames, seat, guard)))
    })
}

/// The wire form: JSON has no line breaks (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
fn event(frame: &Bytes) -> Bytes {
    let mut event = BytesMut::with_capacity(frame.len() + 16);
    event.put_slice(b"data: ");
    event.put_slice(frame);
    event.put_slice(b"\n\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use futures::StreamExt as _;

    use super::*;
    use crate::audience::Audience;

    #[tokio::test]
    async fn a_slow_viewer_gets_the_newest_frame() {
        let (audience, progress) = (Audience::new(), Arc::new(Progress::default()));
        let seat = audience.join().expect("a seat");
        let mut stream = pin!(events(audience.frames(), seat, progress.clone()));
        audience.show(Bytes::from_static(b"1"));
        assert_eq!(stream.next().await, Some(Ok(Bytes::from_static(b"data: 1\n\n"))));
        for frame in [&b"2"[..], b"3", b"4"] {
            audience.show(Bytes::from_static(frame));
        }
        assert_eq!(stream.next().await, Some(Ok(Bytes::from_static(b"data: 4\n\n"))));
        assert!(!progress.has_stalled());
    }

    #[test]
    fn a_viewer_stalls_when_it_takes_nothing() {
        let progress = Progress::default();
        assert!(!progress.has_stalled());
        let at = Instant::now().checked_sub(2 * STALL_MAX).expect("a time");
        progress.set(Some(Asked { at, is_waiting: true }));
        assert!(!progress.has_stalled(), "there was no frame");
        progress.set(Some(Asked { at, is_waiting: false }));
        assert!(progress.has_stalled());
    }
}
