//! Builds the console and runs it until the shutdown.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use kafka::Registry;
use service::{Metrics, Readiness, Shutdown, exit_code, shutdown_signal};
use tokio::runtime::Handle;

use crate::actions::Actions;
use crate::args::Args;
use crate::audience::Audience;
use crate::board::Board;
use crate::carts::Carts;
use crate::http::{Page, STALL_MAX, listen, serve};
use crate::metrics::VIEWERS;
use crate::probes::Addresses;
use crate::shop::Shop;
use crate::stores::{self, Stores};
use crate::{follow, frame, lag, operators, probes};

/// Runs `cart-console` until a signal. An error is printed on standard error.
// The runtime is started here and not in `main.rs`, which would compile every future of this crate once more.
#[tokio::main]
pub async fn start(args: Args) -> ExitCode {
    exit_code("cart-console", run_command(args).await)
}

async fn run_command(args: Args) -> anyhow::Result<()> {
    let args = args.without_empty();
    args.log.init()?;
    let metrics = Metrics::install("cart-console", &[crate::METRICS], &[])?;
    VIEWERS.with(&[]).set(0.0);
    run(args, metrics, shutdown_signal()?).await
}

/// Serves until the shutdown. It starts without waiting for the servers: the page says which are away.
async fn run(args: Args, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<()> {
    let (board, audience) = (Arc::new(Board::default()), Audience::new());
    let stores = Arc::new(Stores::new(&args.kafka, &args.cassandra, &args.database)?);
    let shop = args.ingest_url.as_deref().map(|url| Shop::new(url, board.clone())).transpose()?;
    let actions = Actions::start(&args, stores.clone(), shutdown.clone()).await?;
    let listener = listen(args.listen).with_context(|| format!("listening on {} (--listen)", args.listen))?;

    let context = follow::Context {
        kafka: args.kafka.clone(),
        board: board.clone(),
        watched: audience.watched(),
        shutdown: shutdown.clone(),
        runtime: Handle::current(),
    };
    follow::start(&context).context("starting the readers")?;
    operators::start(context.clone()).context("starting the thread of pauses and parked carts")?;
    lag::start(context).context("starting the thread of the lag")?;
    tokio::spawn(stores::compare_balances(stores.clone(), board.clone(), audience.clone()));
    tokio::spawn(stores::watch_purchases(stores.clone(), board.clone(), audience.clone()));
    tokio::spawn(stores::watch_read_models(stores.clone(), board.clone(), audience.clone()));
    tokio::spawn(frame::show_frames(board.clone(), audience.clone()));
    let addresses = Addresses {
        registry: Registry::new(&args.kafka)?,
        ingest: args.ingest_url.clone(),
        audit: args.audit_url.clone(),
    };
    probes::start(addresses, board.clone(), &audience)?;

    shutdown.started();
    tracing::info!(address = %listener.local_addr()?, "the live page");
    let page = Page {
        board,
        audience,
        carts: Carts::new(&args.kafka, stores),
        shop,
        actions,
        trace_url: args.trace_url,
        hosts: args.hosts,
        readiness: Readiness::default(),
        metrics,
    };
    serve(listener, page, STALL_MAX, shutdown).await;
    Ok(())
}
