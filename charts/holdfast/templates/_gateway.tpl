{{/* One gateway: Deployment, Service and disruption budget. Given: root, name, role, replicas, ports, exposure. */}}
{{- define "holdfast.gateway" -}}
{{- $root := .root -}}
{{- $gateway := $root.Values.gateway -}}
{{- $host := eq .exposure.type "HostPort" -}}
{{- $options := list (printf "--role=%s" .role) "--dir=/var/lib/holdfast-gateway" (printf "--client-port=%v" .ports.client) (printf "--peer-port=%v" .ports.peer) (printf "--metrics-port=%v" .ports.metrics) "--status-port=9903" -}}
{{- $auth := $gateway.auth -}}
{{- if eq $auth.mode "Required" }}{{ $options = concat $options (list "--auth=Required" (printf "--tenant-namespace=%s" (include "holdfast.tenantNamespace" $root)) (printf "--requests-per-minute=%v" $auth.requestsPerMinute) (printf "--burst=%v" $auth.burst)) }}{{ end -}}
{{- if $gateway.tls.clientSecret }}{{ $options = append $options "--client-tls=/etc/holdfast/client-tls" }}{{ end -}}
{{- if $gateway.tls.peerSecret }}{{ $options = concat $options (list "--peer-tls=/etc/holdfast/peer-tls" (printf "--peer-tls-mode=%s" $gateway.tls.peerMode)) }}{{ end -}}
{{- range $gateway.cors.origins }}{{ $options = append $options (printf "--cors-origin=%s" .) }}{{ end -}}
{{- $limits := $gateway.limits -}}
{{- if $limits.enabled -}}
{{- if ne $auth.mode "Required" }}{{ fail "gateway.limits.enabled needs gateway.auth.mode Required: limits are of tenants" }}{{ end -}}
{{- $options = append $options (printf "--limits=%s" ($limits.service | default "127.0.0.1:9907")) -}}
{{- end -}}
{{- if $gateway.relay.enabled }}{{ $options = append $options "--relay-port=9904" }}{{ end -}}
{{- $ledger := $gateway.ledger -}}
{{- if $ledger.enabled }}{{ $options = append $options "--ledger=/var/spool/holdfast" }}{{ end -}}
{{- if and $ledger.enabled $ledger.contentBytes }}{{ $options = append $options (printf "--ledger-content=%d" (int $ledger.contentBytes)) }}{{ end -}}
{{- if $auth.tokensPerMinute -}}
{{- if not (and $limits.enabled $ledger.enabled) }}{{ fail "gateway.auth.tokensPerMinute needs gateway.limits.enabled, which counts tokens, and gateway.ledger.enabled, where they are found" }}{{ end -}}
{{- $options = append $options (printf "--tokens-per-minute=%v" (int64 $auth.tokensPerMinute)) -}}
{{- end -}}
{{- $tracing := $root.Values.tracing -}}
{{- if $tracing.endpoint }}{{ $options = concat $options (list (printf "--otlp-endpoint=%s" $tracing.endpoint) (printf "--trace-sampling=%v" $tracing.samplingPercent) (printf "--resource-attributes=holdfast.region=%s" $root.Values.region)) }}{{ end -}}
{{- $logs := ternary (list (printf "--log-format=%s" $root.Values.logs.format)) list (ne $root.Values.logs.format "text") -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $root.Release.Name }}-{{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "holdfast.labels" $root | nindent 4 }}
spec:
  replicas: {{ .replicas }}
  strategy:
    type: RollingUpdate
    # A host port is free only after the old gateway of the node has gone.
    rollingUpdate: {maxUnavailable: {{ ternary 1 0 $host }}, maxSurge: {{ ternary 0 1 $host }}}
  selector:
    matchLabels: {{- include "holdfast.selector" (dict "root" $root "part" .name) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "holdfast.labels" $root | nindent 8 }}
        {{- include "holdfast.selector" (dict "root" $root "part" .name) | nindent 8 }}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: {{ .ports.metrics | quote }}
        prometheus.io/path: /stats/prometheus
    spec:
      serviceAccountName: {{ $root.Release.Name }}-gateway
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ add $gateway.drainSeconds 30 }}
      securityContext: {{- include "holdfast.podSecurity" $root | nindent 8 }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $gateway.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $gateway.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "holdfast.selector" (dict "root" $root "part" .name) | nindent 14 }}
      initContainers:
        - name: init
          {{- include "holdfast.gatewayContainer" $root | nindent 10 }}
          args: {{- concat $logs (list "init") $options $gateway.extraArgs | toYaml | nindent 12 }}
      containers:
        - name: envoy
          {{- include "holdfast.gatewayContainer" $root | nindent 10 }}
          args:
            {{- range $logs }}
            - {{ . }}
            {{- end }}
            - envoy
            - --dir=/var/lib/holdfast-gateway
            - --concurrency={{ $gateway.concurrency }}
            - --drain={{ $gateway.drainSeconds }}
          ports:
            - {name: client, containerPort: {{ .ports.client }}{{ if $host }}, hostPort: {{ .ports.client }}{{ end }}}
            {{- if eq .role "regional" }}
            - {name: peer, containerPort: {{ .ports.peer }}{{ if $host }}, hostPort: {{ .ports.peer }}{{ end }}}
            {{- end }}
            - {name: metrics, containerPort: {{ .ports.metrics }}}
          readinessProbe:
            httpGet:
              path: /ready
              port: client
              {{- if $gateway.tls.clientSecret }}
              scheme: HTTPS
              {{- end }}
              {{- if $tracing.endpoint }}
              # Of a trace that nobody keeps: probes are no traffic.
              httpHeaders: [{name: traceparent, value: "00-00000000000000000000000000000001-0000000000000001-00"}]
              {{- end }}
            periodSeconds: 2
            timeoutSeconds: 3
          livenessProbe:
            # Served by Envoy itself also while it drains.
            tcpSocket: {port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources: {{- toYaml $gateway.resources | nindent 12 }}
        - name: agent
          {{- include "holdfast.gatewayContainer" $root | nindent 10 }}
          args: {{- concat $logs (list "agent") $options $gateway.extraArgs | toYaml | nindent 12 }}
          ports:
            - {name: agent, containerPort: 9903}
          livenessProbe:
            httpGet: {path: /healthz, port: agent}
            initialDelaySeconds: 10
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources:
            requests: {cpu: 20m, memory: 96Mi}
            limits: {memory: 512Mi}
        {{- if $gateway.relay.enabled }}
        - name: relay
          {{- include "holdfast.gatewayContainer" $root | nindent 10 }}
          args: {{- concat $logs (list "relay") $options (list (printf "--drain=%v" $gateway.drainSeconds)) $gateway.extraArgs $gateway.relay.extraArgs | toYaml | nindent 12 }}
          ports:
            - {name: relay, containerPort: 9906}   # health and metrics; streams come from this Pod's Envoy alone
          livenessProbe:
            httpGet: {path: /healthz, port: relay}
            initialDelaySeconds: 10
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources: {{- toYaml $gateway.relay.resources | nindent 12 }}
        {{- end }}
        {{- if and $limits.enabled (not $limits.service) }}
        - name: limits
          {{- include "holdfast.gatewayContainer" $root | nindent 10 }}
          args: {{- concat $logs (list "limits") $options $gateway.extraArgs $limits.extraArgs | toYaml | nindent 12 }}
          env:
            - name: HOLDFAST_LIMITS_STORE
              {{- if $limits.redis.secretRef.name }}
              valueFrom:
                secretKeyRef: {name: {{ $limits.redis.secretRef.name }}, key: {{ $limits.redis.secretRef.key }}}
              {{- else }}
              value: {{ $limits.redis.url | default "memory" | quote }}
              {{- end }}
          ports:
            - {name: limits, containerPort: 9908}   # health and metrics; this Pod's Envoy alone asks, on loopback
          livenessProbe:
            httpGet: {path: /healthz, port: limits}
            initialDelaySeconds: 10
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources: {{- toYaml $limits.resources | nindent 12 }}
        {{- end }}
        {{- if $ledger.enabled }}
        - name: ledger
          {{- include "holdfast.gatewayContainer" $root | nindent 10 }}
          {{- if $ledger.volume }}
            - {name: usage, mountPath: /var/lib/holdfast-usage}
          {{- end }}
          args: {{- concat $logs (list "ledger") (without $options "--dir=/var/lib/holdfast-gateway") (list "--gateway-name=$(POD_NAME)" (printf "--spool-max=%d" (mul $ledger.spoolSize 1048576)) (printf "--drain=%v" $gateway.drainSeconds)) $gateway.extraArgs $ledger.extraArgs | toYaml | nindent 12 }}
          env:
            - name: POD_NAME
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
            - name: HOLDFAST_LEDGER_SINK
              {{- if $ledger.sinkSecret }}
              valueFrom: {secretKeyRef: {name: {{ $ledger.sinkSecret }}, key: url}}
              {{- else }}
              value: {{ required "gateway.ledger needs a place for its records: sink or sinkSecret" $ledger.sink | quote }}
              {{- end }}
          ports:
            - {name: ledger, containerPort: 9909}   # health and metrics
          livenessProbe:
            httpGet: {path: /healthz, port: ledger}
            initialDelaySeconds: 10
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources: {{- toYaml $ledger.resources | nindent 12 }}
        {{- end }}
      volumes:
        # Outlives restarts of the containers: Envoy starts again from its last files.
        - {name: state, emptyDir: {}}
        - {name: tmp, emptyDir: {}}
        {{- if $ledger.enabled }}
        # Kept within its size by the ledger; the limit is for a ledger that does not come up.
        - {name: spool, emptyDir: {sizeLimit: {{ mul 2 $ledger.spoolSize }}Mi}}
        {{- if $ledger.volume }}
        - name: usage
          {{- toYaml $ledger.volume | nindent 10 }}
        {{- end }}
        {{- end }}
        {{- with $gateway.tls.clientSecret }}
        - {name: client-tls, secret: {secretName: {{ . }}}}
        {{- end }}
        {{- with $gateway.tls.peerSecret }}
        - {name: peer-tls, secret: {secretName: {{ . }}}}
        {{- end }}
---
{{- if not $host }}
apiVersion: v1
kind: Service
metadata:
  name: {{ $root.Release.Name }}-{{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "holdfast.labels" $root | nindent 4 }}
  {{- with .exposure.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .exposure.type }}
  externalTrafficPolicy: Local
  selector: {{- include "holdfast.selector" (dict "root" $root "part" .name) | nindent 4 }}
  ports:
    - {name: client, port: {{ .ports.client }}, targetPort: client}
    {{- if eq .role "regional" }}
    - {name: peer, port: {{ .ports.peer }}, targetPort: peer}
    {{- end }}
---
{{- end }}
apiVersion: {{ ternary "policy/v1" "policy/v1beta1" ($root.Capabilities.APIVersions.Has "policy/v1") }}
kind: PodDisruptionBudget
metadata:
  name: {{ $root.Release.Name }}-{{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "holdfast.labels" $root | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "holdfast.selector" (dict "root" $root "part" .name) | nindent 6 }}
{{- end }}

{{/* Where the Secrets of tenants are. */}}
{{- define "holdfast.tenantNamespace" -}}
{{ .Values.gateway.auth.namespace | default .Release.Namespace }}
{{- end }}

{{- define "holdfast.gatewayContainer" -}}
image: {{ include "holdfast.image" (dict "root" . "image" .Values.gateway.image) | quote }}
imagePullPolicy: {{ .Values.gateway.image.pullPolicy }}
securityContext: {{- include "holdfast.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: state, mountPath: /var/lib/holdfast-gateway}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.gateway.ledger.enabled }}
  - {name: spool, mountPath: /var/spool/holdfast}
  {{- end }}
  {{- if .Values.gateway.tls.clientSecret }}
  - {name: client-tls, mountPath: /etc/holdfast/client-tls, readOnly: true}
  {{- end }}
  {{- if .Values.gateway.tls.peerSecret }}
  - {name: peer-tls, mountPath: /etc/holdfast/peer-tls, readOnly: true}
  {{- end }}
{{- end }}
