"""Runs the command line: `python -m block_recurrent`."""

from block_recurrent.cli.main import main

if __name__ == "__main__":
    main()
