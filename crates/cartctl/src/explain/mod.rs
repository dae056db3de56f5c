//! `cartctl explain`: from the records of the log to a stored figure, or through the commands of a cart.

mod args;
mod commands;
mod ledger;
mod purchases;

use std::io::Write;

use anyhow::Context as _;
use serde::Serialize;

pub use args::Args;
use args::Question;

/// Writes the explanation to `out`. Returns the exit code.
///
/// # Errors
/// A server is unavailable, or writing fails.
pub async fn explain(args: &Args, out: &mut impl Write) -> anyhow::Result<u8> {
    let finding = match &args.question {
        Question::Balance(args) => {
            let explained = purchases::balance(&args.system, args.vendor, args.month, args.store).await?;
            write(&explained, args.system.json, out)?;
            explained.finding()
        }
        Question::Item(args) => {
            let explained = purchases::item(&args.system, args.vendor, args.product, args.day).await?;
            write(&explained, args.system.json, out)?;
            explained.finding()
        }
        Question::Cart(args) => {
            let explained = commands::explain(&args.system, args.cart).await?;
            write(&explained, args.system.json, out)?;
            explained.finding()
        }
    };
    Ok(finding as u8)
}

fn write<T: Serialize + std::fmt::Display>(explained: &T, as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if as_json {
        serde_json::to_writer_pretty(&mut *out, explained)?;
        writeln!(out)
    } else {
        write!(out, "{explained}")
    }
    .context("writing the explanation")
}
