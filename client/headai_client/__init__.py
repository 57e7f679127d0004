"""Report your own training runs to Head AI.

    with headai_client.start_run(project="lab", task="REGRESSION", params={"depth": 6}) as run:
        for step in range(100):
            run.log({"train.rmse": ..., "valid.rmse": ...}, step=step)

Nothing here waits for the network or raises into the training: what is logged is written to a folder on this machine
and sent in the background, each batch once, whenever the server can be reached.
"""

from headai_client.outbox import Outbox, send_left_behind
from headai_client.run import Run, start_run
from headai_client.server import Refused, Server, Unreachable

__all__ = ["Outbox", "Refused", "Run", "Server", "Unreachable", "send_left_behind", "start_run"]
