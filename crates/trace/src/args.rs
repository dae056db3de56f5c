//! The settings of traces, and their start and end.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::export::BoundedQueue;
use crate::metrics::SPANS_DROPPED;
use crate::sampler::ByLinks;
use crate::span::{Tracer, install};

/// Maximum wait at the end for the collector to take the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where traces are sent.
#[derive(Debug, Clone, clap::Args)]
pub struct TraceArgs {
    /// Address of a trace collector that speaks OTLP over HTTP, such as http://127.0.0.1:4318; without it nothing is traced
    ///
    /// These variables of OpenTelemetry have their usual meaning: OTEL_SDK_DISABLED, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
    /// OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG (by default the client's flag decides, and requests without traceparent
    /// are sampled), OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_SCHEDULE_DELAY,
    /// OTEL_EXPORTER_OTLP_PROTOCOL (http/protobuf, http/json), OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_TIMEOUT
    #[arg(long, env, value_name = "URL", help_heading = "Logs")]
    pub otel_exporter_otlp_endpoint: Option<String>,
}

/// A variable, if it is not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

impl TraceArgs {
    /// Starts to trace, if there is a collector. Call it once per process, after metrics are collected, and keep the result until
    /// the end of the work.
    ///
    /// # Errors
    /// A setting is not supported.
    pub fn start(&self, service: &str) -> anyhow::Result<Tracing> {
        let off = Tracing { provider: None };
        let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let exporter = variable("OTEL_TRACES_EXPORTER");
        if is_disabled || exporter.as_deref() == Some("none") {
            return Ok(off);
        }
        let Some(url) = self.url() else { return Ok(off) };
        check(&url, exporter.as_deref(), variable("OTEL_EXPORTER_OTLP_PROTOCOL").as_deref())?;
        let (sampler, follows_parents) = ByLinks::from_env()?;
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(&url).build();
        let exporter = exporter.context("setting up the export of traces (OTEL_EXPORTER_OTLP_*)")?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(service))
            .with_sampler(sampler)
            .with_span_processor(BoundedQueue::new(exporter, url.clone(), SPANS_DROPPED.with(&[])))
            .build();
        install(Tracer { sdk: provider.tracer("cart"), follows_parents });
        tracing::info!(collector = url, "tracing");
        Ok(Tracing { provider: Some(provider) })
    }

    /// The address for traces: that of the collector, or one for traces alone.
    fn url(&self) -> Option<String> {
        let common = || {
            let common = self.otel_exporter_otlp_endpoint.as_deref().filter(|url| !url.is_empty())?;
            Some(format!("{}/v1/traces", common.trim_end_matches('/')))
        };
        variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(common)
    }
}

/// Rejects what would otherwise be ignored.
fn check(url: &str, exporter: Option<&str>, protocol: Option<&str>) -> anyhow::Result<()> {
    ensure!(
        url.starts_with("http://"),
        "the trace collector's address is '{url}'; supported is http://, so run a collector near the service, which sends the \
         traces on with TLS"
    );
    let exporter = exporter.unwrap_or("otlp");
    ensure!(exporter == "otlp", "OTEL_TRACES_EXPORTER is '{exporter}'; supported are otlp and none");
    let protocol = protocol.unwrap_or("http/protobuf");
    ensure!(
        ["http/protobuf", "http/json"].contains(&protocol),
        "OTEL_EXPORTER_OTLP_PROTOCOL is '{protocol}'; supported are http/protobuf and http/json, at the collector's HTTP port \
         (usually 4318)"
    );
    Ok(())
}

/// What every span is from: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, and without a name there the program's.
fn resource(service: &str) -> Resource {
    let given = Resource::builder().build();
    let name = given.get(&Key::from_static_str(SERVICE_NAME)).map(|name| name.to_string());
    if name.is_some_and(|name| !name.starts_with("unknown_service")) {
        return given;
    }
    Resource::builder().with_attribute(KeyValue::new(SERVICE_NAME, service.to_owned())).build()
}

const SERVICE_NAME: &str = "service.name";

/// Tracing, while it is kept. When it is dropped, the last spans are sent, for at most two seconds. Blocks.
#[derive(Debug)]
#[must_use = "the last spans are lost without it"]
pub struct Tracing {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.provider.take().map(|provider| provider.shutdown_with_timeout(FLUSH_TIMEOUT)) {
            tracing::warn!(%error, "the trace collector did not get the last spans");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_settings_are_rejected_with_what_to_do() {
        let url = "http://127.0.0.1:4318/v1/traces";
        assert!(check(url, None, None).is_ok() && check(url, Some("otlp"), Some("http/json")).is_ok());
        for (result, hint) in [
            (check("https://collector", None, None), "run a collector near the service"),
            (check("127.0.0.1:4318", None, None), "http://"),
            (check(url, Some("jaeger"), None), "otlp and none"),
            (check(url, None, Some("grpc")), "4318"),
        ] {
            assert!(result.is_err_and(|error| error.to_string().contains(hint)), "{hint}");
        }
    }

    #[test]
    fn the_address_for_traces_is_below_the_collectors() {
        let url = |url: &str| TraceArgs { otel_exporter_otlp_endpoint: Some(url.to_owned()) }.url();
        assert_eq!(url("http://collector:4318/").as_deref(), Some("http://collector:4318/v1/traces"));
        assert_eq!(url(""), None);
    }
}
