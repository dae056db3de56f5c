//! The stream of frames of one viewer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;
use tokio::sync::watch;

use crate::audience::Seat;

/// What a connection does.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the head of the last request came. The response may be complete: then the client has sent no other for so long.
    requested_at: Option<Instant>,
    /// When its stream was last asked for a frame; nothing while it has no stream.
    asked: Option<Asked>,
}

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stalled {
    /// A viewer has stopped reading.
    Viewer,
    /// A body does not arrive, or a response is not read.
    Request,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// It waits for the next frame, however long that takes.
    is_waiting: bool,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the head of a request.
    pub(crate) fn requested(&self) {
        self.state().requested_at = Some(Instant::now());
    }

    fn is_waiting(&self, is_waiting: bool) {
        self.state().asked = Some(Asked { at: Instant::now(), is_waiting });
    }

    /// Whether the client has made no progress for so long. A stream that waits for a frame may wait for ever.
    pub(crate) fn stalled(&self, max: Duration) -> Option<Stalled> {
        let state = self.state();
        let (since, stalled) = match state.asked {
            Some(asked) if asked.is_waiting => return None,
            Some(asked) => (asked.at, Stalled::Viewer),
            None => (state.requested_at?, Stalled::Request),
        };
        (since.elapsed() > max).then_some(stalled)
    }
}

/// Sets the progress back when the stream ends.
struct Guard(std::sync::Arc<Progress>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.state().asked = None;
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

    const MAX: Duration = Duration::from_secs(30);

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
        assert_eq!(progress.stalled(MAX), None);
    }

    #[test]
    fn a_viewer_stalls_when_it_takes_nothing() {
        let progress = Progress::default();
        assert_eq!(progress.stalled(MAX), None);
        let at = Instant::now().checked_sub(2 * MAX).expect("a time");
        progress.state().requested_at = Some(at);
        progress.state().asked = Some(Asked { at, is_waiting: true });
        assert_eq!(progress.stalled(MAX), None, "there was no frame");
        progress.state().asked = Some(Asked { at, is_waiting: false });
        assert_eq!(progress.stalled(MAX), Some(Stalled::Viewer));
    }

    #[test]
    fn a_request_without_a_stream_stalls_too() {
        let progress = Progress::default();
        progress.requested();
        assert_eq!(progress.stalled(MAX), None);
        progress.state().requested_at = Instant::now().checked_sub(2 * MAX);
        assert_eq!(progress.stalled(MAX), Some(Stalled::Request));
        progress.requested();
        assert_eq!(progress.stalled(MAX), None, "the next request");
    }
}
