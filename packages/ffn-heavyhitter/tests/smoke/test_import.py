"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata
import subprocess
import sys

import ffn_heavyhitter


def test_import_and_version() -> None:
    assert importlib.metadata.version("ffn-heavyhitter") == "0.1.0"
    assert ffn_heavyhitter.__all__ == sorted(ffn_heavyhitter.__all__)
    assert all(hasattr(ffn_heavyhitter, name) for name in ffn_heavyhitter.__all__)


def test_import_and_help_load_no_torch() -> None:
    code = "import sys, ffn_heavyhitter.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_plug_in_registers_whichever_is_imported_first() -> None:
    check = "from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as m; assert 'ffn_heavyhitter' in m"
    for first in ("import ffn_heavyhitter, transformers", "import transformers.quantizers.auto, ffn_heavyhitter"):
        subprocess.run([sys.executable, "-c", f"{first}; {check}"], check=True)


def test_split_compress_save_load(tmp_path) -> None:
    import torch
    from ffn_heavyhitter.random_models import output, tiny, tokens

    model, ids = tiny("llama"), tokens()
    statistics = ffn_heavyhitter.collect(model, [{"input_ids": ids}], moments=True)
    ffn_heavyhitter.compress(model, ffn_heavyhitter.Int8(heavy=16), statistics)
    model.save_pretrained(tmp_path)
    assert torch.equal(output(type(model).from_pretrained(tmp_path), ids), output(model, ids))
