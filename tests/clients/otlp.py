"""A collector of traces and metrics (OTLP over gRPC): otlp.py PORT FILE [CERTIFICATE KEY]. Writes each span and point as a line of JSON.

With a certificate it speaks TLS and nothing else.
"""

import json
import sys
from concurrent import futures

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_messages
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service


def values(attributes):
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


class Collector(service.TraceServiceServicer):
    def __init__(self, out):
        self.out = out

    def Export(self, request, context):
        for resource in request.resource_spans:
            program = values(resource.resource.attributes)["service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                line = {
                    "program": program,
                    "name": span.name,
                    "kind": span.kind,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "failed": span.status.code == 2,
                    "attributes": values(span.attributes),
                }
                self.out.write(json.dumps(line) + "\n")
        self.out.flush()
        return messages.ExportTraceServiceResponse()


class Metrics(metrics_service.MetricsServiceServicer):
    def __init__(self, out):
        self.out = out

    def Export(self, request, context):
        for resource in request.resource_metrics:
            program = values(resource.resource.attributes)["service.name"]
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    value = point.count if kind == "histogram" else point.as_double
                    line = {"program": program, "metric": metric.name, "kind": kind, "value": value, "attributes": values(point.attributes)}
                    self.out.write(json.dumps(line) + "\n")
        self.out.flush()
        return metrics_messages.ExportMetricsServiceResponse()


if __name__ == "__main__":
    port, file, *own = sys.argv[1:]
    # One thread, so that no two batches write at the same time.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    out = open(file, "a", encoding="utf-8")
    service.add_TraceServiceServicer_to_server(Collector(out), server)
    metrics_service.add_MetricsServiceServicer_to_server(Metrics(out), server)
    if own:
        certificate, key = (open(name, "rb").read() for name in own)
        server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()
