{{/*
The stem of every name: the release's, without the suffix the operator itself gets, so that the releases "crewjob" and
"crewjob-operator" both make "crewjob-operator", "crewjob-worker" and "crewjob-redis".
*/}}
{{- define "crewjob.base" -}}
{{- default .Release.Name .Values.nameOverride | trimSuffix "-operator" | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{- define "crewjob.operator.name" -}}
{{- printf "%s-operator" (include "crewjob.base" .) -}}
{{- end -}}

{{- define "crewjob.gateway.name" -}}
{{- printf "%s-gateway" (include "crewjob.base" .) -}}
{{- end -}}

{{/*
The namespaces whose jobs the gateway's page lists, as a JSON array; empty for all.
*/}}
{{- define "crewjob.gateway.pageNamespaces" -}}
{{- with .Values.gateway -}}
{{- $own := ternary (.namespaces | default (list $.Release.Namespace)) list (eq .mode "fixed") -}}
{{- .page.namespaces | default $own | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{- define "crewjob.gateway.serviceAccountName" -}}
{{- if .Values.gateway.serviceAccount.create -}}
{{- default (include "crewjob.gateway.name" .) .Values.gateway.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.gateway.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "crewjob.worker.name" -}}
{{- printf "%s-worker" (include "crewjob.base" .) -}}
{{- end -}}

{{- define "crewjob.redis.name" -}}
{{- printf "%s-redis" (include "crewjob.base" .) -}}
{{- end -}}

{{- define "crewjob.crds.name" -}}
{{- printf "%s-crds" (include "crewjob.base" .) -}}
{{- end -}}

{{- define "crewjob.operator.serviceAccountName" -}}
{{- if .Values.operator.serviceAccount.create -}}
{{- default (include "crewjob.operator.name" .) .Values.operator.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.operator.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "crewjob.pool.deploymentName" -}}
{{- default (include "crewjob.worker.name" .) .Values.defaultPool.deploymentName -}}
{{- end -}}

{{/* As `crewjob worker --queues` takes them. */}}
{{- define "crewjob.pool.queueBindings" -}}
{{- $bindings := list -}}
{{- range .Values.defaultPool.queues -}}
{{- $bindings = append $bindings (printf "%s=%s" .name (default .name .routingKey)) -}}
{{- end -}}
{{- join "," $bindings -}}
{{- end -}}

{{- define "crewjob.pool.queueNames" -}}
{{- $names := list -}}
{{- range .Values.defaultPool.queues -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* CRDs outlive a release, so an install may find some of an older chart, which Helm leaves as they are. */}}
{{- define "crewjob.crds.hook" -}}
{{- $hook := "pre-upgrade" -}}
{{- if .Release.IsInstall -}}
{{- range $path, $_ := .Files.Glob "crds/*.yaml" -}}
{{- $wanted := $.Files.Get $path | fromYaml -}}
{{- $found := lookup $wanted.apiVersion $wanted.kind "" $wanted.metadata.name -}}
{{- if and $found (ne (toJson $found.spec.versions) (toJson $wanted.spec.versions)) -}}
{{- $hook = "pre-install" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $hook -}}
{{- end -}}

{{/* Call with (dict "hook" "pre-upgrade" "weight" "0"). */}}
{{- define "crewjob.crds.annotations" -}}
helm.sh/hook: {{ .hook }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* Namespaces of pools, as JSON: the list given, and the release's own while the default pool lives there. */}}
{{- define "crewjob.poolNamespaces" -}}
{{- $namespaces := .Values.poolNamespaces -}}
{{- if or .Values.defaultPool.enabled (empty $namespaces) -}}
{{- $namespaces = prepend $namespaces .Release.Namespace -}}
{{- end -}}
{{- $namespaces | uniq | toJson -}}
{{- end -}}

{{/* Names of the Secrets that the operator may read in a namespace, as JSON; none for all. Call with (dict "context" $ "namespace" "..."). */}}
{{- define "crewjob.secretNames" -}}
{{- $names := .context.Values.rbac.secretNames -}}
{{- if and $names .context.Values.defaultPool.enabled (eq .namespace .context.Release.Namespace) -}}
{{- $names = append $names (include "crewjob.pool.secretName" .context) -}}
{{- end -}}
{{- $names | uniq | toJson -}}
{{- end -}}

{{/* A duration such as "1h30m" in whole seconds, rounded up. */}}
{{- define "crewjob.seconds" -}}
{{- $milliseconds := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $factor := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit -}}
{{- $milliseconds = add $milliseconds (mul (trimSuffix $unit . | int64) $factor) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}

{{/* A worker that is told to stop finishes its job: it may need the hard limit, and a minute to store the result. */}}
{{- define "crewjob.worker.neededGracePeriod" -}}
{{- add (include "crewjob.seconds" .Values.defaultPool.jobDefaults.timeouts.hard | int64) 60 -}}
{{- end -}}

{{- define "crewjob.worker.gracePeriod" -}}
{{- $needed := include "crewjob.worker.neededGracePeriod" . | int64 -}}
{{- $given := .Values.worker.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- $needed -}}
{{- else if lt (int64 $given) $needed -}}
{{- fail (printf "worker.terminationGracePeriodSeconds is %d, but defaultPool.jobDefaults.timeouts.hard of %s needs at least %d: a shorter one kills running jobs on every rollout; remove it to have it computed" (int64 $given) .Values.defaultPool.jobDefaults.timeouts.hard $needed) -}}
{{- else -}}
{{- int64 $given -}}
{{- end -}}
{{- end -}}

{{/* What the operator may do in a namespace of pools, as rules of a role. Call with the names of the Secrets, or none for all. */}}
{{- define "crewjob.poolRules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [delete, list, patch, watch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps]
  # Results, and the records of run-once keys, which are replaced when a job ends and deleted when they expire.
  verbs: [create, delete, get, list, update]
- apiGroups: [""]
  resources: [secrets]
  {{- with . }}
  resourceNames:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  verbs: [get]
{{- end -}}

{{/* What the schema cannot say, or says less clearly. */}}
{{- define "crewjob.validate" -}}
{{- $redis := .Values.redis -}}
{{- $pool := .Values.defaultPool -}}
{{- if and $redis.bundled.enabled $redis.existingSecret -}}
{{- fail "redis.bundled.enabled and redis.existingSecret are both set: keep one. Remove redis.existingSecret to use the bundled Redis, or set redis.bundled.enabled=false to use yours" -}}
{{- end -}}
{{- if and $redis.existingWorkerSecret (not $redis.existingSecret) -}}
{{- fail "redis.existingWorkerSecret is the Secret of the workers of an existing Redis: set redis.existingSecret to the operator's, too; the bundled Redis has a user and a Secret for workers anyway" -}}
{{- end -}}
{{- if and $pool.enabled (not $redis.bundled.enabled) (not $redis.existingSecret) -}}
{{- fail "the default pool needs a Redis: set redis.bundled.enabled=true to try it out with a Redis of its own, redis.existingSecret=NAME for a Secret with the key REDIS_URL and the label crewjob.dev/redis=true, or defaultPool.enabled=false to bring your own CrewWorkerPool" -}}
{{- end -}}
{{- if and $pool.enabled (gt (int $pool.minReplicas) (int $pool.maxReplicas)) -}}
{{- fail (printf "defaultPool.minReplicas is %d, above defaultPool.maxReplicas, which is %d" (int $pool.minReplicas) (int $pool.maxReplicas)) -}}
{{- end -}}
{{- if and $pool.enabled (not .Values.worker.enabled) (not $pool.deploymentName) -}}
{{- fail "worker.enabled=false leaves the default pool without workers: set defaultPool.deploymentName to the name of your worker Deployment" -}}
{{- end -}}
{{- if and .Values.worker.native.enabled (not .Values.worker.native.tasks) -}}
{{- fail "worker.native.enabled=true needs worker.native.tasks: say which command runs which task, as docs/worker-commands.md shows" -}}
{{- end -}}
{{- if .Values.tracing.endpoint -}}
{{- range .Values.operator.extraEnv -}}
{{- if has .name (list "OTEL_EXPORTER_OTLP_ENDPOINT" "OTEL_EXPORTER_OTLP_HEADERS" "OTEL_TRACES_SAMPLER" "OTEL_TRACES_SAMPLER_ARG") -}}
{{- fail (printf "operator.extraEnv sets %s, which tracing sets: remove it, or leave tracing.endpoint empty and set all of tracing in operator.extraEnv" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.gateway -}}
{{- if and .enabled .userHeader (eq .mode "forward") -}}
{{- fail "gateway.userHeader needs gateway.mode=fixed: with forward, each token says itself of which user it is" -}}
{{- end -}}
{{- if and .enabled .userHeader (not .trustedProxies) -}}
{{- fail "gateway.userHeader needs gateway.trustedProxies: the addresses of the proxies that may set it" -}}
{{- end -}}
{{- if and .enabled (eq .mode "impersonate") (not .userHeader) -}}
{{- fail "gateway.mode=impersonate needs gateway.userHeader: the header in which a proxy names the user" -}}
{{- end -}}
{{- if and .enabled .groupsHeader (ne .mode "impersonate") -}}
{{- fail "gateway.groupsHeader needs gateway.mode=impersonate: otherwise no groups are asked for" -}}
{{- end -}}
{{- if and .enabled (ne .mode "fixed") .namespaces -}}
{{- fail "gateway.namespaces is for gateway.mode=fixed: otherwise, the rights of each caller say which namespaces it may use" -}}
{{- end -}}
{{- end -}}
{{- with .Values.archive -}}
{{- if and .file.existingClaim .s3.bucket -}}
{{- fail "archive.file.existingClaim and archive.s3.bucket are both set: keep one, as finished jobs are archived in one place" -}}
{{- end -}}
{{- if and .s3.bucket (not .s3.existingSecret) -}}
{{- fail "archive.s3.bucket needs archive.s3.existingSecret: the name of a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" -}}
{{- end -}}
{{- end -}}
{{- with $pool.jobDefaults.timeouts -}}
{{- if and .soft (ge (include "crewjob.seconds" .soft | int64) (include "crewjob.seconds" .hard | int64)) -}}
{{- fail (printf "defaultPool.jobDefaults.timeouts.soft is %s: it must be shorter than defaultPool.jobDefaults.timeouts.hard, which is %s" .soft .hard) -}}
{{- end -}}
{{- end -}}
{{- end -}}
