"""Arguments of Lightning's Trainer that a configuration may give.

Written out rather than read from Lightning, so that loading an upstream does not import it; a test compares them.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

from mynah.utility.configuration.sections import nearest, refuse

KNOWN = frozenset(
    [
        "accelerator",
        "strategy",
        "devices",
        "num_nodes",
        "precision",
        "max_steps",
        "min_steps",
        "max_time",
        "limit_val_batches",
        "limit_test_batches",
        "limit_predict_batches",
        "val_check_interval",
        "log_every_n_steps",
        "enable_progress_bar",
        "accumulate_grad_batches",
        "gradient_clip_val",
        "gradient_clip_algorithm",
        "deterministic",
        "benchmark",
        "inference_mode",
        "profiler",
        "detect_anomaly",
        "barebones",
        "sync_batchnorm",
        "enable_autolog_hparams",
        "model_registry",
    ]
)
REFUSED = {
    "callbacks": "Mynah sets its own",
    "logger": "tensorboard is always written to the experiment's folder",
    "default_root_dir": "give the experiment's folder with -p and -n",
    "enable_checkpointing": "see the checkpoint section",
    "enable_model_summary": "the sizes are always printed",
    "plugins": "Mynah sets its own",
    "use_distributed_sampler": "batches are shared among processes by their position",
    "max_epochs": "give trainer.max_steps; a run is one stream of shuffled passes over the data",
    "min_epochs": "give trainer.max_steps",
    "check_val_every_n_epoch": "give trainer.val_check_interval, in batches",
    "num_sanity_val_steps": "held-out data is always evaluated before the first step",
    "overfit_batches": "use a small corpus instead",
    "limit_train_batches": "give trainer.max_steps; a shorter stream would begin anew, with the same crops and masks",
    "reload_dataloaders_every_n_epochs": "a run is one stream of shuffled passes over the data",
    "fast_dev_run": "give trainer.max_steps=1",
}
MAX_COUNT = 10**9
COUNTS = {
    "max_steps": "optimizer steps",
    "accumulate_grad_batches": "batches",
    "val_check_interval": "batches",
    "log_every_n_steps": "optimizer steps",
}


MAX_PROCESSES = 100_000
SWITCHES = (
    *("enable_progress_bar", "deterministic", "benchmark", "inference_mode", "detect_anomaly", "barebones"),
    *("sync_batchnorm", "enable_autolog_hparams"),
)
DURATION = r"\d{1,6}:\d\d:\d\d:\d\d"


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def count_processes(arguments: dict[str, Any]) -> int | None:
    """The processes of a run, of all nodes; None where Lightning alone knows ("auto", -1 and the like).

    A list, or a text with commas, names the devices one by one.
    """
    devices = arguments.get("devices", 1)
    if isinstance(devices, str):
        devices = devices.strip(",").split(",") if "," in devices else int(devices) if devices.isdigit() else None
    if isinstance(devices, list):
        devices = len(devices)
    if not isinstance(devices, int) or devices < 1:
        return None
    return devices * int(arguments.get("num_nodes", 1))


def check_trainer(arguments: dict[str, Any]) -> dict[str, Any]:
    """The `trainer` section as it is; refuses what Lightning's Trainer does not know or a run must not set."""
    refuse(_problems(arguments))
    return arguments


def _problems(arguments: dict[str, Any]) -> Iterable[str | None]:
    """What is wrong with the section: "key: what", a line each."""
    for key, value in arguments.items():
        if not isinstance(value, bool | int | float | str | list | dict | None):
            yield f"{key}: {type(value).__name__} is no type of a configuration"
        elif key in REFUSED:
            yield f"{key}: cannot be set; {REFUSED[key]}"
        elif key not in KNOWN:
            near = nearest(str(key), sorted(KNOWN))
            hint = f"did you mean trainer.{near}?" if near else "the keys are those of Lightning's Trainer"
            yield f"{key}: unknown key; {hint}"
    for key, unit in COUNTS.items():
        value = arguments.get(key)
        if key in arguments and not (type(value) is int and 1 <= value <= MAX_COUNT):
            yield f"{key}: must be a positive number of {unit}, at most {MAX_COUNT}, got {value!r}"
    for key in SWITCHES:
        value = arguments.get(key)
        if not isinstance(value, bool | None) and not (key == "deterministic" and value == "warn"):
            yield f"{key}: must be true or false, got {value!r}"
    least = arguments.get("min_steps")
    if least is not None and not (type(least) is int and 1 <= least <= MAX_COUNT):
        yield f"min_steps: must be a positive number of optimizer steps, at most {MAX_COUNT}, got {least!r}"
    longest = arguments.get("max_time")
    if longest is not None and not isinstance(longest, dict) and not re.fullmatch(DURATION, str(longest)):
        yield f"max_time: must be DAYS:HOURS:MINUTES:SECONDS in quotes, such as '00:12:00:00', got {longest!r}"
    if arguments.get("gradient_clip_algorithm") not in (None, "norm", "value"):
        yield f"gradient_clip_algorithm: must be norm or value, got {arguments['gradient_clip_algorithm']!r}"
    clip = arguments.get("gradient_clip_val")
    if clip is not None and (not _is_number(clip) or clip <= 0):
        yield f"gradient_clip_val: must be a number above 0, or null for no clipping, got {clip!r}"
    for key in ("limit_val_batches", "limit_test_batches", "limit_predict_batches"):
        limit = arguments.get(key)
        most = 1 if isinstance(limit, float) else MAX_COUNT
        if limit is not None and not (_is_number(limit) and 0 < limit <= most):
            yield f"{key}: must be a number of batches from 1 to {MAX_COUNT}, or a share up to 1.0, got {limit!r}"
    nodes = arguments.get("num_nodes", 1)
    if not isinstance(nodes, int) or isinstance(nodes, bool) or not 1 <= nodes <= MAX_PROCESSES:
        yield f"num_nodes: must be a number from 1 to {MAX_PROCESSES}, got {nodes!r}"
    devices = arguments.get("devices", 1)
    number = int(devices) if isinstance(devices, str) and re.fullmatch(r"-?\d+", devices) else devices
    if isinstance(number, float) or (isinstance(number, int) and number != -1 and not 1 <= number <= MAX_PROCESSES):
        yield f"devices: must be from 1 to {MAX_PROCESSES}, -1 or auto for all, or a list of devices, got {devices!r}"
    if "fsdp" in str(arguments.get("strategy", "")) and clip is not None:
        yield (
            "gradient_clip_val: with strategy fsdp each process would clip by the norm of its own part of the "
            "gradient; leave it out, or take strategy ddp"
        )
    precision = str(arguments.get("precision", ""))
    if precision in ("16-true", "bf16-true"):
        yield f"precision: {precision} would round inputs and LayerNorms too; give {precision[:-5]}-mixed"
