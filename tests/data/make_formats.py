"""Writes small safetensors, npz and npy files with the libraries that define the formats, for the readers' tests.

Usage: make_formats.py OUT [saes].  Needs numpy, torch and safetensors.

Every array holds ramp(n) = (i * 7 % 23 - 11) / 4 in its own dtype (integers: i * 7 % 23; BOOL: i % 3 == 0), exact in all of
them, so that the tests know the values without an oracle.

OUT/dtypes.safetensors     a tensor (2, 3) of every dtype that torch writes, named as the dtype; scalar () and empty (0, 4)
                           F32; with metadata
OUT/stored.npz             numpy.savez: f4 (2, 3), f8 (3, 2), f2 (6), i4 (6), scalar f4 ()
OUT/deflated.npz           numpy.savez_compressed: W f4 (64, 32), h f2 (5), d f8 (5); FW (W) and Fd f8 (2, 3) in Fortran order
OUT/zip64.npz              a member with a forced zip64 local header, stored, and one deflated
OUT/fortran.npy            f4 (2, 3) in Fortran order
OUT/version2.npy           i4 (6) with a version 2.0 header
OUT/dtypes.pt              torch.save of a dict: F64, F32, F16, BF16 (2, 3) from one ramp each; transposed: the F32 of shape (3, 2) as a view
                           of (2, 3); tail: elements 2 to 5 of the F32, in its storage; scalar (); empty (0, 4)
OUT/module.pt              torch.save of a module's state_dict(), an OrderedDict with metadata: weight (2, 3), bias (2), ramps

With sae-lens, dictionary-learning and circuit-tracer too (make_formats.py OUT saes) it writes JumpReLU SAEs as these save them, each
with OUT/.../expected.safetensors: x (n, d), and f (n, F) and x_hat (n, d) of that package in f64.

OUT/dictionary_learning    ae.pt, config.json of a JumpReluTrainer: W_enc is the transpose of another tensor, as it comes
OUT/circuit_tracer         layer_5.safetensors, by SingleLayerTranscoder.to_safetensors
OUT/gemma_scope_2          resid_post/layer_7_width_40_l0_small/: params.safetensors and config.json, which no package writes, as
                           SAELens' loader reads them; what is expected is SAELens'; its decoder's rows are of norms 0.5 to 2 and one is 0
"""
import json, os, sys, zipfile
import numpy as np
import torch
from safetensors.torch import save_file


def ramp(n): return (np.arange(n) * 7 % 23 - 11) / 4
def integers(n): return np.arange(n) * 7 % 23


def member(z, name, array, force_zip64):
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)); info.compress_type = z.compression
    with z.open(info, "w", force_zip64=force_zip64) as f: np.lib.format.write_array(f, array)


def main(out):
    os.makedirs(out, exist_ok=True)
    f = torch.tensor(ramp(6)).reshape(2, 3)
    i = torch.tensor(integers(6)).reshape(2, 3)
    tensors = {n: f.to(t) for n, t in [("F64", torch.float64), ("F32", torch.float32), ("F16", torch.float16),
               ("BF16", torch.bfloat16), ("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)]}
    tensors |= {n: i.to(t) for n, t in [("I64", torch.int64), ("I32", torch.int32), ("I16", torch.int16),
                ("I8", torch.int8), ("U8", torch.uint8), ("U16", torch.uint16), ("U32", torch.uint32),
                ("U64", torch.uint64)]}
    tensors["BOOL"] = (torch.arange(6) % 3 == 0).reshape(2, 3)
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.zeros(0, 4)
    save_file(tensors, f"{out}/dtypes.safetensors", {"format": "pt", "note": "naïve \"quotes\""})

    np.savez(f"{out}/stored.npz", f4=ramp(6).reshape(2, 3).astype("<f4"), f8=ramp(6).reshape(3, 2),
             f2=ramp(6).astype("<f2"), i4=integers(6).astype("<i4"), scalar=np.float32(2.5))
    np.savez_compressed(f"{out}/deflated.npz", W=ramp(2048).reshape(64, 32).astype("<f4"), h=ramp(5).astype("<f2"),
                        d=ramp(5), FW=np.asfortranarray(ramp(2048).reshape(64, 32).astype("<f4")),
                        Fd=np.asfortranarray(ramp(6).reshape(2, 3)))
    with zipfile.ZipFile(f"{out}/zip64.npz", "w", zipfile.ZIP_STORED) as z:
        member(z, "W_enc.npy", ramp(6).reshape(2, 3).astype("<f4"), True)
        z.compression = zipfile.ZIP_DEFLATED
        member(z, "b_enc.npy", ramp(3).astype("<f4"), True)
    np.save(f"{out}/fortran.npy", np.asfortranarray(ramp(6).reshape(2, 3).astype("<f4")))
    with open(f"{out}/version2.npy", "wb") as g: np.lib.format.write_array(g, integers(6).astype("<i4"), version=(2, 0))

    f32 = f.float()
    torch.save({"F64": f.clone(), "F32": f32, "F16": f.half(), "BF16": f.bfloat16(), "transposed": f32.clone().T,
                "tail": f32.flatten()[2:], "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}, f"{out}/dtypes.pt")
    module = torch.nn.Linear(3, 2)
    with torch.no_grad(): module.weight.copy_(f); module.bias.copy_(torch.tensor(ramp(2)))
    torch.save(module.state_dict(), f"{out}/module.pt")


D, F, N = 12, 40, 10


def parameters(seed, norms):
    g = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(F, D, generator=g), dim=-1)
    p = {"W_enc": W_dec.T + 0.1 * torch.randn(D, F, generator=g), "W_dec": W_dec * norms[:, None],
         "b_enc": 0.5 * torch.randn(F, generator=g), "b_dec": 3 * torch.randn(D, generator=g),
         "threshold": torch.rand(F, generator=g)}
    return p, (4 * torch.randn(N, D, generator=g)).float()


def expect(path, x, encode, decode):
    with torch.no_grad():
        f = encode(x.double())
        save_file({"x": x, "f": f.float().contiguous(), "x_hat": decode(f).float().contiguous()}, path)
    print(f"{path}: L0 {(f > 0).double().sum(-1).mean():.2f} of {F}")


def saes(out):
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    folder = f"{out}/dictionary_learning"; os.makedirs(folder, exist_ok=True)
    trainer = JumpReluTrainer(activation_dim=D, dict_size=F, layer=7, lm_name="google/gemma-2-2b", steps=10_000, device="cpu",
                              submodule_name="resid_post_layer_7")
    p, x = parameters(4, torch.ones(F))
    with torch.no_grad():
        for name, value in p.items(): getattr(trainer.ae, name).copy_(value)
    torch.save({k: v.cpu() for k, v in trainer.ae.state_dict().items()}, f"{folder}/ae.pt")  # as trainSAE ends
    with open(f"{folder}/config.json", "w") as g: json.dump({"trainer": trainer.config}, g, indent=4)
    ae = trainer.ae.double()
    expect(f"{folder}/expected.safetensors", x, ae.encode, ae.decode)

    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder
    folder = f"{out}/circuit_tracer"; os.makedirs(folder, exist_ok=True)
    p, x = parameters(5, torch.ones(F))
    sae = SingleLayerTranscoder(D, F, JumpReLU(p["threshold"], 0.1), 5, dtype=torch.float32, device=torch.device("cpu"))
    with torch.no_grad():
        sae.W_enc.copy_(p["W_enc"].T)
        for name in ["W_dec", "b_enc", "b_dec"]: getattr(sae, name).copy_(p[name])
    sae.to_safetensors(f"{folder}/layer_5.safetensors")
    sae = sae.double()
    expect(f"{folder}/expected.safetensors", x, sae.encode, sae.decode)

    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
    folder = f"{out}/gemma_scope_2/resid_post/layer_7_width_40_l0_small"; os.makedirs(folder, exist_ok=True)
    norms = torch.linspace(0.5, 2, F); norms[3] = 0; norms[4] = 1
    p, x = parameters(6, norms)
    save_file({k.lower(): v.contiguous() for k, v in p.items()}, f"{folder}/params.safetensors")
    with open(f"{folder}/config.json", "w") as g:
        json.dump({"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": "model.layers.7.output",
                   "hf_hook_point_out": "model.layers.7.output", "width": F, "l0": 20, "type": "sae"}, g, indent=2)
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D, d_sae=F, apply_b_dec_to_input=False, dtype="float64"))
    sae.load_state_dict({k: v.double() for k, v in p.items()})
    expect(f"{folder}/expected.safetensors", x, sae.encode, sae.decode)


main(sys.argv[1])
if sys.argv[2:] == ["saes"]: saes(sys.argv[1])

