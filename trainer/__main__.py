"""``python -m trainer``: the worker process."""

import sys

if __name__ == "__main__":
    # Only here: each process that decodes images imports this module again, and needs nothing of the worker's.
    from trainer.worker import main

    sys.exit(main())
