//! An orderly end: one signal that everything of a process watches.

use tokio::sync::watch;

/// Tells when to stop. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// A signal, and what sets it off (also when it is dropped).
    #[must_use]
    pub fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether to stop now.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Completes when it is time to stop.
    pub async fn requested(&mut self) {
        // An error means that the sender is gone, which is a request as well.
        drop(self.0.wait_for(|stop| *stop).await);
    }
}

/// A signal that SIGTERM or SIGINT sets off. The second one ends the process at once.
///
/// # Errors
/// When the process may not handle signals.
pub fn shutdown_signal() -> std::io::Result<Shutdown> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, shutdown) = Shutdown::channel();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if !first {
                tracing::warn!("second signal: ending at once");
                std::process::exit(130);
            }
            tracing::info!("stopping: what is under way is finished first");
            sender.send_replace(true);
        }
    });
    Ok(shutdown)
}
