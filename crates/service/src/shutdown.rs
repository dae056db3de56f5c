//! Shutdown: one signal for all parts of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The request to stop. Clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stop: watch::Receiver<bool>,
    has_started: Arc<AtomicBool>,
}

impl Shutdown {
    /// Makes a shutdown, and the sender that requests it, also by being dropped.
    #[must_use]
    pub fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self { stop: receiver, has_started: Arc::default() })
    }

    /// Declares that there may be work in progress. Until then a signal ends the process at once.
    pub fn started(&self) {
        self.has_started.store(true, Ordering::Relaxed);
    }

    /// Whether the stop is requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Completes when the stop is requested.
    pub async fn requested(&mut self) {
        // An error means that the sender was dropped, which is also a request.
        drop(self.stop.wait_for(|stop| *stop).await);
    }
}

/// Makes a shutdown that SIGTERM or SIGINT requests. A second signal ends the process at once, and so does one before
/// [`Shutdown::started`].
///
/// # Errors
/// The signals can't be handled.
pub fn shutdown_signal() -> std::io::Result<Shutdown> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, shutdown) = Shutdown::channel();
    let has_started = shutdown.has_started.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if !first {
                tracing::warn!("second signal: exiting at once");
                std::process::exit(130);
            }
            if !has_started.load(Ordering::Relaxed) {
                tracing::info!("exiting: the service has not started yet");
                std::process::exit(0);
            }
            tracing::info!("shutting down: work in progress is finished first");
            sender.send_replace(true);
        }
    });
    Ok(shutdown)
}
