import numpy as np
import pytest
from multislot_rerank import InvalidInput, diversify
from oracles.brute_slates import dpp_matrix, mmr_matrix


def problem(seed, items, dimension=16):
    """Random items; every third seed has duplicates and scores with many ties, every fourth comes in clusters."""
    rng = np.random.default_rng(seed)
    embeddings, scores = rng.normal(size=(items, dimension)), rng.random(items)
    if seed % 4 == 0:
        embeddings = rng.normal(size=(8, dimension))[rng.integers(8, size=items)] + 0.3 * embeddings
    if seed % 3 == 0:
        embeddings[items // 2 :] = embeddings[: items - items // 2]
        scores = np.round(scores, 1)
    return embeddings, scores


@pytest.mark.parametrize("diversity", [0.2, 0.5, 0.9])
def test_mmr_equals_a_full_scan_in_double_precision_on_200_seeds(diversity):
    for seed in range(200):
        embeddings, scores = problem(seed, 20 + seed)
        chosen = diversify(embeddings, scores, 15, "mmr", diversity).indices.tolist()
        assert chosen == mmr_matrix(embeddings, scores, 15, diversity), f"seed {seed}"


@pytest.mark.parametrize("diversity", [0.2, 0.5, 1.0])
def test_dpp_equals_solving_with_the_gram_matrix_on_200_seeds(diversity):
    for seed in range(200):
        embeddings, scores = problem(seed, 20 + seed)
        quality = np.exp((1 - diversity) * (scores - scores.mean()) / scores.std())
        result = diversify(embeddings, scores, 12, "dpp", diversity)
        rank = min(12, np.linalg.matrix_rank(embeddings), len(np.unique(embeddings, axis=0)))
        assert result.filled == 12 - rank
        assert result.indices.tolist()[:rank] == dpp_matrix(embeddings, quality, rank), f"seed {seed}"


def test_single_precision_input_is_computed_in_double():
    embeddings, scores = problem(1, 120)
    single = embeddings.astype(np.float32)
    assert diversify(single, scores, 20, "mmr").indices.tolist() == mmr_matrix(single.astype(float), scores, 20, 0.5)


def test_dpp_beyond_the_rank_fills_by_relevance_and_says_so():
    rng = np.random.default_rng(0)
    embeddings, scores = rng.normal(size=(30, 4)), rng.random(30)
    result = diversify(embeddings, scores, 10, "dpp", 0.5)
    assert result.filled == 6
    assert len(set(result.indices.tolist())) == 10
    rest = [i for i in np.argsort(-scores) if i not in result.indices[:4]]
    assert result.indices[4:].tolist() == rest[:6]
    assert np.isnan(result.selection_scores[4:]).all()


def test_msd_is_the_sum_of_distances():
    embeddings, scores = problem(7, 40)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    placed = [int(np.argmax(scores))]
    while len(placed) < 8:
        value = 0.4 * scores + 0.6 * (1 - unit @ unit[placed].T).sum(axis=1)
        value[placed] = -np.inf
        placed.append(int(np.argmax(value)))
    assert diversify(embeddings, scores, 8, "msd", 0.6).indices.tolist() == placed


@pytest.mark.parametrize("strategy", ["mmr", "msd", "dpp"])
def test_diversity_zero_is_relevance_alone(strategy):
    embeddings, scores = problem(2, 50)
    assert diversify(embeddings, scores, 10, strategy, 0.0).indices.tolist() == np.argsort(-scores)[:10].tolist()


@pytest.mark.parametrize("strategy", ["mmr", "msd"])
def test_diversity_one_starts_with_the_most_relevant(strategy):
    embeddings, scores = problem(5, 50)
    assert diversify(embeddings, scores, 5, strategy, 1.0).indices[0] == np.argmax(scores)


def test_a_zero_vector_is_similar_to_nothing():
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert diversify(embeddings, [1.0, 0.9, 0.5], 2, "mmr", 0.5).indices.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"embeddings": [[1.0, np.nan], [0.0, 1.0]]}, r"embeddings\[0\] is not finite"),
        ({"embeddings": [[1, np.inf], [0, 1]]}, r"embeddings\[0, 1\]=inf|embeddings\[0\] is not finite"),
        ({"scores": [0.5, np.nan]}, r"scores\[1\]=nan is not finite"),
        ({"scores": [0.5]}, "scores has 1 entries for 2 embeddings"),
        ({"embeddings": [1.0, 2.0]}, r"embeddings has shape \(2,\)"),
        ({"k": 0}, "k=0 must be between 1 and the 2 items"),
        ({"k": 3}, "k=3 must be between"),
        ({"diversity": 1.5}, "diversity=1.5 must be inside"),
        ({"strategy": "ssd"}, "strategy='ssd' is unknown; use one of mmr, msd, dpp"),
    ],
)
def test_bad_input_is_named(changed, message):
    arguments = {"embeddings": [[1.0, 0.0], [0.0, 1.0]], "scores": [0.5, 0.4], "k": 1, "strategy": "mmr"}
    with pytest.raises(InvalidInput, match=message):
        diversify(**(arguments | changed))
