//! What the environment says, where the SDK would pass over what it can't read.

use opentelemetry_sdk::trace::Sampler;

use crate::sampler::WithLinks;

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) sampler: WithLinks,
    /// Whether the environment has a name for the service.
    pub(crate) names_the_service: bool,
}

impl Settings {
    /// None when traces are off.
    pub(crate) fn new(env: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let env = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let traces_or_all = |traces: &'static str, all: &'static str| {
            env(traces).map(|value| (traces, value)).or_else(|| env(all).map(|value| (all, value)))
        };
        let endpoint =
            traces_or_all("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        let Some((variable, endpoint)) = endpoint else { return Ok(None) };
        let disabled = env("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
        let none = env("OTEL_TRACES_EXPORTER").is_some_and(|it| it == "none");
        if disabled || none {
            return Ok(None);
        }
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            return Err(format!(
                "{variable}={endpoint}: not a URL; write it as http://localhost:4318"
            ));
        }
        let protocol =
            traces_or_all("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
        if let Some((variable, protocol)) = protocol
            && protocol != "http/protobuf"
        {
            return Err(format!(
                "{variable}={protocol}: only http/protobuf is spoken; collectors take it on port \
                 4318"
            ));
        }
        let named = env("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|it| it.contains("service.name="));
        Ok(Some(Self {
            sampler: WithLinks(sampler(&env)?),
            names_the_service: named || env("OTEL_SERVICE_NAME").is_some(),
        }))
    }
}

fn sampler(env: &impl Fn(&str) -> Option<String>) -> Result<Sampler, String> {
    let ratio = || {
        let text = env("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
        text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| {
            format!("OTEL_TRACES_SAMPLER_ARG={text}: write a share from 0 to 1, such as 0.01")
        })
    };
    let parent_based = |root| Sampler::ParentBased(Box::new(root));
    let name = env("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_always_on".to_owned());
    match name.as_str() {
        "always_on" => Ok(Sampler::AlwaysOn),
        "always_off" => Ok(Sampler::AlwaysOff),
        "traceidratio" => Ok(Sampler::TraceIdRatioBased(ratio()?)),
        "parentbased_always_on" => Ok(parent_based(Sampler::AlwaysOn)),
        "parentbased_always_off" => Ok(parent_based(Sampler::AlwaysOff)),
        "parentbased_traceidratio" => Ok(parent_based(Sampler::TraceIdRatioBased(ratio()?))),
        other => Err(format!(
            "OTEL_TRACES_SAMPLER={other}: write always_on, always_off, traceidratio, \
             parentbased_always_on, parentbased_always_off or parentbased_traceidratio"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        Settings::new(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");

    #[test]
    fn off_without_an_endpoint_or_when_told_so() {
        for pairs in [
            vec![],
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            vec![("OTEL_TRACES_SAMPLER", "nonsense")],
            vec![ENDPOINT, ("OTEL_SDK_DISABLED", "true")],
            vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(settings(&pairs).unwrap().is_none(), "{pairs:?}");
        }
    }

    #[test]
    fn what_can_not_be_is_named() {
        for (variable, value, cure) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "localhost:4317", "http://localhost:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
            ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_traceidratio"),
        ] {
            let why = settings(&[ENDPOINT, (variable, value)]).unwrap_err();
            assert!(why.contains(&format!("{variable}={value}")) && why.contains(cure), "{why}");
        }
        let ratio = [ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio")];
        for share in ["2", "-1", "NaN", "a"] {
            let why = settings(&[ratio[0], ratio[1], ("OTEL_TRACES_SAMPLER_ARG", share)]);
            assert!(why.unwrap_err().contains("from 0 to 1"));
        }
    }

    #[test]
    fn the_name_of_the_service_may_be_given() {
        let names = |pair| settings(&[ENDPOINT, pair]).unwrap().unwrap().names_the_service;
        assert!(!names(("A", "b")));
        assert!(names(("OTEL_SERVICE_NAME", "x")));
        assert!(names(("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=x")));
    }
}
