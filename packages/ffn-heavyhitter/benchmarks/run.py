"""All studies, one table each; finished cells stay in --cache, so that a run can be stopped and resumed.

uv run python packages/ffn-heavyhitter/benchmarks/run.py --model smollm2 --encoder minilm --cache out/ffn-bench
"""

import argparse
from pathlib import Path

import bits
import headline
import rank
import recovery
import structure
import sts
import torch
from papershelf_core.machine import Machine
from study import Study

STUDIES = {"headline": headline, "bits": bits, "structure": structure, "rank": rank, "recovery": recovery}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2", help="folder, or smollm2 for the pip wheel's")
    parser.add_argument("--encoder", default="minilm", help="folder, or minilm for the pip wheel's")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter of an environment with all peers")
    parser.add_argument("--only", nargs="+", choices=[*STUDIES, "sts"], default=[*STUDIES, "sts"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(arguments.model, arguments.cache, arguments.peers)
    for name in arguments.only:
        rows = sts.rows(arguments.encoder, arguments.cache) if name == "sts" else STUDIES[name].rows(study)
        print(f"\n### {name}\n")
        for i, row in enumerate(rows):
            print("| " + " | ".join(row) + " |")
            if i == 0:
                print("|" + " --- |" * len(row))
    print("\n" + str(Machine.here("ffn-heavyhitter", "torch", "transformers")))


if __name__ == "__main__":
    main()
