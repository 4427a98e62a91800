"""A collector of traces (OTLP over gRPC): otlp.py PORT FILE. Writes each span as a line of JSON."""

import json
import sys
from concurrent import futures

import grpc
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


if __name__ == "__main__":
    port, file = sys.argv[1:]
    # One thread, so that no two batches write at the same time.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    service.add_TraceServiceServicer_to_server(Collector(open(file, "a", encoding="utf-8")), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()
