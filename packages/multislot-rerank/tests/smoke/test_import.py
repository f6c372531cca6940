"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata

import multislot_rerank as rerank


def test_import_and_version():
    assert importlib.metadata.version("multislot-rerank").count(".") == 2
    for name in rerank.__all__:
        assert getattr(rerank, name) is not None


def test_rerank_and_evaluate():
    candidates = rerank.Candidates(scores=[0.9, 0.8, 0.7], attributes={"creator": ["ann", "ann", "bob"]})
    objectives = [rerank.Relevance(), rerank.AttributeRepeat("creator", 0.3)]
    assert rerank.SequentialGreedyReranker(objectives, k=3).rerank(candidates).items.tolist() == [0, 2, 1]
    log = rerank.SlateLog.uniform([[0, 1], [0, 2], [2, 1]], [[1, 0], [0, 1], [1, 1]], candidates=3)
    assert rerank.replay(log, rerank.TargetPolicy.deterministic(log, [[0, 1]] * 3)).value[0] == 0.5
