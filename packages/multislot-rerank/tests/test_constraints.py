"""Constraints on one value, on labels, on the first slots and on an item's latest slot, hard and with a price."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from multislot_rerank import (
    Candidates,
    FreshQuota,
    InvalidInput,
    MaxOfValue,
    MaxPerWindow,
    MaxSlot,
    MinGap,
    MinOfValue,
    Pin,
    Relevance,
    SequentialGreedyReranker,
    Soft,
)
from multislot_rerank.cli import main
from multislot_rerank.model_reranker import ModelReranker
from oracles import constraint_sets, slate_by_definition
from oracles.random_requests import draw


def reranked(constraints, k, **fields):
    (column,) = fields.get("attributes", fields).values()
    scores = np.linspace(1.0, 0.1, len(column))  # the earlier candidate is the better
    return SequentialGreedyReranker([Relevance()], k, constraints).rerank(Candidates(scores, **fields))


KIND = {"kind": ["ad", "ad", "ad", "post", "post", "post", "post", "post"]}


def test_at_most_one_ad_in_any_four():
    slate = reranked([MaxOfValue("kind", "ad", window=4, count=1)], 6, attributes=KIND)
    assert slate.items.tolist() == [0, 3, 4, 5, 1, 6]  # posts may follow each other
    assert slate.relaxed == ()


def test_at_least_two_posts_in_the_first_three():
    slate = reranked([MinOfValue("kind", "post", count=2, first=3)], 5, attributes=KIND)
    assert slate.items.tolist() == [0, 3, 4, 1, 2]


def test_at_least_two_fresh_in_the_first_three_and_three_in_all():
    quotas = [FreshQuota(2, 10.0, first=3), FreshQuota(3, 10.0)]
    slate = reranked(quotas, 5, age_s=[99.0, 99.0, 99.0, 99.0, 1.0, 1.0, 1.0])
    assert slate.items.tolist() == [0, 4, 5, 1, 6]
    assert slate.relaxed == ()


def test_an_item_has_a_latest_slot():
    slate = reranked([MaxSlot(item=5, slot=2)], 4, attributes=KIND)
    assert slate.items.tolist() == [0, 1, 5, 2]
    early, clash = MaxSlot(5, 0), MaxSlot(6, 0)
    slate = reranked([early, clash], 3, attributes=KIND)
    assert slate.items.tolist() == [5, 0, 1]
    assert slate.relaxed == ((0, clash),)


TAGS = {"tags": [["news", "sport"], ["news"], ["sport"], ["art"], [], None]}


@pytest.mark.parametrize(
    "tags",
    [
        TAGS["tags"],
        [set(one or []) for one in TAGS["tags"]],
        [frozenset(one or []) for one in TAGS["tags"]],
        [np.array(one or [], object) for one in TAGS["tags"]],
        [["news", "sport", "news"], "news", ["sport"], "art", [None, float("nan")], None],
    ],
    ids=["lists", "sets", "frozensets", "arrays", "mixed"],
)
def test_items_with_several_labels_are_alike_in_each(tags):
    gap = [MinGap("tags", 2)]
    assert reranked(gap, 4, attributes={"tags": tags}).items.tolist() == [0, 3, 1, 2]
    assert reranked([MaxOfValue("tags", "news", 6, 1)], 5, attributes={"tags": tags}).items.tolist() == [0, 2, 3, 4, 5]
    assert reranked([MinOfValue("tags", "art", 1, 1)], 2, attributes={"tags": tags}).items.tolist() == [3, 0]


def test_lists_of_labels_in_a_frame_or_an_arrow_column_are_labels():
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    tags = [["news", "sport"], ["news"], []]
    for column in (pd.Series(tags), pa.array(tags), pa.array(tags).to_pandas()):
        candidates = Candidates(np.ones(3), attributes={"tags": column})
        assert candidates.holders("tags", "news").tolist() == [True, True, False]
        assert "tags" not in candidates.codes


@pytest.mark.parametrize(
    ("price", "items", "slots"), [(0.1, [0, 1, 2], [1, 2]), (0.3, [0, 3, 1], []), (9.0, [0, 3, 1], [])]
)
def test_a_soft_constraint_is_broken_where_that_is_worth_its_price(price, items, slots):
    # the best post is worth .26 less than the second ad
    soft = Soft(MaxOfValue("kind", "ad", 2, 1), price)
    slate = reranked([soft], 3, attributes=KIND)
    assert slate.items.tolist() == items
    assert slate.relaxed == tuple((slot, soft) for slot in slots)
    assert slate.proven
    worth = np.linspace(1.0, 0.1, 8)[items].sum()
    assert slate.utilities.sum() == pytest.approx(worth - price * len(slots), abs=1e-12)


def test_a_hard_constraint_stands_above_any_price():
    soft, hard = Soft(MaxOfValue("kind", "post", 3, 1), 1e6), MinOfValue("kind", "post", 3)
    slate = reranked([soft, hard], 3, attributes=KIND)
    assert slate.items.tolist() == [3, 4, 5]
    assert slate.relaxed == ((1, soft), (2, soft))
    assert slate.proven


@pytest.mark.parametrize("seed", range(60))
def test_what_a_slate_breaks_is_what_the_definitions_say(seed):
    reranker, candidates = constraint_sets.draw((8, seed))
    slate = reranker.rerank(candidates)
    told = slate_by_definition.broken(
        slate.items.tolist(), reranker.constraints, candidates.attributes, candidates.age_s.tolist()
    )
    assert sorted(slate.relaxed, key=str) == sorted(told, key=str)
    pinned = {c.slot: c.item for c in reranker.constraints if isinstance(c, Pin)}
    assert all(slate.items[slot] == item for slot, item in pinned.items())


@pytest.fixture(scope="module", params=[True, False], ids=["monotone", "full"])
def model(request):
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    requests = [modelled(number) for number in range(150)]
    slates = np.array([rng.permutation(7)[:4] for _ in requests])
    clicks = (rng.random(slates.shape) < 0.3 + 0.4 * (slates % 2)).astype(int)
    return ModelReranker.fit(
        requests, slates, {"click": clicks}, attributes=["creator"], monotone=request.param, trees=15,
        parameters={"min_data_in_leaf": 5},
    )  # fmt: skip


def modelled(seed):
    rng = np.random.default_rng(seed)
    return Candidates(
        rng.normal(size=(7, 2)),
        rng.normal(size=(7, 3)),
        {
            "creator": [f"v{value}" for value in rng.integers(4, size=7)],
            "topic": [f"v{value}" for value in rng.integers(4, size=7)],
            "tags": [[f"v{value}" for value in rng.integers(4, size=rng.integers(3))] for _ in range(7)],
        },
        64.0 * rng.integers(0, 6, 7),
    )


def test_a_model_keeps_constraints_as_the_definitions_do(model):
    for seed in range(40):
        candidates = modelled(1000 + seed)
        found, number = [], 0
        while len(found) < 3:  # constraints of other requests that fit seven candidates and four slots
            number += 1
            drawn = [c for c in draw((seed, number)).constraints if not isinstance(c, Pin)]
            found += [c for c in drawn if getattr(getattr(c, "constraint", c), "slot", 0) < 4]
            found = [c for c in found if getattr(getattr(c, "constraint", c), "item", 0) < 7]

        def value(i, placed, candidates=candidates):
            utility = float(model.predict(candidates, [*placed, i])["click"][-1])
            return utility, utility

        slate = model.rerank(candidates, found)
        given = candidates.attributes, candidates.age_s.tolist()
        assert slate.items.tolist() == slate_by_definition.greedy(4, found, value, *given, 7, 0.0)
        told = slate_by_definition.broken(slate.items.tolist(), found, *given)
        assert sorted(slate.relaxed, key=str) == sorted(told, key=str)
        plain = model.rerank(candidates)
        free = model.rerank(candidates, [MaxPerWindow("creator", 4, 4)])
        assert plain.items.tolist() == free.items.tolist()
        assert plain.utilities.tolist() == free.utilities.tolist()


def test_a_model_refuses_what_is_no_constraint(model):
    for junk in (Pin(0, 0), [Relevance()], "pin", [Pin], [Pin(0, 9)], [Pin(9, 0)], [MinGap("author", 2)]):
        with pytest.raises(InvalidInput):
            model.rerank(modelled(0), junk)
    with pytest.raises(InvalidInput, match="prices"):
        model.rerank(modelled(0), [Soft(MinGap("topic", 2), 1e308), Soft(MinGap("creator", 2), 1e308)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MaxOfValue("kind", None, 5, 1), "MaxOfValue: value=None is no value"),
        (lambda: MaxOfValue("kind", float("nan"), 5, 1), "value=nan is no value"),
        (lambda: MaxOfValue("kind", ["ad"], 5, 1), "cannot be compared"),
        (lambda: MaxOfValue("kind", np.ones(2), 5, 1), "cannot be compared"),
        (lambda: MaxOfValue("", "ad", 5, 1), "attribute"),
        (lambda: MaxOfValue("kind", "ad", 0, 1), "window=0 must be at least 1"),
        (lambda: MaxOfValue("kind", "ad", 5, 0), "count=0 must be at least 1"),
        (lambda: MinOfValue("kind", "ad", 2, 0), "first=0 must be at least 1"),
        (lambda: MinOfValue("kind", "ad", 2.5), "count=2.5"),
        (lambda: MinOfValue("kind", str, 2), "no value of an attribute"),
        (lambda: FreshQuota(2, 10.0, first=True), "first=True"),
        (lambda: MaxSlot(-1, 0), "item=-1"),
        (lambda: MaxSlot(0, None), "slot=None"),
        (lambda: Soft(Pin(0, 0), 1.0), "Soft: constraint=.* is no MaxPerWindow or"),
        (lambda: Soft(Soft(MaxSlot(0, 0), 1.0), 1.0), "Soft: constraint"),
        (lambda: Soft(MinGap, 1.0), "give an instance"),
        (lambda: Soft(MinGap("c", 2), -1.0), "price=-1.0 must be at least 0"),
        (lambda: Soft(MinGap("c", 2), float("inf")), "price=inf"),
        (lambda: Soft(MinGap("c", 2), np.timedelta64(1, "s")), "price"),
        (lambda: SequentialGreedyReranker([], 2, [MaxSlot(0, 2)]), "MaxSlot: slot=2 is outside the 2 slots"),
        (lambda: SequentialGreedyReranker([], 2, [Soft(MaxSlot(0, 2), 1)]), "MaxSlot: slot=2 is outside"),
        (lambda: reranked([MaxSlot(99, 0)], 2, attributes=KIND), "MaxSlot: item=99 is not one of the 8"),
        (lambda: reranked([MaxOfValue("author", "ad", 2, 1)], 2, attributes=KIND), "no attribute 'author'"),
        (lambda: reranked([FreshQuota(1, 1.0, 1)], 2, attributes=KIND), "no age_s, which FreshQuota needs"),
        (lambda: Candidates([1.0], attributes={"tags": [[["a"]]]}), r"attributes\['tags'\]\[0\]"),
        (lambda: Candidates([1.0, 1.0], attributes={"tags": [["a"], np.ones((1, 2))]}), r"\[1\] has 2 axes"),
        (lambda: Candidates([1.0, 1.0], attributes={"tags": [["a"], {"b": 1}]}), r"\[1\]"),
        (
            lambda: SequentialGreedyReranker([Relevance((1e308,))], 2, [Soft(MinGap("c", 2), 1e308)]).rerank(
                Candidates([1.0, 1.0], attributes={"c": [1, 1]})
            ),
            "can leave the range of doubles",
        ),
    ],
)
def test_bad_constraints_are_named(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()


def test_a_value_that_no_candidate_has():
    cap, least = MaxOfValue("kind", "video", 2, 1), MinOfValue("kind", "video", 1)
    slate = reranked([cap, least], 2, attributes=KIND)
    assert slate.items.tolist() == [0, 1]
    assert slate.relaxed == ((1, least),)
    assert slate.proven


def test_the_command_line_reads_every_kind(tmp_path, capsys):
    request = {
        "k": 4,
        "objectives": [{"type": "Relevance"}],
        "constraints": [
            {"type": "MaxOfValue", "attribute": "kind", "value": "ad", "window": 4, "count": 1},
            {"type": "MinOfValue", "attribute": "tags", "value": "news", "count": 1, "first": 2},
            {"type": "FreshQuota", "count": 1, "max_age_s": 10, "first": 3},
            {"type": "MaxSlot", "item": 4, "slot": 3},
            {"type": "Soft", "price": 0.3, "constraint": {"type": "MinGap", "attribute": "kind", "gap": 2}},
        ],
        "candidates": {
            "scores": [0.9, 0.8, 0.7, 0.6, 0.5],
            "attributes": {"kind": ["ad", "ad", "post", "post", "post"], "tags": [[], [], [], ["news", "art"], []]},
            "age_s": [99, 99, 1, 99, 99],
        },
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request))
    assert main(["rerank", str(path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["items"] == [0, 3, 2, 4]
    assert [entry["slot"] for entry in printed["relaxed"]] == [2, 3]
    assert printed["relaxed"][0]["constraint"].startswith("Soft(constraint=MinGap(")
    request["constraints"] = [{"type": "Soft", "price": 0.3, "constraint": {"type": "Gap"}}]
    path.write_text(json.dumps(request))
    assert main(["rerank", str(path)]) == 3
    assert "type='Gap' is unknown" in capsys.readouterr().err


def test_files_are_not_written_into_folders_that_do_not_exist(tmp_path, model):
    plots = pytest.importorskip("multislot_rerank.plots")
    pytest.importorskip("matplotlib")
    figure, _ = plots._axis()
    for write in (model.save, lambda path: plots.save(figure, path)):
        with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist; make it first"):
            write(tmp_path / "absent" / "file.svg")
        with pytest.raises(IsADirectoryError, match="is a folder"):
            write(tmp_path)
        write(tmp_path / "file.svg")
        assert [path.name for path in tmp_path.iterdir()] == ["file.svg"]
        (tmp_path / "file.svg").unlink()


def test_the_example_of_the_readme_prints_what_it_says(capsys):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example, printed = re.search(r"## Constraints\n\n```python\n(.*?)```\n\nprints `(.*?)`", text, re.DOTALL).groups()
    exec(example, {})
    assert capsys.readouterr().out.strip() == printed
