{{/* How Kafka is reached: (list $) */}}
{{- define "leads.env.kafka" -}}
{{- $kafka := .Values.kafka -}}
- name: KAFKA_BROKERS
  value: {{ $kafka.brokers | quote }}
- name: KAFKA_SECURITY_PROTOCOL
  value: {{ $kafka.securityProtocol }}
{{- if hasPrefix "SASL_" $kafka.securityProtocol }}
- name: KAFKA_SASL_MECHANISM
  value: {{ $kafka.sasl.mechanism }}
{{- with $kafka.sasl.secretName }}
- name: KAFKA_SASL_USERNAME
  valueFrom: { secretKeyRef: { name: {{ . }}, key: {{ $kafka.sasl.usernameKey }} } }
- name: KAFKA_SASL_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ . }}, key: {{ $kafka.sasl.passwordKey }} } }
{{- end }}
{{- end }}
{{- if $kafka.ssl.caSecretName }}
- name: KAFKA_SSL_CA_LOCATION
  value: /etc/leads/kafka-ca/{{ $kafka.ssl.caKey }}
{{- end }}
{{- if $kafka.ssl.clientSecretName }}
- name: KAFKA_SSL_CERTIFICATE_LOCATION
  value: /etc/leads/kafka-client/tls.crt
- name: KAFKA_SSL_KEY_LOCATION
  value: /etc/leads/kafka-client/tls.key
{{- end }}
{{- range $property, $value := $kafka.properties }}
- name: KAFKA_{{ $property | upper | replace "." "_" }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "leads.env.database" -}}
- name: DATABASE_URL
  valueFrom: { secretKeyRef: { name: {{ .Values.database.secretName }}, key: {{ .Values.database.urlKey }} } }
{{- if .Values.database.caSecretName }}
- name: PGSSLROOTCERT
  value: /etc/leads/postgres-ca/{{ .Values.database.caKey }}
{{- end }}
{{- end -}}

{{- define "leads.env.topics" -}}
- name: LEADS_TOPIC
  value: {{ .Values.kafka.topics.events | quote }}
- name: LEADS_ACCESS_TOPIC
  value: {{ .Values.kafka.topics.access | quote }}
{{- end -}}

{{- define "leads.env.log" -}}
{{- with .Values.logLevel }}
- name: LOG_LEVEL
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "leads.env.traces" -}}
{{- with .Values.traces.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: OTEL_TRACES_SAMPLER
  value: {{ $.Values.traces.sampler }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $.Values.traces.ratio | quote }}
{{- end }}
{{- end -}}

{{- define "leads.env.given" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* Secrets that are files: (list $ "api"). Whole folders, so that a renewed Secret arrives. */}}
{{- define "leads.secrets" -}}
{{- $values := (index . 0).Values -}}
{{- $database := ne (index . 1) "topics" -}}
{{- $kafka := ne (index . 1) "migrate" -}}
{{- $of := dict -}}
{{- if $kafka }}{{ with $values.kafka.ssl.caSecretName }}{{ $_ := set $of "kafka-ca" . }}{{ end }}{{ end -}}
{{- if $kafka }}{{ with $values.kafka.ssl.clientSecretName }}{{ $_ := set $of "kafka-client" . }}{{ end }}{{ end -}}
{{- if $database }}{{ with $values.database.caSecretName }}{{ $_ := set $of "postgres-ca" . }}{{ end }}{{ end -}}
{{- if eq (index . 1) "api" }}{{ with $values.api.tls.secretName }}{{ $_ := set $of "tls" . }}{{ end }}{{ end -}}
{{- toYaml $of -}}
{{- end -}}

{{- define "leads.mounts" -}}
{{- with include "leads.secrets" . | fromYaml }}
volumeMounts:
  {{- range $folder, $secret := . }}
  - name: {{ $folder }}
    mountPath: /etc/leads/{{ $folder }}
    readOnly: true
  {{- end }}
{{- end }}
{{- end -}}

{{- define "leads.volumes" -}}
{{- with include "leads.secrets" . | fromYaml }}
volumes:
  {{- range $folder, $secret := . }}
  - name: {{ $folder }}
    secret: { secretName: {{ $secret }}, defaultMode: 0440 }
  {{- end }}
{{- end }}
{{- end -}}
