"""Pretrain an upstream; `mynah pretrain` of an installed package is the same program."""

from mynah.commands import start

if __name__ == "__main__":
    start("pretrain", "python run_pretrain.py")
