"""Figures whose texts are data: names of classes, words, titles of files."""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "SimHei",
    "PingFang SC",
)
OWN_FORMULA = "$\\mathdefault"
"""What matplotlib's own numbers at logarithmic axes begin with."""

log = logging.getLogger("mynah")


def save_png(figure: "Figure", path: Path) -> Path:
    """Write a figure, its texts as they are: a "$" begins no formula, Chinese is drawn where there is a font for it.

    The folder is made if need be. Raises OSError.
    """
    from matplotlib.text import Text

    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    texts = [*figure.findobj(Text), *(label for axis in axes for label in axis.get_majorticklabels())]
    families = font_families("".join(text.get_text() for text in texts))
    for text in texts:
        if not text.get_text().startswith(OWN_FORMULA):
            text.set_parse_math(False)
            text.set_fontfamily(families)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # font_families has said so
        figure.savefig(path, format="png")
    return path


def font_families(text: str) -> list[str]:
    """Those to draw with: matplotlib's own has no Chinese, so one that has is added where it is installed."""
    if not any("\u3400" <= character <= "\u9fff" for character in text):
        return ["DejaVu Sans"]
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    found = [font for font in CHINESE_FONTS if font in installed]
    if not found:
        log.warning("no font for Chinese is installed, pictures show boxes in its place; one is %s", CHINESE_FONTS[0])
    return ["DejaVu Sans", *found]
