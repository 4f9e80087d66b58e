"""Training under Lightning: modules, trainer, callbacks, batches, loaders, optimizers.

Another optimizer, schedule or callback goes here; losses stand with the models.
"""
