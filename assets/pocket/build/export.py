"""Step 5: assemble the parts as a diffusers folder in float16, with the base images' latents beside it."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file

from assets.pocket.build.common import BASE_STYLES, MODEL, WORK, caption, concepts, load_pictures
from assets.pocket.build.tokenizer import build_tokenizer
from assets.pocket.build.unet import Painter, base_latents, pipeline, trained_vae


def export() -> None:
    """Write `assets/pocket`; the averaged weights are the ones that ship."""
    torch.manual_seed(0)
    pictures, vae = load_pictures(), trained_vae()
    rows = pictures.rows({(style, icon) for style in BASE_STYLES for icon in concepts()})
    mean, _, factor = base_latents(vae, pictures, rows)
    painter = Painter()
    painter.load_state_dict(load_file(WORK / "painter" / "ema.safetensors"))
    pipe = pipeline(painter.eval(), vae, build_tokenizer(), factor)
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(MODEL, safe_serialization=True)
    names = [caption(icon, style) for style, icon in (pictures.names[row] for row in rows)]
    save_file(
        {"latents": mean.half().contiguous()}, MODEL / "base-latents.safetensors", {"captions": json.dumps(names)}
    )
    size = sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file() and "build" not in path.parts)
    print(f"{MODEL}: {size / 1e6:.1f} MB, scaling factor {factor:.4f}")


if __name__ == "__main__":
    export()
