{{/* Names and labels. Everything begins with the release's name, so that two clusters fit into one namespace. */}}

{{- define "weft.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "weft.labels" -}}
app.kubernetes.io/name: weft
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What selects the pods of one component: dict "top" $ "component" "node". */}}
{{- define "weft.selector" -}}
app.kubernetes.io/name: weft
app.kubernetes.io/instance: {{ .top.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "weft.shard" -}}
{{ include "weft.name" .top }}-shard-{{ .shard }}
{{- end }}

{{/* The Envoy clusters of the shards. Named as Istio names a subset: its own clusters for the same Services know nothing of
     readiness, so these are others. The number's place is given, because filter and merger want a pattern. */}}
{{- define "weft.shardCluster" -}}
outbound|7700|weft|{{ include "weft.shard" . }}.{{ .top.Release.Namespace }}.svc.{{ .top.Values.clusterDomain }}
{{- end }}

{{- define "weft.shardPattern" -}}
{{ include "weft.shardCluster" (dict "top" . "shard" "{}") }}
{{- end }}

{{- define "weft.shardPrefix" -}}
outbound|7700|weft|{{ include "weft.name" . }}-shard-
{{- end }}

{{/* A workload's identity in the mesh, without its scheme: dict "top" $ "account" "weft-node". */}}
{{- define "weft.principal" -}}
{{ .top.Values.trustDomain }}/ns/{{ .top.Release.Namespace }}/sa/{{ include "weft.name" .top }}-{{ .account }}
{{- end }}

{{- define "weft.sidecar" -}}
{{ if eq .Values.merger.mode "sidecar" }}true{{ end }}
{{- end }}

{{- define "weft.sockets" -}}
{{ if eq .Values.merger.link "sockets" }}true{{ end }}
{{- end }}

{{/* Mistakes that would only show in a broken cluster are refused here. */}}
{{- define "weft.check" -}}
{{- $values := .Values }}
{{- if not (has $values.merger.mode (list "sidecar" "deployment")) }}
{{- fail (printf "merger.mode is %q, and must be sidecar or deployment" $values.merger.mode) }}
{{- end }}
{{- if and (not $values.etcd.endpoints) (eq $values.merger.mode "sidecar") (gt (int $values.gateway.replicas) 1) }}
{{- fail "gateway.replicas above 1 means several mergers, and those need etcd.endpoints" }}
{{- end }}
{{- if and (not $values.etcd.endpoints) (not $values.merger.storage.enabled) }}
{{- fail "merger.storage.enabled false loses the cluster's state with the pod, unless etcd.endpoints keeps it" }}
{{- end }}
{{- if not (has $values.merger.link (list "ports" "sockets")) }}
{{- fail (printf "merger.link is %q, and must be ports or sockets" $values.merger.link) }}
{{- end }}
{{- if and (eq $values.merger.link "sockets") (ne $values.merger.mode "sidecar") }}
{{- fail "merger.link sockets needs Envoy and merger in one pod: merger.mode sidecar" }}
{{- end }}
{{- if and (eq $values.merger.link "sockets") $values.merger.tls.secret }}
{{- fail "a socket needs no TLS, who may open it does: merger.link sockets, or merger.tls.secret" }}
{{- end }}
{{- if and (hasPrefix "https://" $values.otlp.endpoint) (not $values.otlp.caSecret) (not $values.merger.tls.secret) }}
{{- fail "an https:// otlp.endpoint needs otlp.caSecret, or the authority of merger.tls.secret" }}
{{- end }}
{{- if not (has $values.filter.api (list "WasmPlugin" "TrafficExtension" "none")) }}
{{- fail (printf "filter.api is %q, and must be WasmPlugin, TrafficExtension or none" $values.filter.api) }}
{{- end }}
{{- if and $values.filter.bodyRouting (ne $values.filter.api "none") }}
{{- fail "filter.bodyRouting installs the filter by an EnvoyFilter: set filter.api to none" }}
{{- end }}
{{- if and $values.filter.bodyRouting (not (hasPrefix "file://" $values.filter.url)) }}
{{- fail "filter.bodyRouting needs the module as a file in the proxy's container: set filter.url to file://…" }}
{{- end }}
{{- if not (has $values.node.antiAffinity (list "required" "preferred")) }}
{{- fail (printf "node.antiAffinity is %q, and must be required or preferred" $values.node.antiAffinity) }}
{{- end }}
{{- end }}
