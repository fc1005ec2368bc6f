"""``python -m ssmid``, which torchrun can start: ``torchrun --nproc-per-node 4 -m ssmid distill ...``."""

from ssmid.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
