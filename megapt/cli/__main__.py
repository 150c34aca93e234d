"""`python -m megapt.cli`: the command `megapt`."""

from megapt.cli import main

if __name__ == "__main__":
    main()
