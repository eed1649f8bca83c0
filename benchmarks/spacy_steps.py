"""Time training steps of spaCy pipelines with stock dropout, with `fastdrop.thinc.accelerate`, and without dropout.

    python -m benchmarks.spacy_steps [--cpu-time]

The pipelines are those that `spacy init config` makes for the CPU: an embedding and convolutions (width 96, depth 4),
and a tagger or a text classifier. The words are drawn at random.
"""

from __future__ import annotations

import argparse
import random
import time
from itertools import cycle
from typing import Any

import spacy
from spacy.training import Example
from thinc.api import Config, fix_random_seed

import fastdrop as fd
import fastdrop.thinc as ft
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing

RATE = 0.1  # spaCy's default
WORDS = 1000  # per step, where spaCy's default schedule ends
DOCUMENT = 20  # words
TOK2VEC = """
@architectures = "spacy.Tok2Vec.v2"
[model.embed]
@architectures = "spacy.MultiHashEmbed.v2"
width = 96
attrs = ["NORM","PREFIX","SUFFIX","SHAPE"]
rows = [5000,1000,2500,2500]
include_static_vectors = false
[model.encode]
@architectures = "spacy.MaxoutWindowEncoder.v2"
width = 96
depth = 4
window_size = 1
maxout_pieces = 3
"""
TAGGER = '[model]\n@architectures = "spacy.Tagger.v2"\n'
TEXTCAT = """[model]
@architectures = "spacy.TextCatEnsemble.v2"
[model.linear_model]
@architectures = "spacy.TextCatBOW.v3"
exclusive_classes = true
length = 262144
ngram_size = 1
no_output_layer = false
"""
MODELS = {"tagger": TAGGER, "textcat": TEXTCAT}


def config(pipe: str) -> Any:
    tok2vec = "[model.tok2vec]" + TOK2VEC.replace("[model.", "[model.tok2vec.")
    return Config().from_str(MODELS[pipe] + tok2vec)


def documents(nlp: Any, steps: int) -> list[list[Example]]:
    """Return a batch for each step, with tags and categories that depend on the words."""
    rng = random.Random(0)
    batches = []
    for _ in range(steps):
        batch = []
        for _ in range(WORDS // DOCUMENT):
            numbers = [min(int(rng.paretovariate(0.6)), 3000) for _ in range(DOCUMENT)]
            kind = sum(numbers) % 3
            labels = {"tags": [f"T{n % 12}" for n in numbers], "cats": {str(k): float(k == kind) for k in range(3)}}
            doc = spacy.tokens.Doc(nlp.vocab, words=[f"w{n}" for n in numbers])
            batch.append(Example.from_dict(doc, labels))
        batches.append(batch)
    return batches


def step(pipe: str, rate: float, accelerated: bool) -> timing.Trial:
    """Return a training step, which takes another batch at each call."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    model = nlp.add_pipe(pipe, config=config(pipe)).model
    if accelerated:
        ft.accelerate(model)
    batches = documents(nlp, 20)
    optimizer = nlp.initialize(lambda: batches[0] + batches[1])
    following = cycle(batches)
    return timing.Trial(lambda: nlp.update(next(following), sgd=optimizer, drop=rate))


def trials(pipe: str) -> dict[str, timing.Trial]:
    return {
        "stock": step(pipe, RATE, False),
        "accelerate": step(pipe, RATE, True),
        "no dropout": step(pipe, 0.0, False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-time", action="store_true", help="time on the CPU, for a machine with other work")
    if parser.parse_args().cpu_time:
        timing.SECONDS = time.process_time
    fd.set_num_threads(1)
    rows = []
    for pipe in MODELS:
        result = timing.alternate(trials(pipe), rounds=60)
        for name in result.names:
            speed = f"{WORDS / result.time(name).median:,.0f}"
            rows.append([pipe, name, speed, str(result.time(name) * 1e3), str(result.ratio("stock", name))])
    show_table("Training steps of spaCy", ["pipe", "dropout", "words/s", "ms", "stock's time / this"], rows)
    print("; ".join(f"{name}: {value}" for name, value in timing.machine("spacy", "thinc").items()))


if __name__ == "__main__":
    main()
