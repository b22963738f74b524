"""From the crew's text to a result."""

import pytest

from backend.parsing import parse

TYPED = '{"x": [{"__type__": "secret", "__value__": 1}]}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', ({"a": 1}, "json")),
        ("  [1, 2]\n", ([1, 2], "json")),
        ('```json\n{"a": [1]}\n```', ({"a": [1]}, "json")),
        ("```\n[]\n```", ([], "json")),
        ("plain", ("plain", "text")),
        (" padded ", ("padded", "text")),
        ("", ("", "text")),
        ("42", ("42", "text")),
        ("true", ("true", "text")),
        ("{not json", ("{not json", "text")),
        ("[NaN]", ("[NaN]", "text")),
        ("[" * 100_000, ("[" * 100_000, "text")),
        ("before ```json\n{}\n```", ("before ```json\n{}\n```", "text")),
        (TYPED, (TYPED, "text")),
    ],
)
def test_json_objects_and_arrays_are_parsed_and_the_rest_is_text(text, expected):
    assert parse(text) == expected
