"""LightGBM's own training, reported round by round:

lgb.train(params, data, valid_sets=[valid], valid_names=["valid"], callbacks=[HeadAICallback(run)])
"""

from __future__ import annotations

from typing import Any

from lightgbm.callback import CallbackEnv, EarlyStopException

from headai_client.run import Run


class HeadAICallback:
    """Logs the parameters, and each metric of each round as `valid.auc`; ends the training when the run is canceled."""

    order = 25
    before_iteration = False

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, env: CallbackEnv) -> None:
        if env.iteration == env.begin_iteration:
            self._run.log_params(env.params)
        results: list[Any] = list(env.evaluation_result_list or [])
        values = {f"{name}.{metric}": value for name, metric, value, *_ in results}
        better = {f"{name}.{metric}": bool(higher) for name, metric, _, higher, *_ in results}
        self._run.log(values, step=env.iteration, higher_is_better=better)
        rounds = env.end_iteration - env.begin_iteration
        self._run.progress((env.iteration + 1 - env.begin_iteration) / rounds, "training")
        if self._run.should_stop:
            self._run.log_line("Canceled in Head AI: the training ends here.", stream="SYSTEM")
            raise EarlyStopException(env.iteration, env.evaluation_result_list or [])
