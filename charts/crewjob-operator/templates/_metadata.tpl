{{/* Labels of every object. Call with (dict "context" $ "component" "operator"). */}}
{{- define "crewjob.labels" -}}
{{- $own := dict
  "app.kubernetes.io/part-of" "crewjob"
  "app.kubernetes.io/version" .context.Chart.AppVersion
  "app.kubernetes.io/managed-by" .context.Release.Service
  "helm.sh/chart" (printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_")
-}}
{{- merge (include "crewjob.selectorLabels" . | fromYaml) $own .context.Values.commonLabels | toYaml -}}
{{- end -}}

{{- define "crewjob.selectorLabels" -}}
app.kubernetes.io/name: crewjob
app.kubernetes.io/instance: {{ .context.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/*
Labels of Pods: none that changes with the chart's version, or every upgrade would restart Redis and all workers. Call with
(dict "context" $ "component" "operator" "further" .Values.operator.podLabels).
*/}}
{{- define "crewjob.podLabels" -}}
{{- $own := dict "app.kubernetes.io/part-of" "crewjob" -}}
{{- merge (include "crewjob.selectorLabels" . | fromYaml) $own (.further | default dict) .context.Values.commonLabels | toYaml -}}
{{- end -}}

{{/*
The field "annotations" on a line of its own, or nothing. Of those given, the first that has a name wins. Call with
(dict "context" $ "indent" 2 "given" (list (dict "a" "b") .Values.operator.annotations)).
*/}}
{{- define "crewjob.annotations" -}}
{{- $all := dict -}}
{{- range append .given .context.Values.commonAnnotations -}}
{{- $all = merge $all (. | default dict) -}}
{{- end -}}
{{- if $all -}}
{{- dict "annotations" $all | toYaml | nindent .indent -}}
{{- end -}}
{{- end -}}
