"""transformers' forward pass, eager attention (its sdpa path drops Gemma 2's softcap): the demo model up to a layer,
and one layer of the 2B model's shape with random weights.

forward_transformers.py MODEL TOKENS.npy RESULTS [--layer 3] [--threads 2] [--seconds 3]
"""

import argparse
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2Model

import result

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("tokens")
parser.add_argument("results")
parser.add_argument("--layer", type=int, default=3)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seconds", type=float, default=3, help="of repeating each; the best one counts")
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)


def measure(job, model, tokens):
    best, start = float("inf"), time.perf_counter()
    with torch.inference_mode():
        model(input_ids=tokens, use_cache=False)  # the first allocates
        while time.perf_counter() - start < args.seconds or best == float("inf"):
            t = time.perf_counter()
            model(input_ids=tokens, use_cache=False)
            best = min(best, time.perf_counter() - t)
    result.append(args.results, "transformers", job, tokens.numel(), best)


rows = torch.from_numpy(np.load(args.tokens)[:16].astype(np.int64))
for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="eager").eval().model
    model.layers = model.layers[: args.layer + 1]
    measure(f"forward to layer {args.layer} of the demo model, {name}", model, rows)

# Everything of the 2B model's layer; the vocabulary, which the layer does not see, is small.
shape = Gemma2Config(
    vocab_size=1024, hidden_size=2304, intermediate_size=9216, num_hidden_layers=1, num_attention_heads=8,
    num_key_value_heads=4, head_dim=256, query_pre_attn_scalar=256, sliding_window=4096, attn_implementation="eager",
)
for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
    measure(f"one layer of 2B's shape, 1024 tokens, {name}", Gemma2Model(shape).to(dtype).eval(),
            torch.randint(3, 1024, (1, 1024)))
