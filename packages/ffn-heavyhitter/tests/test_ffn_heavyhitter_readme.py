"""The README's example runs as written."""

from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_example_runs_and_says_what_it_promises(capsys):
    code = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert "merged is identical: True" in printed
    assert "reloaded is identical: True" in printed
    assert "of the time (chance 10 %)" in printed
