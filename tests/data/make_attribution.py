"""Writes the golden of direct logit attribution: what decoder rows do to the demo model's logits, computed with the
modules of transformers in float64.

Usage: make_attribution.py MODEL OUT.  Needs torch, transformers, safetensors. MODEL: tools/demo/model.

OUT/expected.safetensors, for each <case> of res.3, mlp.1 and att.2:
  <case>/rows (3, width) f32      rows of unit norm
  <case>/top, <case>/bottom (3, 10) i32 and /top_logits, /bottom_logits (3, 10) f32
"""
import os, sys
import torch
from safetensors.torch import save_file
from transformers import Gemma2ForCausalLM

model = Gemma2ForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float64)
generator = torch.Generator().manual_seed(7)
out = {}
with torch.no_grad():
    for site, layer in [("res", 3), ("mlp", 1), ("att", 2)]:
        block = model.model.layers[layer]
        width = block.self_attn.o_proj.in_features if site == "att" else model.config.hidden_size
        rows = torch.randn(3, width, generator=generator, dtype=torch.float32)
        rows = (rows / rows.norm(dim=1, keepdim=True)).contiguous()
        u = rows.double()
        if site == "att":
            u = block.self_attn.o_proj(u) * (1 + block.post_attention_layernorm.weight)
        logits = model.lm_head(u * (1 + model.model.norm.weight))
        case = f"{site}.{layer}"
        out[f"{case}/rows"] = rows
        for name, sign in [("top", 1), ("bottom", -1)]:
            values, tokens = (sign * logits).topk(10, dim=1)
            out[f"{case}/{name}"] = tokens.int().contiguous()
            out[f"{case}/{name}_logits"] = (sign * values).float().contiguous()
os.makedirs(sys.argv[2], exist_ok=True)
save_file(out, os.path.join(sys.argv[2], "expected.safetensors"))
