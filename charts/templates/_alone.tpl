{{- /* Two releases that serve the same namespace would work the same jobs under two Leases: the second is refused.
Each release is found by its bindings. Without a cluster (helm template) nothing is found. */}}
{{- define "aurl.alone" -}}
{{- /* Who may not even list ClusterRoleBindings installs neither the definition nor roles of the cluster. */}}
{{- if or (not .Values.namespaces) .Values.crds.install .Values.aggregateRoles }}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items }}
{{- if and (include "aurl.another" (list $ .)) (not (hasSuffix "-machines" .metadata.name)) }}
{{- fail (printf "release %s serves the whole cluster already; two would work the same jobs: uninstall it, or give it a list of namespaces first" (include "aurl.instance" .)) }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.namespaces | default (list "") }}
{{- range (lookup "rbac.authorization.k8s.io/v1" "RoleBinding" . "").items }}
{{- if and (include "aurl.another" (list $ .)) (not (hasSuffix "-lease" .metadata.name)) }}
{{- fail (printf "release %s serves namespace %s already; two would work the same jobs: uninstall it, or give each a list of namespaces of its own" (include "aurl.instance" .) .metadata.namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- /* A binding that belongs to another release of this chart; of one of this name elsewhere, too. */}}
{{- define "aurl.another" -}}
{{- $release := (index . 0).Release }}
{{- $binding := index . 1 }}
{{- $labels := $binding.metadata.labels | default dict }}
{{- if eq (get $labels "app.kubernetes.io/name") "aurl-operator" }}
{{- range $binding.subjects }}
{{- if or (ne (include "aurl.instance" $binding) $release.Name) (ne .namespace $release.Namespace) }}yes{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- define "aurl.instance" -}}
{{ get (.metadata.labels | default dict) "app.kubernetes.io/instance" }}
{{- end }}
