"""What a job gave is written whole, read back, and refused where it is something else."""

from __future__ import annotations

import json

import pytest

from ssmid.experiments.training.result import RESULT, Outcome, read_result, write_result


def test_what_is_written_is_read_back(tmp_path):
    assert read_result(tmp_path) is None
    given = Outcome({"task": {"length": 8}}, {"loss": 0.5, "curve": [1, None]})
    write_result(tmp_path, given)
    assert read_result(tmp_path) == given
    assert json.loads((tmp_path / RESULT).read_text()) == {"identity": given.identity, "result": given.result, "machine": None}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_result(tmp_path, Outcome({}, {"loss": float("nan")}))
    assert read_result(tmp_path) == given, "what was there stays"
    (tmp_path / RESULT).write_text(json.dumps({"identity": given.identity, "result": given.result}))
    assert read_result(tmp_path) == given, "as it was written before machines were noted"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"identity": {}', r"result\.json: expected JSON data, got a damaged or truncated file"),
        ("[1]", r"result\.json: expected identity and result by name, got list"),
        ('{"identity": {}, "test": {}}', r"result\.json: expected identity and result by name, got \['identity', 'test'\]"),
        ('{"identity": 3, "result": {}}', r"result\.json: identity: expected facts by name, got 3"),
        ('{"identity": {}, "result": null}', r"result\.json: result: expected facts by name, got None"),
        ('{"identity": {}, "result": {}, "x": 1}', r"expected identity and result by name, got \['identity', 'result', 'x'\]"),
    ],
)
def test_what_is_no_result_is_said(text, message, tmp_path):
    (tmp_path / RESULT).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_result(tmp_path)
