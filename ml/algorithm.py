"""What can be asked of a learning algorithm, and what a spec means on given columns: defaults, warnings, refusals.

Nothing heavy is imported here: the API answers `validateTrainingRun` and `algorithmSchema` from this module. The
parameters, their defaults and ranges are those of LightGBM 4.7 (its docs/Parameters.rst); what Head AI decides itself
(rounds, seed, threads, files, machines) is refused with the way to say it in the spec.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from ml.spec import Algorithm, SplitStrategy, Task, TrainingSpec, finite

MAX_CLASSES = 1000
MAX_CATEGORIES = 1000
MAX_ROUNDS = 100_000
NUMERIC_TYPES = frozenset({"INTEGER", "FLOAT", "DECIMAL"})
USABLE_TYPES = NUMERIC_TYPES | {"BOOLEAN", "STRING", "CATEGORY", "DATE", "DATETIME"}
TIME_TYPES = NUMERIC_TYPES | {"DATE", "DATETIME"}
LABEL_TYPES = frozenset({"BOOLEAN", "INTEGER", "FLOAT", "DECIMAL", "STRING", "CATEGORY"})
INTEGER_LABEL_LIMIT = 2**53

Path = tuple[str, ...]
SPEC: Path = ("input", "spec")


@dataclass(frozen=True, slots=True)
class Metric:
    """`native` is LightGBM's metric it is computed from; None: `native_metric` knows better."""

    native: str | None
    tasks: frozenset[Task]
    higher_is_better: bool


_R, _B, _M = Task.REGRESSION, Task.BINARY_CLASSIFICATION, Task.MULTICLASS_CLASSIFICATION

METRICS: dict[str, Metric] = {
    "auc": Metric("auc", frozenset({_B}), True),
    "average_precision": Metric("average_precision", frozenset({_B}), True),
    "binary_logloss": Metric("binary_logloss", frozenset({_B}), False),
    "binary_error": Metric("binary_error", frozenset({_B}), False),
    "multi_logloss": Metric("multi_logloss", frozenset({_M}), False),
    "multi_error": Metric("multi_error", frozenset({_M}), False),
    "auc_mu": Metric("auc_mu", frozenset({_M}), True),
    "accuracy": Metric(None, frozenset({_B, _M}), True),
    "f1": Metric(None, frozenset({_B, _M}), True),
    "rmse": Metric("rmse", frozenset({_R}), False),
    "mae": Metric("l1", frozenset({_R}), False),
    "mse": Metric("l2", frozenset({_R}), False),
    "mape": Metric("mape", frozenset({_R}), False),
    "r2": Metric("l2", frozenset({_R}), True),
}


def native_metric(name: str, task: Task) -> str | None:
    """LightGBM's metric that gives `name` (accuracy from its error, R² from its l2); None: needs the predictions."""
    if name == "accuracy":
        return "multi_error" if task is Task.MULTICLASS_CLASSIFICATION else "binary_error"
    return METRICS[name].native


METRIC_ALIASES: dict[str, dict[Task, str]] = {
    "log_loss": {_B: "binary_logloss", _M: "multi_logloss"},
    "logloss": {_B: "binary_logloss", _M: "multi_logloss"},
    "error": {_B: "binary_error", _M: "multi_error"},
    "ap": {_B: "average_precision"},
    "f1_score": {_B: "f1", _M: "f1"},
    "acc": {_B: "accuracy", _M: "accuracy"},
    "l1": {_R: "mae"},
    "l2": {_R: "mse"},
    "mean_absolute_error": {_R: "mae"},
    "mean_squared_error": {_R: "mse"},
    "root_mean_squared_error": {_R: "rmse"},
    "l2_root": {_R: "rmse"},
    "r2_score": {_R: "r2"},
}

DEFAULT_METRICS: dict[Task, tuple[str, ...]] = {
    _B: ("auc", "binary_logloss"),
    _M: ("multi_logloss", "accuracy"),
    _R: ("rmse", "mae"),
}

OBJECTIVES: dict[Task, tuple[str, ...]] = {
    _R: ("regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie"),
    _B: ("binary",),
    _M: ("multiclass", "multiclassova"),
}
_OBJECTIVE_ALIASES = {
    **dict.fromkeys(("regression_l2", "l2", "mean_squared_error", "mse", "rmse", "l2_root"), "regression"),
    **dict.fromkeys(("l1", "mean_absolute_error", "mae"), "regression_l1"),
    "mean_absolute_percentage_error": "mape",
    "softmax": "multiclass",
    **dict.fromkeys(("multiclass_ova", "ova", "ovr"), "multiclassova"),
}


def metric_name(name: str, task: Task) -> str | None:
    """The canonical name of a metric as somebody wrote it, or None when the task has no such metric."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    plain = METRIC_ALIASES.get(plain, {}).get(task, plain)
    return plain if plain in METRICS and task in METRICS[plain].tasks else None


def higher_is_better(name: str) -> bool:
    """The direction of a metric by its last part (`valid.auc` is `auc`); higher for one that is not known."""
    plain = name.rsplit(".", 1)[-1]
    for canonical in METRIC_ALIASES.get(plain, {}).values():
        plain = canonical
    return METRICS[plain].higher_is_better if plain in METRICS else True


# ── LightGBM's parameters ──────────────────────────────────────────────────────────────────────────────────────────

Schema = dict[str, Any]


def _int(default: int | None, text: str, low: int | None = None, high: int | None = None) -> Schema:
    bounds = {"minimum": low, "maximum": high}
    return {"type": "integer", "default": default, "description": text} | {
        k: v for k, v in bounds.items() if v is not None
    }


def _num(
    default: float,
    text: str,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Schema:
    bounds = {"minimum": low, "maximum": high, "exclusiveMinimum": above, "exclusiveMaximum": below}
    return {"type": "number", "default": default, "description": text} | {
        k: v for k, v in bounds.items() if v is not None
    }


def _flag(default: bool, text: str) -> Schema:
    return {"type": "boolean", "default": default, "description": text}


def _choice(default: str, choices: Sequence[str], text: str) -> Schema:
    return {"type": "string", "default": default, "enum": list(choices), "description": text}


def _numbers(text: str, kind: str = "number", **bounds: float) -> Schema:
    return {"type": "array", "items": {"type": kind, **bounds}, "default": None, "description": text}


_SEED_RANGE = (0, 2**31 - 1)

PARAMETERS: dict[str, Schema] = {
    "objective": _choice(
        "",
        [o for objectives in OBJECTIVES.values() for o in objectives],
        "Loss; it must fit the task. Default: the task's.",
    ),
    "boosting": _choice("gbdt", ["gbdt", "rf", "dart"], "Gradient boosting, random forest, or trees with dropout."),
    "data_sample_strategy": _choice("bagging", ["bagging", "goss"], "How rows are sampled for a tree."),
    "learning_rate": _num(0.1, "Shrinkage of every tree.", above=0.0),
    "num_leaves": _int(31, "Most leaves of a tree: the main control of its complexity.", 2, 131072),
    "max_depth": _int(-1, "Deepest level of a tree; 0 or less means no limit.", -1, 1000),
    "min_data_in_leaf": _int(20, "Fewest rows in a leaf.", 0),
    "min_sum_hessian_in_leaf": _num(1e-3, "Smallest sum of second derivatives in a leaf.", 0.0),
    "bagging_fraction": _num(1.0, "Share of rows a tree sees, when bagging_freq > 0.", above=0.0, high=1.0),
    "bagging_freq": _int(0, "Sample rows anew every k rounds; 0 switches bagging off.", 0),
    "pos_bagging_fraction": _num(1.0, "Share of positive rows a tree sees (binary).", above=0.0, high=1.0),
    "neg_bagging_fraction": _num(1.0, "Share of negative rows a tree sees (binary).", above=0.0, high=1.0),
    "bagging_seed": _int(3, "Seed of bagging; derived from the run's seed when not given.", *_SEED_RANGE),
    "feature_fraction": _num(1.0, "Share of features a tree sees.", above=0.0, high=1.0),
    "feature_fraction_bynode": _num(1.0, "Share of features a split sees.", above=0.0, high=1.0),
    "feature_fraction_seed": _int(2, "Seed of feature sampling; derived from the run's seed.", *_SEED_RANGE),
    "extra_trees": _flag(False, "Try one random threshold a feature, as extremely randomised trees do."),
    "extra_seed": _int(6, "Seed of extra_trees; derived from the run's seed.", *_SEED_RANGE),
    "lambda_l1": _num(0.0, "L1 regularisation of leaf values.", 0.0),
    "lambda_l2": _num(0.0, "L2 regularisation of leaf values.", 0.0),
    "linear_lambda": _num(0.0, "Regularisation of linear trees.", 0.0),
    "min_gain_to_split": _num(0.0, "Smallest gain of a split.", 0.0),
    "max_delta_step": _num(0.0, "Largest leaf output; 0 or less means no limit.", 0.0),
    "path_smooth": _num(0.0, "Pulls leaf values towards their parent's.", 0.0),
    "linear_tree": _flag(False, "A linear model in every leaf."),
    "drop_rate": _num(0.1, "dart: share of trees dropped.", 0.0, 1.0),
    "max_drop": _int(50, "dart: most trees dropped in a round; 0 or less means no limit.", -1),
    "skip_drop": _num(0.5, "dart: chance of dropping none.", 0.0, 1.0),
    "xgboost_dart_mode": _flag(False, "dart as XGBoost does it."),
    "uniform_drop": _flag(False, "dart: drop uniformly."),
    "drop_seed": _int(4, "Seed of dart; derived from the run's seed.", *_SEED_RANGE),
    "top_rate": _num(0.2, "goss: share of rows with large gradients kept.", 0.0, 1.0),
    "other_rate": _num(0.1, "goss: share of the other rows kept.", 0.0, 1.0),
    "min_data_per_group": _int(100, "Fewest rows of a categorical group.", 1),
    "max_cat_threshold": _int(32, "Most split points considered for a categorical feature.", 1),
    "cat_l2": _num(10.0, "L2 regularisation of categorical splits.", 0.0),
    "cat_smooth": _num(10.0, "Smoothing of rare categories.", 0.0),
    "max_cat_to_onehot": _int(4, "Up to this many categories are split one against the rest.", 1),
    "monotone_constraints": _numbers(
        "One of -1, 0, 1 for each feature, in the order of `features`.", "integer", minimum=-1, maximum=1
    ),
    "monotone_constraints_method": _choice(
        "basic", ["basic", "intermediate", "advanced"], "How strictly monotone constraints shape the tree."
    ),
    "monotone_penalty": _num(0.0, "Forbids monotone splits near the root.", 0.0),
    "feature_contri": _numbers("A multiplier of the split gain for each feature.", minimum=0.0),
    "cegb_tradeoff": _num(1.0, "Cost-effective gradient boosting: multiplier of all penalties.", 0.0),
    "cegb_penalty_split": _num(0.0, "Cost-effective gradient boosting: penalty of a split.", 0.0),
    "max_bin": _int(255, "Most bins a feature is cut into.", 2, 65535),
    "min_data_in_bin": _int(3, "Fewest rows in a bin.", 1),
    "bin_construct_sample_cnt": _int(200000, "Rows sampled to find the bins.", 1),
    "data_random_seed": _int(1, "Seed of that sample; derived from the run's seed.", *_SEED_RANGE),
    "enable_bundle": _flag(True, "Bundle mutually exclusive sparse features."),
    "is_enable_sparse": _flag(True, "Store sparse features sparsely."),
    "use_missing": _flag(True, "Treat missing values as such; false: as zero."),
    "zero_as_missing": _flag(False, "Treat zero as missing."),
    "feature_pre_filter": _flag(True, "Leave out features that min_data_in_leaf makes useless."),
    "use_quantized_grad": _flag(False, "Train on quantised gradients: faster, slightly less exact."),
    "num_grad_quant_bins": _int(4, "Bins of quantised gradients.", 2, 128),
    "quant_train_renew_leaf": _flag(False, "Renew leaf values with the exact gradients."),
    "stochastic_rounding": _flag(True, "Round quantised gradients stochastically."),
    "boost_from_average": _flag(True, "Start from the mean of the target."),
    "is_unbalance": _flag(False, "Weigh classes by their rarity (binary)."),
    "scale_pos_weight": _num(1.0, "Weight of the positive class (binary).", above=0.0),
    "sigmoid": _num(1.0, "Steepness of the sigmoid (binary, multiclassova).", above=0.0),
    "reg_sqrt": _flag(False, "Fit the square root of the target (regression)."),
    "alpha": _num(0.9, "huber and quantile: the parameter of the loss.", above=0.0),
    "fair_c": _num(1.0, "fair: the parameter of the loss.", above=0.0),
    "poisson_max_delta_step": _num(0.7, "poisson: safeguards the optimisation.", above=0.0),
    "tweedie_variance_power": _num(1.5, "tweedie: 1 is poisson, 2 is gamma.", 1.0, below=2.0),
    "objective_seed": _int(5, "Seed of the objective; derived from the run's seed.", *_SEED_RANGE),
    "early_stopping_min_delta": _num(0.0, "Smallest improvement that counts for early stopping.", 0.0),
    "histogram_pool_size": _num(-1.0, "MB for cached histograms; below 0 means no limit.", -1.0),
}

_ALIASES: dict[str, str] = {
    alias: name
    for name, aliases in {
        "objective": "objective_type app application loss",
        "boosting": "boosting_type boost",
        "learning_rate": "shrinkage_rate eta",
        "num_leaves": "num_leaf max_leaves max_leaf max_leaf_nodes",
        "min_data_in_leaf": "min_data_per_leaf min_data min_child_samples min_samples_leaf",
        "min_sum_hessian_in_leaf": "min_sum_hessian_per_leaf min_sum_hessian min_hessian min_child_weight",
        "bagging_fraction": "sub_row subsample bagging",
        "bagging_freq": "subsample_freq",
        "bagging_seed": "bagging_fraction_seed",
        "pos_bagging_fraction": "pos_sub_row pos_subsample pos_bagging",
        "neg_bagging_fraction": "neg_sub_row neg_subsample neg_bagging",
        "feature_fraction": "sub_feature colsample_bytree",
        "feature_fraction_bynode": "sub_feature_bynode colsample_bynode",
        "extra_trees": "extra_tree",
        "lambda_l1": "reg_alpha l1_regularization",
        "lambda_l2": "reg_lambda lambda l2_regularization",
        "min_gain_to_split": "min_split_gain",
        "max_delta_step": "max_tree_output max_leaf_output",
        "linear_tree": "linear_trees",
        "drop_rate": "rate_drop",
        "monotone_constraints": "mc monotone_constraint monotonic_cst",
        "monotone_constraints_method": "monotone_constraining_method mc_method",
        "monotone_penalty": "monotone_splits_penalty ms_penalty mc_penalty",
        "feature_contri": "feature_contrib fc fp feature_penalty",
        "max_bin": "max_bins",
        "bin_construct_sample_cnt": "subsample_for_bin",
        "data_random_seed": "data_seed",
        "enable_bundle": "is_enable_bundle bundle",
        "is_enable_sparse": "is_sparse enable_sparse sparse",
        "is_unbalance": "unbalance unbalanced_sets",
        "histogram_pool_size": "hist_pool_size",
    }.items()
    for alias in aliases.split()
}

_MANAGED: dict[str, str] = {
    name: reason
    for names, reason in {
        "num_iterations num_iteration n_iter num_tree num_trees num_round num_rounds nrounds num_boost_round "
        "n_estimators max_iter": "Say it as spec.numRounds.",
        "early_stopping_round early_stopping_rounds early_stopping n_iter_no_change": (
            "Say it as spec.earlyStoppingRounds."
        ),
        "first_metric_only": "The first of spec.evaluationMetrics always decides on early stopping.",
        "seed random_seed random_state": "Say it as spec.seed.",
        "metric metrics metric_types metric_freq output_freq is_provide_training_metric training_metric "
        "is_training_metric train_metric eval_at ndcg_at ndcg_eval_at map_at map_eval_at multi_error_top_k "
        "auc_mu_weights": ("Say it as spec.evaluationMetrics."),
        "num_class num_classes": "The number of classes is read from the target.",
        "num_threads num_thread nthread nthreads n_jobs device_type device gpu_platform_id gpu_device_id "
        "gpu_device_id_list gpu_use_dp num_gpu tree_learner tree tree_type tree_learner_type num_machines "
        "num_machine machines workers nodes machine_list_filename machine_list_file machine_list mlist "
        "local_listen_port local_port port time_out pre_partition is_pre_partition top_k topk": (
            "The platform decides where and on how many cores a run trains."
        ),
        "deterministic force_row_wise force_col_wise": (
            "Training is always deterministic, so that a run can be repeated."
        ),
        "label_column label weight_column weight group_column group group_id query query_column query_id "
        "ignore_column ignore_feature blacklist categorical_feature cat_feature categorical_column cat_column "
        "categorical_features max_bin_by_feature interaction_constraints bagging_by_query": (
            "Columns are named in the spec: target, features, weightColumn, groupColumn; text is categorical."
        ),
        "config config_file task task_type data train train_data train_data_file data_filename valid test "
        "valid_data valid_data_file test_data test_data_file valid_filenames input_model model_input model_in "
        "output_model model_output model_out output_result predict_result prediction_result predict_name "
        "prediction_name pred_name name_pred saved_feature_importance_type snapshot_freq save_period verbosity "
        "verbose forcedsplits_filename fs forced_splits_filename forced_splits_file forced_splits "
        "forcedbins_filename save_binary is_save_binary is_save_binary_file two_round two_round_loading "
        "use_two_round_loading header has_header precise_float_parser parser_config_file convert_model "
        "convert_model_file convert_model_language refit_decay_rate cegb_penalty_feature_lazy "
        "cegb_penalty_feature_coupled start_iteration_predict num_iteration_predict predict_raw_score "
        "predict_leaf_index predict_contrib predict_disable_shape_check pred_early_stop pred_early_stop_freq "
        "pred_early_stop_margin raw_score predict_rawscore is_predict_raw_score leaf_index is_predict_leaf_index "
        "contrib is_predict_contrib": "Files, loading and output are the platform's.",
        "lambdarank_truncation_level lambdarank_norm label_gain lambdarank_position_bias_regularization": (
            "Ranking is not offered yet."
        ),
    }.items()
    for name in names.split()
}

ALGORITHM_SCHEMA: dict[Algorithm, Schema] = {
    Algorithm.LIGHTGBM: {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "LightGBM 4.7",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: schema | {"aliases": sorted(a for a, n in _ALIASES.items() if n == name)}
            for name, schema in PARAMETERS.items()
        },
    },
    Algorithm.EXTERNAL: {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Trained outside",
        "description": "Any parameters; they are recorded as they are.",
        "type": "object",
        "additionalProperties": True,
    },
}
for _task, _objectives in OBJECTIVES.items():
    ALGORITHM_SCHEMA[Algorithm.LIGHTGBM].setdefault("x-objectives", {})[_task.value] = list(_objectives)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """A column as the stored profile knows it; `type` and `role` are the contract's names."""

    name: str
    type: str
    nullable: bool = True
    role: str = "FEATURE"
    row_count: int | None = None
    null_count: int | None = None
    distinct_count: int | None = None
    distinct_count_is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """`code` is a name of the contract's ErrorCode; `allowed` is what would have been accepted."""

    path: Path
    code: str
    message: str
    allowed: Any = None


@dataclass(frozen=True, slots=True)
class Param:
    name: str
    value: Any
    explicit: bool


@dataclass(frozen=True, slots=True)
class Resolved:
    """`spec` has everything filled in that could be; run it only when `problems` is empty.

    `spec.params` holds the explicit parameters under LightGBM's names and the objective; `params` lists all of them.
    """

    spec: TrainingSpec
    params: tuple[Param, ...]
    warnings: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def explicit_params(self) -> tuple[str, ...]:
        return tuple(param.name for param in self.params if param.explicit)


def canonical(name: str) -> str:
    """LightGBM's own name of a parameter given as `numLeaves`, `num_leaves` or an alias."""
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
    return _ALIASES.get(snake, snake)


def resolve(spec: TrainingSpec, columns: Sequence[ColumnFacts], *, has_validation_data: bool = False) -> Resolved:
    """What the spec means on these columns (of one dataset version; of none for EXTERNAL)."""
    return _Resolution(spec, columns, has_validation_data).resolve()


class _Resolution:
    def __init__(self, spec: TrainingSpec, columns: Sequence[ColumnFacts], has_validation_data: bool) -> None:
        self.spec = spec
        self.columns = {column.name: column for column in columns}
        self.has_validation_data = has_validation_data
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def refuse(self, path: Sequence[str], code: str, message: str, allowed: Any = None) -> None:
        self.problems.append(Problem((*SPEC, *path), code, message, allowed))

    def resolve(self) -> Resolved:
        spec = self.spec
        self.check_limits()
        if spec.algorithm is Algorithm.EXTERNAL:
            params = tuple(Param(name, value, True) for name, value in spec.params.items())
            return self.answer(spec, params)
        if spec.task is Task.RANKING:
            self.refuse(["task"], "INVALID", "Ranking is not offered yet.", [t.value for t in OBJECTIVES])
            return self.answer(spec, ())
        if any(column.row_count == 0 for column in self.columns.values()):
            self.refuse([], "INVALID", "The dataset has no rows to train on.")
        self.check_target()
        features = self.features()
        self.check_helper_columns()
        validated = self.check_split()
        metrics = self.metrics()
        params = self.params(len(features))
        values = {param.name: param.value for param in params}
        early = spec.early_stopping_rounds
        if early is not None and not validated:
            self.refuse(
                ["earlyStoppingRounds"],
                "INVALID",
                "Early stopping needs validation rows: give split.validationFraction or a validation dataset, "
                "or set earlyStoppingRounds to null.",
            )
        elif early is not None and values.get("boosting") == "dart":
            early = None
            self.warnings.append("Early stopping is off: dart changes earlier trees, so no earlier round can be kept.")
        explicit = {p.name: p.value for p in params if p.explicit}
        resolved = replace(
            spec,
            features=features,
            evaluation_metrics=metrics,
            params={"objective": values.get("objective", "")} | explicit,
            early_stopping_rounds=early,
        )
        return self.answer(resolved, params)

    def answer(self, spec: TrainingSpec, params: tuple[Param, ...]) -> Resolved:
        return Resolved(spec, params, tuple(self.warnings), tuple(self.problems))

    def check_limits(self) -> None:
        spec = self.spec
        for name, value, low, high in (
            ("numRounds", spec.num_rounds, 1, MAX_ROUNDS),
            ("maxAttempts", spec.max_attempts, 1, 10),
            ("earlyStoppingRounds", spec.early_stopping_rounds, 1, MAX_ROUNDS),
            ("seed", spec.seed, 0, 2**31 - 1),
        ):
            if value is not None and not low <= value <= high:
                allowed = {"minimum": low, "maximum": high}
                self.refuse([name], "OUT_OF_RANGE", f"{name} must be between {low} and {high}.", allowed)
        if spec.timeout is not None and not (finite(spec.timeout) and spec.timeout > 0):
            self.refuse(["timeout"], "OUT_OF_RANGE", "timeout must be longer than zero.")

    def column(self, name: str, path: Sequence[str]) -> ColumnFacts | None:
        column = self.columns.get(name)
        if column is None:
            close = get_close_matches(name, self.columns, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            self.refuse(path, "NOT_FOUND", f"The dataset has no column {name!r}.{hint}", list(self.columns)[:100])
        return column

    def check_target(self) -> None:
        spec = self.spec
        if spec.target is None:
            self.refuse(["target"], "REQUIRED", "Name the column to predict.", list(self.columns)[:100])
            return
        target = self.column(spec.target, ["target"])
        if target is None:
            return
        if spec.task is Task.REGRESSION and target.type not in NUMERIC_TYPES:
            message = f"Regression needs a numeric target; {target.name!r} is {target.type}."
            self.refuse(["target"], "INVALID", message, sorted(NUMERIC_TYPES))
            return
        if target.type not in LABEL_TYPES:
            message = f"{target.name!r} is {target.type}, which cannot be predicted."
            self.refuse(["target"], "INVALID", message, sorted(LABEL_TYPES))
            return
        if target.null_count:
            if target.row_count is not None and target.null_count >= target.row_count:
                self.refuse(["target"], "INVALID", f"Every value of {target.name!r} is missing.")
                return
            self.warnings.append(f"{target.null_count} rows without a value of {target.name!r} are left out.")
        distinct, about = target.distinct_count, "about " if target.distinct_count_is_estimate else ""
        if distinct is None or target.row_count == 0:
            return
        if distinct <= 1:
            self.refuse(["target"], "INVALID", f"{target.name!r} has the same value in every row: nothing to learn.")
        elif spec.task is Task.BINARY_CLASSIFICATION and distinct != 2:
            message = f"Binary classification needs exactly 2 values; {target.name!r} has {about}{distinct}."
            self.refuse(["target"], "INVALID", message, {"distinctCount": 2})
        elif spec.task is Task.MULTICLASS_CLASSIFICATION and not 3 <= distinct <= MAX_CLASSES:
            message = f"Multiclass needs 3 to {MAX_CLASSES} values; {target.name!r} has {about}{distinct}."
            self.refuse(["target"], "INVALID", message, {"minimum": 3, "maximum": MAX_CLASSES})

    def features(self) -> tuple[str, ...]:
        spec = self.spec
        reserved = {spec.target, spec.weight_column, spec.group_column}
        if spec.split.strategy is SplitStrategy.TIME:
            reserved.add(spec.split.time_column)
        if spec.features is None:
            return self.chosen_features(reserved)
        for index, name in enumerate(spec.features):
            path = ["features", str(index)]
            column = self.column(name, path)
            if column is None:
                continue
            if name == spec.target:
                self.refuse(path, "INVALID", f"{name!r} is the target; it cannot be a feature as well.")
            elif name == spec.weight_column:
                self.refuse(path, "INVALID", f"{name!r} is the weight; it cannot be a feature as well.")
            elif name in spec.features[:index]:
                self.refuse(path, "INVALID", f"{name!r} is named twice.")
            elif column.type not in USABLE_TYPES:
                message = f"{name!r} is {column.type}, which cannot be a feature."
                self.refuse(path, "INVALID", message, sorted(USABLE_TYPES))
        if not spec.features:
            self.refuse(["features"], "REQUIRED", "Name at least one feature, or leave features out.")
        return spec.features

    def chosen_features(self, reserved: set[str | None]) -> tuple[str, ...]:
        chosen: list[str] = []
        for column in self.columns.values():
            if column.name in reserved or (column.role != "FEATURE" and column.role != "TIMESTAMP"):
                continue
            if column.type not in USABLE_TYPES:
                self.warnings.append(f"{column.name!r} is {column.type} and is not used.")
            elif column.type == "STRING" and (column.distinct_count or 0) > MAX_CATEGORIES:
                self.warnings.append(
                    f"{column.name!r} is text with more than {MAX_CATEGORIES} different values and is not used; "
                    "name it in features to use it."
                )
            else:
                chosen.append(column.name)
        if not chosen and self.columns:
            self.refuse(["features"], "REQUIRED", "No column of the dataset can be used as a feature.")
        return tuple(chosen)

    def check_helper_columns(self) -> None:
        spec = self.spec
        if spec.weight_column is not None:
            column = self.column(spec.weight_column, ["weightColumn"])
            if column is not None and spec.weight_column == spec.target:
                self.refuse(["weightColumn"], "INVALID", "The target cannot be the weight.")
            elif column is not None and column.type not in NUMERIC_TYPES:
                message = f"A weight must be numeric; {column.name!r} is {column.type}."
                self.refuse(["weightColumn"], "INVALID", message, sorted(NUMERIC_TYPES))
        if spec.group_column is not None:
            column = self.column(spec.group_column, ["groupColumn"])
            if column is not None and spec.group_column == spec.target:
                self.refuse(["groupColumn"], "INVALID", "The target cannot be the group.")
            elif column is not None and column.type not in USABLE_TYPES:
                self.refuse(["groupColumn"], "INVALID", f"{column.name!r} is {column.type}, which cannot group rows.")

    def check_split(self) -> bool:
        """Whether there will be validation rows."""
        split = self.spec.split
        offered = [s.value for s in SplitStrategy if s is not SplitStrategy.K_FOLD]
        for name, fraction in (
            ("validationFraction", split.validation_fraction),
            ("testFraction", split.test_fraction),
        ):
            if not (finite(fraction) and 0.0 <= fraction < 1.0):
                message = f"{name} must be at least 0 and less than 1."
                self.refuse(["split", name], "OUT_OF_RANGE", message, {"minimum": 0, "exclusiveMaximum": 1})
                return True
        if split.strategy is SplitStrategy.K_FOLD:
            self.refuse(["split", "strategy"], "INVALID", "K_FOLD is not offered yet.", offered)
            return True
        if split.folds is not None:
            self.refuse(["split", "folds"], "INVALID", "folds goes with K_FOLD, which is not offered yet.")
        if split.strategy is SplitStrategy.PROVIDED or self.has_validation_data:
            if not self.has_validation_data:
                self.refuse(
                    ["split", "strategy"],
                    "REQUIRED",
                    "PROVIDED needs validationDatasetVersionId: the version to validate on.",
                    offered,
                )
            elif split.strategy is not SplitStrategy.PROVIDED:
                self.warnings.append("Validation uses the dataset version given for it; split is not applied.")
            return True
        if split.validation_fraction + split.test_fraction >= 1.0:
            message = "validationFraction and testFraction together must leave rows to train on."
            self.refuse(["split", "validationFraction"], "OUT_OF_RANGE", message, {"exclusiveMaximum": 1})
        if split.strategy is SplitStrategy.STRATIFIED and self.spec.task is Task.REGRESSION:
            message = "STRATIFIED keeps the shares of classes; regression has none."
            self.refuse(["split", "strategy"], "INVALID", message, ["RANDOM", "GROUP", "TIME", "PROVIDED"])
        if split.strategy is SplitStrategy.GROUP and self.spec.group_column is None:
            self.refuse(["groupColumn"], "REQUIRED", "A split by GROUP needs groupColumn.")
        if split.strategy is SplitStrategy.TIME:
            if split.time_column is None:
                self.refuse(["split", "timeColumn"], "REQUIRED", "A split by TIME needs timeColumn.")
            else:
                column = self.column(split.time_column, ["split", "timeColumn"])
                if column is not None and column.type not in TIME_TYPES:
                    message = f"{column.name!r} is {column.type}; a time is a date, a datetime or a number."
                    self.refuse(["split", "timeColumn"], "INVALID", message, sorted(TIME_TYPES))
        elif split.time_column is not None:
            self.column(split.time_column, ["split", "timeColumn"])
        return split.validation_fraction > 0.0

    def metrics(self) -> tuple[str, ...]:
        task = self.spec.task
        if not self.spec.evaluation_metrics:
            return DEFAULT_METRICS[task]
        names: list[str] = []
        offered = [name for name, metric in METRICS.items() if task in metric.tasks]
        for index, name in enumerate(self.spec.evaluation_metrics):
            known = metric_name(name, task)
            if known is None:
                message = f"{task.value} has no metric {name!r}."
                self.refuse(["evaluationMetrics", str(index)], "INVALID", message, offered)
            elif known not in names:
                names.append(known)
        return tuple(names)

    def params(self, feature_count: int) -> tuple[Param, ...]:
        task = self.spec.task
        explicit: dict[str, Any] = {}
        for given, value in self.spec.params.items():
            path, name = ["params", given], canonical(given)
            if name in _MANAGED:
                self.refuse(path, "INVALID", f"{given} cannot be set here. {_MANAGED[name]}")
            elif name not in PARAMETERS:
                close = get_close_matches(name, PARAMETERS, n=3)
                hint = f" Did you mean {', '.join(close)}?" if close else ""
                self.refuse(path, "INVALID", f"LightGBM has no parameter {given!r}.{hint}", close or None)
            elif name in explicit:
                self.refuse(path, "INVALID", f"{name} is given twice, under two of its names.")
            else:
                checked = self.checked(path, name, value, feature_count)
                if checked is not None:
                    explicit[name] = checked
        objective = explicit.get("objective", OBJECTIVES[task][0])
        self.check_combinations(explicit)
        defaults = {name: schema["default"] for name, schema in PARAMETERS.items()} | {"objective": objective}
        return tuple(Param(name, explicit.get(name, default), name in explicit) for name, default in defaults.items())

    def checked(self, path: Sequence[str], name: str, value: Any, feature_count: int) -> Any:
        """The value as LightGBM takes it, or None after a refusal."""
        schema = PARAMETERS[name]
        kind = schema["type"]
        if name == "objective":
            known = _OBJECTIVE_ALIASES.get(str(value).lower(), str(value).lower())
            if known not in OBJECTIVES[self.spec.task]:
                message = f"{value!r} is not an objective of {self.spec.task.value}."
                self.refuse(path, "INVALID", message, list(OBJECTIVES[self.spec.task]))
                return None
            return known
        if kind == "array":
            if not isinstance(value, list) or not all(_fits(item, schema["items"]) for item in value):
                self.refuse(path, "INVALID", f"{name} is a list. {schema['description']}", schema["items"])
                return None
            if len(value) != feature_count:
                message = f"{name} has {len(value)} entries for {feature_count} features."
                self.refuse(path, "INVALID", message, {"length": feature_count})
                return None
            return value
        if not _is_a(kind, value):
            self.refuse(path, "INVALID", f"{name} must be of type {kind}.", _accepted(schema))
            return None
        if kind == "string":
            if value not in schema["enum"]:
                self.refuse(path, "INVALID", f"{name} must be one of {', '.join(schema['enum'])}.", schema["enum"])
                return None
            return value
        if not _fits(value, schema):
            message = f"{name} is {value}, out of its range."
            self.refuse(path, "OUT_OF_RANGE", message, _accepted(schema))
            return None
        return int(value) if kind == "integer" else value

    def check_combinations(self, explicit: Mapping[str, Any]) -> None:
        path = ["params"]
        if explicit.get("is_unbalance") and explicit.get("scale_pos_weight", 1.0) != 1.0:
            self.refuse([*path, "scale_pos_weight"], "INVALID", "Use is_unbalance or scale_pos_weight, not both.")
        if explicit.get("boosting") == "rf" and not (
            explicit.get("bagging_freq", 0) > 0 and explicit.get("bagging_fraction", 1.0) < 1.0
        ):
            message = "A random forest needs bagging_freq > 0 and bagging_fraction < 1."
            self.refuse([*path, "boosting"], "INVALID", message)
        if explicit.get("data_sample_strategy") == "goss":
            if explicit.get("top_rate", 0.2) + explicit.get("other_rate", 0.1) > 1.0:
                self.refuse([*path, "top_rate"], "OUT_OF_RANGE", "top_rate and other_rate together are at most 1.")
            if explicit.get("bagging_freq", 0) > 0:
                self.refuse([*path, "bagging_freq"], "INVALID", "goss samples rows itself: leave bagging_freq out.")
        if explicit.get("linear_tree") and explicit.get("objective") == "regression_l1":
            self.refuse([*path, "linear_tree"], "INVALID", "linear_tree does not go with regression_l1.")
        if explicit.get("objective") == "quantile" and not explicit.get("alpha", 0.9) < 1.0:
            self.refuse([*path, "alpha"], "OUT_OF_RANGE", "A quantile is below 1.", {"exclusiveMaximum": 1})
        depth, leaves = explicit.get("max_depth", -1), explicit.get("num_leaves", 31)
        if 0 < depth < 18 and leaves > 2**depth:
            self.warnings.append(f"A tree of depth {depth} has at most {2**depth} leaves; num_leaves is {leaves}.")


def _is_a(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    return finite(value) and (kind == "number" or float(value).is_integer())


def _fits(value: Any, schema: Schema) -> bool:
    if not _is_a(schema["type"], value):
        return False
    return (
        value >= schema.get("minimum", value)
        and value <= schema.get("maximum", 2**31 - 1 if schema["type"] == "integer" else value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )


def _accepted(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in ("default", "description")}
