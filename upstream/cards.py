"""Model cards: what a run's own records say of exported weights, with marked places for what they do not."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from mynah.utility.acoustic.trunk import AcousticTrunk
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.nn.size import count_parameters

PLACEHOLDER = "TO FILL IN"
"""Stands where someone has to write; no card of weights that come with Mynah has it."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card tells."""

    stem: str
    """UPSTREAM-NAME."""
    upstream: str
    name: str
    bytes: int
    sha256: str
    """Of the file."""
    trunk: AcousticTrunk
    provenance: dict[str, Any]
    """As the file holds it."""
    differences: list[float]
    """What half precision changes of each hidden state, as a share of its norm."""
    changes: tuple[str, dict[str, Any]] | None
    """The recipe that the run is most like, and {dotted key: value} of what it has otherwise; None if unknown."""


def card_text(facts: Facts) -> str:
    """The card, Markdown."""
    parts = [_head(facts), _data(facts), _recipe(facts), _cost(facts), _RESULTS, _LIMITS]
    return "\n\n".join(parts) + "\n"


def _head(facts: Facts) -> str:
    shape, positions = facts.trunk.config.model, facts.trunk.positions
    milliseconds = 1000 * positions.samples_per_position / SAMPLE_RATE
    encoder, everything = count_parameters(facts.trunk.encoder) / 1e6, count_parameters(facts.trunk) / 1e6
    left_out = sorted({name.partition(".")[0] for name in facts.provenance["left_out"]})
    rows = [
        ("file", f"`{facts.stem}.safetensors`, {facts.bytes / 1e6:.2f} MB"),
        ("SHA-256", f"`{facts.sha256}`"),
        ("model", f"{encoder:.2f} M weights in the encoder, {everything:.2f} M in all"),
        (
            "hidden states",
            f"{shape.num_hidden_layers + 1} of {shape.hidden_size} values, one every {milliseconds:g} ms",
        ),
        ("left out", f"of the model: {', '.join(left_out) or 'nothing'}; the optimizer's state"),
        ("half precision", f"changes hidden states by at most {max(facts.differences):.2%} of their norm"),
    ]
    code = f'```python\nimport mynah\nmodel = mynah.load("{facts.upstream}", ckpt="{facts.name}").eval()\n```'
    about = f"**{PLACEHOLDER}: one sentence on what these weights are good for.**"
    return f"# {facts.stem}\n\n{about}\n\n{code}\n\n" + _table(("", ""), rows)


def _data(facts: Facts) -> str:
    rows = [
        (name, each["license"], each.get("utterances", PLACEHOLDER), each.get("hours", PLACEHOLDER))
        for name, each in facts.provenance["data"].items()
    ]
    text = f"**{PLACEHOLDER}: what each corpus is, where it is found, how many speakers, what of it was left out.**"
    table = _table(("corpus", "licence", "utterances", "hours"), rows)
    return f"## Data\n\n{table}\n\nUtterances held out for validation are counted too.\n\n{text}"


def _recipe(facts: Facts) -> str:
    provenance = facts.provenance
    recipe, changes = facts.changes or (PLACEHOLDER, {})
    clusters = provenance["recipe"].get("init", {}).get("clusters")
    begun_with = (provenance["init_from"] or {}).get("given")
    data = provenance["data"]
    own = [name for name, entry in data.items() if "hours" in entry] or list(data)  # not those of an earlier model
    options = [f"datarc.file_path.{name}=/data/{name}" for name in own]
    options += [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    options += [f"init.clusters={clusters}"] if clusters else []
    begun = f"--init-from {shlex.quote(begun_with)} " if begun_with else ""
    first = f"-n {facts.name} -u {facts.upstream} -c {recipe} {begun}-o"
    command = ["python run_pretrain.py", first, *map(shlex.quote, options)]
    lines = [f"{provenance['source']['step']} optimizer steps, seed {provenance['recipe'].get('seed', PLACEHOLDER)}."]
    if clusters or begun_with:
        lines.append(f"It began with an earlier model. **{PLACEHOLDER}: which, and how that was trained.**")
    commits = ", ".join(f"`{commit}`" for commit in provenance["commits"]) or PLACEHOLDER
    lines.append(f"Commits that trained it: {commits}.")
    return "## Recipe\n\n" + " ".join(lines) + "\n\n```\n" + " \\\n    ".join(command) + "\n```"


def _cost(facts: Facts) -> str:
    cost, losses = facts.provenance["cost"], facts.provenance["losses"]
    rows = [
        ("CPU hours, all processes", f"{cost['cpu_seconds'] / 3600:.2f}" if cost else PLACEHOLDER),
        ("hours on the clock", f"{cost['wall_seconds'] / 3600:.2f}" if cost else PLACEHOLDER),
        ("machine", PLACEHOLDER),
        ("held-out loss before the first step", _number(losses["first_val_loss"])),
        ("held-out loss at the last validation", _number(losses["last_val_loss"])),
    ]
    return "## Cost\n\n" + _table(("", ""), rows)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else PLACEHOLDER


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


_RESULTS = f"""## Results

**{PLACEHOLDER}: frozen probes with mean and deviation over seeds, beside filter banks and the untrained model, and
the command of the table.**"""

_LIMITS = f"""## Limits

**{PLACEHOLDER}: languages, kinds of recordings and speakers that it has not seen; where filter banks win.**"""
