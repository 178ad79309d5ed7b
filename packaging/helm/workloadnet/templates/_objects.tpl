{{- /* What values and release change in objects other than the DaemonSet. Each changes .object, and writes nothing. */}}

{{- /* Objects that are not of the whole cluster are in the release's namespace. */}}
{{- define "workloadnet.place" }}
{{- if not (regexMatch "^(Namespace|Cluster.*|PriorityClass)$" .object.kind) }}
{{- $_ := set .object.metadata "namespace" .root.Release.Namespace }}
{{- end }}
{{- end }}

{{- define "workloadnet.namespace" }}
{{- $_ := set .object.metadata "name" .root.Release.Namespace }}
{{- $_ := set .is "wanted" .root.Values.namespace.create }}
{{- end }}

{{- define "workloadnet.account" }}
{{- $values := .root.Values.serviceAccount }}
{{- $metadata := .object.metadata }}
{{- $_ := set .is "wanted" $values.create }}
{{- with $values.name }}{{ $_ := set $metadata "name" . }}{{ end }}
{{- with $values.annotations }}
{{- $_ := set $metadata "annotations" (mergeOverwrite (get $metadata "annotations" | default dict) .) }}
{{- end }}
{{- end }}

{{- define "workloadnet.rights" }}
{{- $root := .root }}
{{- $_ := set .is "wanted" $root.Values.rbac.create }}
{{- range $subject := get .object "subjects" | default list }}
{{- $_ := set $subject "namespace" $root.Release.Namespace }}
{{- with $root.Values.serviceAccount.name }}{{ $_ := set $subject "name" . }}{{ end }}
{{- end }}
{{- end }}

{{- /* A ConfigMap whose name carries a hash of what is in it, as kustomize's do: changed settings replace the daemons. */}}
{{- define "workloadnet.configmap" }}
{{- $root := .root }}
{{- $data := dict }}
{{- range $file := .generator.files }}
{{- $_ := set $data $file ($root.Files.Get (printf "base/%s" $file)) }}
{{- end }}
{{- with $root.Values.config }}{{ $_ := set $data "workloadnetd.toml" . }}{{ end }}
{{- $hash := toJson $data | sha256sum | trunc 10 }}
{{- $metadata := dict "name" (printf "%s-%s" .generator.name $hash) "namespace" $root.Release.Namespace }}
{{- dict "apiVersion" "v1" "kind" "ConfigMap" "metadata" $metadata "data" $data | toYaml }}
{{- end }}
