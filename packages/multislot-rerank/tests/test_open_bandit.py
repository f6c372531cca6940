import numpy as np
import pytest
from multislot_rerank import TargetPolicy, estimate_all, replay, sips
from multislot_rerank.open_bandit import open_bandit_log, uniform_target

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("campaign", "ips", "truth", "ess"),
    # published nowhere: measured once from the files, and again here by an independent pandas script
    [("all", 0.00236, 0.00380, 340), ("men", 0.00301, 0.00460, 656), ("women", 0.00744, 0.00460, 2)],
)
def test_golden_numbers_equal_an_independent_script(campaign, ips, truth, ess):
    from oracles.open_bandit_by_hand import thompson_to_uniform

    by_hand = thompson_to_uniform(campaign)
    log = open_bandit_log("bts", campaign)
    plain = sips(log, uniform_target(log))
    normalised = sips(log, uniform_target(log), self_normalized=True)
    assert plain.value[0] == pytest.approx(by_hand["ips"], rel=1e-12)
    assert plain.standard_error[0] == pytest.approx(by_hand["error"], rel=1e-9)
    assert normalised.value[0] == pytest.approx(by_hand["snips"], rel=1e-12)
    assert plain.effective[0] == pytest.approx(by_hand["ess"], rel=1e-12)
    assert plain.max_weight == pytest.approx(by_hand["largest"], rel=1e-12)
    assert plain.value[0] == pytest.approx(ips, abs=5e-6)
    assert open_bandit_log("random", campaign).rewards.mean() == pytest.approx(truth, abs=1e-12)
    assert plain.effective[0] == pytest.approx(ess, abs=0.6)


def test_diagnostics_flag_the_campaign_that_cannot_be_judged():
    women = open_bandit_log("bts", "women")
    ladder = estimate_all(women, uniform_target(women))
    assert ladder.recommended is None
    for rung in ladder.rungs:
        assert any("effective sample 2 of 10000" in doubt for doubt in rung.doubts)
        assert any("over a tenth of the log" in doubt for doubt in rung.doubts)
    everyone = open_bandit_log("bts", "all")
    assert estimate_all(everyone, uniform_target(everyone)).recommended is not None


@pytest.mark.parametrize("campaign", ["all", "men", "women"])
def test_replay_of_the_most_shown_item(campaign):
    from oracles.open_bandit_by_hand import modal_item_replay

    item, matches, clicks = modal_item_replay(campaign)
    log = open_bandit_log("random", campaign)
    result = replay(log, TargetPolicy.deterministic(log, np.full((len(log), 1), item)), "independent")
    assert (int(result.matched[0]), round(result.value[0] * matches)) == (matches, clicks)
