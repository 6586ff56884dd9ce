{{- define "relay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Short enough that the name of every object and pod fits into 63 characters. */}}
{{- define "relay.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "relay.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "relay.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "relay.instanceLabels" -}}
app.kubernetes.io/name: {{ include "relay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels that never change, so that upgrades keep working. */}}
{{- define "relay.selectorLabels" -}}
{{ include "relay.instanceLabels" . }}
app.kubernetes.io/component: relay
{{- end }}

{{- define "relay.labels" -}}
{{ include "relay.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "relay.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Returns a text that is not empty if the store is PostgreSQL. */}}
{{- define "relay.postgres" -}}
{{- if (default dict .Values.config.store).postgres }}true{{ end }}
{{- end }}

{{/* The configuration file: the user's keys, and those that belong to the pod. */}}
{{- define "relay.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $server := dict
      "listen" (printf "%s:8080" .Values.listenOn)
      "ops_listen" (printf "%s:9090" .Values.listenOn)
      "ops_token" (dict "file" "/secrets/ops-token") }}
{{- $defaults := dict "idle_timeout" "75s" "drain_delay" "5s" }}
{{- $_ := set $config "server" (mergeOverwrite $defaults (default dict $config.server) $server) }}
{{- $store := default dict $config.store }}
{{- if not $store.postgres }}
{{- $sqlite := mergeOverwrite (deepCopy (default dict $store.sqlite)) (dict "path" "/data/relay.db") }}
{{- $_ := set $config "store" (dict "sqlite" $sqlite) }}
{{- end }}
{{- if .Values.presets }}
{{- $_ := set $config "presets_dir" "/presets" }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Time of a graceful stop: the drain delay, and at most 20 s after it. */}}
{{- define "relay.gracePeriod" -}}
{{- $server := default dict .Values.config.server }}
{{- $delay := default "5s" $server.drain_delay }}
{{- if not (regexMatch "^[0-9]+s$" $delay) }}
{{- fail "config.server.drain_delay: write it in seconds, such as 5s" }}
{{- end }}
{{- add 25 (trimSuffix "s" $delay | int) }}
{{- end }}

{{/* The paths that Slack may call: the short one with one app, and one for each app. */}}
{{- define "relay.paths" -}}
{{- $paths := list }}
{{- if eq (len .Values.config.slack.apps) 1 }}
{{- $paths = append $paths "/slack/events" }}
{{- end }}
{{- range .Values.config.slack.apps }}
{{- $paths = append $paths (printf "/slack/events/%s" .name) }}
{{- end }}
{{- toJson $paths }}
{{- end }}

{{- define "relay.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "relay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "relay.fileMounts" -}}
- name: config
  mountPath: /config
  readOnly: true
- name: secrets
  mountPath: /secrets
  readOnly: true
{{- if .Values.presets }}
- name: presets
  mountPath: /presets
  readOnly: true
{{- end }}
{{- if .Values.caConfigMap }}
- name: ca
  mountPath: /ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "relay.fileVolumes" -}}
- name: config
  configMap:
    name: {{ include "relay.fullname" . }}
- name: secrets
  secret:
    secretName: {{ .Values.existingSecret }}
    defaultMode: 288 # 0440
{{- if .Values.presets }}
- name: presets
  configMap:
    name: {{ include "relay.fullname" . }}-presets
{{- end }}
{{- if .Values.caConfigMap }}
- name: ca
  configMap:
    name: {{ .Values.caConfigMap }}
{{- end }}
{{- end }}

{{/* Checks that the schema cannot express. */}}
{{- define "relay.validate" -}}
{{- $store := default dict .Values.config.store }}
{{- if and $store.postgres $store.sqlite }}
{{- fail "config.store: there is one store: choose sqlite or postgres" }}
{{- end }}
{{- if and (not $store.postgres) (gt (int .Values.replicaCount) 1) }}
{{- fail "replicaCount: the SQLite store belongs to one relay; several share config.store.postgres" }}
{{- end }}
{{- if and .Values.migrateFromClaim (or (not $store.postgres) (ne 0 (int .Values.replicaCount))) }}
{{- fail "migrateFromClaim: moving to config.store.postgres takes replicaCount: 0, so that no relay runs" }}
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "relay.fullname" .)) }}
{{- fail "the release's name cannot name a Service: set fullnameOverride, a letter and then a-z, 0-9 and -" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs: name the gateway, such as [{name: public, namespace: gateways}]" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.hostnames) }}
{{- fail "httpRoute.hostnames: name the public host, such as [relay.example.com]" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hostname) }}
{{- fail "ingress.hostname: name the public host, such as relay.example.com" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.tlsSecretName) }}
{{- fail "ingress.tlsSecretName: Slack calls https only; name the Secret with the certificate" }}
{{- end }}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}
{{- fail "podMonitor and serviceMonitor would count everything twice: enable one" }}
{{- end }}
{{- end }}
