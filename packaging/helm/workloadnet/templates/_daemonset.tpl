{{- /* What the values change in the DaemonSet. .object is changed, and nothing written. */}}
{{- define "workloadnet.daemonset" }}
{{- $values := .root.Values }}
{{- $spec := .object.spec }}
{{- $template := $spec.template }}
{{- $pod := $template.spec }}

{{- $_ := set $spec "updateStrategy" (mergeOverwrite $spec.updateStrategy $values.updateStrategy) }}
{{- if eq $spec.updateStrategy.type "OnDelete" }}{{ $_ := unset $spec.updateStrategy "rollingUpdate" }}{{ end }}

{{- /* The labels of the selector stay what they are. */}}
{{- $_ := set $template.metadata "labels" (mergeOverwrite (dict) $values.podLabels $template.metadata.labels) }}
{{- with $values.podAnnotations }}
{{- $_ := set $template.metadata "annotations" (mergeOverwrite (get $template.metadata "annotations" | default dict) .) }}
{{- end }}
{{- with $values.nodeSelector }}{{ $_ := set $pod "nodeSelector" (mergeOverwrite $pod.nodeSelector .) }}{{ end }}
{{- with $values.tolerations }}{{ $_ := set $pod "tolerations" . }}{{ end }}
{{- with $values.affinity }}{{ $_ := set $pod "affinity" . }}{{ end }}
{{- with $values.priorityClassName }}{{ $_ := set $pod "priorityClassName" . }}{{ end }}
{{- with $values.imagePullSecrets }}{{ $_ := set $pod "imagePullSecrets" . }}{{ end }}
{{- with $values.serviceAccount.name }}{{ $_ := set $pod "serviceAccountName" . }}{{ end }}

{{- $files := .files }}
{{- range $volume := $pod.volumes }}
{{- with get $volume "configMap" }}{{ $_ := set . "name" (get $files .name) }}{{ end }}
{{- $paths := dict "cni-bin" $values.hostPaths.cniBin "cni-conf" $values.hostPaths.cniConf }}
{{- with get $paths $volume.name }}{{ $_ := set $volume.hostPath "path" . }}{{ end }}
{{- end }}

{{- $image := printf "%s:%s" $values.image.repository ($values.image.tag | default .root.Chart.AppVersion) }}
{{- with $values.image.digest }}{{ $image = printf "%s@%s" $values.image.repository . }}{{ end }}
{{- range $container := concat $pod.initContainers $pod.containers }}
{{- if eq $container.image "workloadnet" }}{{ $_ := set $container "image" $image }}{{ end }}
{{- with $values.image.pullPolicy }}{{ $_ := set $container "imagePullPolicy" . }}{{ end }}
{{- $_ := set $container "resources" (mergeOverwrite $container.resources (deepCopy $values.resources)) }}
{{- if eq $container.name "install-cni" }}
{{- with $values.install.extraArgs }}{{ $_ := set $container "args" (concat (get $container "args" | default list) .) }}{{ end }}
{{- end }}
{{- if eq $container.name "workloadnetd" }}
{{- with $values.extraArgs }}{{ $_ := set $container "args" (concat (get $container "args" | default list) .) }}{{ end }}
{{- with $values.extraEnv }}{{ $_ := set $container "env" (concat (get $container "env" | default list) .) }}{{ end }}
{{- with $values.config }}{{ include "workloadnet.probed" (dict "container" $container "config" .) }}{{ end }}
{{- range $kind, $change := $values.probes }}
{{- with $change }}{{ $_ := mergeOverwrite (get $container (printf "%sProbe" $kind)) . }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Probes ask where the settings say that the daemon answers. */}}
{{- define "workloadnet.probed" }}
{{- $settings := fromToml .config }}
{{- with get $settings "Error" }}{{ fail (printf "config: %s" .) }}{{ end }}
{{- $listen := get (get $settings "metrics" | default dict) "listen" | default "" }}
{{- if not (regexMatch "^[^:].*:[0-9]+$" $listen) }}
{{- fail (printf "config: the probes need an address and a port in [metrics], and listen is %q" $listen) }}
{{- end }}
{{- $port := regexFind "[0-9]+$" $listen | int }}
{{- $address := trimSuffix (printf ":%d" $port) $listen | trimAll "[]" }}
{{- $asked := get (dict "0.0.0.0" "127.0.0.1" "::" "::1") $address | default $address }}
{{- range $open := .container.ports }}
{{- if eq $open.name "metrics" }}
{{- $_ := set $open "hostIP" $address }}
{{- $_ := set $open "containerPort" $port }}
{{- end }}
{{- end }}
{{- range $kind := list "startup" "readiness" "liveness" }}
{{- $way := (get $.container (printf "%sProbe" $kind)).httpGet }}
{{- $_ := set $way "host" $asked }}
{{- $_ := set $way "port" $port }}
{{- end }}
{{- end }}
