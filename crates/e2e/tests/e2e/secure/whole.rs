//! The whole system on secured servers, each service with its own user: nothing is missing, nothing is lost, no secret shows.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, group};
use cart::{CartCommand, ParkedRow, Position, month_row_key};
use e2e::harness::{Process, Service, TraceCollector, wait_until};
use kafka::{Producer, Record, partition_of};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::secrets::Places;
use super::{DEADLINE, Secured};

/// Whether the page's user may ask for another try of a row in PostgreSQL and in Cassandra. Nothing has this projection.
async fn may_request_tries(secured: &Secured) -> anyhow::Result<[bool; 2]> {
    let (user, projection) = ("console", "nothing");
    let mut url: reqwest::Url = secured.installation.database_url().parse().context("reading DATABASE_URL")?;
    let is_set = url.set_username(user).is_ok() && url.set_password(Some(&secured.password(user)?)).is_ok();
    ensure!(is_set, "DATABASE_URL has no place for a user");
    let database = PgPool::connect(url.as_str()).await?;
    let row = ParkedRow {
        partition: 0,
        vendor_id: Uuid::nil().into(),
        row_key: month_row_key(2026, 11),
        first_position: Position::NONE,
        next_position: Position::NONE,
        reason: String::new(),
        since: chrono::DateTime::UNIX_EPOCH,
        retry_by: None,
        revision: 0,
    };
    let key = (row.vendor_id, row.row_key.as_str());
    let in_postgres = postgres::parked_rows::request(&database, projection, projection, key, user).await;
    // A marker itself is the projector's.
    let parked = sqlx::query("UPDATE parked_row SET reason = ''").execute(&database).await;
    ensure!(parked.is_err(), "the page may change a marker");
    database.close().await;
    let mut cassandra = secured.installation.cassandra().clone();
    cassandra.security.cassandra_user = Some(user.to_owned());
    cassandra.security.cassandra_password = None;
    cassandra.security.cassandra_password_file = Some(secured.passwords.join(user));
    let session = cassandra::connect(&cassandra).await?;
    let in_cassandra = cassandra::parked_rows::request(&session, projection, &row, user).await;
    Ok([in_postgres.is_ok(), in_cassandra.is_ok()])
}

/// What operators do at the page needs the grants of `--allow-operations`.
async fn the_page_writes_only_with_grants_of_its_own(secured: &Secured, page: SocketAddr) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let pause = async || {
        let action = json!({"action": "pause", "group": group::POPULAR_ITEMS, "reason": "a test"});
        let answer = client.post(format!("http://{page}/api/operations")).json(&action).send().await?;
        anyhow::Ok((answer.status().as_u16(), answer.text().await?))
    };
    let (status, text) = pause().await?;
    ensure!(status == 503 && text.contains("cart-control"), "without the grant: {status} {text}");
    ensure!(may_request_tries(secured).await? == [false, false], "without the grants");
    for server in ["kafka", "cassandra", "postgres"] {
        let grants = ["grants", "--for", server, "--of", "console", "--allow-operations", "--apply"];
        secured.succeed("admin", "cartctl", &grants).await?;
    }
    // Cassandra's nodes go on with the permissions that they have read for a moment.
    wait_until("the page to request tries of rows", DEADLINE, async || match may_request_tries(secured).await {
        Ok([true, true]) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    wait_until("the page to pause a group", DEADLINE, async || {
        let (status, text) = pause().await.map_err(|error| format!("{error:#}"))?;
        if status == 200 { Ok(()) } else { Err(format!("{status} {text}")) }
    })
    .await?;
    secured.succeed("operator", "cartctl", &["resume", group::POPULAR_ITEMS, "--wait", "60s"]).await.map(drop)
}

pub(crate) async fn the_whole_system_works_with_the_least_grants() -> anyhow::Result<()> {
    let secured = Secured::set_up("whole").await?;
    // Once more: what exists is no reason for another grant.
    for binary in ["cart-processor", "ingest", "projectors"] {
        secured.succeed("setup", binary, &["setup"]).await?;
    }
    let collector = TraceCollector::start().await?;
    let traced = [collector.environment(), vec![("OTEL_TRACES_SAMPLER", "always_on".to_owned())]].concat();
    let mut processes = Vec::new();
    let services: Vec<Service> =
        [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS).collect();
    for service in &services {
        let args: &[&str] = if *service == Service::Ingest { &["--allow-client-time"] } else { &[] };
        processes.push(secured.start(*service, args, &traced)?);
    }
    let ingest = processes[0].address().context("ingest has an address")?;
    processes.push(secured.start_console(Some(ingest))?);
    for process in &mut processes {
        process.ready(DEADLINE).await?;
    }
    let sent = secured.installation.folder().join("sent.csv.gz").display().to_string();
    let url = format!("http://{ingest}");
    let shop =
        ["--commands", "1000", "--members", "100", "--products", "40", "--vendors", "5", "--refused-share", "0.05"];
    let args = [&["--url", &url, "--concurrency", "16", "--sent", &sent, "--expect-intended"], &shop[..]].concat();
    secured.installation.run("replay", "replay", args, DEADLINE).await?;

    let report = secured.succeed("audit", "cartctl", &["reconcile", "--sent", &sent]).await?;
    ensure!(report.contains("0 differences"), "{report}");
    secured.succeed("audit", "cartctl", &["audit"]).await?;
    // It writes nothing: its user may write neither in Kafka nor in Cassandra.
    let rehearsed = secured.succeed("audit", "cartctl", &["rehearse"]).await?;
    ensure!(rehearsed.contains("no differences") && !rehearsed.contains(": 0 records, "), "{rehearsed}");
    for topic in ["cart-commands", "cart-events", "cart-replies", "item-purchased"] {
        let records =
            secured.succeed("audit", "cartctl", &["tail", topic, "--from", "beginning", "--until-end"]).await?;
        ensure!(records.lines().count() > 10, "tail {topic}: {records}");
    }
    let page = processes.last().and_then(Process::address).context("the console has an address")?;
    let frame = reqwest::get(format!("http://{page}/api/now")).await?.error_for_status()?.text().await?;
    let traces = traces_of_all_services(&collector).await?;
    shows_no_secret(&secured, &processes, vec![("the live page", frame), ("a trace", traces)]).await?;

    no_other_user_writes_commands(&secured).await?;
    the_page_writes_only_with_grants_of_its_own(&secured, page).await?;
    processes.extend(further_generations(&secured, &sent).await?);
    let (is_success, output) = secured.run("audit", "cartctl", &["rebuild", "popular-items", "--in-place"]).await?;
    ensure!(!is_success, "a reader may not rebuild a table: {output}");
    operators_retry_what_is_parked(&secured, &url, (&services, &mut processes)).await?;

    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }
    let kept = secured.installation.folder().clone();
    secured.succeed("operator", "cartctl", &["uninstall", "--yes"]).await?;
    secured.succeed("admin", "cartctl", &["grants", "--for", "kafka", "--remove"]).await?;
    std::fs::remove_dir_all(kept).context("removing the test's logs")
}

/// Builds a second generation in each store, and lets readers see it.
async fn further_generations(secured: &Secured, sent: &str) -> anyhow::Result<Vec<Process>> {
    let mut keepers = Vec::new();
    for model in [group::POPULAR_ITEMS, group::VENDOR_BILLING_JDBC] {
        secured.succeed("operator", "cartctl", &["rebuild", model]).await?;
        // Needed in Cassandra only: in PostgreSQL the table has the grants of the first one's.
        if model == group::POPULAR_ITEMS {
            let grants = ["grants", "--for", "cassandra", "--of", model, "--generation", "2", "--apply"];
            secured.succeed("admin", "cartctl", &grants).await?;
        }
        let mut keeper = secured.start(Service::Projector(model), &["--generation", "2"], &[])?;
        keeper.ready(DEADLINE).await?;
        keepers.push(keeper);
        let switched =
            secured.succeed("operator", "cartctl", &["switch", model, "--to", "2", "--accept-diff", "none"]).await?;
        ensure!(switched.contains('2'), "{switched}");
    }
    secured.succeed("audit", "cartctl", &["audit"]).await?;
    let report = secured.succeed("audit", "cartctl", &["reconcile", "--sent", sent]).await?;
    ensure!(report.contains("0 differences"), "{report}");
    // A store that takes longer than two seconds is not shown.
    let status = wait_until("status to know all that it shows", DEADLINE, async || {
        let status = secured.succeed("audit", "cartctl", &["status"]).await.map_err(|error| format!("{error:#}"))?;
        let is_known = !status.contains("not known") && status.contains("no cart and no row is parked");
        if is_known { Ok(status) } else { Err(status) }
    })
    .await?;
    for group in ["popular-items-g2", "vendor-billing-jdbc-g2"] {
        ensure!(status.contains(group), "{group} is not shown: {status}");
    }
    Ok(keepers)
}

/// A cart-processor that parks a cart, and projectors that park rows in both stores.
const PARKING: [Service; 3] =
    [Service::CartProcessor, Service::Projector(group::VENDOR_BILLING), Service::Projector(group::VENDOR_BILLING_JDBC)];

/// Replaces the processes that park.
async fn restart(
    secured: &Secured,
    (services, processes): (&[Service], &mut [Process]),
    fail_points: &str,
) -> anyhow::Result<()> {
    let running = services.iter().zip(processes.iter_mut());
    for (service, process) in running.filter(|(service, _)| PARKING.contains(service)) {
        process.terminate(DEADLINE).await?;
        *process = secured.start(*service, &[], &[("FAILPOINTS", fail_points.to_owned())])?;
        process.ready(DEADLINE).await?;
    }
    Ok(())
}

/// Sends an item of a vendor to a cart, and a checkout if it is to be bought. Whatever becomes of them is seen elsewhere.
async fn send(url: &str, cart: Uuid, vendor: Uuid, is_bought: bool) -> anyhow::Result<()> {
    let (client, url) = (reqwest::Client::new(), format!("{url}/cart/{cart}"));
    let product = Uuid::new_v4();
    let item = json!({"productId": product, "vendorId": vendor, "name": "mug", "price": "2", "quantity": 1});
    client.post(&url).json(&item).send().await?.error_for_status()?;
    if is_bought {
        client.post(format!("{url}/checkout")).json(&json!({})).send().await?.error_for_status()?;
    }
    Ok(())
}

/// A cart and rows of a vendor are parked. A reader sees them, and may neither request another try nor pause a group. An
/// operator may.
async fn operators_retry_what_is_parked(
    secured: &Secured,
    url: &str,
    (services, processes): (&[Service], &mut [Process]),
) -> anyhow::Result<()> {
    let partitions = i32::from(secured.installation.partitions());
    // A cart is parked only if another one of its partition is decided.
    let of_one = |cart: &Uuid| partition_of(cart.to_string().as_bytes(), partitions) == 1;
    let carts: Vec<Uuid> = std::iter::repeat_with(Uuid::new_v4).filter(of_one).take(2).collect();
    let [cart, other] = carts[..] else { anyhow::bail!("two carts") };
    let vendor = Uuid::new_v4();
    let fail_points = format!("decide-panics=return({cart});row-overflows=return({vendor})");
    restart(secured, (services, &mut *processes), &fail_points).await?;
    send(url, other, vendor, true).await?;
    send(url, cart, Uuid::new_v4(), false).await?;
    send(url, other, Uuid::new_v4(), false).await?;
    secured.installation.becomes_parked(cart, DEADLINE).await?;
    for group in [group::VENDOR_BILLING, group::VENDOR_BILLING_JDBC] {
        secured.installation.rows_become_parked(group, 1, DEADLINE).await?;
    }

    for user in ["audit", "operator"] {
        let listed = secured.succeed(user, "cartctl", &["parked"]).await?;
        ensure!(listed.contains("1 cart is parked"), "{user}: {listed}");
        let listed = secured.succeed(user, "cartctl", &["parked", "rows"]).await?;
        ensure!(listed.contains("2 rows are parked"), "{user}: {listed}");
    }
    let retry_rows = |group| ["parked", "rows", "retry", "--projector", group, "--wait-s", "0"];
    let refused: [(&[&str], &str); 4] = [
        (&["pause", group::POPULAR_ITEMS, "--reason", "a test"], "uthorization"),
        (&["parked", "retry", "--all", "--wait-s", "0"], "uthorization"),
        (&retry_rows(group::VENDOR_BILLING), "MODIFY"),
        (&retry_rows(group::VENDOR_BILLING_JDBC), "permission denied"),
    ];
    for (args, words) in refused {
        let (is_success, output) = secured.run("audit", "cartctl", args).await?;
        ensure!(!is_success && output.contains(words), "a reader, {args:?}: {output}");
    }

    restart(secured, (services, &mut *processes), "").await?;
    let tried = secured.succeed("operator", "cartctl", &["parked", "retry", "--all", "--wait-s", "60"]).await?;
    ensure!(tried.contains("1 live, 0 still parked"), "{tried}");
    let requested =
        secured.succeed("operator", "cartctl", &["parked", "rows", "retry", "--all", "--wait-s", "0"]).await?;
    ensure!(requested.contains("requested another try of 2 rows"), "{requested}");
    wait_until("the rows to be live", DEADLINE, async || match secured.installation.parked_rows().await {
        Ok(parked) if parked.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// The users of the services.
const USERS: [&str; 10] = [
    "setup",
    "ingest",
    "cart-processor",
    "item-purchased-events",
    "popular-items",
    "vendor-billing",
    "vendor-billing-jdbc",
    "console",
    "audit",
    "operator",
];

/// A transaction that another producer left open would hold back all readers.
async fn no_other_user_writes_commands(secured: &Secured) -> anyhow::Result<()> {
    let commands = secured.installation.kafka().prefixed(CartCommand::TOPIC);
    for user in USERS.into_iter().filter(|user| *user != "ingest") {
        let mut kafka = secured.installation.kafka().clone();
        kafka.security.kafka_user = Some(user.to_owned());
        kafka.security.kafka_password_file = Some(secured.passwords.join(user));
        let producer = Producer::durable_within(&kafka, &commands, Duration::from_secs(20))?;
        let record = Record { partition: None, key: None, value: Some(b"not mine".to_vec()), headers: None };
        let error = producer.send(&record)?.await.err().with_context(|| format!("{user} may write {commands}"))?;
        // Of a user that may write no topic at all the producer has ended.
        let error = producer.check().err().unwrap_or(error);
        let error = format!("{:#}", anyhow::Error::from(error));
        ensure!(error.contains("uthorization") && error.contains(&commands), "{user}: {error}");
    }
    Ok(())
}

/// What the collector received, once each service has sent spans.
async fn traces_of_all_services(collector: &TraceCollector) -> anyhow::Result<String> {
    let services = [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS);
    let names: Vec<_> = services.map(Service::name).collect();
    wait_until("spans of each service", DEADLINE, async || {
        let spans = collector.spans();
        let without = names.iter().find(|name| spans.iter().all(|span| span.service != **name));
        without.map_or(Ok(()), |name| Err(format!("none of {name}")))
    })
    .await?;
    Ok(collector.requests().concat())
}

/// Neither a log, nor a command line or environment, nor a metric, nor one of `more` (name and text) has a password.
async fn shows_no_secret(secured: &Secured, processes: &[Process], more: Vec<(&str, String)>) -> anyhow::Result<()> {
    let mut places = Places::read(processes, secured.installation.folder()).await?;
    for (name, text) in more {
        places.add(name, text);
    }
    for user in USERS.into_iter().chain(["admin"]) {
        places.hide(&format!("the password of {user}"), &secured.password(user)?)?;
    }
    Ok(())
}
