"""scripts/plot_over_steps.py on a table of two tasks."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mynah import ROOT

SCRIPT = ROOT / "scripts" / "plot_over_steps.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the scripts are in a clone only")
def test_a_table_becomes_a_curve_for_each_task(tmp_path):
    cells = [
        f"cell,{task},m_{step},0.{5 + step // 1000},0.01" for task in ("words", "phones") for step in (0, 1000, 3000)
    ]
    lines = [
        "row,task,upstream,test,deviation",
        *cells,
        "cell,words,fbank,0.9,",
        "cell,phones,fbank,,",
        "run,words,m_0,0.1,",
    ]
    (tmp_path / "results.csv").write_text("\n".join(lines) + "\n")
    picture = tmp_path / "curve.png"
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path), str(picture), "fbank"], check=True, timeout=120)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert image.width > 1.8 * image.height  # two panels
    assert (np.abs(pixels.astype(int) - (0x1F, 0x77, 0xB4)).sum(1) < 30).sum() > 200  # the curves' blue
