"""Writes small safetensors, npz and npy files with the libraries that define the formats, for the readers' tests.

Usage: make_formats.py OUT.  Needs numpy, torch and safetensors.

Every array holds ramp(n) = (i * 7 % 23 - 11) / 4 in its own dtype (integers: i * 7 % 23; BOOL: i % 3 == 0), exact in all of
them, so that the tests know the values without an oracle.

OUT/dtypes.safetensors     a tensor (2, 3) of every dtype that torch writes, named as the dtype; scalar () and empty (0, 4)
                           F32; with metadata
OUT/stored.npz             numpy.savez: f4 (2, 3), f8 (3, 2), f2 (6), i4 (6), scalar f4 ()
OUT/deflated.npz           numpy.savez_compressed: W f4 (64, 32), h f2 (5), d f8 (5); FW (W) and Fd f8 (2, 3) in Fortran order
OUT/zip64.npz              a member with a forced zip64 local header, stored, and one deflated
OUT/fortran.npy            f4 (2, 3) in Fortran order
OUT/version2.npy           i4 (6) with a version 2.0 header
"""
import os, sys, zipfile
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


main(sys.argv[1])
