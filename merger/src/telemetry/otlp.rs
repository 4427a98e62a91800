//! Metrics as OTLP has them: the same names and labels as in Prometheus' format.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prometheus::proto::{Metric as Series, MetricFamily, MetricType};

/// The times of a report, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When the merger began to count.
    pub begun: u64,
    /// Now.
    pub now: u64,
}

/// A report of these metrics, by the merger of this name.
pub(super) fn report(
    families: &[MetricFamily],
    instance: &str,
    times: Times,
) -> ExportMetricsServiceRequest {
    let about = [
        ("service.name", "weft-merger"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ];
    let resource = Resource {
        attributes: about.map(|(name, value)| attribute(name, value)).to_vec(),
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "weft".to_owned(),
        ..InstrumentationScope::default()
    };
    let metrics = families.iter().map(|family| metric(family, times));
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics: metrics.collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

fn metric(family: &MetricFamily, times: Times) -> Metric {
    let series = family.get_metric().iter();
    let temporality = AggregationTemporality::Cumulative.into();
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: series
                .map(|one| point(one, one.get_counter().get_value(), times))
                .collect(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: series.map(|one| distribution(one, times)).collect(),
            aggregation_temporality: temporality,
        }),
        _ => Data::Gauge(Gauge {
            data_points: series
                .map(|one| point(one, one.get_gauge().get_value(), times))
                .collect(),
        }),
    };
    Metric {
        name: family.name().to_owned(),
        description: family.help().to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn point(series: &Series, value: f64, times: Times) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: times.begun,
        time_unix_nano: times.now,
        value: Some(Number::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn distribution(series: &Series, times: Times) -> HistogramDataPoint {
    let histogram = series.get_histogram();
    let mut below = 0;
    let mut bounds = Vec::new();
    let mut counts = Vec::new();
    for bucket in histogram.get_bucket() {
        if bucket.upper_bound().is_finite() {
            bounds.push(bucket.upper_bound());
            // Here each bucket has its own, and not what is below it, too.
            counts.push(bucket.cumulative_count().saturating_sub(below));
            below = bucket.cumulative_count();
        }
    }
    let count = histogram.get_sample_count();
    counts.push(count.saturating_sub(below));
    HistogramDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: times.begun,
        time_unix_nano: times.now,
        count,
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(series: &Series) -> Vec<KeyValue> {
    let labels = series.get_label().iter();
    labels
        .map(|label| attribute(label.name(), label.value()))
        .collect()
}

fn attribute(name: &str, value: &str) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn each_series_becomes_a_point_with_its_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.tasks_ended.with_label_values(&["failed"]).inc_by(3);
        metrics.under_way.set(7);
        for asked in [1.0, 3.0, 3.0, 99.0] {
            metrics.fan_out.observe(asked);
        }
        let times = Times { begun: 1, now: 2 };
        let request = metrics.report("here", times);
        let [resource] = &request.resource_metrics[..] else {
            panic!("{request:?}");
        };
        let data = |name: &str| {
            let mut all = resource.scope_metrics[0].metrics.iter();
            all.find(|metric| metric.name == name)
                .unwrap()
                .data
                .clone()
                .unwrap()
        };
        let Data::Sum(ended) = data("weft_merger_tasks_ended_total") else {
            panic!();
        };
        assert!(ended.is_monotonic && ended.aggregation_temporality == 2);
        assert_eq!(ended.data_points[0].value, Some(Number::AsDouble(3.0)));
        assert_eq!(
            ended.data_points[0].attributes,
            [attribute("status", "failed")]
        );
        let Data::Gauge(under_way) = data("weft_merger_requests_under_way") else {
            panic!();
        };
        assert_eq!(under_way.data_points[0].value, Some(Number::AsDouble(7.0)));
        let Data::Histogram(fan_out) = data("weft_merger_fan_out_shards") else {
            panic!();
        };
        let fan_out = &fan_out.data_points[0];
        assert_eq!(fan_out.explicit_bounds[..3], [1.0, 2.0, 3.0]);
        assert_eq!(fan_out.bucket_counts, [1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((fan_out.count, fan_out.sum), (4, Some(106.0)));
    }
}
