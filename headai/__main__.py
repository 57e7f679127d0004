"""`python -m headai` is the `headai` command."""

from headai.cli import main

main()
