{{- define "aurl.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}-operator{{- end }}
{{- /* All that serve the whole cluster share one Lease in their namespace. */}}
{{- define "aurl.lease" -}}{{ if .Values.namespaces }}{{ include "aurl.name" . }}{{ else }}aurl-operator{{ end }}{{- end }}
{{- /* A tag that looks like a number is one, and a large one of a file would be written as 2.0240101e+07. */}}
{{- define "aurl.image" -}}
{{- $tag := .Values.image.tag }}
{{- if or (kindIs "int64" $tag) (kindIs "float64" $tag) }}{{ $tag = int64 $tag | toString }}{{ end }}
{{- .Values.image.repository }}:{{ $tag | default .Chart.AppVersion }}
{{- end }}
{{- define "aurl.selector" -}}
app.kubernetes.io/name: aurl-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "aurl.labels" -}}
{{ include "aurl.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
