{{/* Parts of pods that several templates share. */}}

{{- define "weft.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
readOnlyRootFilesystem: true
{{- end }}

{{- define "weft.masterKey" -}}
valueFrom:
  secretKeyRef: { name: {{ .Values.masterKey.secret }}, key: {{ .Values.masterKey.key }} }
{{- end }}

{{/* Istio's gateway proxy. Its image, its arguments and the rest are filled in when the pod is made. */}}
{{- define "weft.gatewayContainer" -}}
- name: istio-proxy
  image: auto
  ports:
    - { name: edge, containerPort: {{ .Values.gateway.port }} }
    - { name: http-envoy-prom, containerPort: 15090 }
  securityContext:
    {{- include "weft.containerSecurity" . | nindent 4 }}
    runAsNonRoot: true
    runAsUser: 1337
    runAsGroup: 1337
  resources: {{- toYaml .Values.gateway.resources | nindent 4 }}
  {{- if include "weft.sockets" . }}
  volumeMounts: [{ name: sockets, mountPath: /run/weft }]
  {{- else if .Values.merger.tls.secret }}
  volumeMounts:
    - { name: tls, mountPath: /etc/weft/tls, readOnly: true }
    - { name: sds, mountPath: /etc/weft/sds, readOnly: true }
  {{- end }}
{{- end }}

{{- define "weft.gatewayMetadata" -}}
labels:
  {{- include "weft.selector" (dict "top" . "component" "gateway") | nindent 2 }}
  sidecar.istio.io/inject: "true"
  {{- with .Values.gateway.revision }}
  istio.io/rev: {{ . }}
  {{- end }}
annotations:
  inject.istio.io/templates: gateway
  # Istio's proxies publish few of Envoy's counters; these are the filter's and those of the shards' clusters.
  proxy.istio.io/config: |
    proxyStatsMatcher:
      inclusionRegexps: [".*weft.*"]
{{- end }}

{{- define "weft.mergerHealthy" -}}
exec:
  {{- if .Values.merger.tls.secret }}
  # Nothing in the image speaks TLS with a certificate, so this says less: that somebody listens.
  command: [bash, -c, "exec 3<>/dev/tcp/127.0.0.1/7703"]
  {{- else }}
  command: [bash, -c, "exec 3<>/dev/tcp/127.0.0.1/7703 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q available <&3"]
  {{- end }}
timeoutSeconds: 2
{{- end }}

{{/* The merger's container, in either mode. */}}
{{- define "weft.mergerContainer" -}}
- name: merger
  image: {{ .Values.merger.image }}
  imagePullPolicy: {{ .Values.merger.imagePullPolicy }}
  args: [serve]
  env:
    - { name: POD_IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
    {{- if include "weft.sockets" . }}
    - { name: WEFT_LISTEN, value: "127.0.0.1:7703,unix:/run/weft/merger.sock" }
    # Envoy is another user of the same group, which the pod's fsGroup gives to both and to the folder.
    - { name: WEFT_SOCKET_MODE, value: "660" }
    {{- else if include "weft.sidecar" . }}
    - { name: WEFT_LISTEN, value: "127.0.0.1:7703" }
    {{- else }}
    # Istio's sidecar hands requests on to the pod's address. Who may send them: security.yaml.
    - { name: WEFT_LISTEN, value: "0.0.0.0:7703" }
    {{- end }}
    - { name: WEFT_ENVOY_ADMIN, value: "127.0.0.1:15000" }
    - { name: WEFT_EGRESS, value: "{{ if include "weft.sockets" . }}unix:/run/weft/egress.sock{{ else }}127.0.0.1:7702{{ end }}" }
    {{- if .Values.merger.tls.secret }}
    - { name: WEFT_TLS_CERT, value: /etc/weft/tls/tls.crt }
    - { name: WEFT_TLS_KEY, value: /etc/weft/tls/tls.key }
    - { name: WEFT_TLS_CA, value: /etc/weft/tls/ca.crt }
    {{- end }}
    {{- with .Values.otlp }}
    {{- if .endpoint }}
    - { name: WEFT_OTLP_ENDPOINT, value: {{ .endpoint | quote }} }
    - { name: WEFT_OTLP_SAMPLE_RATIO, value: {{ .sampleRatio | quote }} }
    - { name: WEFT_OTLP_METRICS, value: {{ .metrics | quote }} }
    - { name: WEFT_OTLP_METRICS_INTERVAL_MS, value: {{ .metricsIntervalMs | int | quote }} }
    {{- if .caSecret }}
    - { name: WEFT_OTLP_CA, value: /etc/weft/otlp/ca.crt }
    {{- end }}
    {{- end }}
    {{- end }}
    - { name: WEFT_DATA_DIR, value: /data }
    - { name: WEFT_SHARD_PREFIX, value: {{ include "weft.shardPattern" . | quote }} }
    - name: WEFT_MASTER_KEY
      {{- include "weft.masterKey" . | nindent 6 }}
    {{- with .Values.etcd }}
    {{- if .endpoints }}
    - { name: WEFT_ETCD, value: {{ join "," .endpoints | quote }} }
    - { name: WEFT_ETCD_PREFIX, value: {{ .prefix | quote }} }
    {{- if include "weft.sidecar" $ }}
    # Where other mergers' Envoys reach this one: a listener of this pod's Envoy, which asks for their certificate.
    - { name: WEFT_ADVERTISE, value: "$(POD_IP):7704" }
    {{- else }}
    - { name: WEFT_ADVERTISE, value: "$(POD_IP):7703" }
    {{- end }}
    {{- if .tlsSecret }}
    - { name: WEFT_ETCD_CA, value: /etc/weft/etcd/ca.crt }
    - { name: WEFT_ETCD_CERT, value: /etc/weft/etcd/tls.crt }
    - { name: WEFT_ETCD_KEY, value: /etc/weft/etcd/tls.key }
    {{- end }}
    {{- with .user }}
    - { name: WEFT_ETCD_USER, value: {{ . | quote }} }
    {{- end }}
    {{- with .passwordSecret }}
    - name: WEFT_ETCD_PASSWORD
      valueFrom: { secretKeyRef: { name: {{ . }}, key: password } }
    {{- end }}
    {{- end }}
    {{- end }}
    {{- with .Values.merger.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if not (include "weft.sidecar" .) }}
  ports:
    - { name: tcp-weft, containerPort: 7703 }
  {{- end }}
  # The merger may listen on loopback, where the kubelet's own requests don't get.
  startupProbe:
    {{- include "weft.mergerHealthy" . | nindent 4 }}
    periodSeconds: 5
    failureThreshold: 60
  readinessProbe:
    {{- include "weft.mergerHealthy" . | nindent 4 }}
    periodSeconds: 5
    failureThreshold: 2
  livenessProbe:
    {{- include "weft.mergerHealthy" . | nindent 4 }}
    periodSeconds: 10
    failureThreshold: 6
  securityContext:
    {{- include "weft.containerSecurity" . | nindent 4 }}
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
  resources: {{- toYaml .Values.merger.resources | nindent 4 }}
  volumeMounts:
    - { name: data, mountPath: /data }
    {{- if .Values.etcd.tlsSecret }}
    - { name: etcd, mountPath: /etc/weft/etcd, readOnly: true }
    {{- end }}
    {{- if include "weft.sockets" . }}
    - { name: sockets, mountPath: /run/weft }
    {{- end }}
    {{- if .Values.merger.tls.secret }}
    - { name: tls, mountPath: /etc/weft/tls, readOnly: true }
    {{- end }}
    {{- if .Values.otlp.caSecret }}
    - { name: otlp, mountPath: /etc/weft/otlp, readOnly: true }
    {{- end }}
{{- end }}

{{- define "weft.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .className }}
storageClassName: {{ . }}
{{- end }}
resources: { requests: { storage: {{ .size }} } }
{{- end }}

{{/* What the merger's container needs beside its data. A secret's files are its pod's group's: Envoy's and the merger's. */}}
{{- define "weft.mergerVolumes" -}}
{{- with .Values.etcd.tlsSecret }}
- { name: etcd, secret: { secretName: {{ . }}, defaultMode: 0440 } }
{{- end }}
{{- with .Values.otlp.caSecret }}
- { name: otlp, secret: { secretName: {{ . }}, defaultMode: 0440 } }
{{- end }}
{{- if include "weft.sockets" . }}
- { name: sockets, emptyDir: { medium: Memory, sizeLimit: 1Mi } }
{{- end }}
{{- include "weft.tlsVolumes" . }}
{{- end }}

{{- define "weft.tlsVolumes" -}}
{{- with .Values.merger.tls.secret }}
- { name: tls, secret: { secretName: {{ . }}, defaultMode: 0440 } }
- { name: sds, configMap: { name: {{ include "weft.name" $ }}-sds } }
{{- end }}
{{- end }}
