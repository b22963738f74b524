#!/bin/sh
# A crew of three agents that needs only a shell. Replace the body with the program that writes your text.
set -eu

topic=${CREWJOB_KWARGS_inputs_topic:-}
[ -n "$topic" ] || { echo "inputs.topic is missing" >&2; exit 2; }

step=0
for role in researcher writer editor; do
  printf '{"progress": {"percent": %d, "message": "%s at work"}}\n' $((step * 33)) "$role"
  echo "$role: run $CREWJOB_RETRIES of task $CREWJOB_TASK_ID" >&2
  step=$((step + 1))
done

cat > "$CREWJOB_RESULT" <<TEXT
# $topic

What it is, in one paragraph. Three questions that a newcomer to it asks first. One worked example, with numbers.
TEXT
