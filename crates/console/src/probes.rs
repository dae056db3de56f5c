//! What is read over HTTP: whether the registry and ingest answer, and the last audit.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use crate::audience::Audience;
use crate::board::{Board, LastAudit};
use crate::clock::now_ms;
use crate::health::Server;

const INTERVAL: Duration = Duration::from_secs(2);

const TIMEOUT: Duration = Duration::from_secs(2);

/// The most that is read of a response. The metrics of an audit are some kilobytes.
const BODY_MAX: usize = 1 << 20;

/// The addresses, as far as they were given.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) registry: String,
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
            let registry = format!("{}/subjects", addresses.registry.trim_end_matches('/'));
            let ingest = addresses.ingest.as_ref().map(|url| format!("{url}/health/ready"));
            let (registry, ingest, audit) = tokio::join!(
                get(&client, &registry),
                ask(&client, ingest.as_deref()),
                ask(&client, addresses.audit.as_deref())
            );
            note(&board, Server::Registry, registry);
            if let Some(answer) = ingest {
                note(&board, Server::Ingest, answer);
            }
            if let Some(answer) = audit {
                let audit = answer.and_then(|text| parse(&text));
                let before = board.audit().take();
                let seen = note(&board, Server::Audit, audit);
                *board.audit() = seen.map(|now| with_time(now, before.as_ref()));
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

fn with_time(now: LastAudit, before: Option<&LastAudit>) -> LastAudit {
    let seen_at_ms = match before {
        Some(before) if before.audits == now.audits => before.seen_at_ms,
        Some(_) => Some(now_ms()),
        None => None,
    };
    LastAudit { seen_at_ms, ..now }
}

/// The metrics of `cartctl audit --watch`, in Prometheus' text format; a prefix of their names does not matter.
fn parse(text: &str) -> anyhow::Result<LastAudit> {
    let value = |name: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut values = lines.filter_map(|line| {
            let (found, value) = line.rsplit_once(' ')?;
            (found == name || found.strip_suffix(name)?.ends_with('_'))
                .then(|| value.split('.').next()?.parse().ok())?
        });
        values.next()
    };
    let wanted =
        |name: &str| value(name).with_context(|| format!("the metrics have no {name}: is it `cartctl audit --watch`?"));
    Ok(LastAudit {
        audits: wanted("audit_looks_total")?,
        failures: wanted("audit_failures_total")?,
        findings: wanted("audit_findings_all")?,
        // Not there before the first audit has ended.
        commands: value("audit_commands").unwrap_or_default(),
        seen_at_ms: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_metrics_of_an_audit() {
        let text = "# HELP audit_looks_total x\naudit_looks_total 3\naudit_failures_total 1\naudit_findings{kind=\"a\"} 2\n\
            audit_findings_all 2\naudit_commands 1000\n";
        let audit = parse(text).expect("an audit");
        assert_eq!((audit.audits, audit.failures, audit.findings, audit.commands), (3, 1, 2, 1_000));
        let prefixed = text.replace("\naudit_", "\ncart_audit_");
        assert_eq!(parse(&prefixed).expect("an audit").findings, 2);
        assert!(parse("up 1\n").is_err());
    }

    #[test]
    fn an_audit_has_a_time_once_it_was_seen_to_end() {
        let audits = |audits| LastAudit { audits, ..LastAudit::default() };
        let first = with_time(audits(3), None);
        assert_eq!(first.seen_at_ms, None);
        let same = with_time(audits(3), Some(&first));
        assert_eq!(same.seen_at_ms, None);
        assert!(with_time(audits(4), Some(&same)).seen_at_ms.is_some());
    }
}
