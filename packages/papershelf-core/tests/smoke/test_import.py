"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

from papershelf_core import claims, command, datasets, metrics, timing


def test_version():
    assert importlib.metadata.version("papershelf-core").count(".") == 2


def test_a_metric_a_claim_and_a_timing():
    assert metrics.roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    row = claims.Claim("-", "s", "p", 1.0, 2.0, "s", "lower", True)
    assert claims.from_json(claims.to_json([row])).claims == (row,)
    assert timing.compare({"a": int}, repeat=2).median["a"] > 0
    assert len(datasets.catalog()) == 14


def test_a_command_line_of_four_exit_codes(capsys):
    parser = command.Parser("toy", distribution="papershelf-core")
    parser.add_subparsers().add_parser("fail").set_defaults(run=lambda _: [][1])
    assert command.main(parser, ["fail"], unusable=(IndexError,)) == command.UNUSABLE
    assert capsys.readouterr().err == "toy: list index out of range\n"
