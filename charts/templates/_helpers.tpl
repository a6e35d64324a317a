{{- define "aurl.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}-operator{{- end }}
{{- /* All that serve the whole cluster share one Lease in their namespace. */}}
{{- define "aurl.lease" -}}{{ if .Values.namespaces }}{{ include "aurl.name" . }}{{ else }}aurl-operator{{ end }}{{- end }}
{{- define "aurl.selector" -}}
app.kubernetes.io/name: aurl-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "aurl.labels" -}}
{{ include "aurl.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
