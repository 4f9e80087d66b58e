"""`python -m mynah COMMAND ...`."""

from mynah.commands import main

if __name__ == "__main__":
    main()
