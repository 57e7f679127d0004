"""The closed sets of words that rows hold and the API shows."""

from enum import StrEnum, auto


class Word(StrEnum):
    """An enum whose values are its names, in the database, in Python and in GraphQL alike."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name


class UserStatus(Word):
    ACTIVE = auto()
    SUSPENDED = auto()
    DEACTIVATED = auto()


class GrantScopeType(Word):
    GLOBAL = auto()
    PROJECT = auto()
    RESOURCE = auto()


class FailureCode(Word):
    INVALID_DATA = auto()
    OUT_OF_MEMORY = auto()
    TIMEOUT = auto()
    WORKER_LOST = auto()
    STORAGE_UNAVAILABLE = auto()
    DEPENDENCY_UNAVAILABLE = auto()
    CANCELED = auto()
    INTERNAL = auto()


class DatasetFormat(Word):
    CSV = auto()
    PARQUET = auto()
    ARROW = auto()
    JSONL = auto()


class DatasetVersionStatus(Word):
    UPLOADING = auto()
    PROCESSING = auto()
    READY = auto()
    FAILED = auto()


class PreviewMode(Word):
    HEAD = auto()
    TAIL = auto()
    SAMPLE = auto()


class DatasetSourceKind(Word):
    UPLOAD = auto()
    DERIVED = auto()


class ColumnType(Word):
    BOOLEAN = auto()
    INTEGER = auto()
    FLOAT = auto()
    DECIMAL = auto()
    STRING = auto()
    CATEGORY = auto()
    DATE = auto()
    DATETIME = auto()
    BINARY = auto()
    LIST = auto()
    STRUCT = auto()
    UNKNOWN = auto()


class ColumnRole(Word):
    FEATURE = auto()
    TARGET = auto()
    WEIGHT = auto()
    GROUP = auto()
    IDENTIFIER = auto()
    TIMESTAMP = auto()
    IGNORED = auto()


class UploadStatus(Word):
    OPEN = auto()
    COMPLETING = auto()
    COMPLETED = auto()
    ABORTED = auto()
    EXPIRED = auto()


class MLTask(Word):
    REGRESSION = auto()
    BINARY_CLASSIFICATION = auto()
    MULTICLASS_CLASSIFICATION = auto()
    RANKING = auto()


class Algorithm(Word):
    LIGHTGBM = auto()
    EXTERNAL = auto()


class TrainingRunStatus(Word):
    QUEUED = auto()
    STARTING = auto()
    RUNNING = auto()
    LOST = auto()
    CANCELING = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    TIMED_OUT = auto()
    CANCELED = auto()


class SplitStrategy(Word):
    RANDOM = auto()
    STRATIFIED = auto()
    GROUP = auto()
    TIME = auto()
    K_FOLD = auto()
    PROVIDED = auto()


class LogLevel(Word):
    DEBUG = auto()
    INFO = auto()
    WARNING = auto()
    ERROR = auto()


class LogStream(Word):
    STDOUT = auto()
    STDERR = auto()
    SYSTEM = auto()


class ModelVersionStatus(Word):
    PENDING = auto()
    READY = auto()
    FAILED = auto()
    ARCHIVED = auto()


class OperationKind(Word):
    BATCH_PREDICTION = auto()
    EVALUATION = auto()
    MODEL_CHECK = auto()


class OperationStatus(Word):
    QUEUED = auto()
    RUNNING = auto()
    CANCELING = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    CANCELED = auto()


class ImportanceKind(Word):
    GAIN = auto()
    SPLIT = auto()
    SHAP = auto()
    PERMUTATION = auto()


class CurveKind(Word):
    ROC = auto()
    PRECISION_RECALL = auto()
    CALIBRATION = auto()
    LIFT = auto()


class MetricScope(Word):
    RUN = auto()
    SYSTEM = auto()
    APPLICATION = auto()
    BUSINESS = auto()


class MetricKind(Word):
    GAUGE = auto()
    COUNTER = auto()


class NonFiniteValue(Word):
    NAN = auto()
    POSITIVE_INFINITY = auto()
    NEGATIVE_INFINITY = auto()


class Aggregation(Word):
    AVG = auto()
    MIN = auto()
    MAX = auto()
    SUM = auto()
    COUNT = auto()
    LAST = auto()
    RATE = auto()
    P50 = auto()
    P90 = auto()
    P95 = auto()
    P99 = auto()


class DownsampleMethod(Word):
    MIN_MAX = auto()
    LTTB = auto()
    AVG = auto()
    LAST = auto()
    NONE = auto()


class MetricAxis(Word):
    STEP = auto()
    TIME = auto()
    RELATIVE_TIME = auto()


class SummaryValue(Word):
    LAST = auto()
    BEST = auto()
    MIN = auto()
    MAX = auto()


class OrderDirection(Word):
    ASC = auto()
    DESC = auto()


class EventType(Word):
    PROJECT_CREATED = auto()
    PROJECT_UPDATED = auto()
    PROJECT_DELETED = auto()
    DATASET_CREATED = auto()
    DATASET_UPDATED = auto()
    DATASET_DELETED = auto()
    DATASET_VERSION_CREATED = auto()
    DATASET_VERSION_READY = auto()
    DATASET_VERSION_FAILED = auto()
    RUN_CREATED = auto()
    RUN_STARTED = auto()
    RUN_SUCCEEDED = auto()
    RUN_FAILED = auto()
    RUN_CANCELED = auto()
    RUN_LOST = auto()
    RUN_RETRIED = auto()
    MODEL_CREATED = auto()
    MODEL_UPDATED = auto()
    MODEL_DELETED = auto()
    MODEL_VERSION_CREATED = auto()
    MODEL_ALIAS_CHANGED = auto()
    BATCH_PREDICTION_FINISHED = auto()
    USER_CREATED = auto()
    USER_UPDATED = auto()
    USER_DELETED = auto()
    ROLE_CHANGED = auto()
    GRANT_CREATED = auto()
    GRANT_REVOKED = auto()
    SESSION_REVOKED = auto()


class StreamGapReason(Word):
    RETENTION = auto()
    SLOW_CONSUMER = auto()
    PERMISSION_CHANGED = auto()


class UpdateKind(Word):
    SNAPSHOT = auto()
    CREATED = auto()
    UPDATED = auto()
    DELETED = auto()
    GAP = auto()


class AuditAction(Word):
    LOGIN = auto()
    LOGIN_FAILED = auto()
    LOGOUT = auto()
    SESSION_REVOKE = auto()
    PASSWORD_CHANGE = auto()
    TOKEN_CREATE = auto()
    TOKEN_REVOKE = auto()
    USER_CREATE = auto()
    USER_UPDATE = auto()
    USER_DELETE = auto()
    TEAM_CHANGE = auto()
    ROLE_CHANGE = auto()
    GRANT_CREATE = auto()
    GRANT_REVOKE = auto()
    ACCESS_DENIED = auto()
    PROJECT_CREATE = auto()
    PROJECT_UPDATE = auto()
    PROJECT_DELETE = auto()
    DATASET_CREATE = auto()
    DATASET_UPDATE = auto()
    DATASET_DELETE = auto()
    DATASET_DOWNLOAD = auto()
    DATASET_PREVIEW = auto()
    RUN_CREATE = auto()
    RUN_CANCEL = auto()
    RUN_RETRY = auto()
    RUN_DELETE = auto()
    MODEL_CREATE = auto()
    MODEL_UPDATE = auto()
    MODEL_DELETE = auto()
    MODEL_PROMOTE = auto()
    MODEL_DOWNLOAD = auto()
    METRIC_DELETE = auto()


class AuditOutcome(Word):
    SUCCEEDED = auto()
    REFUSED = auto()
    FAILED = auto()
