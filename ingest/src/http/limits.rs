//! Limits of connections and requests.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;

/// Maximum number of bytes of a request's head; a larger one is answered with 431. Tokens and cookies of usual size fit.
const HEADER_LEN_MAX: u32 = 16_384;

/// Maximum number of HTTP/2 streams that a client may reset before they are accepted; the connection is closed when it resets
/// more (CVE-2023-44487).
const H2_RESETS_MAX: usize = 20;

/// Interval of HTTP/2 pings. The connection is closed if a ping is not answered within the same time.
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);

/// Maximum number of unread bytes of one HTTP/2 stream, and of all streams of a connection; the sender waits beyond that. A
/// usual body fits; a body of the maximum size takes a few round trips.
const H2_STREAM_WINDOW: u32 = 65_535;
const H2_CONNECTION_WINDOW: u32 = 262_144;

/// Maximum number of streams of an HTTP/2 connection that are reset for protocol errors of the client; then the connection is
/// closed.
const H2_ERRORS_MAX: usize = 64;

/// Maximum number of unsent bytes of one HTTP/2 stream. A response is in memory as a whole anyway.
const H2_SEND_BUFFER_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct LimitArgs {
    /// Maximum number of open connections; further ones wait to be accepted
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections_max: u32,

    /// Maximum number of open connections per client address (IPv6: per /64); further ones are closed. 0 means no limit, for an
    /// ingest behind a proxy
    #[arg(long, env, help_heading = "Limits", default_value_t = 2_048)]
    pub(crate) connections_per_address_max: u32,

    /// Maximum number of requests in progress; further ones are answered with 503, except health
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) requests_in_flight_max: u32,

    /// Maximum number of open event streams; further ones are answered with 503. They do not count as requests in progress
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) event_streams_max: u32,

    /// Maximum time for the TLS handshake, for the headers of a request, and between two requests of an HTTP/1 connection
    #[arg(help_heading = "Times")]
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=300_000))]
    pub(crate) header_timeout_ms: u64,

    /// Maximum time that a connection may stay without a request, or without reading a response
    #[arg(help_heading = "Times")]
    #[arg(long, env, default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub(crate) idle_timeout_ms: u64,

    /// Maximum number of concurrent streams of an HTTP/2 connection
    #[arg(help_heading = "Limits")]
    #[arg(long, env, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) h2_streams_max: u32,

    /// Time after SIGTERM in which all requests are still served, while /health/ready answers 503. It must be longer than a load
    /// balancer needs to notice, and than clients keep idle connections
    #[arg(help_heading = "Times")]
    #[arg(long, env, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(0..=300_000))]
    pub(crate) lame_duck_ms: u64,

    /// Maximum time for the requests in flight to finish after the time of --lame-duck-ms
    #[arg(help_heading = "Times")]
    #[arg(long, env, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub(crate) drain_timeout_s: u64,
}

impl LimitArgs {
    pub(crate) fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// The idle timeout for the kernel.
    #[cfg(target_os = "linux")]
    pub(crate) fn user_timeout_ms(&self) -> u32 {
        u32::try_from(self.idle_timeout_ms).unwrap_or(u32::MAX)
    }

    pub(crate) fn lame_duck(&self) -> Duration {
        Duration::from_millis(self.lame_duck_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_s)
    }

    /// Serves HTTP/1 and HTTP/2 within the limits.
    pub(crate) fn http(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        // A head must fit in the buffer.
        let mut http1 = builder.http1();
        http1.timer(TokioTimer::new()).header_read_timeout(self.header_timeout());
        http1.max_buf_size(HEADER_LEN_MAX as usize);
        let mut http2 = builder.http2();
        http2.timer(TokioTimer::new()).keep_alive_interval(H2_PING_INTERVAL).keep_alive_timeout(H2_PING_INTERVAL);
        http2.max_header_list_size(HEADER_LEN_MAX).max_concurrent_streams(self.h2_streams_max);
        http2.max_pending_accept_reset_streams(H2_RESETS_MAX).max_local_error_reset_streams(H2_ERRORS_MAX);
        http2.initial_stream_window_size(H2_STREAM_WINDOW).initial_connection_window_size(H2_CONNECTION_WINDOW);
        http2.max_send_buf_size(H2_SEND_BUFFER_MAX);
        builder
    }
}
