//! Authorization, with real tokens of each algorithm against the running service. A request without the right is rejected
//! before anything is appended, and its answer does not depend on what exists. The keys beside this file are only for this
//! test.

mod stream;
pub(crate) mod url;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::CartCommand;
use cart::contract::Contract as _;
use e2e::harness::{Installation, Process, Service, wait_until};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use kafka::Admin;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(180);
const AUDIENCE: &str = "carts.example";
const ISSUER: &str = "https://issuer.example";

/// A key with its id.
pub(crate) struct Signer {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    pub(crate) fn read(id: &'static str, algorithm: Algorithm) -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/auth").join(format!("{id}.pem"));
        let pem = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let key = if algorithm == Algorithm::RS256 {
            EncodingKey::from_rsa_pem(&pem)
        } else if algorithm == Algorithm::ES256 {
            EncodingKey::from_ec_pem(&pem)
        } else {
            EncodingKey::from_ed_pem(&pem)
        };
        Ok(Self { id, algorithm, key: key? })
    }

    fn public(&self) -> anyhow::Result<Jwk> {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm)?;
        jwk.common.key_id = Some(self.id.to_owned());
        Ok(jwk)
    }

    pub(crate) fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) };
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}

pub(crate) fn claims(sub: &str, scope: &str) -> Value {
    let expires = chrono::Utc::now().timestamp() + 600;
    json!({"sub": sub, "scope": scope, "aud": AUDIENCE, "iss": ISSUER, "exp": expires})
}

fn changed(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

pub(crate) fn write_keys(path: &Path, signers: &[&Signer]) -> anyhow::Result<()> {
    let keys = signers.iter().map(|signer| signer.public()).collect::<Result<_, _>>()?;
    // In one step, so that the service never reads half a file.
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_string(&JwkSet { keys })?)?;
    Ok(fs::rename(new, path)?)
}

/// A client with some token.
struct Api {
    client: Client,
    url: String,
}

impl Api {
    async fn ask(&self, method: Method, path: &str, token: Option<&str>) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url));
        if method == Method::POST {
            request = request.json(&json!({
                "productId": Uuid::new_v4(), "vendorId": Uuid::new_v4(), "name": "red mug", "price": "3.50", "quantity": 1
            }));
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        let status = response.status();
        let challenged = response.headers().contains_key("www-authenticate");
        ensure!(
            challenged == matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
            "{method} {path}: {status}, challenge: {challenged}"
        );
        let mut body: Value = response.json().await.unwrap_or_default();
        if let Some(object) = body.as_object_mut() {
            object.remove("requestId");
        }
        Ok((status, body))
    }

    async fn expect(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        status: StatusCode,
    ) -> anyhow::Result<Value> {
        let (found, body) = self.ask(method.clone(), path, token).await?;
        ensure!(found == status, "{method} {path} is answered with {found}, not {status}: {body}");
        Ok(body)
    }
}

async fn commands(installation: &Installation) -> anyhow::Result<i64> {
    let kafka = installation.kafka();
    let ends = tokio::task::block_in_place(|| Admin::new(kafka)?.watermarks(&kafka.prefixed(CartCommand::TOPIC)))?;
    Ok(ends.iter().map(|(start, end)| end - start).sum())
}

pub(crate) async fn each_token_opens_only_its_own_resources() -> anyhow::Result<()> {
    let installation = Installation::new("auth")?;
    installation.setup().await?;
    let signers = [
        Signer::read("rsa", Algorithm::RS256)?,
        Signer::read("ec", Algorithm::ES256)?,
        Signer::read("ed", Algorithm::EdDSA)?,
    ];
    let [rsa, ec, ed] = &signers;
    let jwks = installation.folder().join("jwks.json");
    write_keys(&jwks, &[rsa, ec, ed])?;
    let jwks_text = jwks.display().to_string();
    let verify = ["--auth", "jwt", "--jwks", &jwks_text, "--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER];
    let args = [&verify[..], &["--reply-timeout-ms", "30000"]].concat();
    let mut processes: Vec<Process> =
        installation.start_all(&[(Service::Ingest, "0", &args), (Service::CartProcessor, "0", &[])]).await?;
    let address = processes[0].address().context("ingest has an address")?;
    let api = Api { client: Client::new(), url: format!("http://{address}") };
    let (own, other) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let (own_path, other_path) = (format!("/cart/{own}"), format!("/cart/{other}"));

    // One's own cart, with each algorithm; with the scope, any.
    for signer in &signers {
        let token = signer.sign(&claims(&own, ""))?;
        api.expect(Method::POST, &own_path, Some(&token), StatusCode::OK).await?;
        api.expect(Method::GET, &own_path, Some(&token), StatusCode::OK).await?;
    }
    let operator = ed.sign(&claims("operator", "carts"))?;
    api.expect(Method::GET, &own_path, Some(&operator), StatusCode::OK).await?;
    let taken = commands(&installation).await?;
    ensure!(taken == 3, "{taken} commands are in the log");

    // The command-line client too.
    let cart = |token: String| {
        let url = api.url.clone();
        ["--url", &url, "--member", &own, "--token", &token, "list", "--json"].map(str::to_owned)
    };
    let own_token = ed.sign(&claims(&own, ""))?;
    let shown = installation.run("cart", "cart", cart(own_token), DEADLINE).await?;
    ensure!(shown.contains(&own), "{shown}");
    let stranger = cart(ed.sign(&claims(&other, ""))?);
    ensure!(installation.run("cart-of-another", "cart", stranger, DEADLINE).await.is_err(), "a stranger saw the cart");

    // Another member's: the same answer whether it exists or not, for every route.
    let stranger = rsa.sign(&claims(&other, "vendors"))?;
    let mut answers = Vec::new();
    for id in [own.clone(), Uuid::new_v4().to_string()] {
        for path in [
            format!("/cart/{id}"),
            format!("/cart/{id}/events"),
            format!("/cart/{id}/checkout"),
            format!("/cart/{id}/commands"),
            format!("/cart/{id}/commands/{id}?since=0"),
            format!("/cart/{id}/productId/{id}"),
        ] {
            for method in [Method::GET, Method::POST] {
                answers.push(api.expect(method, &path, Some(&stranger), StatusCode::FORBIDDEN).await?);
            }
        }
    }
    ensure!(answers.iter().all(|answer| answer == &answers[0]), "the answers differ: {answers:?}");
    let vendor = format!("/vendors/{other}/billing?year=2026");
    api.expect(Method::GET, &vendor, Some(&stranger), StatusCode::OK).await?;
    api.expect(Method::GET, &vendor, Some(&rsa.sign(&claims(&own, "carts"))?), StatusCode::FORBIDDEN).await?;

    stream::ends_with_its_token(&api, ed, &own).await?;

    // No token, or an invalid one.
    let now = chrono::Utc::now().timestamp();
    let good = claims(&other, "carts");
    let public = serde_json::to_vec(&rsa.public()?)?;
    let confused = Signer { id: "rsa", algorithm: Algorithm::HS256, key: EncodingKey::from_secret(&public) };
    let unsigned = rsa.sign(&good)?.rsplit_once('.').map(|(rest, _)| format!("{rest}.")).context("a token has dots")?;
    let rotated = Signer::read("rotated", Algorithm::EdDSA)?;
    let bad = [
        String::from("x"),
        unsigned,
        confused.sign(&good)?,
        rotated.sign(&good)?,
        Signer { id: "ed", ..Signer::read("rotated", Algorithm::EdDSA)? }.sign(&good)?,
        ed.sign(&changed(good.clone(), "aud", json!("others.example")))?,
        ed.sign(&changed(good.clone(), "iss", json!("https://others.example")))?,
        ed.sign(&changed(good.clone(), "exp", json!(now - 60)))?,
        ed.sign(&changed(good.clone(), "nbf", json!(now + 600)))?,
        ed.sign(&changed(good.clone(), "exp", Value::Null))?,
    ];
    api.expect(Method::POST, &other_path, None, StatusCode::UNAUTHORIZED).await?;
    for token in &bad {
        api.expect(Method::POST, &other_path, Some(token), StatusCode::UNAUTHORIZED).await?;
    }
    ensure!(commands(&installation).await? == taken, "a command was taken from somebody who may not");

    // Health and documentation are public; a path without a rule is denied, and metrics are at another address.
    api.expect(Method::GET, "/metrics", None, StatusCode::NOT_FOUND).await?;
    for path in ["/health/live", "/health/ready", "/openapi.json", "/docs"] {
        api.expect(Method::GET, path, None, StatusCode::OK).await?;
    }
    // A huge body is not read.
    for token in [None, Some(&stranger)] {
        let request = api.client.post(format!("{}{own_path}", api.url)).body(vec![b'{'; 8 << 20]);
        let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
        let status = if token.is_some() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        // A client that sends on may miss the answer.
        if let Ok(response) = request.send().await {
            ensure!(response.status() == status, "{}", response.status());
        }
    }
    api.expect(Method::GET, "/carts", Some(&operator), StatusCode::NOT_FOUND).await?;

    // A key is added, and an old one removed.
    write_keys(&jwks, &[&rotated])?;
    let new = rotated.sign(&claims("operator", "carts"))?;
    wait_until("the new key to be known", DEADLINE, async || match api.ask(Method::GET, &own_path, Some(&new)).await {
        Ok((StatusCode::OK, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    api.expect(Method::GET, &own_path, Some(&operator), StatusCode::UNAUTHORIZED).await?;
    // An unreadable file changes nothing.
    fs::write(&jwks, "{")?;
    api.expect(Method::GET, &own_path, Some(&operator), StatusCode::UNAUTHORIZED).await?;
    api.expect(Method::GET, &own_path, Some(&new), StatusCode::OK).await?;
    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }
    installation.remove().await
}

pub(crate) async fn refuses_to_start_without_auth_unless_allowed() -> anyhow::Result<()> {
    let installation = Installation::new("auth")?;
    for (name, address) in [("open", "0.0.0.0:0"), ("open-6", "[::]:0")] {
        let mut refused = installation.spawn(name, "ingest", ["--listen", address])?;
        let status = refused.ended(DEADLINE).await?;
        ensure!(!status.success() && refused.log().contains("--allow-anonymous"), "{status}: {}", refused.log());
    }
    // With --allow-anonymous it starts, and waits for topics that do not exist here.
    let mut anonymous = installation.spawn("anonymous", "ingest", ["--listen", "0.0.0.0:0", "--allow-anonymous"])?;
    wait_until("ingest to go on", DEADLINE, async || {
        let log = anonymous.log();
        if log.contains("waiting for what the start needs what=\"topic ") { Ok(()) } else { Err(log) }
    })
    .await?;
    anonymous.kill9()?;
    let mut refused = installation.spawn("keyless", "ingest", ["--auth", "jwt"])?;
    let status = refused.ended(DEADLINE).await?;
    ensure!(!status.success() && refused.log().contains("--jwks"), "{status}: {}", refused.log());
    Ok(fs::remove_dir_all(installation.folder())?)
}
