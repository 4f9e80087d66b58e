"""`make demo`: the commands of a first session on demo speech; `mynah demo` is the same program."""

from mynah.commands.demo import main

if __name__ == "__main__":
    main("python run_demo.py")
