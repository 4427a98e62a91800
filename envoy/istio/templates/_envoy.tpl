{{/* Parts of Envoy's configuration. They say the same as envoy/envoy.yaml, where each choice has its comment. */}}

{{/* mTLS to workloads with one of these service accounts, with the certificate that Istio's agent keeps fresh. */}}
{{- define "weft.mtls" -}}
name: envoy.transport_sockets.tls
typed_config:
  "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
  sni: weft
  common_tls_context:
    {{- include "weft.identity" . | nindent 4 }}
{{- end }}

{{/* Where Istio's proxies get certificates: their own agent. */}}
{{- define "weft.sds" -}}
resource_api_version: V3
initial_fetch_timeout: 0s
api_config_source:
  api_type: GRPC
  transport_api_version: V3
  set_node_on_first_message_only: true
  grpc_services: [{ envoy_grpc: { cluster_name: sds-grpc } }]
{{- end }}

{{/* dict "top" $ "accounts" (list "node"): this workload's certificate, and whose certificates it takes. */}}
{{- define "weft.identity" -}}
alpn_protocols: [istio]
tls_certificate_sds_secret_configs:
  - name: default
    sds_config: {{- include "weft.sds" . | nindent 6 }}
combined_validation_context:
  default_validation_context:
    match_typed_subject_alt_names:
      {{- range .accounts }}
      - { san_type: URI, matcher: { exact: "spiffe://{{ include "weft.principal" (dict "top" $.top "account" .) }}" } }
      {{- end }}
  validation_context_sds_secret_config:
    name: ROOTCA
    sds_config: {{- include "weft.sds" . | nindent 6 }}
{{- end }}

{{/* Nodes, and where several mergers are beside gateways, these. */}}
{{- define "weft.nodeAccounts" -}}
{{ if and (include "weft.sidecar" .) .Values.etcd.endpoints }}node,gateway{{ else }}node{{ end }}
{{- end }}

{{- define "weft.http1" -}}
envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
  "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
  # Idle connections are closed by us, before the other side does it just as we write to it.
  common_http_protocol_options: { idle_timeout: 60s }
  explicit_http_config: { http_protocol_options: {} }
{{- end }}

{{/* The merger's own TLS, with the certificate of merger.tls: those files are read again when they change, because they are
     named by a secret (sds.yaml) and not here. */}}
{{- define "weft.mergerTls" -}}
name: envoy.transport_sockets.tls
typed_config:
  "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
  sni: {{ .Values.merger.tls.name | quote }}
  common_tls_context:
    tls_certificate_sds_secret_configs: [{{ include "weft.fileSecret" "merger" }}]
    combined_validation_context:
      default_validation_context:
        match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: {{ .Values.merger.tls.name | quote }} } }]
      validation_context_sds_secret_config: {{ include "weft.fileSecret" "merger-ca" }}
{{- end }}

{{- define "weft.fileSecret" -}}
{ name: {{ . }}, sds_config: { resource_api_version: V3, path_config_source: { path: /etc/weft/sds/{{ . }}.json } } }
{{- end }}

{{/* Where the merger listens for this pod's Envoy. */}}
{{- define "weft.mergerAddress" -}}
{{ if include "weft.sockets" . }}{ pipe: { path: /run/weft/merger.sock } }{{ else }}{ socket_address: { address: 127.0.0.1, port_value: 7703 } }{{ end }}
{{- end }}

{{/* The merger: in this pod, or behind a listener on this pod's loopback. */}}
{{- define "weft.mergerCluster" -}}
name: weft-merger
connect_timeout: 1s
type: STATIC
circuit_breakers: { thresholds: [{ max_connections: 10000, max_pending_requests: 10000, max_requests: 20000, max_retries: 1000 }] }
typed_extension_protocol_options: {{- include "weft.http1" . | nindent 2 }}
{{- if .Values.merger.tls.secret }}
transport_socket: {{- include "weft.mergerTls" . | nindent 2 }}
{{- end }}
load_assignment:
  cluster_name: weft-merger
  endpoints: [{ lb_endpoints: [{ endpoint: { address: {{ include "weft.mergerAddress" . }} } }] }]
{{- end }}

{{/* One given node, named by the merger. */}}
{{- define "weft.nodeCluster" -}}
name: weft-node
connect_timeout: 1s
type: ORIGINAL_DST
lb_policy: CLUSTER_PROVIDED
original_dst_lb_config: { use_http_header: true }
circuit_breakers: { thresholds: [{ max_connections: 2048, max_pending_requests: 2048, max_requests: 4096, max_retries: 0 }] }
upstream_connection_options: { tcp_keepalive: { keepalive_time: 10, keepalive_interval: 5, keepalive_probes: 3 } }
typed_extension_protocol_options: {{- include "weft.http1" . | nindent 2 }}
transport_socket: {{- include "weft.mtls" (dict "top" . "accounts" (splitList "," (include "weft.nodeAccounts" .))) | nindent 2 }}
{{- end }}

{{/* A shard: dict "top" $ "shard" 0. Istio's own cluster for the same Service can't be used: its endpoints come by EDS, which
     has no place for a readiness check that is asked of the merger, nor for a name that outlives a pod's address. */}}
{{- define "weft.shardEnvoyCluster" -}}
{{- $replicas := int .top.Values.replicas }}
{{- $service := include "weft.shard" . }}
{{- $host := printf "%s.%s.svc.%s" $service .top.Release.Namespace .top.Values.clusterDomain }}
name: {{ include "weft.shardCluster" . | quote }}
alt_stat_name: weft-shard-{{ .shard }}
connect_timeout: 1s
cluster_type:
  name: envoy.clusters.dns
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster
    dns_refresh_rate: 2s
    dns_lookup_family: V4_PREFERRED
lb_policy: LEAST_REQUEST
common_lb_config: { healthy_panic_threshold: { value: 0 }, update_merge_window: 0s }
# Istio's telemetry names the destination by this.
metadata:
  filter_metadata:
    istio: { services: [{ name: {{ $service }}, namespace: {{ .top.Release.Namespace }}, host: {{ $host }} }] }
health_checks:
  - http_health_check:
      path: /_weft/ready
      retriable_statuses: [{ start: 100, end: 200 }, { start: 201, end: 503 }, { start: 504, end: 600 }]
    # The check goes to the merger over loopback, not to the node: without the mesh's TLS.
    transport_socket_match_criteria: { weft: readiness }
    interval: 0.2s
    no_traffic_interval: 0.2s
    unhealthy_interval: 0.2s
    no_traffic_healthy_interval: 0.2s
    healthy_threshold: 1
    {{- if and (include "weft.sidecar" .top) .top.Values.etcd.endpoints }}
    # This merger is one of several: while it gives no answer, another one may take out a replica.
    timeout: 0.5s
    unhealthy_threshold: 3
    {{- else }}
    timeout: 1s
    unhealthy_threshold: 4294967295
    {{- end }}
transport_socket_matches:
  - name: readiness
    match: { weft: readiness }
    transport_socket:
      {{- if .top.Values.merger.tls.secret }}
      {{- include "weft.mergerTls" .top | nindent 6 }}
      {{- else }}
      name: envoy.transport_sockets.raw_buffer
      typed_config: { "@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer }
      {{- end }}
transport_socket: {{- include "weft.mtls" (dict "top" .top "accounts" (list "node")) | nindent 2 }}
outlier_detection:
  split_external_local_origin_errors: true
  enforcing_consecutive_local_origin_failure: 0
  consecutive_gateway_failure: 5
  consecutive_5xx: 10
  interval: 1s
  base_ejection_time: 1s
  max_ejection_time: 10s
  # The last replica is never thrown out by this.
  max_ejection_percent: {{ div (mul (sub $replicas 1) 100) $replicas }}
  enforcing_success_rate: 0
  enforcing_local_origin_success_rate: 0
circuit_breakers: { thresholds: [{ max_connections: 1024, max_pending_requests: 1024, max_requests: 2048, max_retries: 512 }] }
upstream_connection_options: { tcp_keepalive: { keepalive_time: 10, keepalive_interval: 5, keepalive_probes: 3 } }
typed_extension_protocol_options: {{- include "weft.http1" . | nindent 2 }}
load_assignment:
  cluster_name: {{ include "weft.shardCluster" . | quote }}
  policy: { overprovisioning_factor: 100000 }
  endpoints:
    - lb_endpoints:
        {{- range $replica := until $replicas }}
        - endpoint:
            address: { socket_address: { address: {{ $service }}-{{ $replica }}.{{ $host }}, port_value: 7700 } }
            hostname: {{ $service }}-{{ $replica }}
            health_check_config: { hostname: {{ $service }}-{{ $replica }}, address: {{ include "weft.mergerAddress" $.top }} }
        {{- end }}
{{- end }}

{{/* Reads may be asked of another replica: dict "retries" 6 "base" "0.025s" "max" "0.250s". */}}
{{- define "weft.readRetries" -}}
hedge_policy: { hedge_on_per_try_timeout: true }
retry_policy:
  per_try_timeout: 0.5s
  retry_on: connect-failure,refused-stream,reset,retriable-status-codes
  retriable_status_codes: [500, 502, 503, 504]
  num_retries: {{ .retries }}
  retry_back_off: { base_interval: {{ .base }}, max_interval: {{ .max }} }
  retry_host_predicate:
    - name: envoy.retry_host_predicates.previous_hosts
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
  host_selection_retry_max_attempts: 50
{{- end }}

{{/* Who may read Envoy's own answers: pages of any origin, as with a node's errors. */}}
{{- define "weft.anyOrigin" -}}
- header: { key: access-control-allow-origin, value: "*" }
  append_action: OVERWRITE_IF_EXISTS_OR_ADD
{{- end }}

{{/* The merger's only way to the nodes. */}}
{{- define "weft.egressListener" -}}
name: weft-egress
# Whoever reaches this listener reaches any node through it: loopback, or this pod's group of users, nothing else.
{{- if include "weft.sockets" . }}
# 432 is 0660.
address: { pipe: { path: /run/weft/egress.sock, mode: 432 } }
{{- else }}
address: { socket_address: { address: 127.0.0.1, port_value: 7702 } }
{{- end }}
traffic_direction: OUTBOUND
ignore_global_conn_limit: true
per_connection_buffer_limit_bytes: 1048576
filter_chains:
  - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: weft-egress
          use_remote_address: true
          skip_xff_append: true
          {{- if include "weft.sockets" . }}
          internal_address_config: { unix_sockets: true }
          {{- else }}
          internal_address_config: { cidr_ranges: [{ address_prefix: 0.0.0.0, prefix_len: 0 }, { address_prefix: "::", prefix_len: 0 }] }
          {{- end }}
          early_header_mutation_extensions:
            - name: envoy.http.early_header_mutation.header_mutation
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
                mutations: [{ remove: x-forwarded-for }]
          generate_request_id: false
          preserve_external_request_id: true
          normalize_path: false
          merge_slashes: false
          path_with_escaped_slashes_action: KEEP_UNCHANGED
          server_header_transformation: PASS_THROUGH
          max_request_headers_kb: 256
          common_http_protocol_options: { idle_timeout: 3600s }
          request_timeout: 0s
          stream_idle_timeout: 600s
          local_reply_config:
            mappers:
              - filter: { status_code_filter: { comparison: { op: GE, value: { default_value: 100, runtime_key: weft.none } } } }
                headers_to_add:
                  - header: { key: x-weft-envoy, value: "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%" }
          http_filters:
            - name: envoy.filters.http.router
              typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            name: weft-egress
            virtual_hosts:
              - name: nodes
                domains: ["*"]
                routes:
                  - match:
                      prefix: /
                      headers: [{ name: x-weft-cluster, string_match: { exact: node } }]
                    route: { cluster: weft-node, timeout: 300s }
                  - match:
                      prefix: /
                      headers: [{ name: x-weft-cluster, string_match: { prefix: {{ include "weft.shardPrefix" . | quote }} } }]
                    request_headers_to_remove: [x-weft-cluster]
                    response_headers_to_add:
                      - header: { key: x-weft-node, value: "%UPSTREAM_HOST_NAME%" }
                        append_action: OVERWRITE_IF_EXISTS_OR_ADD
                    route:
                      cluster_header: x-weft-cluster
                      timeout: 60s
                      {{- include "weft.readRetries" (dict "retries" 2 "base" "0.010s" "max" "0.100s") | nindent 22 }}
{{- end }}

{{/* Other gateways' way to this pod's merger: only they, by their certificate. */}}
{{- define "weft.peerListener" -}}
name: weft-peers
address: { socket_address: { address: 0.0.0.0, port_value: 7704 } }
traffic_direction: INBOUND
filter_chains:
  - transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        require_client_certificate: true
        common_tls_context:
          {{- include "weft.identity" (dict "top" . "accounts" (list "gateway")) | nindent 10 }}
    filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: weft-peers
          cluster: weft-merger
          idle_timeout: 3600s
{{- end }}

{{/* Where the merger is another pod: its port on this pod's loopback, as if it were here. */}}
{{- define "weft.mergerListener" -}}
name: weft-merger
address: { socket_address: { address: 127.0.0.1, port_value: 7703 } }
traffic_direction: OUTBOUND
ignore_global_conn_limit: true
filter_chains:
  - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: weft-merger
          cluster: "outbound|7703||{{ include "weft.name" . }}-merger.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}"
          idle_timeout: 3600s
{{- end }}

{{/* The merger's metrics, and no other of its paths. */}}
{{- define "weft.metricsListener" -}}
name: weft-metrics
address: { socket_address: { address: 0.0.0.0, port_value: 7705 } }
traffic_direction: INBOUND
filter_chains:
  - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: weft-metrics
          http_filters:
            - name: envoy.filters.http.router
              typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            name: weft-metrics
            virtual_hosts:
              - name: metrics
                domains: ["*"]
                routes: [{ match: { path: /_weft/metrics }, route: { cluster: weft-merger, timeout: 10s } }]
{{- end }}

{{/* How often a request is sent to the merger again, and when. */}}
{{- define "weft.mergerRetries" -}}
retry_policy:
  retry_on: {{ .on }}
  num_retries: 8
  retry_back_off: { base_interval: 0.050s, max_interval: 1s }
{{- end }}
