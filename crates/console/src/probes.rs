//! What is read over HTTP: whether the registry and ingest answer, and the last audit.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kafka::Registry;
use service::MetricsText;
use tokio::time::sleep;

use crate::audience::Audience;
use crate::board::{Board, LastAudit};
use crate::health::Server;

const INTERVAL: Duration = Duration::from_secs(2);

const TIMEOUT: Duration = Duration::from_secs(2);

/// The most that is read of a response. The metrics of an audit are some kilobytes.
const BODY_MAX: usize = 1 << 20;

/// The registry, and the addresses as far as they were given.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) registry: Registry,
    pub(crate) ingest: Option<String>,
    pub(crate) audit: Option<String>,
}

/// An HTTP client for requests that are answered at once.
///
/// # Errors
/// It cannot be made.
pub(crate) fn client(timeout: Duration) -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("making an HTTP client")
}

/// Asks again and again while somebody looks.
///
/// # Errors
/// No HTTP client can be made.
pub(crate) fn start(addresses: Addresses, board: Arc<Board>, audience: &Audience) -> anyhow::Result<()> {
    let client = client(TIMEOUT)?;
    let mut watched = audience.watched();
    tokio::spawn(async move {
        while watched.wait_for(|watched| *watched).await.is_ok() {
            let ingest = addresses.ingest.as_ref().map(|url| format!("{url}/health/ready"));
            let (registry, ingest, audit) = tokio::join!(
                addresses.registry.check(),
                ask(&client, ingest.as_deref()),
                ask(&client, addresses.audit.as_deref())
            );
            note(&board, Server::Registry, registry.map_err(anyhow::Error::new));
            if let Some(answer) = ingest {
                note(&board, Server::Ingest, answer);
            }
            if let Some(answer) = audit {
                let audit = answer.and_then(|text| parse(&text));
                *board.audit() = note(&board, Server::Audit, audit);
            }
            sleep(INTERVAL).await;
        }
    });
    Ok(())
}

async fn ask(client: &reqwest::Client, url: Option<&str>) -> Option<anyhow::Result<String>> {
    match url {
        Some(url) => Some(get(client, url).await),
        None => None,
    }
}

fn note<T>(board: &Board, server: Server, answer: anyhow::Result<T>) -> Option<T> {
    match answer {
        Ok(answer) => {
            board.health.up(server);
            Some(answer)
        }
        Err(error) => {
            board.health.away(server, error);
            None
        }
    }
}

async fn get(client: &reqwest::Client, url: &str) -> anyhow::Result<String> {
    let response = client.get(url).send().await?;
    let status = response.status();
    let body = body(response).await?;
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(status.is_success(), "{url} answers {status}: {}", text.lines().next().unwrap_or_default());
    Ok(text)
}

/// The body of a response, up to a limit.
///
/// # Errors
/// It is longer, or does not come.
pub(crate) async fn body(mut response: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(body.len() + chunk.len() <= BODY_MAX, "the answer has more than {BODY_MAX} bytes");
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The metrics of `cartctl audit --watch` (docs/metrics.md).
fn parse(text: &str) -> anyhow::Result<LastAudit> {
    let samples = MetricsText(text);
    let wanted = |series: &str| samples.whole(series).with_context(|| format!("the metrics have no {series}"));
    let audits = wanted("audit_runs_total{outcome=\"completed\"}").context("it is not `cartctl audit --watch`")?;
    let completed_at_ms = wanted("audit_last_completed_timestamp_seconds")? * 1_000;
    Ok(LastAudit {
        audits,
        failures: wanted("audit_runs_total{outcome=\"failed\"}")?,
        findings: samples.sum("audit_findings"),
        // Not there before the first audit has ended.
        commands: samples.whole("audit_commands").unwrap_or_default(),
        completed_at_ms: (audits > 0).then_some(completed_at_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_metrics_of_an_audit() {
        let text = "# HELP audit_runs_total x\naudit_runs_total{outcome=\"completed\"} 3\n\
            audit_runs_total{outcome=\"failed\"} 1\naudit_findings{kind=\"a\"} 2\naudit_findings{kind=\"b\"} 1\n\
            audit_commands 1000\naudit_last_completed_timestamp_seconds 1790000000.25\n";
        let audit = parse(text).expect("an audit");
        assert_eq!((audit.audits, audit.failures, audit.findings, audit.commands), (3, 1, 3, 1_000));
        assert_eq!(audit.completed_at_ms, Some(1_790_000_000_000));
        let first = text.replace("completed\"} 3", "completed\"} 0").replace("audit_commands 1000\n", "");
        let first = parse(&first).expect("an audit");
        assert_eq!((first.commands, first.completed_at_ms), (0, None), "the first has not ended");
        assert!(parse("up 1\n").is_err());
    }
}
