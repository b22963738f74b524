{{/* Rules of egress. */}}
{{- define "crewjob.networkPolicy.dns" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end -}}

{{- define "crewjob.networkPolicy.ports" -}}
- ports:
    {{- range . }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "crewjob.port" -}}
{{- $url := urlParse . -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end -}}

{{- define "crewjob.networkPolicy.bundledRedis" -}}
- ports:
    - port: 6379
      protocol: TCP
  to:
    - podSelector:
        matchLabels:
          {{- include "crewjob.selectorLabels" (dict "context" $ "component" "redis") | nindent 10 }}
{{- end -}}
