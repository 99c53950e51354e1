"""`python -m r2fs`: the same as the console script."""

from r2fs.cli.main import main

if __name__ == "__main__":
    main()
