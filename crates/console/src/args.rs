//! The command line.

use std::net::SocketAddr;

use bearer::BearerArgs;
use cassandra::CassandraArgs;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;
use service::LogArgs;

/// What is replaced in `--trace-url`.
pub(crate) const TRACE_ID: &str = "{trace_id}";

/// Shows on a web page what happens in an installation now, and compares the read tables with a count of its own
///
/// It reads topics and tables. It joins no consumer group, and reads only while somebody looks at the page. It changes nothing, unless
/// --allow-operations lets operators act. Everybody who reaches the address sees products, prices and cart ids; authentication is for
/// these actions only.
#[derive(Debug, clap::Parser)]
#[command(name = "cart-console", version, max_term_width = 110)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cart-console --listen 127.0.0.1:9018 --ingest-url \"$CART_URL\"")]
pub struct Args {
    /// Address of the page, health and metrics; with port 0 the system chooses a free port, which is logged
    #[arg(long, env = "CONSOLE_LISTEN", help_heading = "Common", default_value = "127.0.0.1:9010")]
    pub(crate) listen: SocketAddr,

    /// Host names under which browsers may reach the page, comma-separated; IP addresses and localhost are always allowed
    #[arg(long = "host", env = "CONSOLE_HOST", help_heading = "Common", value_delimiter = ',', value_name = "NAME")]
    pub(crate) hosts: Vec<String>,

    /// URL of ingest; with it the page has a form with which visitors add items and check out
    #[arg(long, env = "CONSOLE_INGEST_URL", help_heading = "Common", value_parser = http_url)]
    pub(crate) ingest_url: Option<String>,

    /// URL of the metrics of `cartctl audit --watch`, such as http://127.0.0.1:9016/metrics; with it the page shows the last audit
    #[arg(long, env = "CONSOLE_AUDIT_URL", help_heading = "Common", value_parser = http_url)]
    pub(crate) audit_url: Option<String>,

    /// URL of a trace, such as http://127.0.0.1:16686/trace/{trace_id}; with it a command has a link to its trace
    #[arg(long, env = "CONSOLE_TRACE_URL", help_heading = "Common", value_parser = trace_url)]
    pub(crate) trace_url: Option<String>,

    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    #[command(flatten)]
    pub(crate) cassandra: CassandraArgs,

    #[command(flatten)]
    pub(crate) database: DatabaseArgs,

    /// Let operators pause and resume groups, skip records and try parked carts and rows again at the page. It needs --auth jwt and
    /// tokens with the scope operator, or an address on loopback
    #[arg(long, env = "CONSOLE_ALLOW_OPERATIONS", help_heading = "Authentication and access")]
    pub(crate) allow_operations: bool,

    #[command(flatten)]
    pub(crate) bearer: BearerArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl Args {
    /// Without values that are empty: docker-compose passes a variable that is not set as an empty one.
    pub(crate) fn without_empty(mut self) -> Self {
        for url in [&mut self.ingest_url, &mut self.audit_url, &mut self.trace_url] {
            url.take_if(|url| url.is_empty());
        }
        self.hosts.retain(|host| !host.is_empty());
        self
    }
}

/// A URL without a slash at its end.
fn http_url(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let url = reqwest::Url::parse(text).map_err(|error| format!("'{text}' is not a URL: {error}"))?;
    if url.scheme() != "http" {
        return Err(format!("'{text}' must begin with http://"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn trace_url(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let url = reqwest::Url::parse(text).map_err(|error| format!("'{text}' is not a URL: {error}"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(format!("'{text}' must begin with https:// or http://"));
    }
    if !text.contains(TRACE_ID) {
        return Err(format!("'{text}' has no {TRACE_ID}, the place of the trace's id"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn empty_values_count_as_none() {
        let empty = ["--ingest-url=", "--audit-url=", "--trace-url=", "--host="];
        let args = Args::parse_from(["cart-console"].into_iter().chain(empty)).without_empty();
        assert_eq!((args.ingest_url, args.audit_url, args.trace_url, args.hosts), (None, None, None, vec![]));
        let args = Args::parse_from(["cart-console", "--host=one.example,two", "--ingest-url=http://ingest:9001"]);
        let args = args.without_empty();
        assert_eq!((args.hosts.len(), args.ingest_url.as_deref()), (2, Some("http://ingest:9001")));
    }

    #[test]
    fn urls_are_checked_at_the_start() {
        assert_eq!(http_url("http://127.0.0.1:9001/"), Ok("http://127.0.0.1:9001".to_owned()));
        assert!(http_url("127.0.0.1:9001").is_err());
        assert!(http_url("https://shop.example").is_err());
        assert!(trace_url("https://traces.example/{trace_id}?x=1").is_ok());
        assert!(trace_url("https://traces.example/").is_err());
        assert!(trace_url("javascript:alert('{trace_id}')").is_err());
    }
}
