"""Train, evaluate or use a downstream task; `mynah downstream` of an installed package is the same program."""

from mynah.commands.downstream import main

if __name__ == "__main__":
    main("python run_downstream.py")
