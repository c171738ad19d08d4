"""Trains a JumpReLU SAE on a model's residual stream with SAELens, and says how long it took.

saelens_run.py MODEL TOKENS.npy RESULTS [--layer 3] [--width 4096] [--tokens 400000] [--l0 32] [--lr 1e-3] [--threads 2]
"""

import argparse
import json
import os
import tempfile
import time

os.environ["WANDB_MODE"] = "disabled"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import sae_lens.training.activations_store as activations_store
import torch
from datasets import Dataset
from sae_lens import (
    JumpReLUTrainingSAEConfig,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
)

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

# It would compare the rows with the tokenizer's own way to begin a text; ours begin with BOS as Gemma's do.
activations_store.validate_pretokenized_dataset_tokenizer = lambda **_: None

batch = 4096
steps = args.tokens // batch
rows = np.load(args.tokens_file)
rows = rows[: args.tokens // (rows.shape[1] - 1) + 400]  # 320 contexts more: what it estimates the norm on
with open(os.path.join(args.model, "config.json")) as file:
    d = json.load(file)["hidden_size"]

sae = JumpReLUTrainingSAEConfig(
    d_in=d, d_sae=args.width, jumprelu_sparsity_loss_mode="quadratic", l0_coefficient=1.0, target_l0=args.l0,
    l0_warm_up_steps=steps // 5, jumprelu_bandwidth=0.05, jumprelu_init_threshold=0.01,
    normalize_activations="expected_average_only_in", apply_b_dec_to_input=True,
)
with tempfile.TemporaryDirectory() as out:
    config = LanguageModelSAERunnerConfig(
        sae=sae, model_name=args.model, model_class_name="AutoModelForCausalLM",
        hook_name=f"model.layers.{args.layer}", dataset_path="local", streaming=False, is_dataset_tokenized=True,
        context_size=rows.shape[1], training_tokens=args.tokens, train_batch_size_tokens=batch,
        store_batch_size_prompts=16, n_batches_in_buffer=256, lr=args.lr, adam_beta1=0.0,
        lr_warm_up_steps=max(1, steps // 20), device="cpu", dtype="float32", prepend_bos=True,
        exclude_special_tokens=[0, 1, 2], n_checkpoints=0, checkpoint_path=None, output_path=out,
        logger=LoggingConfig(log_to_wandb=False), model_from_pretrained_kwargs={"attn_implementation": "eager"},
        n_batches_for_norm_estimate=20, seed=1,
    )
    runner = LanguageModelSAETrainingRunner(
        config, override_dataset=Dataset.from_dict({"input_ids": [row.tolist() for row in rows]})
    )
    start = time.perf_counter()
    runner.run()
    seconds = time.perf_counter() - start
result.append(args.results, "SAELens", "training, f32", args.tokens, seconds)
