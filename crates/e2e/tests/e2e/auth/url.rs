//! Keys from a URL: the issuer is unavailable, becomes available, changes its keys, and is unavailable again.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, Service, wait_until};
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::JwkSet;
use reqwest::{Client, Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{AUDIENCE, Api, DEADLINE, ISSUER, Signer, claims};

/// The issuer's current keys, and the number of requests to it.
#[derive(Debug, Default)]
struct Issuer {
    /// Without keys the answer is 503.
    keys: Option<String>,
    asked: u64,
}

type Shared = Arc<Mutex<Issuer>>;

fn with<T>(issuer: &Shared, f: impl FnOnce(&mut Issuer) -> T) -> T {
    f(&mut issuer.lock().expect("no thread panics"))
}

fn set(signers: &[&Signer]) -> anyhow::Result<Option<String>> {
    let keys = signers.iter().map(|signer| signer.public()).collect::<Result<_, _>>()?;
    Ok(Some(serde_json::to_string(&JwkSet { keys })?))
}

async fn serve(issuer: Shared) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The request is in one segment, so it arrives at once.
            let read = stream.read(&mut [0; 4_096]).await;
            let keys = with(&issuer, |issuer| {
                issuer.asked += 1;
                issuer.keys.clone()
            });
            let (status, body) = keys.map_or(("503 Away", String::new()), |keys| ("200 OK", keys));
            let len = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}");
            drop((read, stream.write_all(answer.as_bytes()).await));
        }
    });
    Ok(address)
}

pub(crate) async fn keys_are_loaded_and_refreshed_from_the_issuer() -> anyhow::Result<()> {
    let installation = Installation::new("jwks")?;
    installation.setup().await?;
    let issuer = Shared::default();
    let url = format!("http://{}/jwks", serve(issuer.clone()).await?);
    let args = ["--auth", "jwt", "--jwks", &url, "--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER];
    let mut ingest = installation.start(Service::Ingest, "0", &args)?;
    wait_until("ingest to say what it waits for", DEADLINE, async || {
        let log = ingest.log();
        if log.contains("waiting for what the start needs what=\"the issuer's keys") && log.contains("503") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await?;
    let (old, new) = (Signer::read("ed", Algorithm::EdDSA)?, Signer::read("rotated", Algorithm::EdDSA)?);
    let keys = set(&[&old])?;
    with(&issuer, |issuer| issuer.keys = keys);
    ingest.ready(DEADLINE).await?;
    let api = Api { client: Client::new(), url: format!("http://{}", ingest.address().context("an address")?) };
    let id = Uuid::new_v4().to_string();
    let path = format!("/cart/{id}");
    let old_token = old.sign(&claims(&id, ""))?;
    api.expect(Method::GET, &path, Some(&old_token), StatusCode::OK).await?;

    // A token with an unknown key causes a refresh; the periodic one would come in a minute.
    let keys = set(&[&old, &new])?;
    with(&issuer, |issuer| issuer.keys = keys);
    let new_token = new.sign(&claims(&id, ""))?;
    wait_until("the new key to be known", DEADLINE, async || {
        match api.ask(Method::GET, &path, Some(&new_token)).await {
            Ok((StatusCode::OK, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;

    // Tokens with unknown keys cause at most one request in five seconds, and the keys stay valid when the issuer is
    // unavailable.
    with(&issuer, |issuer| issuer.keys = None);
    let asked = with(&issuer, |issuer| issuer.asked);
    let mut statuses = HashSet::new();
    let began_at = std::time::Instant::now();
    wait_until("the issuer's absence to be noticed", DEADLINE, async || {
        for _ in 0..20 {
            let token =
                Signer { id: "unknown", ..Signer::read("ed", Algorithm::EdDSA).expect("a key") }.sign(&claims(&id, ""));
            let answer = api.ask(Method::GET, &path, Some(&token.expect("a token"))).await;
            statuses.insert(answer.map(|(status, _)| status).map_err(|error| error.to_string()));
        }
        if ingest.log().contains("the previous keys stay in use") { Ok(()) } else { Err("not yet") }
    })
    .await?;
    ensure!(statuses == HashSet::from([Ok(StatusCode::UNAUTHORIZED)]), "{statuses:?}");
    let asked = with(&issuer, |issuer| issuer.asked) - asked;
    let intervals = began_at.elapsed().as_secs() / 5;
    ensure!(asked <= intervals + 2, "the issuer was asked {asked} times in {intervals} intervals");
    for token in [&old_token, &new_token] {
        api.expect(Method::GET, &path, Some(token), StatusCode::OK).await?;
    }
    let metrics = api.client.get(ingest.metrics_url()?).send().await?.text().await?;
    ensure!(metrics.contains("ingest_jwks_failures_total"), "{metrics}");
    ingest.terminate(DEADLINE).await?;
    installation.remove().await
}
