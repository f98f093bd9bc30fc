"""``python -m geoseg`` is the command line."""

from geoseg.cli.main import main

if __name__ == "__main__":
    main()
