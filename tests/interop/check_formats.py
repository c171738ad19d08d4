"""The packages' side of check_formats.sh: `write WORK` writes SAEs with them, `compare WORK` reads ours with them and what was imported.

Everything is computed in f64 from the f32 that the files hold, so that a difference is one of parameters or of formulas, not of
rounding. The reference is the formula of docs/formats.md on params.npz: f = z where z > threshold, z = x W_enc + b_enc;
x_hat = f W_dec + b_dec.
"""
import glob, importlib.metadata, json, os, platform, sys, tempfile
from pathlib import Path
from unittest import mock
import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

BOUND = 1e-5
NAMES = ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"]


def parameters(path):
    with np.load(path) as file:
        assert sorted(file.keys()) == sorted(NAMES) and all(file[n].dtype == np.float32 for n in NAMES)
        return {n: torch.from_numpy(file[n]) for n in NAMES}


def reference(p, x):
    p = {n: v.double() for n, v in p.items()}
    z = x @ p["W_enc"] + p["b_enc"]
    f = torch.where(z > p["threshold"], z, 0)
    return f, f @ p["W_dec"] + p["b_dec"]


def theirs(work):  # the trained SAE's latents in another order; each format with what only it has
    p = parameters(f"{work}/ours/gemma-scope/params.npz")
    order = torch.randperm(len(p["b_enc"]), generator=torch.Generator().manual_seed(1))
    return {"W_enc": p["W_enc"][:, order].contiguous(), "W_dec": p["W_dec"][order].contiguous(),
            "b_enc": p["b_enc"][order], "b_dec": p["b_dec"], "threshold": p["threshold"][order]}


def write(work):
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    p = theirs(work)
    d, F = p["W_enc"].shape
    folder = {name: Path(work, "theirs", name) for name in ["gemma-scope-2", "saelens", "dictionary-learning", "circuit-tracer"]}
    for path in folder.values(): path.mkdir(parents=True)

    norms = torch.linspace(0.5, 2, F)
    save_file({"w_enc": p["W_enc"], "w_dec": p["W_dec"] * norms[:, None], "b_enc": p["b_enc"], "b_dec": p["b_dec"],
               "threshold": p["threshold"]}, folder["gemma-scope-2"] / "params.safetensors")
    (folder["gemma-scope-2"] / "config.json").write_text(json.dumps(
        {"architecture": "jump_relu", "model_name": "gemma-3-1b-pt", "hf_hook_point_in": "model.layers.3.output"}))

    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d, d_sae=F, apply_b_dec_to_input=True, metadata=SAEMetadata(
        model_name="demo", hook_name="blocks.3.hook_resid_post")))
    with torch.no_grad():
        for name in NAMES: getattr(sae, name).copy_(p[name])
        sae.b_enc += (p["b_dec"].double() @ p["W_enc"].double()).float()
    sae.save_model(folder["saelens"])

    trainer = JumpReluTrainer(activation_dim=d, dict_size=F, layer=3, lm_name="demo", steps=10_000, device="cpu",
                              submodule_name="resid_post_layer_3")
    with torch.no_grad():
        for name in NAMES: getattr(trainer.ae, name).copy_(p[name])
    torch.save({k: v.cpu() for k, v in trainer.ae.state_dict().items()}, folder["dictionary-learning"] / "ae.pt")
    (folder["dictionary-learning"] / "config.json").write_text(json.dumps({"trainer": trainer.config}))

    sae = SingleLayerTranscoder(d, F, JumpReLU(p["threshold"], 0.1), 3, dtype=torch.float32, device=torch.device("cpu"))
    with torch.no_grad():
        sae.W_enc.copy_(p["W_enc"].T)
        for name in ["W_dec", "b_enc", "b_dec"]: getattr(sae, name).copy_(p[name])
    sae.to_safetensors(str(folder["circuit-tracer"] / "layer_3.safetensors"))


def row(what, reader, got, want):
    (f, x_hat), (f0, x0) = got, want
    df = ((f - f0).abs().max() / f0.abs().max()).item()
    dx = ((x_hat - x0).abs().max() / x0.abs().max()).item()
    other = ((f > 0) != (f0 > 0)).sum().item()
    print(f"| {what} | {reader} | {df:.1e} | {dx:.1e} | {other} |")
    return df <= BOUND and dx <= BOUND


def run(sae, x):
    sae = sae.double()
    with torch.no_grad():
        f = sae.encode(x)
        return f.to_dense() if f.is_sparse else f, sae.decode(f)


def local(repo_id, filename, subfolder=None, **_):  # stands for hf_hub_download: repo_id is a folder here
    path = os.path.join(repo_id, subfolder or "", filename)
    return path


def compare(work):
    from circuit_tracer.transcoder.single_layer_transcoder import (
        load_gemma_scope_2_transcoder, load_gemma_scope_transcoder, load_relu_transcoder)
    from dictionary_learning import JumpReluAutoEncoder
    from dictionary_learning.utils import load_dictionary
    from sae_lens import SAE
    import sae_lens.loading.pretrained_sae_loaders as loaders
    print(f"Python {platform.python_version()}, " + ", ".join(
        f"{n} {importlib.metadata.version(n)}" for n in
        ["torch", "safetensors", "sae-lens", "dictionary-learning", "circuit-tracer"]))
    x = torch.from_numpy(load_file(f"{work}/x.safetensors")["res.3"]).double()
    ours, p = Path(work, "ours"), parameters(f"{work}/ours/gemma-scope/params.npz")
    want = reference(p, x)
    print(f"{len(x)} activations of res.3, {len(p['b_enc'])} latents, L0 {(want[0] > 0).sum(-1).double().mean():.2f}; rows of W_dec are "
          f"within {(p['W_dec'].double().norm(dim=1) - 1).abs().max():.1e} of norm 1\n")
    print("| exported as | read by | f | x_hat | latents that fire on one side alone |\n|---|---|---|---|---|")
    cpu, good = torch.device("cpu"), True

    sae = SAE.load_from_disk(ours / "saelens")
    c = sae.cfg
    assert (c.architecture(), c.normalize_activations, c.apply_b_dec_to_input) == ("jumprelu", "none", False), c
    assert (c.metadata.hook_name, c.metadata.model_name) == ("blocks.3.hook_resid_post", "demo"), c.metadata
    good &= row("saelens", "SAE.load_from_disk", run(sae, x), want)
    ae, config = load_dictionary(str(ours / "dictionary-learning"), "cpu")
    assert torch.load(ours / "dictionary-learning/ae.pt", weights_only=True)["W_enc"].dtype == torch.float32
    good &= row("dictionary-learning", "load_dictionary; torch.load(weights_only=True)", run(ae, x), want)
    with mock.patch.object(loaders, "hf_hub_download", local):
        cfg, state, _ = loaders.dictionary_learning_sae_huggingface_loader_1(str(ours), "dictionary-learning")
        assert cfg["architecture"] == "jumprelu" and not cfg["apply_b_dec_to_input"]
        good &= row("dictionary-learning", "SAELens' dictionary_learning_1", reference({n: state[n] for n in NAMES}, x), want)
    try:
        import sae_bench.custom_saes.jumprelu_sae as bench
        with mock.patch.object(bench, "hf_hub_download", lambda repo_id, filename, **_: os.path.join(repo_id, filename)):
            sae = bench.load_dictionary_learning_jump_relu_sae(str(ours / "dictionary-learning"), "ae.pt", "demo", cpu, torch.float32)
        good &= row("dictionary-learning", f"SAEBench {importlib.metadata.version('sae-bench')}", run(sae, x), want)
    except ImportError as e:
        print(f"SAEBench was not there: {e}", file=sys.stderr)
    sae = load_relu_transcoder(str(ours / "circuit-tracer/layer_3.safetensors"), 3, cpu, lazy_encoder=False, lazy_decoder=False)
    good &= row("circuit-tracer", "load_relu_transcoder", run(sae, x), want)
    sae = load_gemma_scope_transcoder(str(ours / "gemma-scope/params.npz"), 3, cpu)
    good &= row("gemma-scope", "circuit-tracer's load_gemma_scope_transcoder", run(sae, x), want)
    with tempfile.TemporaryDirectory() as repo, mock.patch.object(loaders, "hf_hub_download", local):
        scope = Path(repo, "gemma-scope-2b-pt-res/layer_3/width_1k"); scope.parent.mkdir(parents=True)
        scope.symlink_to(ours / "gemma-scope")
        cfg, state, _ = loaders.gemma_2_sae_huggingface_loader(f"{repo}/gemma-scope-2b-pt-res", "layer_3/width_1k")
        assert (cfg["hook_name"], cfg["apply_b_dec_to_input"]) == ("blocks.3.hook_resid_post", False)
        good &= row("gemma-scope", "SAELens' gemma_2", reference({n: state[n] for n in NAMES}, x), want)

    print("\n| written by | then imported | f | x_hat | latents that fire on one side alone |\n|---|---|---|---|---|")
    theirs_at = Path(work, "theirs")
    for name, writer, read in [
        ("saelens", "SAE.save_model, apply_b_dec_to_input", lambda at: SAE.load_from_disk(at)),
        ("dictionary-learning", "torch.save of JumpReluAutoEncoder", lambda at: JumpReluAutoEncoder.from_pretrained(f"{at}/ae.pt")),
        ("circuit-tracer", "SingleLayerTranscoder.to_safetensors",
         lambda at: load_relu_transcoder(f"{at}/layer_3.safetensors", 3, cpu, lazy_encoder=False, lazy_decoder=False)),
        ("gemma-scope-2", "safetensors; read by circuit-tracer", lambda at: load_gemma_scope_2_transcoder(f"{at}/params.safetensors", 3, cpu)),
    ]:
        f, x_hat = run(read(theirs_at / name), x)
        imported = parameters(glob.glob(f"{work}/imported/{name}/params.npz")[0])
        if name == "gemma-scope-2":  # decoder rows of norms 0.5 to 2: f is scaled by them
            f = f * torch.linspace(0.5, 2, f.shape[1]).double()
        good &= row(writer, name, reference(imported, x), (f, x_hat))
    print(f"\n{'all within' if good else 'NOT all within'} {BOUND:g} of the largest value")
    return good


torch.set_num_threads(2)
if sys.argv[1] == "write": write(sys.argv[2])
elif not compare(sys.argv[2]): sys.exit(1)
