"""`headai-client send`: send what runs left behind while the server was away."""

import argparse
import os
import sys
from pathlib import Path

from headai_client.outbox import send_left_behind, spool_folder
from headai_client.server import Server


def main() -> None:
    parser = argparse.ArgumentParser(prog="headai-client", description="Report your own training runs to Head AI.")
    commands = parser.add_subparsers(dest="command", required=True)
    send = commands.add_parser("send", help="send what runs left behind while the server was away")
    send.add_argument("--spool", type=Path, default=spool_folder(), help="the folder of what waits (%(default)s)")
    send.add_argument("--url", default=os.environ.get("HEADAI_URL", "http://127.0.0.1:8000"))
    asked = parser.parse_args()
    server = Server(
        asked.url,
        token=os.environ.get("HEADAI_TOKEN"),
        username=os.environ.get("HEADAI_USERNAME"),
        password=os.environ.get("HEADAI_PASSWORD"),
    )
    left = send_left_behind(asked.spool, server)
    server.close()
    sys.stdout.write(f"{left} entries still wait\n" if left else "Everything was sent\n")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
