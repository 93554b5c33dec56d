"""`python -m tiny_asr.cli`, which `accelerate launch -m` can start too."""

from tiny_asr.cli.main import main

main()
