"""Train tasks on the features of upstreams, and make one table; `mynah benchmark` is the same program."""

from mynah.commands import start

if __name__ == "__main__":
    start("benchmark", "python run_benchmark.py")
