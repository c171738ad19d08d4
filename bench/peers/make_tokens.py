"""Packs a corpus into contexts that begin with BOS, in random order: the same rows for everyone that is compared.

make_tokens.py CORPUS.jsonl.zst TOKENIZER.model OUT.npy [--context 256]
"""

import argparse
import io
import json

import numpy as np
import sentencepiece
import zstandard

BOS = 2

parser = argparse.ArgumentParser()
parser.add_argument("corpus")
parser.add_argument("tokenizer")
parser.add_argument("out")
parser.add_argument("--context", type=int, default=256)
args = parser.parse_args()

rng = np.random.default_rng(6)
tokenizer = sentencepiece.SentencePieceProcessor(model_file=args.tokenizer)
with open(args.corpus, "rb") as file:
    lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
    documents = [json.loads(line)["text"] for line in lines]

stream = []
for i in rng.permutation(len(documents)):
    stream += [BOS] + tokenizer.encode(documents[i])
width = args.context - 1
rows = np.array(stream[: len(stream) // width * width], dtype=np.int32).reshape(-1, width)
rows = np.concatenate([np.full((len(rows), 1), BOS, np.int32), rows], axis=1)
np.save(args.out, rows[rng.permutation(len(rows))])
print(f"make_tokens: {len(rows)} contexts of {args.context} in {args.out}")
