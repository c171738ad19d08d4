"""Trains a JumpReLU SAE on a model's residual stream with dictionary_learning, and says how long it took.

dl_run.py MODEL TOKENS.npy RESULTS [--layer 3] [--width 4096] [--tokens 400000] [--l0 32] [--lr 1e-3] [--threads 2]

The activations come from a plain buffer on a forward hook, filled and shuffled as dictionary_learning's own is: that
one needs nnsight, which does not load this model. A hook costs less than nnsight's tracing.
"""

import argparse
import time

import numpy as np
import torch
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from transformers import AutoModelForCausalLM

import result

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("tokens_file")
parser.add_argument("results")
parser.add_argument("--layer", type=int, default=3)
parser.add_argument("--width", type=int, default=4096)
parser.add_argument("--tokens", type=int, default=400_000)
parser.add_argument("--l0", type=float, default=32)
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)

batch, pool_size = 4096, 65536
steps = args.tokens // batch
model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager").eval()
model.model.layers = model.model.layers[: args.layer + 1]
tapped = {}
model.model.layers[args.layer].register_forward_hook(
    lambda module, inputs, out: tapped.update(x=out[0] if isinstance(out, tuple) else out)
)
rows = torch.from_numpy(np.load(args.tokens_file).astype(np.int64))


def batches():
    """Half of a shuffled pool at a time, refilled from the model."""
    generator = torch.Generator().manual_seed(0)
    pool, next_row = torch.empty(0, model.config.hidden_size), 0
    while True:
        parts, held = [pool], len(pool)
        while held < pool_size:
            tokens = rows[next_row : next_row + 16]
            next_row = (next_row + 16) % (len(rows) - 16)
            with torch.no_grad():
                model.model(input_ids=tokens, use_cache=False)
            parts.append(tapped["x"][tokens > 2])  # not at padding, EOS and BOS
            held += len(parts[-1])
        pool = torch.cat(parts)
        pool = pool[torch.randperm(len(pool), generator=generator)]
        given = len(pool) // 2 // batch * batch
        yield from pool[:given].split(batch)
        pool = pool[given:]


stream = batches()
scale = next(stream).pow(2).sum(-1).mean().sqrt()
trainer = JumpReluTrainer(
    steps=steps, activation_dim=model.config.hidden_size, dict_size=args.width, layer=args.layer, lm_name="demo",
    device="cpu", seed=1, lr=args.lr, warmup_steps=max(1, steps // 20), sparsity_warmup_steps=steps // 5,
    decay_start=None, target_l0=args.l0, bandwidth=0.001, sparsity_penalty=1.0,
)
start = time.perf_counter()  # the first pool is not counted: the comparison rather errs in the peer's favour
for step in range(steps):
    trainer.update(step, next(stream) / scale)
seconds = time.perf_counter() - start
result.append(args.results, "dictionary_learning", "training, f32", steps * batch, seconds)
