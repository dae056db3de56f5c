//! Which spans are recorded.

use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Config, SamplingDecision, SamplingResult, ShouldSample};

/// The value of `OTEL_TRACES_SAMPLER`, as far as they are supported.
const SAMPLERS: [&str; 6] = [
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
    "always_on",
    "always_off",
    "traceidratio",
];

/// The sampler of `OTEL_TRACES_SAMPLER`, but for roots that are linked to a recorded span: work for recorded records is recorded.
#[derive(Debug, Clone)]
pub(crate) struct ByLinks(Box<dyn ShouldSample>);

impl ByLinks {
    /// From the environment, with whether it does what the sender of a context did.
    ///
    /// # Errors
    /// The sampler or its argument is unknown.
    pub(crate) fn from_env() -> anyhow::Result<(Self, bool)> {
        let name = std::env::var("OTEL_TRACES_SAMPLER").unwrap_or_default();
        let argument = std::env::var("OTEL_TRACES_SAMPLER_ARG").unwrap_or_default();
        let follows_parents = follows_parents(&name, &argument)?;
        Ok((Self(Config::default().sampler), follows_parents))
    }

    #[cfg(test)]
    pub(crate) fn of_parents() -> Self {
        use opentelemetry_sdk::trace::Sampler;
        Self(Box::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))))
    }
}

/// The SDK would replace what it does not know by sampling everything.
fn follows_parents(name: &str, argument: &str) -> anyhow::Result<bool> {
    anyhow::ensure!(
        name.is_empty() || SAMPLERS.contains(&name),
        "OTEL_TRACES_SAMPLER is '{name}'; supported are {}",
        SAMPLERS.join(", ")
    );
    let is_ratio = argument.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio));
    anyhow::ensure!(
        !name.ends_with("traceidratio") || is_ratio,
        "OTEL_TRACES_SAMPLER_ARG is '{argument}'; {name} needs a ratio from 0 to 1, such as 0.01"
    );
    Ok(name.is_empty() || name.starts_with("parentbased_"))
}

impl ShouldSample for ByLinks {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if links.iter().any(|link| link.span_context.is_sampled()) {
            let (decision, attributes) = (SamplingDecision::RecordAndSample, Vec::new());
            return SamplingResult { decision, attributes, trace_state: TraceState::default() };
        }
        self.0.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_known_or_rejected() {
        assert!(follows_parents("", "").is_ok_and(|follows| follows));
        assert!(follows_parents("parentbased_traceidratio", "0.01").is_ok_and(|follows| follows));
        assert!(follows_parents("always_on", "").is_ok_and(|follows| !follows));
        for (name, argument) in [("xray", ""), ("traceidratio", ""), ("traceidratio", "2"), ("traceidratio", "all")] {
            assert!(follows_parents(name, argument).is_err(), "{name} {argument}");
        }
    }
}
