{{- define "aurl.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}-operator{{- end }}
{{- define "aurl.selector" -}}
app.kubernetes.io/name: aurl-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "aurl.labels" -}}
{{ include "aurl.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
