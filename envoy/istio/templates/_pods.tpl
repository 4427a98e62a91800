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
  command: [bash, -c, "exec 3<>/dev/tcp/127.0.0.1/7703 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q available <&3"]
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
    {{- if include "weft.sidecar" . }}
    - { name: WEFT_LISTEN, value: "127.0.0.1:7703" }
    {{- else }}
    # Istio's sidecar hands requests on to the pod's address. Who may send them: security.yaml.
    - { name: WEFT_LISTEN, value: "0.0.0.0:7703" }
    {{- end }}
    - { name: WEFT_ENVOY_ADMIN, value: "127.0.0.1:15000" }
    - { name: WEFT_EGRESS, value: "127.0.0.1:7702" }
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
{{- end }}

{{- define "weft.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .className }}
storageClassName: {{ . }}
{{- end }}
resources: { requests: { storage: {{ .size }} } }
{{- end }}

{{- define "weft.etcdVolume" -}}
{{- with .Values.etcd.tlsSecret }}
- { name: etcd, secret: { secretName: {{ . }}, defaultMode: 0440 } }
{{- end }}
{{- end }}
