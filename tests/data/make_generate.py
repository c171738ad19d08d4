"""Writes goldens of text generation: what transformers (eager attention, f64, no cache: a whole forward pass for every
token) goes on with, greedily, on the demo model and on the small random models of tests/data/forward; and with forward
hooks that edit a layer's output along an SAE's decoder directions.

Usage: make_generate.py DEMO_MODEL TESTS_DATA.  Needs torch, transformers, numpy.

Writes TESTS_DATA/generate/demo.json, random.json and steered.json, and latents.json with the three strongest latents at each
position of a text: prompts, ids and logprobs (of each id, at temperature 1).
`gap` is the smallest distance between the best and the second best logit on the way: far above what f32 is off by.
Edits are {"latent", "strength"} or {"latent", "value"} (clamp; 0: ablate), all computed from the activation as the layer
leaves it, at every position but the first (BOS).
"""
import json, os, sys
import numpy as np
import torch
from transformers import AutoTokenizer, Gemma2ForCausalLM


def load(folder):
    return Gemma2ForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64).eval()


def greedy(model, ids, tokens, eos=None):
    ids, new, logprobs, gap = list(ids), [], [], float("inf")
    for _ in range(tokens):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        best = torch.topk(logits, 2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        token = best.indices[0].item()
        logprobs.append(torch.log_softmax(logits, -1)[token].item())
        ids.append(token)
        new.append(token)
        if token == eos:
            break
    assert gap > 1e-3, f"two tokens are too close to call: {gap}"
    return {"ids": new, "logprobs": [round(x, 6) for x in logprobs], "gap": round(gap, 5)}


def edit(layer, sae, edits):
    """A hook that adds (strength or value - f) * W_dec[latent] to the layer's output, f from the output as it was."""
    def hook(module, args, output):
        x = output[0] if isinstance(output, tuple) else output
        delta = torch.zeros_like(x)
        for e in edits:
            i = e["latent"]
            direction = torch.from_numpy(sae["W_dec"][i].astype(np.float64))
            if "strength" in e:
                delta += e["strength"] * direction
            else:
                z = x @ torch.from_numpy(sae["W_enc"][:, i].astype(np.float64)) + float(sae["b_enc"][i])
                f = torch.where(z > float(sae["threshold"][i]), z, 0.0)
                delta += (e["value"] - f)[..., None] * direction
        delta[:, 0] = 0
        y = x + delta
        return (y,) + output[1:] if isinstance(output, tuple) else y
    return layer.register_forward_hook(hook)


PROMPTS = ["The dog", "A large", "To move", "a small animal", "", "A building where people"]

demo_folder, data = sys.argv[1:]
out = os.path.join(data, "generate")
os.makedirs(out, exist_ok=True)
tokenizer = AutoTokenizer.from_pretrained(demo_folder)
demo = load(demo_folder)


def ids_of(prompt):
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return [2] + ids


def text_case(prompt, tokens, eos=1):
    ids = ids_of(prompt)
    case = greedy(demo, ids, tokens, eos)
    new = [t for t in case["ids"] if t != eos]
    return {"prompt": prompt, "prompt_ids": ids, "tokens": tokens, "text": tokenizer.decode(new)} | case


def dump(name, value):
    with open(os.path.join(out, name), "w") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


cases = []
for prompt in PROMPTS:
    try:
        cases.append(text_case(prompt, 100))
    except AssertionError as e:
        print(repr(prompt), e)
# a prompt of several windows
long = ("A dictionary says what words mean. It lists them from the first letter to the last, and tells of each how it is "
        "written, where it came from, and in which sentences people have used it. Some words have a single meaning, and "
        "others have a dozen: a \"run\" may be a score, a small stream, or a tear in a stocking. Whoever wrote the first "
        "one had to read everything, and to remember what he had read; those who came later could copy him, and did. "
        "A word such as caf\u00e9 keeps its accent, \u9be8 is a whale, and \U0001f40b is one too. To be useful, a book of "
        "this kind must be complete, and it never is: a large")
cases.append(text_case(long, 60))
dump("demo.json", cases)
for c in cases:
    print(len(c["prompt_ids"]), len(c["ids"]), c["gap"], repr(c["prompt"][:40]), "->", repr(c["text"][:300]))

random_cases = []
for name in ["gqa2_window8", "mqa_caps_bite", "like_2b_bf16"]:
    model = load(os.path.join(data, "forward", name))
    for length in [1, 3, 21]:
        torch.manual_seed(length)
        prompt = [2] + torch.randint(3, model.config.vocab_size, (length - 1,)).tolist()
        try:
            random_cases.append({"model": name, "prompt_ids": prompt} | greedy(model, prompt, 40))
        except AssertionError as e:
            print(name, length, e)
dump("random.json", random_cases)

sae = dict(np.load(os.path.join(data, "eval", "params.npz")))
kept = {}
handle = demo.model.layers[3].register_forward_hook(
    lambda m, a, o: kept.__setitem__("x", (o[0] if isinstance(o, tuple) else o)[0].detach()))
probe = ids_of(cases[0]["prompt"]) + cases[0]["ids"]
demo(input_ids=torch.tensor([probe]), use_cache=False)
handle.remove()
z = kept["x"] @ torch.from_numpy(sae["W_enc"].astype(np.float64)) + torch.from_numpy(sae["b_enc"].astype(np.float64))
f = torch.where(z > torch.from_numpy(sae["threshold"].astype(np.float64)), z, 0.0)[1:]
often = torch.argsort((f > 0).sum(0), descending=True)[:8].tolist()
order = torch.argsort(torch.where(z > torch.from_numpy(sae["threshold"].astype(np.float64)), z, 0.0), dim=-1, descending=True)[:, :3]
dump("latents.json", {"prompt": cases[0]["prompt"], "ids": probe,
                      "latents": [[[i, round(z[r, i].item(), 4)] for i in order[r].tolist()] for r in range(len(probe))]})
print("latents that fire most:", often, (f > 0).sum(0)[often].tolist(), "mean norm", kept["x"][1:].norm(dim=-1).mean().item())
steered = []
for edits in [
    [{"latent": often[0], "strength": 30.0}],
    [{"latent": 17, "strength": -25.5}, {"latent": 1000, "strength": 20.0}],
    [{"latent": often[1], "value": 12.0}],
    [{"latent": often[0], "value": 0.0}, {"latent": often[2], "value": 0.0}, {"latent": 5, "strength": 15.0}],
]:
    handle = edit(demo.model.layers[3], sae, edits)
    for prompt in PROMPTS[:2]:
        try:
            c = text_case(prompt, 80)
        except AssertionError as e:
            print(edits, repr(prompt), e)
            continue
        plain = next(x for x in cases if x["prompt"] == prompt)
        assert c["ids"] != plain["ids"][:80], "the edit changes nothing"
        steered.append({"edits": edits} | c)
        print(edits, c["gap"], repr(prompt), "->", repr(c["text"][:200]))
    handle.remove()
dump("steered.json", steered)
