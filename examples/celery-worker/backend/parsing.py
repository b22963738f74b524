"""From the crew's text to a result."""

import json
import re

FENCED = re.compile(r"\A```[a-zA-Z]*\s*\n(.*)\n```\Z", re.DOTALL)


def parse(text: str) -> tuple[object, str]:
    """Returns the JSON object or array that the text is, also inside one Markdown fence, or else the text itself."""
    text = text.strip()
    fenced = FENCED.match(text)
    candidate = fenced.group(1) if fenced else text
    if candidate.lstrip()[:1] in ("{", "["):
        try:
            content = json.loads(candidate, parse_constant=refuse)
        except (ValueError, RecursionError):
            return text, "text"
        if not looks_typed(content):
            return content, "json"
    return text, "text"


def refuse(constant: str):
    raise ValueError(f"{constant} is not JSON")


def looks_typed(content: object) -> bool:
    """Whether a reader of the result would take a part of it for one of Celery's own encoded values."""
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if value.keys() == {"__type__", "__value__"}:
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False
