"""Train, evaluate or use a downstream task; `mynah downstream` of an installed package is the same program."""

from mynah.commands import start

if __name__ == "__main__":
    start("downstream", "python run_downstream.py")
