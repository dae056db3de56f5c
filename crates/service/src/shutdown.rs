//! An orderly end: one signal that everything of a process watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Tells when to stop. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stop: watch::Receiver<bool>,
    has_started: Arc<AtomicBool>,
}

impl Shutdown {
    /// A signal, and what sets it off (also when it is dropped).
    #[must_use]
    pub fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self { stop: receiver, has_started: Arc::default() })
    }

    /// From now on there may be something under way: until then a signal ends the process at once.
    pub fn started(&self) {
        self.has_started.store(true, Ordering::Relaxed);
    }

    /// Whether to stop now.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Completes when it is time to stop.
    pub async fn requested(&mut self) {
        // An error means that the sender is gone, which is a request as well.
        drop(self.stop.wait_for(|stop| *stop).await);
    }
}

/// A signal that SIGTERM or SIGINT sets off. The second one ends the process at once, and so does one that comes before
/// [`Shutdown::started`].
///
/// # Errors
/// When the process may not handle signals.
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
