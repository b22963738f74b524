{{/*
`helm upgrade --reuse-values` hands a new chart the values of the old one, without the defaults of what is new. These are
they: every template fills them in before it reads a value. A test compares them with values.yaml.
*/}}
{{- define "crewjob.defaults" -}}
commonLabels: {}
commonAnnotations: {}
podSecurity:
  setIds: true
ipFamilyPolicy: ""
poolNamespaceSelector: ""
operator:
  initContainers: []
  sidecars: []
  extraVolumes: []
  extraVolumeMounts: []
archive:
  inputs: false
  file:
    existingClaim: ""
    maxMiB: 1024
  s3:
    bucket: ""
    endpoint: ""
    region: us-east-1
    prefix: crewjobs/
    existingSecret: ""
gateway:
  enabled: false
  replicas: 2
  mode: forward
  namespaces: []
  readResults: true
  defaultNamespace: ""
  trustedProxies: []
  userHeader: ""
  groupsHeader: ""
  pathPrefix: ""
  page:
    enabled: false
    namespaces: []
    maxJobs: 20000
  mcp:
    enabled: false
    readOnly: false
  rateLimit:
    rate: 600/60s
    existingSecret: ""
  limits:
    connections: 4096
    streams: 2048
    streamsPerCaller: 1024
  tls:
    existingSecret: ""
  service:
    type: ClusterIP
    port: 80
    annotations: {}
  log:
    filter: info
    format: json
  resources:
    requests:
      cpu: 50m
      memory: 32Mi
    limits:
      memory: 256Mi
  serviceAccount:
    create: true
    name: ""
    annotations: {}
  podDisruptionBudget:
    enabled: true
    maxUnavailable: 1
  annotations: {}
  podAnnotations: {}
  podLabels: {}
  priorityClassName: ""
  nodeSelector: {}
  tolerations: []
  affinity: {}
rbac:
  secretNames: []
redis:
  existingWorkerSecret: ""
defaultPool:
  container: ""
  largeResults: ConfigMap
  runOnceRetention: 720h
  limits: []
  prices: []
  agingAfter: 1h
  cleanup:
    enabled: false
    schedule: 0 3 * * *
    timeZone: Etc/UTC
worker:
  native:
    enabled: false
    tasks: {}
    onDrain: Finish
    state:
      volumeClaim: ""
      maxBytes: null
      retention: 24h
  initContainers: []
  sidecars: []
  extraVolumes: []
  extraVolumeMounts: []
  topologySpreadConstraints: []
  podDisruptionBudget:
    enabled: false
    maxUnavailable: 1
networkPolicy:
  enabled: false
  dnsPorts: [53, 5353]
  apiServer:
    ports: [443, 6443]
    cidrs: []
  redisPorts: [6379]
  metricsFrom: []
  gatewayFrom: []
  redisFrom: []
  workerEgress:
    - ports:
        - port: 443
          protocol: TCP
monitoring:
  labels: {}
  serviceMonitor:
    enabled: false
    interval: 30s
  prometheusRule:
    enabled: false
    queueDepth: 100
    failurePercent: 5
    oldestWaitSeconds: 1800
  dashboard:
    enabled: false
    labels: {}
tracing:
  endpoint: ""
  ratio: 1
  headersSecret: ""
{{- end -}}

{{- define "crewjob.fill" -}}
{{- include "crewjob.fillIn" (list .Values (include "crewjob.defaults" . | fromYaml)) -}}
{{- end -}}

{{/* Sets what a map lacks of another. Sprig's merge would also overwrite what is false, 0 or empty. */}}
{{- define "crewjob.fillIn" -}}
{{- $values := index . 0 -}}
{{- range $name, $default := index . 1 -}}
{{- $value := get $values $name -}}
{{- if and (kindIs "map" $value) (kindIs "map" $default) -}}
{{- include "crewjob.fillIn" (list $value $default) -}}
{{- else if not (hasKey $values $name) -}}
{{- $_ := set $values $name $default -}}
{{- end -}}
{{- end -}}
{{- end -}}
