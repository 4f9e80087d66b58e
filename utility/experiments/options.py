"""The options of a run that pretraining and downstream training share."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mynah.utility.configuration.several import as_several
from mynah.utility.errors import UserError
from mynah.utility.experiments.folder import Experiment, open_experiment

log = logging.getLogger("mynah")

NEW_RUN = {
    "-c": "config",
    "-k": "checkpoint",
    "-g": "model_config",
    "-t": "pretrain_config",
    "--init-from": "init_from",
}
"""Flags of the command line that only a new run takes, and their options."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run writes, and what it is given. The names in messages are the flags of the command line."""

    name: str | None = None
    """-n: the experiment, a folder below `root`."""
    root: Path = Path("result")
    """-p: the folder of the experiments."""
    resume: str | Path | None = None
    """-e: an experiment's folder or a checkpoint to continue from."""
    auto_resume: bool = False
    """-a: continue if the experiment exists."""
    init_from: str | Path | None = None
    """--init-from: a checkpoint whose weights a new run starts from; to pretrain, also the name of some that
    come with Mynah."""
    config: Path | None = None
    """-c: a YAML file instead of the plugin's own, or the name of one beside it (`find_recipe`)."""
    model_config: Path | None = None
    """-g: a YAML file of the upstream's `model` and `features` sections."""
    overrides: str | Sequence[str] = ()
    """-o: "key=value" texts over the configuration, or one."""
    device: str = "auto"
    """--device: auto, cpu or cuda."""
    plugin_paths: str | Path | Sequence[str | Path] = ()
    """--plugin-path: folders with plugins outside of Mynah, or one."""
    allow_changes: bool = False
    """--allow-changes: continue although the data or the order of batches is another."""
    program: str = "mynah"
    """The command that the user typed, for messages that say how to continue."""

    def __post_init__(self) -> None:
        for several in ("overrides", "plugin_paths"):
            object.__setattr__(self, several, as_several(getattr(self, several)))

    def open_experiment(self) -> Experiment:
        """The experiment to train in, locked if it exists. Raises UserError as `open_experiment` and `lock` do."""
        resume = None if self.resume is None else str(self.resume)
        arguments = (Path(self.root), self.name, resume, self.auto_resume)
        experiment = open_experiment(*arguments)
        if not experiment.folder.is_dir():
            return experiment
        experiment.lock()
        return open_experiment(*arguments)  # another run may have saved until now

    def refuse_new_run_options(self, source: Path, flags: Sequence[str]) -> None:
        """Raise UserError for one of these options of a new run where `source` is resumed or used.

        With -a none is refused: there the command that began a run is repeated to continue it.
        """
        for flag in () if self.auto_resume else flags:
            if getattr(self, NEW_RUN[flag]) is not None:
                raise UserError(f"{flag} is for a new run; {source} brings its own; leave {flag} out")
