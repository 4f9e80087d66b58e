"""Pictures of pretraining: the input, what the objective draws below it, and attention maps."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mynah.utility.acoustic.masking import MaskPlan
from mynah.utility.acoustic.model import AcousticModel

SPECTROGRAM_INCHES, STRIP_INCHES = 2.0, 0.6
GOLDEN_RATIO = (5**0.5 - 1) / 2


class ObjectivePictures(Callback):
    """Draws the first held-out utterance every so many optimizer steps, to tensorboard and as PNG into the folder."""

    def __init__(self, every_n_steps: int):
        self.every_n_steps = every_n_steps
        self.batch: dict[str, Any] | None = None
        self.drawn_at = -1

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        loader = module.val_dataloader() if trainer.is_global_zero else None
        self.batch = next((batch for batch in loader if batch["names"]), None) if loader else None

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if self.batch is None or step == 0 or step == self.drawn_at or step % self.every_n_steps:
            return
        self.drawn_at = step
        self.draw(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.batch is not None and trainer.global_step != self.drawn_at:
            self.draw(trainer, module)

    def draw(self, trainer: Trainer, module: LightningModule) -> None:
        batch = module.transfer_batch_to_device(self.batch, module.device, 0)
        wavs, lengths, plan = batch["wavs"][:1], batch["lengths"][:1], batch["plan"]
        wavs = wavs[:, : int(lengths)]
        positions = int(module.model.positions.count(lengths))
        plan = MaskPlan(plan.target[:1, :positions], plan.source[:1, :positions], plan.band[:1])
        training = module.model.training
        module.model.eval()
        with torch.no_grad():
            panels, attentions = picture_data(module.model, wavs, lengths, plan)
        module.model.train(training)
        folder = trainer.loggers[0].root_dir
        for name, figure in (
            (module.model.config.objective.name, draw_spectrograms(panels)),
            ("attention", draw_attentions(attentions)),
        ):
            trainer.logger.experiment.add_figure(name, figure, trainer.global_step)
            figure.savefig(f"{folder}/{name}.png", dpi=110)


def picture_data(
    model: AcousticModel, wavs: Tensor, lengths: Tensor, plan: MaskPlan
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """One utterance -> {title: (frames, bins) spectrogram or (frames,) whole numbers} and one (heads, N, N) attention
    map a layer.

    wavs: (1, T), lengths: (1,), plan: of (1, N). Predictions cover all positions, masked or not.
    """
    heard = model.features(wavs, lengths)
    content = model.features.stacked(heard, model.config.features.input)
    states, _, attentions = model.encode(content, model.positions.count(lengths), plan, return_attentions=True)
    panels = {
        "input": content[0].flatten(0, 1),
        "masked input": plan.show(content)[0].flatten(0, 1),
        **model.objective.panels(model.features, heard, states[-1][0]),
    }
    panels = {title: (panel.float() if panel.is_floating_point() else panel).cpu() for title, panel in panels.items()}
    return panels, [attention[0].float().cpu() for attention in attentions]


def draw_spectrograms(panels: dict[str, Tensor]) -> Any:
    """{title: (frames, bins) values, or (frames,) whole numbers} -> a figure of spectrograms and of strips of colour,
    one above the other on one time axis, in frames of 10 ms."""
    from matplotlib.figure import Figure

    heights = [SPECTROGRAM_INCHES if panel.is_floating_point() else STRIP_INCHES for panel in panels.values()]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        axis.set_title(title, fontsize=9)
        if panel.is_floating_point():
            image = axis.imshow(panel.T.numpy(), origin="lower", aspect="auto", vmin=-3, vmax=3, cmap="magma")
            axis.set_ylabel("bin")
            figure.colorbar(image, ax=axis, pad=0.01)
        else:
            axis.imshow(colors_of(panel)[None], aspect="auto", interpolation="nearest")
            axis.set_yticks([])
    axes[-1].set_xlabel("frame (10 ms)")
    return figure


def colors_of(numbers: Tensor) -> Any:
    """(frames,) whole numbers -> (frames, 3) RGB, the same colour for the same number; neighbours are far apart."""
    from matplotlib.colors import hsv_to_rgb

    hue = (numbers.double() * GOLDEN_RATIO) % 1
    value = 0.55 + 0.45 * ((numbers.double() * GOLDEN_RATIO**2) % 1)
    return hsv_to_rgb(torch.stack([hue, torch.full_like(hue, 0.75), value], dim=-1).numpy())


def draw_attentions(attentions: list[Tensor]) -> Any:
    """One (heads, N, N) map a layer -> a figure: layers down, heads across; rows attend to columns."""
    from matplotlib.figure import Figure

    num_heads = attentions[0].shape[0]
    figure = Figure(figsize=(1.3 * num_heads, 1.4 * len(attentions)), layout="constrained")
    grid = figure.subplots(len(attentions), num_heads, squeeze=False)
    for layer, (row, maps) in enumerate(zip(grid, attentions, strict=True), start=1):
        for head, (axis, attention) in enumerate(zip(row, maps, strict=True), start=1):
            axis.imshow(attention.sqrt().numpy(), cmap="viridis", interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if layer == 1:
                axis.set_title(f"head {head}", fontsize=8)
        row[0].set_ylabel(f"layer {layer}", fontsize=8)
    return figure
