"""Make journey.png: the last picture of `tiny-asr trace`, cut to what is drawn on it.

Run from the checkout: `.venv/bin/python docs/images/journey.py`. The command's own picture has the
height of a page and the sharpness of print; README and start page want it shorter and under 150 kB.
"""

import io
from pathlib import Path

from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

from tiny_asr import ASRModel, sample_clip, trace_clip
from tiny_asr.figures import plots

MARGIN = 8  # pixels left above and below the drawing

figure = plots.journey(trace_clip(ASRModel.from_pretrained("tiny"), sample_clip()))
image = Image.open(io.BytesIO(plots.png(figure, dpi=110)))
white = Image.new("RGB", image.size, "white")
_, top, _, bottom = ImageChops.difference(image.convert("RGB"), white).getbbox()
about = PngInfo()
about.add_text("Description", figure.alt)
rows = (max(top - MARGIN, 0), bottom + MARGIN)
image = image.crop((0, rows[0], image.width, rows[1]))
image.save(Path(__file__).with_name("journey.png"), pnginfo=about, optimize=True)
