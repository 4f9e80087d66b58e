"""Pretrain an upstream; `mynah pretrain` of an installed package is the same program."""

from mynah.commands.pretrain import main

if __name__ == "__main__":
    main("python run_pretrain.py")
