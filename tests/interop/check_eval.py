"""The packages' side of check_eval.sh: check_eval.py MODEL TOKENS.npy OURS.json WORK, WORK with the SAE exported for each package.

SAELens: run_evals() on a HookedRootModule that SAELens itself makes of a Hugging Face model (load_model, AutoModelForCausalLM). Each of the
differences is then taken away, one by one, with SAELens' own functions, until its figures are ours.
dictionary_learning: evaluate() on the activations, with BOS as its buffer gives them and without; loss_recovered() by its formula, see below.
"""
import importlib.metadata, json, os, sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
import numpy as np
import torch
from transformers import AutoModelForCausalLM
from dictionary_learning.evaluation import evaluate
from dictionary_learning.utils import load_dictionary
from sae_lens import SAE
from sae_lens.evals import EvalConfig, run_evals
from sae_lens.load_model import load_model
from sae_lens.training.activation_scaler import ActivationScaler

model_dir, tokens_file, ours_file, work = sys.argv[1:]
LAYER, BATCH = 3, 8
torch.set_num_threads(2)
rows = torch.from_numpy(np.load(tokens_file).astype(np.int64))
SPECIAL = [0, 1, 2]  # padding, EOS, BOS
results = {}  # name -> (L0, explained variance, clean, spliced, zero, recovered)


class Store:  # what run_evals asks of SAELens' ActivationsStore
    store_batch_size_prompts, context_size = BATCH, rows.shape[1]

    def __init__(self): self.reset_input_dataset()
    def reset_input_dataset(self): self.next = 0
    def get_batch_tokens(self, n):
        self.next += n
        return rows[self.next - n:self.next]


def saelens():
    model = load_model("AutoModelForCausalLM", model_dir, device="cpu", model_from_pretrained_kwargs={
        "attn_implementation": "eager", "dtype": torch.float32})  # sdpa drops Gemma 2's soft cap; the default is the file's bf16
    sae = SAE.load_from_disk(f"{work}/saelens")
    sae.cfg.metadata.hook_name = f"model.layers.{LAYER}"  # the same place by the name it has in this class
    batches = len(rows) // BATCH
    config = EvalConfig(batch_size_prompts=BATCH, n_eval_reconstruction_batches=batches, compute_ce_loss=True, compute_l2_norms=True,
                        n_eval_sparsity_variance_batches=batches, compute_sparsity_metrics=True, compute_variance_metrics=True)
    for name, special in [("SAELens run_evals, special tokens excluded", SPECIAL), ("SAELens run_evals, none excluded", False)]:
        m, _ = run_evals(sae, Store(), model, ActivationScaler(), config, exclude_special_tokens=special)
        p = m["model_performance_preservation"]
        results[name] = (m["sparsity"]["l0"], m["reconstruction_quality"]["explained_variance"], p["ce_loss_without_sae"],
                         p["ce_loss_with_sae"], p["ce_loss_with_ablation"], p["ce_loss_score"])
        if special:
            results["  its explained_variance_legacy"] = (None, m["reconstruction_quality"]["explained_variance_legacy"]) + (None,) * 4


@torch.no_grad()
def by_hand(model, ae, spliced_at, zeroed_at, counted):
    """Losses with x_hat and with zero at some positions, over the positions `counted` (of those that have a next token)."""
    layer, sums = model.model.layers[LAYER], torch.zeros(4, dtype=torch.float64)
    for batch in rows.split(BATCH):
        special = torch.isin(batch, torch.tensor(SPECIAL))
        for k, (edit, where) in enumerate([(None, None), (lambda x: ae(x), spliced_at), (torch.zeros_like, zeroed_at)]):
            def hook(_, __, out):
                x = out[0] if isinstance(out, tuple) else out
                new = x if edit is None else torch.where(where(special)[..., None], edit(x), x)
                return (new, *out[1:]) if isinstance(out, tuple) else new
            handle = layer.register_forward_hook(hook)
            logits = model(batch).logits
            handle.remove()
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), batch[:, 1:].flatten(), reduction="none")
            sums[k] += loss[counted(special)[:, :-1].flatten()].sum()
        sums[3] += counted(special)[:, :-1].sum()
    clean, spliced, zero = (sums[:3] / sums[3]).tolist()
    return clean, spliced, zero, (zero - spliced) / (zero - clean)


def everywhere(special): return torch.ones_like(special)
def ordinary(special): return ~special


@torch.no_grad()
def dictionary_learning():
    model = AutoModelForCausalLM.from_pretrained(model_dir, attn_implementation="eager", dtype=torch.float32)
    ae, _ = load_dictionary(f"{work}/dictionary-learning", "cpu")
    hidden = []
    handle = model.model.layers[LAYER].register_forward_hook(lambda _, __, out: hidden.append(out[0] if isinstance(out, tuple) else out))
    for batch in rows.split(BATCH): model(batch)
    handle.remove()
    x, special = torch.cat(hidden).flatten(0, 1), torch.isin(rows, torch.tensor(SPECIAL)).flatten()
    losses = by_hand(model, ae, everywhere, everywhere, everywhere)  # loss_recovered()'s formula
    for name, rows_of in [("dictionary_learning evaluate, BOS kept", x), ("dictionary_learning evaluate, remove_bos", x[~special])]:
        e = evaluate(ae, iter([rows_of]), n_batches=1)
        results[name] = (e["l0"], e["frac_variance_explained"], *(losses if "kept" in name else (None,) * 4))
    shuffled = x[~special][torch.randperm((~special).sum(), generator=torch.Generator().manual_seed(0))]
    e = evaluate(ae, iter(shuffled.split(128)), n_batches=len(shuffled) // 128)
    results["  the same in batches of 128"] = (e["l0"], e["frac_variance_explained"]) + (None,) * 4

    # The differences, one by one: what ours becomes with each of theirs.
    x_hat, kept = ae(x[~special]).double(), x[~special].double()
    error = (kept - x_hat).square().sum()
    by_one = {}
    by_one["formula of ours, in PyTorch"] = ((ae.encode(x[~special]) > 0).sum(-1).double().mean().item(),
        (1 - error / (kept - kept.mean(0)).square().sum()).item(), *by_hand(model, ae, ordinary, ordinary, everywhere))
    centred = (kept - x_hat) - (kept - x_hat).mean(0)
    by_one["  error centred too"] = (None, (1 - centred.square().sum() / (kept - kept.mean(0)).square().sum()).item()) + (None,) * 4
    by_one["  losses at special positions not counted"] = (None, None, *by_hand(model, ae, ordinary, ordinary, ordinary))
    by_one["  special positions zeroed too"] = (None, None, *by_hand(model, ae, ordinary, everywhere, everywhere))
    by_one["  neither counted nor kept from zero: SAELens"] = (None, None, *by_hand(model, ae, ordinary, everywhere, ordinary))
    by_one["  special positions replaced and zeroed: dictionary_learning"] = (None, None, *by_hand(model, ae, everywhere, everywhere, everywhere))
    results.update(by_one)


def loss_recovered_itself():  # last: nnsight leaves PyTorch changed when it fails
    try:
        from nnsight import LanguageModel
        from dictionary_learning.evaluation import loss_recovered
        ae, _ = load_dictionary(f"{work}/dictionary-learning", "cpu")
        lm = LanguageModel(AutoModelForCausalLM.from_pretrained(model_dir, attn_implementation="eager", dtype=torch.float32), tokenizer=None)
        clean, spliced, zero = (v.item() for v in loss_recovered(rows, lm, lm.model.layers[LAYER], ae))
        results["dictionary_learning loss_recovered itself"] = (None, None, clean, spliced, zero, (spliced - zero) / (clean - zero))
        return "loss_recovered()"
    except Exception as e:
        return f"its formula, in PyTorch: loss_recovered() needs nnsight, whose version {importlib.metadata.version('nnsight')}, as \
dictionary_learning asks for it, does not trace this transformers ({type(e).__name__})"


with open(ours_file) as f: j = json.load(f)
s = j["saes"][0]
value = lambda v: v["value"]
clean = value(j["lm_loss"])
results["gemma_sae eval"] = (value(s["l0"]), value(s["explained_variance"]), clean, value(s["spliced_loss"]),
                             clean + value(s["delta_loss_zero_ablation"]), value(s["loss_recovered"]))
saelens()
dictionary_learning()
how = loss_recovered_itself()
print("torch, transformers, sae-lens, dictionary-learning " + ", ".join(
    importlib.metadata.version(n) for n in ["torch", "transformers", "sae-lens", "dictionary-learning"]))
print(f"{len(rows)} contexts of {rows.shape[1]} tokens, each with BOS first; dictionary_learning's losses by {how}\n")
print("| | L0 | explained variance | clean loss | spliced | zero-ablated | recovered |\n|---|---|---|---|---|---|---|")
for name, r in results.items():
    print(f"| {name} | " + " | ".join("" if v is None else f"{v:.5f}" for v in r) + " |")

ours, mine, theirs = results["gemma_sae eval"], results["formula of ours, in PyTorch"], results["SAELens run_evals, special tokens excluded"]
assert all(abs(a - b) < 2e-5 * max(1, abs(a)) for a, b in zip(ours, mine)), (ours, mine)
assert abs(ours[0] - theirs[0]) < 2e-3 and abs(ours[1] - theirs[1]) < 1e-5, (ours, theirs)  # f32 sums: a latent on its threshold
same = results["  neither counted nor kept from zero: SAELens"]
assert all(abs(a - b) < 2e-5 * max(1, abs(a)) for a, b in zip(same[2:], theirs[2:])), (same, theirs)
dl = results["dictionary_learning evaluate, remove_bos"]
assert abs(dl[1] - results["  error centred too"][1]) < 1e-5 and abs(dl[0] - ours[0]) < 2e-3, dl
print("\nevery difference is accounted for")
