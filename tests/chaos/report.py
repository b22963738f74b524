"""The outcome: a table and stories on standard error, measures on standard output, as JSON lines."""

import json
import sys
from collections import Counter

import verdict

RECOVERY_LIMIT = 10.0
PHASES = ["Succeeded", "Failed", "Cancelled", "Pending", "Queued", "Running", "Retrying", ""]


def show(outcomes, seed: int) -> int:
    """Prints the table and the measures; returns 1 if a limit is exceeded."""
    print(table(outcomes), f"CHAOS_SEED={seed}", sep="\n", file=sys.stderr, flush=True)
    exceeded = [name for name, value, unit, limit in measures(outcomes) if not measure(name, value, unit, limit)]
    if exceeded:
        print(f"over the limit: {', '.join(exceeded)}", file=sys.stderr)
    return 1 if exceeded else 0


def tell(outcome, most: int) -> None:
    """Prints the stories of what went wrong."""
    for text in outcome.stories[:most]:
        print(f"\n{text}", file=sys.stderr)
    if len(outcome.stories) > most:
        print(f"\n{len(outcome.stories) - most} more stories of {outcome.name} workers are left out:", file=sys.stderr)
        for text in outcome.stories[most:]:
            print("  " + " ".join(text.splitlines()[:2]), file=sys.stderr)


def measures(outcomes):
    yield "chaos_lost", total(outcomes, verdict.LOST), "jobs", 0
    yield "chaos_wrong_status", total(outcomes, verdict.WRONG), "jobs", 0
    for outcome in outcomes:
        limit = 0 if outcome.name == "guarded" else None
        yield f"chaos_run_twice_{outcome.name}", outcome.count(verdict.TWICE), "jobs", limit
    yield "chaos_run_twice_excused", total(outcomes, verdict.EXCUSED), "jobs", None
    yield "chaos_outcome_unknown", sum(outcome.unknown for outcome in outcomes), "jobs", None
    yield "chaos_operator_out_of_memory", sum(outcome.out_of_memory for outcome in outcomes), "times", 0
    yield "chaos_slowest_recovery", slowest(outcomes, disturbed=False), "s", RECOVERY_LIMIT
    yield "chaos_slowest_recovery_disturbed", slowest(outcomes, disturbed=True), "s", None
    yield "chaos_faults", sum(len(outcome.faults) for outcome in outcomes), "faults", None
    yield "chaos_jobs", sum(sum(outcome.phases.values()) for outcome in outcomes), "jobs", None


def total(outcomes, kind: str) -> int:
    return sum(outcome.count(kind) for outcome in outcomes)


def slowest(outcomes, disturbed: bool) -> float:
    return max((found.idle for outcome in outcomes if (found := outcome.slowest(disturbed))), default=0.0)


def measure(name: str, value: float, unit: str, limit: float | None) -> bool:
    """Prints one measure; says whether it is within its limit."""
    ratio = round(value / limit, 3) if limit else None
    entry = {"name": name, "value": round(value, 3), "unit": unit, "limit": limit, "ratio": ratio}
    print(json.dumps(entry, separators=(",", ":")), flush=True)
    return limit is None or value <= limit


def table(outcomes) -> str:
    rows: list[list[str]] = [["", *(outcome.name for outcome in outcomes)]]
    kinds = sorted({fault.kind for outcome in outcomes for fault in outcome.faults})
    counts = [Counter(fault.kind for fault in outcome.faults) for outcome in outcomes]
    rows.append(["faults", *(str(len(outcome.faults)) for outcome in outcomes)])
    rows += [[f"  {kind}", *(str(count[kind]) for count in counts)] for kind in kinds]
    rows.append(["jobs", *(str(sum(outcome.phases.values())) for outcome in outcomes)])
    phases = sorted({phase for outcome in outcomes for phase in outcome.phases}, key=PHASES.index)
    rows += [[f"  {phase or 'none'}", *(str(outcome.phases[phase]) for outcome in outcomes)] for phase in phases]
    rows.append(["  Failed because the outcome was lost", *(str(outcome.unknown) for outcome in outcomes)])
    rows.append(["runs begun", *(str(outcome.runs) for outcome in outcomes)])
    rows.append(["  of them interrupted, then run again", *(str(len(outcome.recoveries)) for outcome in outcomes)])
    names = {
        verdict.LOST: "jobs lost",
        verdict.WRONG: "jobs with a wrong status",
        verdict.TWICE: "jobs run twice",
        verdict.EXCUSED: "jobs run twice, excused",
    }
    rows += [[name, *(str(outcome.count(kind)) for outcome in outcomes)] for kind, name in names.items()]
    rows.append(["operators out of memory", *(str(outcome.out_of_memory) for outcome in outcomes)])
    rows.append(["slowest recovery beside a free worker", *(seconds(outcome, False) for outcome in outcomes)])
    rows.append(["  with other faults at the time", *(seconds(outcome, True) for outcome in outcomes)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    first, *others = widths
    lines = [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]
    return "\n".join(["", *lines])


def seconds(outcome, disturbed: bool) -> str:
    found = outcome.slowest(disturbed)
    return f"{found.idle:.1f} s" if found else "-"
