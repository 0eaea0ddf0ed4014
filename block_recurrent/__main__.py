"""`python -m block_recurrent`."""

from block_recurrent.main import main

if __name__ == "__main__":
    main()
