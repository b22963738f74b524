{{/* The operator's Secret, which the pool names. */}}
{{- define "crewjob.pool.secretName" -}}
{{- if .Values.redis.bundled.enabled -}}
{{- include "crewjob.redis.name" . -}}
{{- else -}}
{{- .Values.redis.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* The workers' Secret: the operator's where they have none of their own. */}}
{{- define "crewjob.worker.secretName" -}}
{{- if .Values.redis.bundled.enabled -}}
{{- include "crewjob.redis.name" . }}-worker
{{- else -}}
{{- .Values.redis.existingWorkerSecret | default .Values.redis.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* The administrator's password: the one given, else the one that is there, else a new one. */}}
{{- define "crewjob.redis.password" -}}
{{- $found := lookup "v1" "Secret" .Release.Namespace (include "crewjob.redis.name" .) | default dict -}}
{{- $kept := get (get $found "data" | default dict) "password" | b64dec -}}
{{- .Values.redis.bundled.password | default $kept | default (randAlphaNum 32) -}}
{{- end -}}

{{/*
What the passwords of users are made from. It follows from the administrator's password, so that there is one to keep and
to change; slowly (scrypt), so that it cannot be found by trying. Call with the password, once.
*/}}
{{- define "crewjob.redis.key" -}}
{{- derivePassword 1 "maximum" . "users" "crewjob" -}}
{{- end -}}

{{/* Call with (dict "user" "worker" "key" "..."). */}}
{{- define "crewjob.redis.userPassword" -}}
{{- printf "%s/%s" .key .user | sha256sum | trunc 40 -}}
{{- end -}}

{{/* Call with (dict "context" $ "user" "worker" "key" "..."). */}}
{{- define "crewjob.redis.url" -}}
{{- $password := include "crewjob.redis.userPassword" . -}}
{{- printf "redis://%s:%s@%s.%s.svc:6379/0" .user $password (include "crewjob.redis.name" .context) .context.Release.Namespace -}}
{{- end -}}

{{/* What is the same whatever the passwords are. */}}
{{- define "crewjob.redis.conf" -}}
port 6379
# Every address of both families; a family that the node does not have is left out.
bind * -::*
dir /data
appendonly yes
appendfsync everysec
save ""
maxmemory {{ .Values.redis.bundled.maxmemory }}
# A broker must not drop messages: when it is full, producers are told.
maxmemory-policy noeviction
{{- end -}}

{{/* Lines of redis.conf for the users of files/redis-users.acl. Call with (dict "context" $ "key" "..."). */}}
{{- define "crewjob.redis.users" -}}
{{- $key := .key -}}
{{- range $line := .context.Files.Lines "files/redis-users.acl" }}
{{- if and $line (not (hasPrefix "#" $line)) }}
{{- $user := splitn " " 2 $line }}
user {{ $user._0 }} on #{{ include "crewjob.redis.userPassword" (dict "user" $user._0 "key" $key) | sha256sum }} {{ $user._1 }}
{{- end }}
{{- end }}
{{- end -}}
