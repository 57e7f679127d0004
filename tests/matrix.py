"""What each kind of caller gets from each field of the API, in the own project and in another: a line a field.

    field("dataset", "(id: <dataset>) { id }", "u-yyyyy", "u----y-")

The texts have a letter for anonymous, stranger, viewer, scientist, maintainer, administrator and token
(`tests/world.py`): first where the thing is in the project in which they hold their role, then where it is in another.

    u  UNAUTHENTICATED        -  as if it were not there: null, missing from the list, NOT_FOUND
    f  FORBIDDEN              y  there; of a mutation: done
                              r  refused for what it asks, by an error in the payload

`<dataset>` stands for the ID of that project's dataset; `tests/world.py` names the kinds. A list names with `shows` the
kind that has to be in it. A mutation's text is its input. Whoever adds a field to the API adds its line here.
"""

from typing import NamedTuple


class Line(NamedTuple):
    name: str
    asks: str
    own: str
    other: str
    shows: str | None


def field(name: str, asks: str, own: str, other: str, shows: str | None = None) -> Line:
    return Line(name, asks, own, other, shows)


_NODES = "{ nodes { id } }"
_SUBJECTS = "{ nodes { subjectId } }"

_SERIES = 'selector: {projectId: <project>, scope: RUN, names: ["*"]}'

QUERIES = (
    field("algorithmSchema", "(algorithm: LIGHTGBM)", "uyyyyyy", "uyyyyyy"),
    field("auditEvents", f"(filter: {{projectId: <project>}}) {_NODES}", "uffffyf", "uffffyf"),
    field("batchPredictions", _NODES, "u-yyyy-", "u----y-", shows="batchPrediction"),
    field("compareRuns", "(runIds: [<run>, <run>]) { runs { id } }", "u-yyyy-", "u----y-", shows="run"),
    field("dataset", "(id: <dataset>) { id }", "u-yyyyy", "u----y-"),
    field("datasetVersion", "(id: <datasetVersion>) { id }", "u-yyyyy", "u----y-"),
    field("datasets", _NODES, "u-yyyyy", "u----y-", shows="dataset"),
    field("events", f"(first: 100) {_SUBJECTS}", "u-yyyyy", "u----y-", shows="project"),
    field("grants", f"(filter: {{projectId: <project>}}) {_NODES}", "ufffyyf", "uffffyf", shows="grant"),
    field("health", "{ status }", "yyyyyyy", "yyyyyyy"),
    field("metricNames", "(projectId: <project>, scope: RUN)", "u-yyyy-", "u----y-", shows="seriesName"),
    field(
        "metricQuery",
        f"(input: {{{_SERIES}, range: {{steps: {{from: 0}}}}}}) {{ groups {{ name }} }}",
        "u-yyyy-",
        "u----y-",
        shows="seriesName",
    ),
    field("metricSeries", _NODES, "u-yyyy-", "u----y-", shows="series"),
    field("model", "(id: <model>) { id }", "u-yyyy-", "u----y-"),
    field("modelVersion", "(id: <modelVersion>) { id }", "u-yyyy-", "u----y-"),
    field("models", _NODES, "u-yyyy-", "u----y-", shows="model"),
    field("node", "(id: <dataset>) { id }", "u-yyyyy", "u----y-"),
    field("nodes", "(ids: [<run>]) { id }", "u-yyyy-", "u----y-", shows="run"),
    field("operation", "(id: <batchPrediction>) { id }", "u-yyyy-", "u----y-"),
    field(
        "permissionCheck",
        "(principalId: <user>, permission: RUN_READ, resourceId: <project>) { allowed }",
        "ufffyyf",
        "uffffyf",
    ),
    field("project", "(id: <project>) { id }", "u-yyyyy", "u----y-"),
    field("projects", _NODES, "u-yyyyy", "u----y-", shows="project"),
    field("rateLimit", "{ limit }", "uyyyyyy", "uyyyyyy"),
    field("role", "(id: <role>) { id }", "uffffyf", "uffffyf"),
    field("roles", _NODES, "uffffyf", "uffffyf", shows="role"),
    field("serviceInfo", "{ schemaHash }", "yyyyyyy", "yyyyyyy"),
    field("teams", _NODES, "uffffyf", "uffffyf", shows="team"),
    field("trainingRun", "(id: <run>) { id }", "u-yyyy-", "u----y-"),
    field("trainingRuns", _NODES, "u-yyyy-", "u----y-", shows="run"),
    field("uploadSession", "(id: <upload>) { id }", "u-yyyyy", "u----y-"),
    field("user", "(id: <user>) { id }", "uffffyf", "uffffyf"),
    field("users", _NODES, "uffffyf", "uffffyf", shows="user"),
    field("verifyAuditLog", "{ intact }", "uffffyf", "uffffyf"),
    field("viewer", "{ user { id } }", "uyyyyyy", "uyyyyyy"),
    field("whoCan", f"(permission: PROJECT_READ, resourceId: <project>) {_NODES}", "ufffyyf", "uffffyf", shows="grant"),
)
_RUN = "projectId: <project>, spec: {task: REGRESSION, algorithm: EXTERNAL}"
MUTATIONS = (
    field("abortUpload", "uploadId: <upload>", "uffrrrf", "uffffrf"),
    field("appendRunLogs", 'id: <run>, lines: [{text: "a"}]', "uffrrrf", "uffffrf"),
    field("cancelOperation", "id: <batchPrediction>", "u-ryyy-", "u----y-"),
    field("cancelTrainingRun", "id: <run>", "uffrrrf", "uffffrf"),
    field("changePassword", 'currentPassword: "a", newPassword: "several words of mine"', "urrrrrf", "urrrrrf"),
    field("cloneTrainingRun", "id: <run>", "uffyyyf", "uffffyf"),
    field("completeUpload", 'uploadId: <upload>, parts: [{partNumber: 1, etag: "e"}]', "uffyyyf", "uffffyf"),
    field("createApiToken", 'name: "t", permissions: [PROJECT_READ], projectIds: [<project>]', "u-yyyyr", "u----y-"),
    field(
        "createBatchPrediction",
        "model: {id: <modelVersion>}, inputVersionId: <datasetVersion>, outputDatasetId: <dataset>",
        "uffyyyf",
        "uffffyf",
    ),
    field("createDataset", 'projectId: <project>, name: "new"', "uffyyyf", "uffffyf"),
    field(
        "createGrant", "principalId: <user>, what: {permissions: [RUN_READ]}, scopeId: <project>", "uffffyf", "uffffyf"
    ),
    field("createModel", 'projectId: <project>, name: "new", task: REGRESSION', "uffyyyf", "uffffyf"),
    field("createModelVersion", "modelId: <model>, from: {runId: <run>}", "uffrrrf", "uffffrf"),
    field("createProject", 'slug: "new", name: "new"', "uffffyf", "uffffyf"),
    field("createRole", 'name: "new", permissions: [RUN_READ]', "uffffyf", "uffffyf"),
    field("createTeam", 'name: "new"', "uffffyf", "uffffyf"),
    field("createTrainingRun", _RUN, "uffyyyf", "uffffyf"),
    field("createUser", 'username: "new", email: "new@example.com"', "uffffyf", "uffffyf"),
    field("deleteDataset", "id: <dataset>", "ufffrrf", "uffffrf"),
    field("deleteMetricSeries", "projectId: <project>, ids: [<series>], dryRun: false", "ufffyyf", "uffffyf"),
    field("deleteModel", "id: <model>", "ufffrrf", "uffffrf"),
    field("deleteModelVersion", "id: <modelVersion>", "ufffrrf", "uffffrf"),
    field("deleteProject", 'id: <project>, confirmation: "neither"', "uffffrf", "uffffrf"),
    field("deleteRole", "id: <role>", "uffffrf", "uffffrf"),
    field("deleteTeam", "id: <team>", "uffffyf", "uffffyf"),
    field("deleteTrainingRun", "id: <run>", "ufffrrf", "uffffrf"),
    field("deleteUser", "id: <user>", "uffffrf", "uffffrf"),
    field(
        "evaluateModelVersion",
        "modelVersionId: <modelVersion>, datasetVersionId: <datasetVersion>",
        "uffrrrf",
        "uffffrf",
    ),
    field(
        "ingestMetrics",
        'projectId: <project>, series: [{runId: <run>, name: "new", steps: [1], values: [1]}]',
        "uffyyyf",
        "uffffyf",
    ),
    field("login", 'username: "nobody", password: "several words of mine"', "rrrrrrr", "rrrrrrr"),
    field("logout", "everywhere: true", "uyyyyyf", "uyyyyyf"),
    field("predict", "model: {id: <modelVersion>}, rows: [{a: 1}]", "uffrrrf", "uffffrf"),
    field("refreshTokens", 'refreshToken: "none"', "rrrrrrr", "rrrrrrr"),
    field("removeModelAlias", 'modelId: <model>, alias: "champion"', "uffyyyf", "uffffyf"),
    field("reportRun", "id: <run>, fraction: 0.5", "uffrrrf", "uffffrf"),
    field("reprocessDatasetVersion", "id: <datasetVersion>", "uffrrrf", "uffffrf"),
    field("requestUploadParts", "uploadId: <upload>, partNumbers: [1]", "uffrrrf", "uffffrf"),
    field("retryTrainingRun", "id: <run>", "uffrrrf", "uffffrf"),
    field("revokeApiToken", "id: <apiToken>", "u----yy", "u----yy"),
    field("revokeGrant", "id: <grant>", "uffffyf", "uffffyf"),
    field("revokeSession", "id: <session>", "u----y-", "u----y-"),
    field("rotateApiToken", "id: <apiToken>", "u----yy", "u----yy"),
    field("setDatasetAlias", 'datasetId: <dataset>, alias: "new", versionId: <datasetVersion>', "uffyyyf", "uffffyf"),
    field("setModelAlias", 'modelId: <model>, alias: "new", versionId: <modelVersion>', "uffyyyf", "uffffyf"),
    field("setTags", 'resourceId: <run>, set: [{key: "k", value: "v"}]', "u-ryyy-", "u----y-"),
    field("startUpload", 'datasetId: <dataset>, fileName: "a.csv", sizeBytes: 1, format: CSV', "uffyyyf", "uffffyf"),
    field("updateColumn", "id: <column>, role: TARGET", "uffyyyf", "uffffyf"),
    field("updateDataset", 'id: <dataset>, name: "new"', "uffyyyf", "uffffyf"),
    field("updateModel", 'id: <model>, name: "new"', "uffyyyf", "uffffyf"),
    field("updateModelVersion", 'id: <modelVersion>, description: "new"', "uffyyyf", "uffffyf"),
    field("updateProject", 'id: <project>, name: "new"', "ufffyyf", "uffffyf"),
    field("updateRole", 'id: <role>, name: "new"', "uffffrf", "uffffrf"),
    field("updateTeam", 'id: <team>, name: "new"', "uffffyf", "uffffyf"),
    field("updateTrainingRun", 'id: <run>, name: "new"', "uffyyyf", "uffffyf"),
    field("updateUser", 'id: <user>, displayName: "new"', "uffffyf", "uffffyf"),
    field("updateViewer", 'displayName: "new"', "uyyyyyf", "uyyyyyf"),
    field("validateTrainingRun", _RUN, "uffyyyf", "uffffyf"),
)
SUBSCRIPTIONS = (
    field(
        "datasetVersionUpdated",
        "(id: <datasetVersion>) { datasetVersion { id } }",
        "u-yyyyy",
        "u----y-",
        shows="datasetVersion",
    ),
    field("events", "{ __typename }", "uyyyyyy", "uyyyyyy"),
    field(
        "metricPoints",
        f"({_SERIES}) {{ series {{ name }} }}",
        "ufyyyyf",
        "uf---yf",
        shows="seriesName",
    ),
    field("modelUpdated", "(id: <model>) { model { id } }", "u-yyyy-", "u----y-", shows="model"),
    field(
        "operationUpdated",
        "(id: <batchPrediction>) { operation { id } }",
        "u-yyyy-",
        "u----y-",
        shows="batchPrediction",
    ),
    field("trainingRunLogs", "(id: <run>) { kind }", "u-yyyy-", "u----y-"),
    field("trainingRunUpdated", "(id: <run>) { trainingRun { id } }", "u-yyyy-", "u----y-", shows="run"),
)
TYPES = (
    field("ApiToken", "<apiToken>", "u----yy", "u----yy"),
    field("Artifact", "<artifact>", "u-yyyy-", "u----y-"),
    field("AuditEvent", "<auditEvent>", "u----y-", "u----y-"),
    field("BatchPrediction", "<batchPrediction>", "u-yyyy-", "u----y-"),
    field("Column", "<column>", "u-yyyyy", "u----y-"),
    field("Dataset", "<dataset>", "u-yyyyy", "u----y-"),
    field("DatasetVersion", "<datasetVersion>", "u-yyyyy", "u----y-"),
    field("Evaluation", "<evaluation>", "u-yyyy-", "u----y-"),
    field("Event", "<event>", "u-yyyyy", "u----y-"),
    field("Grant", "<grant>", "u---yy-", "u----y-"),
    field("MetricSeries", "<series>", "u-yyyy-", "u----y-"),
    field("Model", "<model>", "u-yyyy-", "u----y-"),
    field("ModelVersion", "<modelVersion>", "u-yyyy-", "u----y-"),
    field("Prediction", "<prediction>", "u-yyyy-", "u----y-"),
    field("Project", "<project>", "u-yyyyy", "u----y-"),
    field("Role", "<role>", "u---yy-", "u---yy-"),
    field("Session", "<session>", "u----y-", "u----y-"),
    field("Team", "<team>", "u----y-", "u----y-"),
    field("TrainingRun", "<run>", "u-yyyy-", "u----y-"),
    field("UploadSession", "<upload>", "u-yyyyy", "u----y-"),
    field("User", "<user>", "u----yy", "u----yy"),
)
