"""The learned weights of the upstream's hidden states, as numbers and as a picture."""

from pathlib import Path

from mynah.downstream.features import Featurizer

DPI = 110


def layer_weights(featurizer: Featurizer) -> dict[str, float]:
    """{hidden state: its weight in the sum, after the softmax}; empty where only one is used."""
    if featurizer.weights is None or featurizer.zeroed:
        return {}
    weights = featurizer.weights.detach().float().softmax(0).tolist()
    return {str(layer): weight for layer, weight in zip(featurizer.layers, weights, strict=True)}


def draw_layer_weights(weights: dict[str, float], path: Path) -> None:
    """Write the weights as a bar chart, a line showing where equal weights would be."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, 1.5 + 0.4 * len(weights)), 3.2), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.bar(list(weights), list(weights.values()), color="tab:blue")
    axes.axhline(1 / len(weights), color="black", linewidth=1, linestyle="--", label="equal weights")
    axes.set(xlabel="hidden state (0: the embedded input)", ylabel="weight", title="Learned weights of the layers")
    axes.legend(fontsize="small")
    figure.savefig(path)
