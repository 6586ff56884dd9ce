{{/* The pod, with either store. */}}
{{- define "relay.pod" -}}
metadata:
  labels:
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "relay.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "relay.fullname" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "relay.gracePeriod" . }}
  securityContext:
    {{- include "relay.podSecurity" . | nindent 4 }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: relay
      image: {{ include "relay.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, --config, /config/relay.yaml, --log-format, json, --log-level, {{ .Values.logLevel }}]
      ports:
        - name: http
          containerPort: 8080
        - name: ops
          containerPort: 9090
      securityContext:
        {{- include "relay.containerSecurity" . | nindent 8 }}
      # Liveness and not readiness: a relay that starts on a full disk still delivers.
      startupProbe:
        httpGet:
          path: /livez
          port: ops
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet:
          path: /livez
          port: ops
        periodSeconds: 10
        timeoutSeconds: 2
        failureThreshold: 3
      readinessProbe:
        httpGet:
          path: /readyz
          port: ops
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        {{- include "relay.fileMounts" . | nindent 8 }}
        {{- if not (include "relay.postgres" .) }}
        - name: data
          mountPath: /data
        {{- end }}
  volumes:
    {{- include "relay.fileVolumes" . | nindent 4 }}
    {{- if not (or .Values.persistence.enabled (include "relay.postgres" .)) }}
    - name: data
      emptyDir:
        sizeLimit: {{ .Values.persistence.size }}
    {{- end }}
  {{- if include "relay.postgres" . }}
  # Spread over nodes and zones, if there are several.
  topologySpreadConstraints:
    {{- range (list "kubernetes.io/hostname" "topology.kubernetes.io/zone") }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "relay.selectorLabels" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end }}
