"""Translation of weight names from and to those of Hugging Face's ALBERT and BERT."""

from collections.abc import Iterator

from mynah.utility.albert.config import AlbertConfig


def peer_names(config: AlbertConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(our module, Hugging Face's, of which ours is one after the other), where the names differ."""
    modules, layer_modules = MODULES[config.model_type], LAYER_MODULES[config.model_type]
    yield from ((ours, (theirs,)) for ours, theirs in modules.items())
    for group in range(config.num_hidden_groups):
        for inner in range(config.inner_group_num):
            theirs = LAYERS[config.model_type].format(group=group, inner=inner)
            for name, names in layer_modules.items():
                yield f"albert.encoder.groups.{group}.{inner}.{name}", tuple(f"{theirs}.{one}" for one in names)


PREDICTIONS = {"albert": "predictions", "bert": "cls.predictions"}
BUFFERS = (".position_ids", ".token_type_ids")
MODULES = {
    "albert": {
        "albert.embeddings.norm": "albert.embeddings.LayerNorm",
        "albert.embeddings.mapping": "albert.encoder.embedding_hidden_mapping_in",
        "predictions.norm": "predictions.LayerNorm",
        "sentence_order": "sop_classifier.classifier",
    },
    "bert": {
        "albert.embeddings.norm": "bert.embeddings.LayerNorm",
        "albert.pooler": "bert.pooler.dense",
        "predictions.dense": "cls.predictions.transform.dense",
        "predictions.norm": "cls.predictions.transform.LayerNorm",
        "sentence_order": "cls.seq_relationship",
    },
}
LAYERS = {
    "albert": "albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}",
    "bert": "bert.encoder.layer.{group}",
}
LAYER_MODULES = {
    "albert": {
        "attention.query_key_value": ("attention.query", "attention.key", "attention.value"),
        "attention.output": ("attention.dense",),
        "attention_norm": ("attention.LayerNorm",),
        "intermediate": ("ffn",),
        "output": ("ffn_output",),
        "output_norm": ("full_layer_layer_norm",),
    },
    "bert": {
        "attention.query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.output": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "intermediate": ("intermediate.dense",),
        "output": ("output.dense",),
        "output_norm": ("output.LayerNorm",),
    },
}
