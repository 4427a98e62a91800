//! Metrics in the format of OpenMetrics 1.0, which alone has exemplars: of each bucket of the times of requests, one that was traced.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use prometheus::proto::{Metric, MetricFamily, MetricType};

/// The media type of this format.
pub const OPEN_METRICS: &str = "application/openmetrics-text";

/// The family whose buckets have exemplars, and the label by which they are kept.
const EXEMPLARY: &str = "weft_merger_request_seconds";
const BY: &str = "operation";

/// The newest traced request of each operation and bucket: as many as there are of both, at most.
#[derive(Debug, Clone, Default)]
pub struct Exemplars(Arc<Mutex<HashMap<&'static str, Vec<Exemplar>>>>);

#[derive(Debug, Clone)]
struct Exemplar {
    /// The upper end of its bucket.
    bucket: f64,
    trace: String,
    seconds: f64,
    /// When, in seconds since 1970.
    at: f64,
}

impl Exemplars {
    /// Keeps a traced request, which ended at this time (in seconds since 1970).
    pub fn note(&self, operation: &'static str, seconds: f64, trace: String, at: f64) {
        let buckets = super::metrics::BUCKETS.iter().copied();
        let bucket = buckets.into_iter().find(|end| seconds <= *end);
        let exemplar = Exemplar {
            bucket: bucket.unwrap_or(f64::INFINITY),
            trace,
            seconds,
            at,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_operation = all.entry(operation).or_default();
        let same = |known: &&mut Exemplar| known.bucket.total_cmp(&exemplar.bucket).is_eq();
        match of_operation.iter_mut().find(same) {
            Some(known) => *known = exemplar,
            None => of_operation.push(exemplar),
        }
    }

    fn of(&self, operation: &str, bucket: f64) -> Option<Exemplar> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = all.get(operation)?.iter();
        let same = |known: &&Exemplar| known.bucket.total_cmp(&bucket).is_eq();
        known.find(same).cloned()
    }
}

/// The text of these metrics.
pub(super) fn render(families: &[MetricFamily], exemplars: &Exemplars) -> String {
    let mut text = String::new();
    for family in families {
        // Writing into a text can't fail.
        let _ = write_family(&mut text, family, exemplars);
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(
    text: &mut String,
    family: &MetricFamily,
    exemplars: &Exemplars,
) -> std::fmt::Result {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        MetricType::GAUGE => "gauge",
        _ => "unknown",
    };
    // The suffix belongs to the samples.
    let name = match kind {
        "counter" => family.name().trim_end_matches("_total"),
        _ => family.name(),
    };
    writeln!(text, "# TYPE {name} {kind}")?;
    writeln!(text, "# HELP {name} {}", escaped(family.help()))?;
    for metric in family.get_metric() {
        let labels = labels(metric);
        match kind {
            "counter" => {
                let value = metric.get_counter().get_value();
                writeln!(text, "{name}_total{} {value}", braced(&labels))?;
            }
            "histogram" => write_histogram(text, (name, &labels), metric, exemplars)?,
            _ => {
                let value = metric.get_gauge().get_value();
                writeln!(text, "{name}{} {value}", braced(&labels))?;
            }
        }
    }
    Ok(())
}

fn write_histogram(
    text: &mut String,
    (name, labels): (&str, &str),
    metric: &Metric,
    exemplars: &Exemplars,
) -> std::fmt::Result {
    let histogram = metric.get_histogram();
    let mut own = metric.get_label().iter();
    let operation = own.find(|label| label.name() == BY && name == EXEMPLARY);
    let operation = operation.map(|label| label.value());
    let comma = if labels.is_empty() { "" } else { "," };
    let buckets = histogram.get_bucket().iter();
    let buckets = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    // The library may leave the last one out.
    let last = (f64::INFINITY, histogram.get_sample_count());
    let finite = buckets.filter(|(end, _)| end.is_finite());
    for (end, count) in finite.chain([last]) {
        write!(
            text,
            "{name}_bucket{{{labels}{comma}le=\"{}\"}} {count}",
            number(end)
        )?;
        let exemplar = operation.and_then(|operation| exemplars.of(operation, end));
        match exemplar {
            Some(one) => writeln!(
                text,
                " # {{trace_id=\"{}\"}} {} {:.3}",
                one.trace, one.seconds, one.at
            )?,
            None => text.push('\n'),
        }
    }
    let braced = braced(labels);
    writeln!(text, "{name}_sum{braced} {}", histogram.get_sample_sum())?;
    writeln!(
        text,
        "{name}_count{braced} {}",
        histogram.get_sample_count()
    )
}

fn labels(metric: &Metric) -> String {
    let pair = |label: &prometheus::proto::LabelPair| {
        format!("{}=\"{}\"", label.name(), escaped(label.value()))
    };
    let pairs: Vec<String> = metric.get_label().iter().map(pair).collect();
    pairs.join(",")
}

fn braced(labels: &str) -> String {
    match labels.is_empty() {
        true => String::new(),
        false => format!("{{{labels}}}"),
    }
}

/// A bound as OpenMetrics writes it: `1.0`, `+Inf`.
fn number(value: f64) -> String {
    match value.is_finite() {
        true => format!("{value:?}"),
        false => "+Inf".to_owned(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn buckets_show_the_newest_traced_request_and_counters_their_family() {
        let metrics = Metrics::new().unwrap();
        let seconds = metrics.request_seconds.with_label_values(&["search-post"]);
        for (took, trace) in [(0.003, "first"), (0.0031, TRACE), (99.0, "late")] {
            seconds.observe(took);
            let exemplars = &metrics.exemplars;
            exemplars.note("search-post", took, trace.to_owned(), 1.5);
        }
        let ended = metrics.tasks_ended.with_label_values(&["suc\"ceeded"]);
        ended.inc_by(3);
        metrics.fan_out.observe(2.0);
        let text = String::from_utf8(metrics.render_open()).unwrap();
        for line in [
            "# TYPE weft_merger_tasks_ended counter",
            r#"weft_merger_tasks_ended_total{status="suc\"ceeded"} 3"#,
            r#"weft_merger_request_seconds_bucket{operation="search-post",le="0.002"} 0"#,
            &format!(
                r#"weft_merger_request_seconds_bucket{{operation="search-post",le="0.004"}} 2 # {{trace_id="{TRACE}"}} 0.0031 1.500"#
            ),
            r#"weft_merger_request_seconds_bucket{operation="search-post",le="+Inf"} 3 # {trace_id="late"} 99 1.500"#,
            r#"weft_merger_request_seconds_count{operation="search-post"} 3"#,
            r#"weft_merger_fan_out_shards_bucket{le="2.0"} 1"#,
            "weft_merger_fan_out_shards_count 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\nin {text}");
        }
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    }
}
