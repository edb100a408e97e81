{{- define "leads.fullname" -}}
{{- if contains "leads" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-leads" (.Release.Name | trunc 34 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* Of one component: (list $ "api") */}}
{{- define "leads.name" -}}
{{- printf "%s-%s" (include "leads.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{- define "leads.selector" -}}
app.kubernetes.io/name: leads
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "leads.labels" -}}
{{ include "leads.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "leads.image" -}}
{{- $image := (index . 0).Values.image -}}
{{- $own := "" -}}
{{- if eq (index . 1) "api" }}{{ $own = (index . 0).Values.api.image.tag }}{{ end -}}
{{- with $image.registry }}{{ . | trimSuffix "/" }}/{{ end -}}
leads-{{ index . 1 }}:{{ coalesce $own $image.tag (index . 0).Chart.AppVersion }}
{{- end -}}

{{/* What every pod has: nobody special, nothing to write to, no token. */}}
{{- define "leads.pod" -}}
automountServiceAccountToken: false
# Variables of services beside it are none of the service's settings.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  # Reads the keys in mounted Secrets.
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "leads.container" -}}
image: {{ include "leads.image" . }}
imagePullPolicy: {{ (index . 0).Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{/* Where a pod goes: (list $ "api" .Values.api) */}}
{{- define "leads.placement" -}}
{{- $given := index . 2 -}}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "leads.selector" $ | nindent 8 }}
  {{- end }}
{{- with $given.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $given.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $given.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $given.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Seconds until the API has ended for sure: its grace; whoever was let in; the producer's flush; the rest. */}}
{{- define "leads.api.terminationSeconds" -}}
{{- $api := .Values.api -}}
{{- add $api.shutdownGraceSeconds (mul 2 $api.publishTimeoutSeconds) (mul 2 $api.readWaitSeconds) 10 -}}
{{- end -}}
