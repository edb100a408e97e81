{{/* What one value says about another, in words; values.schema.json has the rest. */}}
{{- define "leads.validate" -}}
{{- $kafka := .Values.kafka -}}
{{- $_ := required "kafka.brokers: set it to the bootstrap servers, host:port,host:port" $kafka.brokers -}}
{{- $_ := required "database.secretName: name a Secret that holds the URL of PostgreSQL; README.md has the command that makes one" .Values.database.secretName -}}
{{- $sasl := hasPrefix "SASL_" $kafka.securityProtocol -}}
{{- if and $sasl (not $kafka.sasl.secretName) -}}
{{- fail (printf "kafka.sasl.secretName: %s needs a Secret with user name and password" $kafka.securityProtocol) -}}
{{- end -}}
{{- if and $kafka.sasl.secretName (not $sasl) -}}
{{- fail (printf "kafka.sasl.secretName is of no use with %s: set kafka.securityProtocol to SASL_SSL" $kafka.securityProtocol) -}}
{{- end -}}
{{- if and (or $kafka.ssl.caSecretName $kafka.ssl.clientSecretName) (not (hasSuffix "SSL" $kafka.securityProtocol)) -}}
{{- fail (printf "kafka.ssl is of no use with %s: set kafka.securityProtocol to SSL or SASL_SSL" $kafka.securityProtocol) -}}
{{- end -}}
{{- $most := int $kafka.topics.partitions -}}
{{- $scaling := .Values.consumer.autoscaling -}}
{{- if eq $scaling.kind "none" -}}
{{- if gt (int .Values.consumer.replicas) $most -}}
{{- fail (printf "consumer.replicas is %d: with %d partitions only %d consumers have work" (int .Values.consumer.replicas) $most $most) -}}
{{- end -}}
{{- else -}}
{{- if gt (int $scaling.maxReplicas) $most -}}
{{- fail (printf "consumer.autoscaling.maxReplicas is %d: with %d partitions only %d consumers have work" (int $scaling.maxReplicas) $most $most) -}}
{{- end -}}
{{- end -}}
{{- range $name, $scaling := dict "api" .Values.api.autoscaling "consumer" .Values.consumer.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling: minReplicas is above maxReplicas" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
