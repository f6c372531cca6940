import subprocess
import sys
import warnings

import pytest
from papershelf_core import command


def toy(run):
    parser = command.Parser("toy", distribution="papershelf-core", description="A toy.")
    commands = parser.add_subparsers(title="commands")
    only = commands.add_parser("go", help="run it")
    only.add_argument("--number", type=int, help="x" * 200)
    command.add_json(only)
    only.set_defaults(run=run)
    return parser


def test_statuses(capsys):
    assert command.main(toy(lambda _: None), ["go"]) == command.DONE
    assert command.main(toy(lambda _: command.BAR_MISSED), ["go"]) == 4
    assert command.main(toy(lambda _: None), []) == command.USAGE
    assert capsys.readouterr().err.startswith("usage: toy")


@pytest.mark.parametrize("words", [["go", "--number", "x"], ["stop"], ["go", "--num", "3"]])
def test_usage_is_one_line_that_names_the_help(words, capsys):
    with pytest.raises(SystemExit) as left:
        command.main(toy(lambda _: None), words)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("toy")
    assert line.endswith("--help")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a\n  b"), "a b"),
        (OSError(2, "gone", "f"), "f does not exist; check the path"),
        (OSError(28, "No space left on device", "f"), "[Errno 28] No space left on device: 'f'"),
        (ValueError(), "ValueError"),
    ],
)
def test_unusable_input_is_one_line(error, said, capsys):
    def fail(_):
        raise error

    assert command.main(toy(fail), ["go"]) == command.UNUSABLE
    assert capsys.readouterr().err == f"toy: {said}\n"


def test_a_fault_of_the_program_is_no_bad_input():
    with pytest.raises(ZeroDivisionError):
        command.main(toy(lambda _: 1 / 0), ["go"])


def test_warnings_are_one_line_each_and_none_is_swallowed(capsys):
    def warn(_):
        for _ in range(2):
            warnings.warn("two\nlines", UserWarning, stacklevel=1)

    assert command.main(toy(warn), ["go"], warning=UserWarning) == 0
    assert capsys.readouterr().err == "toy: warning: two lines\n" * 2


def test_figures_go_to_a_file_or_in_place_of_the_table(tmp_path, capsys):
    command.show(["a table"], {"x": 0.1}, tmp_path / "x.json")
    assert capsys.readouterr().out == "a table\n"
    assert (tmp_path / "x.json").read_text() == '{\n "x": 0.1\n}\n'
    command.show(["a table"], {"x": 0.1}, "-")
    assert capsys.readouterr().out == '{\n "x": 0.1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        command.show([], {"x": float("nan")}, tmp_path / "y.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_reader_that_has_seen_enough_is_no_error():
    code = (
        "import sys; from papershelf_core import command; parser = command.Parser('toy');"
        "run = lambda _: [print('x' * 99) for _ in range(9999)] and 0;"
        "parser.add_subparsers().add_parser('go').set_defaults(run=run);"
        "sys.exit(command.main(parser, ['go']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
