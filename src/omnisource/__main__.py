"""`python -m omnisource`."""

from omnisource.cli import main

if __name__ == "__main__":
    main()
