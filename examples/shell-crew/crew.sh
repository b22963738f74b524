#!/bin/sh
# A crew of three agents that needs only a shell. Replace the body with the program that writes your text.
set -eu

# The call is one line of JSON, in which sed finds the topic. Use jq if you have it.
call=$(cat)
topic=$(printf '%s' "$call" | sed -n 's/.*"topic": *"\(\([^"\\]\|\\.\)*\)".*/\1/p')
[ -n "$topic" ] || { echo "inputs.topic is missing" >&2; exit 2; }

step=0
for role in researcher writer editor; do
  printf '{"progress": {"percent": %d, "message": "%s at work"}}\n' $((step * 33)) "$role"
  echo "$role: run $CREWJOB_RETRIES of task $CREWJOB_TASK_ID" >&2
  step=$((step + 1))
done

cat <<TEXT
# $topic

What it is, in one paragraph. Three questions that a newcomer to it asks first. One worked example, with numbers.
TEXT
