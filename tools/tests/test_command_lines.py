"""One contract for every command line: what a shell script may rely on, whichever package it calls."""

import argparse
import importlib
import importlib.metadata
import re

import pytest
from papershelf_core import command
from shelf import packages

SCRIPTS = {script: found for found in packages().values() for script in found.manifest["project"].get("scripts", {})}
# commands that print one path, one sentence or a document of their own instead of a table
NO_TABLE = {
    "fastlp-rank": {"solve", "generate"},
    "ffn-heavyhitter": {"plan", "compress", "merge"},
    "hetcal": {"fit", "apply", "report"},
    "msam-lawn": {"plot"},
    "multislot-rerank": {"rerank"},
    "nu-physics": {"plot", "solar", "solar plot"},
    "papershelf-data": {"fetch"},
    "quantease": {"quantize"},
}


def main_of(script):
    found = SCRIPTS[script]
    module, _, name = found.manifest["project"]["scripts"][script].partition(":")
    pytest.importorskip(found.module)
    return getattr(importlib.import_module(module), name)


def said(main, arguments, capsys):
    """Status, standard output and standard error."""
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    shown = capsys.readouterr()
    return status or 0, shown.out, shown.err


def parsers(script, monkeypatch):
    """The program's parser and those of its commands, by their words."""
    seen = []
    keep = argparse.ArgumentParser.parse_args
    with monkeypatch.context() as patch:
        patch.setattr(
            argparse.ArgumentParser, "parse_args", lambda self, *_: seen.append(self) or keep(self, ["--help"])
        )
        with pytest.raises(SystemExit):
            main_of(script)([])
    found = {}

    def walk(parser, words):
        found[words] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, below in action.choices.items():
                    walk(below, f"{words} {word}".strip())

    walk(seen[-1], "")
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_version_names_program_and_version(script, capsys):
    status, out, err = said(main_of(script), ["--version"], capsys)
    assert (status, err) == (0, "")
    assert out == f"{script} {importlib.metadata.version(SCRIPTS[script].name)}\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_80_columns_on_any_terminal(script, monkeypatch, capsys):
    for columns in ("80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        for words, parser in parsers(script, monkeypatch).items():
            wide = [line for line in parser.format_help().splitlines() if len(line) > 80]
            assert not wide, (words, wide)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_describes_itself_and_its_options(script, monkeypatch, capsys):
    for words, parser in parsers(script, monkeypatch).items():
        assert isinstance(parser, command.Parser), words
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                silent = set(action.choices) - {choice.dest for choice in action._choices_actions if choice.help}
                assert not silent, f"{words}: {silent}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_that_prints_a_table_writes_json(script, monkeypatch, capsys):
    without = set()
    for words, parser in parsers(script, monkeypatch).items():
        group = any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)
        if not group and "--json" not in parser._option_string_actions:
            without.add(words)
    assert without == NO_TABLE.get(script, set()) - {"solar"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_usage_errors_are_one_line_and_status_2(script, monkeypatch, capsys):
    main = main_of(script)
    for words in parsers(script, monkeypatch):
        capsys.readouterr()
        status, out, err = said(main, [*words.split(), "--no-such-option"], capsys)
        assert (status, out) == (2, ""), words
        assert re.fullmatch(rf"{re.escape(script)}[^\n]*: [^\n]+\n", err), (words, err)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_command_prints_the_help_and_is_usage(script, capsys):
    status, out, err = said(main_of(script), [], capsys)
    assert (status, out) == (2, "")
    assert err.startswith(f"usage: {script}")


UNUSABLE = {
    "fastlp-rank": ["solve", "no-such-file.json"],
    "ffn-heavyhitter": ["eval", "no-such-folder"],
    "hetcal": ["inspect", "no-such-file.json"],
    "msam-lawn": ["doctor", "no_such_module:task"],
    "multislot-rerank": ["rerank", "no-such-file.json"],
    "nu-physics": ["fit", "no-such-file.csv"],
    "papershelf-data": ["check", "no-such-set"],
    "quantease": ["inspect", "no-such-folder"],
}


@pytest.mark.parametrize("script", UNUSABLE)
def test_unusable_input_is_one_line_and_status_3(script, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = said(main_of(script), UNUSABLE[script], capsys)
    assert (status, out) == (3, "")
    assert re.fullmatch(rf"{script}: [^\n]+\n", err)
    assert not list(tmp_path.iterdir())
