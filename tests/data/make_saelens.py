"""Writes tests/data/formats/saelens_tiny: a JumpReLU SAE as SAELens saves it, with a decoder bias that is subtracted
from the input, and what SAELens computes with it.

Usage: make_saelens.py OUT.  Needs torch, safetensors, sae-lens.

OUT/cfg.json, OUT/sae_weights.safetensors   as SAE.save_model writes them
OUT/expected.safetensors                    x (n, d), f (n, F) = encode(x), x_hat (n, d) = decode(f), f32 but computed in f64
"""
import sys
import torch
from safetensors.torch import save_file
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata

D, F, N = 12, 40, 50
g = torch.Generator().manual_seed(3)
cfg = JumpReLUSAEConfig(d_in=D, d_sae=F, apply_b_dec_to_input=True,
                        metadata=SAEMetadata(model_name="gemma-2-2b", hook_name="blocks.7.hook_mlp_out"))
sae = JumpReLUSAE(cfg)
with torch.no_grad():
    sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(F, D, generator=g), dim=-1))
    sae.W_enc.copy_(sae.W_dec.T + 0.1 * torch.randn(D, F, generator=g))
    sae.b_enc.copy_(0.5 * torch.randn(F, generator=g))
    sae.b_dec.copy_(3 * torch.randn(D, generator=g))
    sae.threshold.copy_(torch.rand(F, generator=g))
sae.save_model(sys.argv[1])
sae.to(dtype=torch.float64)
x = (4 * torch.randn(N, D, generator=g)).float()
with torch.no_grad():
    f = sae.encode(x.double())
    x_hat = sae.decode(f)
save_file({"x": x, "f": f.float().contiguous(), "x_hat": x_hat.float().contiguous()}, sys.argv[1] + "/expected.safetensors")
print(f"L0 {(f > 0).double().sum(-1).mean():.2f} of {F}")
