"""save_pretrained and from_pretrained, in this process and in fresh ones."""

import json
import subprocess
import sys

import pytest
import torch
from ffn_heavyhitter import CompressionError, Int8, LowRank, MixedBits, Narrow, Split, collect, compress, merge
from ffn_heavyhitter.evaluation import bytes_on_disk
from ffn_heavyhitter.feedforward import compressed_ffns
from ffn_heavyhitter.random_models import FAMILIES, output, tiny, tokens
from safetensors.torch import load_file, save_file

WAYS = {
    "split": Split(heavy=16),
    "int8": Int8(heavy=16),
    "mixed_bits": MixedBits(heavy=16, group_size=32),
    "low_rank": LowRank(share=0.75, heavy=32),
}


def _compressed(family, way):
    model, ids = tiny(family), tokens()
    return compress(model, way, collect(model, [{"input_ids": ids}], moments=True, inputs=True)), ids


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_is_bit_identical(family, way, tmp_path):
    model, ids = _compressed(family, WAYS[way])
    expected = output(model, ids)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert not again.training
    assert {m.kind for m in compressed_ffns(again).values()} == {way}
    assert torch.equal(output(again, ids), expected)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    second = tmp_path / "second"
    again.save_pretrained(second)
    assert torch.equal(output(type(model).from_pretrained(second), ids), expected)
    torch.testing.assert_close(output(merge(again), ids), output(merge(model), ids))


def test_merged_model_is_plain_on_disk(tmp_path):
    model, ids = _compressed("llama", Split(heavy=16))
    expected = output(merge(model), ids)
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert torch.equal(output(type(model).from_pretrained(tmp_path), ids), expected)


FRESH = """
import sys, torch
import ffn_heavyhitter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
home = sys.argv[1]
ids = load_file(home + "/ids.safetensors")["ids"]
places = {name: "cpu" for name in ("model.embed_tokens", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")}
offload = {"device_map": places | {"model.layers.0": "disk"}, "offload_folder": home + "/offload"}
found = {}
for case, folder, options in (("plain", "whole", {}), ("sharded", "shards", {}), ("offloaded", "shards", offload)):
    model = AutoModelForCausalLM.from_pretrained(home + "/" + folder, **options).eval()
    with torch.no_grad():
        found[case] = model(input_ids=ids).logits.clone()
save_file(found, home + "/logits.safetensors")
"""


def test_fresh_process_gives_the_same_bits(tmp_path):
    model, ids = _compressed("llama", Int8(heavy=16))
    expected = output(model, ids)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    save_file({"ids": ids}, tmp_path / "ids.safetensors")
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path)], check=True)
    found = load_file(tmp_path / "logits.safetensors")
    assert set(found) == {"plain", "sharded", "offloaded"}
    assert all(torch.equal(logits, expected) for logits in found.values())


def test_narrow_layers_round_trip(tmp_path):
    model, ids = tiny("opt"), tokens()
    statistics = collect(model, [{"input_ids": ids}], moments=True)
    names = list(statistics.layers)
    compress(model, {names[0]: Narrow(64), names[1]: Narrow(48)}, statistics)
    expected = output(model, ids)
    model.save_pretrained(tmp_path)
    assert torch.equal(output(type(model).from_pretrained(tmp_path), ids), expected)


def test_planned_bytes_are_those_on_disk(tmp_path):
    from ffn_heavyhitter.adapters import find_ffns

    model = tiny("llama")
    model.save_pretrained(tmp_path / "dense")
    way, ffns = Int8(heavy=16), find_ffns(model)
    dense = sum(t.numel() * t.element_size() for ffn in ffns for t in ffn.weights().tensors().values())
    planned = bytes_on_disk(tmp_path / "dense") - dense + sum(way.bytes(ffn.weights()) for ffn in ffns)
    compress(model, way, collect(model, [{"input_ids": tokens()}], moments=True))
    model.save_pretrained(tmp_path / "ours")
    assert bytes_on_disk(tmp_path / "ours") == pytest.approx(planned, rel=0.01)


def test_bad_configs_are_named(tmp_path):
    model, _ = _compressed("llama", Split(heavy=16))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def load(change):
        text = json.loads(json.dumps(config))
        change(text["quantization_config"]["ffn_heavyhitter"])
        (tmp_path / "config.json").write_text(json.dumps(text))
        return type(model).from_pretrained(tmp_path)

    with pytest.raises(CompressionError, match="kind='cubic' is unknown"):
        load(lambda q: q["layers"]["model.layers.0.mlp"].update(kind="cubic"))
    with pytest.raises(CompressionError, match="schema=9"):
        load(lambda q: q.update(schema=9))
    with pytest.raises(CompressionError, match="no FFNs of LlamaForCausalLM"):
        load(lambda q: q["layers"].update(elsewhere={"kind": "split"}))
