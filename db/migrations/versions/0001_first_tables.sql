CREATE SEQUENCE event_numbers;

CREATE TABLE users (
    id UUID NOT NULL,
    username TEXT NOT NULL,
    display_name TEXT NOT NULL,
    email TEXT NOT NULL,
    status TEXT NOT NULL CONSTRAINT users_status_check CHECK (status IN ('ACTIVE', 'SUSPENDED', 'DEACTIVATED')),
    password_digest TEXT,
    last_seen_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    revision INTEGER DEFAULT 1 NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_username_key UNIQUE (username)
);

CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE INDEX users_created_at_id_idx ON users (created_at, id);

CREATE TABLE roles (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    built_in BOOLEAN NOT NULL,
    permissions TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    revision INTEGER DEFAULT 1 NOT NULL,
    CONSTRAINT roles_pkey PRIMARY KEY (id),
    CONSTRAINT roles_name_key UNIQUE (name)
);

CREATE TABLE events (
    id UUID NOT NULL,
    number BIGINT DEFAULT nextval('event_numbers') NOT NULL,
    changed xid8 DEFAULT pg_current_xact_id() NOT NULL,
    type TEXT NOT NULL CONSTRAINT events_type_check CHECK (type IN ('PROJECT_CREATED', 'PROJECT_UPDATED', 'PROJECT_DELETED', 'DATASET_CREATED', 'DATASET_UPDATED', 'DATASET_DELETED', 'DATASET_VERSION_CREATED', 'DATASET_VERSION_READY', 'DATASET_VERSION_FAILED', 'RUN_CREATED', 'RUN_STARTED', 'RUN_SUCCEEDED', 'RUN_FAILED', 'RUN_CANCELED', 'RUN_LOST', 'RUN_RETRIED', 'MODEL_CREATED', 'MODEL_UPDATED', 'MODEL_DELETED', 'MODEL_VERSION_CREATED', 'MODEL_ALIAS_CHANGED', 'BATCH_PREDICTION_FINISHED', 'USER_CREATED', 'USER_UPDATED', 'USER_DELETED', 'ROLE_CHANGED', 'GRANT_CREATED', 'GRANT_REVOKED', 'SESSION_REVOKED')),
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    project_id UUID,
    actor TEXT,
    subject_id TEXT NOT NULL,
    changes JSONB,
    request_id TEXT,
    CONSTRAINT events_pkey PRIMARY KEY (id)
);

CREATE INDEX events_changed_number_idx ON events (changed, number);

CREATE TABLE audit_events (
    id UUID NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    action TEXT NOT NULL CONSTRAINT audit_events_action_check CHECK (action IN ('LOGIN', 'LOGIN_FAILED', 'LOGOUT', 'SESSION_REVOKE', 'PASSWORD_CHANGE', 'TOKEN_CREATE', 'TOKEN_REVOKE', 'USER_CREATE', 'USER_UPDATE', 'USER_DELETE', 'TEAM_CHANGE', 'ROLE_CHANGE', 'GRANT_CREATE', 'GRANT_REVOKE', 'ACCESS_DENIED', 'PROJECT_CREATE', 'PROJECT_UPDATE', 'PROJECT_DELETE', 'DATASET_CREATE', 'DATASET_UPDATE', 'DATASET_DELETE', 'DATASET_DOWNLOAD', 'DATASET_PREVIEW', 'RUN_CREATE', 'RUN_CANCEL', 'RUN_RETRY', 'RUN_DELETE', 'MODEL_CREATE', 'MODEL_UPDATE', 'MODEL_DELETE', 'MODEL_PROMOTE', 'MODEL_DOWNLOAD', 'METRIC_DELETE')),
    outcome TEXT NOT NULL CONSTRAINT audit_events_outcome_check CHECK (outcome IN ('SUCCEEDED', 'REFUSED', 'FAILED')),
    actor TEXT,
    actor_name TEXT NOT NULL,
    ip_address TEXT,
    user_agent TEXT,
    operation_name TEXT,
    request_id TEXT NOT NULL,
    input JSONB,
    CONSTRAINT audit_events_pkey PRIMARY KEY (id)
);

CREATE INDEX audit_events_at_idx ON audit_events (at);

CREATE TABLE workers (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT workers_pkey PRIMARY KEY (id)
);

CREATE TABLE installation (
    singleton BOOLEAN NOT NULL CONSTRAINT installation_singleton_check CHECK (singleton),
    epoch UUID NOT NULL,
    forgotten_changed xid8,
    forgotten_number BIGINT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT installation_pkey PRIMARY KEY (singleton)
);

CREATE TABLE sessions (
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    last_seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ip_address TEXT,
    user_agent TEXT,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE INDEX sessions_user_id_idx ON sessions (user_id);

CREATE TABLE grants (
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    role_id UUID,
    permissions TEXT[] DEFAULT '{}' NOT NULL,
    scope TEXT NOT NULL CONSTRAINT grants_scope_check CHECK (scope IN ('GLOBAL', 'PROJECT', 'RESOURCE')),
    expires_at TIMESTAMP WITH TIME ZONE,
    reason TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    CONSTRAINT grants_pkey PRIMARY KEY (id),
    CONSTRAINT grants_user_id_role_id_key UNIQUE (user_id, role_id),
    CONSTRAINT grants_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT grants_role_id_fkey FOREIGN KEY(role_id) REFERENCES roles (id) ON DELETE CASCADE,
    CONSTRAINT grants_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE TABLE projects (
    id UUID NOT NULL,
    slug TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    tags JSONB DEFAULT '[]' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    revision INTEGER DEFAULT 1 NOT NULL,
    CONSTRAINT projects_pkey PRIMARY KEY (id),
    CONSTRAINT projects_slug_key UNIQUE (slug),
    CONSTRAINT projects_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX projects_name_id_idx ON projects (name, id);

CREATE TABLE idempotency_keys (
    user_id UUID NOT NULL,
    mutation TEXT NOT NULL,
    key TEXT NOT NULL,
    input_digest BYTEA NOT NULL,
    result_id UUID,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, mutation, key),
    CONSTRAINT idempotency_keys_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE TABLE refresh_tokens (
    digest BYTEA NOT NULL,
    session_id UUID NOT NULL,
    issued_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    used_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (digest),
    CONSTRAINT refresh_tokens_session_id_fkey FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);

CREATE INDEX refresh_tokens_session_id_idx ON refresh_tokens (session_id);

CREATE TABLE datasets (
    id UUID NOT NULL,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    tags JSONB DEFAULT '[]' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    revision INTEGER DEFAULT 1 NOT NULL,
    CONSTRAINT datasets_pkey PRIMARY KEY (id),
    CONSTRAINT datasets_project_id_name_key UNIQUE (project_id, name),
    CONSTRAINT datasets_project_id_fkey FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT datasets_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX datasets_tags_idx ON datasets USING gin (tags jsonb_path_ops);

CREATE INDEX datasets_name_id_idx ON datasets (name, id);

CREATE INDEX datasets_updated_at_id_idx ON datasets (updated_at, id);

CREATE INDEX datasets_created_at_id_idx ON datasets (created_at, id);

CREATE TABLE models (
    id UUID NOT NULL,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    tags JSONB DEFAULT '[]' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    revision INTEGER DEFAULT 1 NOT NULL,
    task TEXT NOT NULL CONSTRAINT models_task_check CHECK (task IN ('REGRESSION', 'BINARY_CLASSIFICATION', 'MULTICLASS_CLASSIFICATION', 'RANKING')),
    CONSTRAINT models_pkey PRIMARY KEY (id),
    CONSTRAINT models_project_id_name_key UNIQUE (project_id, name),
    CONSTRAINT models_project_id_fkey FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT models_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX models_created_at_id_idx ON models (created_at, id);

CREATE INDEX models_updated_at_id_idx ON models (updated_at, id);

CREATE TABLE metric_batches (
    project_id UUID NOT NULL,
    batch_id TEXT NOT NULL,
    answer JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT metric_batches_pkey PRIMARY KEY (project_id, batch_id),
    CONSTRAINT metric_batches_project_id_fkey FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);

CREATE TABLE dataset_versions (
    id UUID NOT NULL,
    dataset_id UUID NOT NULL,
    number INTEGER NOT NULL,
    status TEXT NOT NULL CONSTRAINT dataset_versions_status_check CHECK (status IN ('UPLOADING', 'PROCESSING', 'READY', 'FAILED')),
    progress JSONB NOT NULL,
    failure JSONB,
    format TEXT NOT NULL CONSTRAINT dataset_versions_format_check CHECK (format IN ('CSV', 'PARQUET', 'ARROW', 'JSONL')),
    csv_options JSONB,
    digest TEXT,
    size_bytes BIGINT,
    row_count BIGINT,
    column_count INTEGER,
    source JSONB NOT NULL,
    note TEXT,
    upload_key TEXT,
    data_key TEXT,
    attempt INTEGER DEFAULT 0 NOT NULL,
    lease UUID,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    changed xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT dataset_versions_pkey PRIMARY KEY (id),
    CONSTRAINT dataset_versions_dataset_id_number_key UNIQUE (dataset_id, number),
    CONSTRAINT dataset_versions_dataset_id_fkey FOREIGN KEY(dataset_id) REFERENCES datasets (id) ON DELETE CASCADE,
    CONSTRAINT dataset_versions_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX dataset_versions_changed_id_idx ON dataset_versions (changed, id);

CREATE TABLE dataset_columns (
    id UUID NOT NULL,
    version_id UUID NOT NULL,
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    type TEXT NOT NULL CONSTRAINT dataset_columns_type_check CHECK (type IN ('BOOLEAN', 'INTEGER', 'FLOAT', 'DECIMAL', 'STRING', 'CATEGORY', 'DATE', 'DATETIME', 'BINARY', 'LIST', 'STRUCT', 'UNKNOWN')),
    nullable BOOLEAN NOT NULL,
    role TEXT NOT NULL CONSTRAINT dataset_columns_role_check CHECK (role IN ('FEATURE', 'TARGET', 'WEIGHT', 'GROUP', 'IDENTIFIER', 'TIMESTAMP', 'IGNORED')),
    description TEXT,
    profile JSONB,
    CONSTRAINT dataset_columns_pkey PRIMARY KEY (id),
    CONSTRAINT dataset_columns_version_id_position_key UNIQUE (version_id, position),
    CONSTRAINT dataset_columns_version_id_name_key UNIQUE (version_id, name),
    CONSTRAINT dataset_columns_version_id_fkey FOREIGN KEY(version_id) REFERENCES dataset_versions (id) ON DELETE CASCADE
);

CREATE TABLE dataset_aliases (
    dataset_id UUID NOT NULL,
    name TEXT NOT NULL,
    version_id UUID NOT NULL,
    set_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    set_by UUID,
    CONSTRAINT dataset_aliases_pkey PRIMARY KEY (dataset_id, name),
    CONSTRAINT dataset_aliases_dataset_id_fkey FOREIGN KEY(dataset_id) REFERENCES datasets (id) ON DELETE CASCADE,
    CONSTRAINT dataset_aliases_version_id_fkey FOREIGN KEY(version_id) REFERENCES dataset_versions (id) ON DELETE CASCADE,
    CONSTRAINT dataset_aliases_set_by_fkey FOREIGN KEY(set_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE TABLE upload_sessions (
    id UUID NOT NULL,
    dataset_id UUID NOT NULL,
    version_id UUID NOT NULL,
    file_name TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    part_size_bytes BIGINT NOT NULL,
    part_count INTEGER NOT NULL,
    status TEXT NOT NULL CONSTRAINT upload_sessions_status_check CHECK (status IN ('OPEN', 'COMPLETING', 'COMPLETED', 'ABORTED', 'EXPIRED')),
    storage_upload_id TEXT NOT NULL,
    object_key TEXT NOT NULL,
    sha256 TEXT,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    CONSTRAINT upload_sessions_pkey PRIMARY KEY (id),
    CONSTRAINT upload_sessions_dataset_id_fkey FOREIGN KEY(dataset_id) REFERENCES datasets (id) ON DELETE CASCADE,
    CONSTRAINT upload_sessions_version_id_fkey FOREIGN KEY(version_id) REFERENCES dataset_versions (id) ON DELETE CASCADE,
    CONSTRAINT upload_sessions_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX upload_sessions_open_idx ON upload_sessions (expires_at) WHERE status = 'OPEN';

CREATE INDEX upload_sessions_dataset_id_created_at_id_idx ON upload_sessions (dataset_id, created_at, id);

CREATE INDEX upload_sessions_version_id_idx ON upload_sessions (version_id);

CREATE TABLE training_runs (
    id UUID NOT NULL,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    tags JSONB DEFAULT '[]' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    revision INTEGER DEFAULT 1 NOT NULL,
    status TEXT NOT NULL CONSTRAINT training_runs_status_check CHECK (status IN ('QUEUED', 'STARTING', 'RUNNING', 'LOST', 'CANCELING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'CANCELED')),
    status_reason TEXT,
    progress JSONB NOT NULL,
    failure JSONB,
    task TEXT NOT NULL CONSTRAINT training_runs_task_check CHECK (task IN ('REGRESSION', 'BINARY_CLASSIFICATION', 'MULTICLASS_CLASSIFICATION', 'RANKING')),
    algorithm TEXT NOT NULL CONSTRAINT training_runs_algorithm_check CHECK (algorithm IN ('LIGHTGBM', 'EXTERNAL')),
    spec JSONB NOT NULL,
    params JSONB NOT NULL,
    dataset_version_id UUID,
    validation_dataset_version_id UUID,
    environment JSONB,
    heartbeat_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    parent_run_id UUID,
    register_model_id UUID,
    register_alias TEXT,
    attempt INTEGER DEFAULT 0 NOT NULL,
    lease UUID,
    cancellation JSONB,
    outcome JSONB,
    changed xid8 DEFAULT pg_current_xact_id() NOT NULL,
    number BIGINT GENERATED BY DEFAULT AS IDENTITY,
    CONSTRAINT training_runs_pkey PRIMARY KEY (id),
    CONSTRAINT training_runs_project_id_name_key UNIQUE (project_id, name),
    CONSTRAINT training_runs_project_id_fkey FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT training_runs_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL,
    CONSTRAINT training_runs_dataset_version_id_fkey FOREIGN KEY(dataset_version_id) REFERENCES dataset_versions (id) ON DELETE RESTRICT,
    CONSTRAINT training_runs_validation_dataset_version_id_fkey FOREIGN KEY(validation_dataset_version_id) REFERENCES dataset_versions (id) ON DELETE RESTRICT,
    CONSTRAINT training_runs_parent_run_id_fkey FOREIGN KEY(parent_run_id) REFERENCES training_runs (id) ON DELETE CASCADE,
    CONSTRAINT training_runs_register_model_id_fkey FOREIGN KEY(register_model_id) REFERENCES models (id) ON DELETE SET NULL,
    CONSTRAINT training_runs_number_key UNIQUE (number)
);

CREATE INDEX training_runs_unfinished_idx ON training_runs (heartbeat_at) WHERE finished_at IS NULL;

CREATE INDEX training_runs_parent_run_id_idx ON training_runs (parent_run_id);

CREATE INDEX training_runs_changed_number_idx ON training_runs (changed, number);

CREATE INDEX training_runs_created_at_id_idx ON training_runs (created_at, id);

CREATE INDEX training_runs_dataset_version_id_created_at_id_idx ON training_runs (dataset_version_id, created_at, id);

CREATE INDEX training_runs_project_id_created_at_id_idx ON training_runs (project_id, created_at, id);

CREATE TABLE run_transitions (
    id UUID NOT NULL,
    run_id UUID NOT NULL,
    from_status TEXT CONSTRAINT run_transitions_from_status_check CHECK (from_status IN ('QUEUED', 'STARTING', 'RUNNING', 'LOST', 'CANCELING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'CANCELED')),
    to_status TEXT NOT NULL CONSTRAINT run_transitions_to_status_check CHECK (to_status IN ('QUEUED', 'STARTING', 'RUNNING', 'LOST', 'CANCELING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'CANCELED')),
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    actor TEXT,
    reason TEXT,
    attempt INTEGER NOT NULL,
    CONSTRAINT run_transitions_pkey PRIMARY KEY (id),
    CONSTRAINT run_transitions_run_id_fkey FOREIGN KEY(run_id) REFERENCES training_runs (id) ON DELETE CASCADE
);

CREATE INDEX run_transitions_run_id_id_idx ON run_transitions (run_id, id);

CREATE TABLE run_attempts (
    run_id UUID NOT NULL,
    number INTEGER NOT NULL,
    status TEXT NOT NULL CONSTRAINT run_attempts_status_check CHECK (status IN ('QUEUED', 'STARTING', 'RUNNING', 'LOST', 'CANCELING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'CANCELED')),
    worker TEXT,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    failure JSONB,
    CONSTRAINT run_attempts_pkey PRIMARY KEY (run_id, number),
    CONSTRAINT run_attempts_run_id_fkey FOREIGN KEY(run_id) REFERENCES training_runs (id) ON DELETE CASCADE
);

CREATE TABLE run_logs (
    run_id UUID NOT NULL,
    number BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    level TEXT NOT NULL CONSTRAINT run_logs_level_check CHECK (level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR')),
    stream TEXT NOT NULL CONSTRAINT run_logs_stream_check CHECK (stream IN ('STDOUT', 'STDERR', 'SYSTEM')),
    attempt INTEGER NOT NULL,
    text TEXT NOT NULL,
    CONSTRAINT run_logs_pkey PRIMARY KEY (run_id, number),
    CONSTRAINT run_logs_run_id_fkey FOREIGN KEY(run_id) REFERENCES training_runs (id) ON DELETE CASCADE
);

CREATE TABLE artifacts (
    id UUID NOT NULL,
    run_id UUID NOT NULL,
    path TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    content_type TEXT,
    object_key TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT artifacts_pkey PRIMARY KEY (id),
    CONSTRAINT artifacts_run_id_path_key UNIQUE (run_id, path),
    CONSTRAINT artifacts_run_id_fkey FOREIGN KEY(run_id) REFERENCES training_runs (id) ON DELETE CASCADE
);

CREATE TABLE model_versions (
    id UUID NOT NULL,
    model_id UUID NOT NULL,
    number INTEGER NOT NULL,
    status TEXT NOT NULL CONSTRAINT model_versions_status_check CHECK (status IN ('PENDING', 'READY', 'FAILED', 'ARCHIVED')),
    description TEXT,
    tags JSONB DEFAULT '[]' NOT NULL,
    run_id UUID,
    trained_on_id UUID,
    signature JSONB NOT NULL,
    params JSONB NOT NULL,
    importance JSONB NOT NULL,
    model_key TEXT NOT NULL,
    manifest_key TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    size_bytes BIGINT,
    sha256 TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    revision INTEGER DEFAULT 1 NOT NULL,
    CONSTRAINT model_versions_pkey PRIMARY KEY (id),
    CONSTRAINT model_versions_model_id_number_key UNIQUE (model_id, number),
    CONSTRAINT model_versions_model_id_fkey FOREIGN KEY(model_id) REFERENCES models (id) ON DELETE CASCADE,
    CONSTRAINT model_versions_run_id_fkey FOREIGN KEY(run_id) REFERENCES training_runs (id) ON DELETE RESTRICT,
    CONSTRAINT model_versions_trained_on_id_fkey FOREIGN KEY(trained_on_id) REFERENCES dataset_versions (id) ON DELETE RESTRICT,
    CONSTRAINT model_versions_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX model_versions_run_id_idx ON model_versions (run_id);

CREATE TABLE metric_series (
    id UUID NOT NULL,
    project_id UUID,
    run_id UUID,
    scope TEXT NOT NULL CONSTRAINT metric_series_scope_check CHECK (scope IN ('RUN', 'SYSTEM', 'APPLICATION', 'BUSINESS')),
    name TEXT NOT NULL,
    kind TEXT NOT NULL CONSTRAINT metric_series_kind_check CHECK (kind IN ('GAUGE', 'COUNTER')),
    unit TEXT,
    description TEXT,
    labels JSONB DEFAULT '[]' NOT NULL,
    higher_is_better BOOLEAN,
    rises BOOLEAN NOT NULL,
    point_count BIGINT DEFAULT 0 NOT NULL,
    finite_count BIGINT DEFAULT 0 NOT NULL,
    first_at BIGINT,
    last_at BIGINT,
    last_step BIGINT,
    last_point_at BIGINT,
    last_value DOUBLE PRECISION,
    min_value DOUBLE PRECISION,
    min_step BIGINT,
    min_at BIGINT,
    max_value DOUBLE PRECISION,
    max_step BIGINT,
    max_at BIGINT,
    sum_value DOUBLE PRECISION,
    best_value DOUBLE PRECISION GENERATED ALWAYS AS (CASE WHEN rises THEN max_value ELSE min_value END) STORED,
    best_step BIGINT GENERATED ALWAYS AS (CASE WHEN rises THEN max_step ELSE min_step END) STORED,
    best_at BIGINT GENERATED ALWAYS AS (CASE WHEN rises THEN max_at ELSE min_at END) STORED,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT metric_series_pkey PRIMARY KEY (id),
    CONSTRAINT metric_series_project_id_run_id_scope_name_labels_key UNIQUE NULLS NOT DISTINCT (project_id, run_id, scope, name, labels),
    CONSTRAINT metric_series_project_id_fkey FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT metric_series_run_id_fkey FOREIGN KEY(run_id) REFERENCES training_runs (id) ON DELETE CASCADE
);

CREATE INDEX metric_series_run_id_name_idx ON metric_series (run_id, name);

CREATE TABLE model_aliases (
    model_id UUID NOT NULL,
    name TEXT NOT NULL,
    version_id UUID NOT NULL,
    set_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    set_by UUID,
    CONSTRAINT model_aliases_pkey PRIMARY KEY (model_id, name),
    CONSTRAINT model_aliases_model_id_fkey FOREIGN KEY(model_id) REFERENCES models (id) ON DELETE CASCADE,
    CONSTRAINT model_aliases_version_id_fkey FOREIGN KEY(version_id) REFERENCES model_versions (id) ON DELETE CASCADE,
    CONSTRAINT model_aliases_set_by_fkey FOREIGN KEY(set_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX model_aliases_version_id_idx ON model_aliases (version_id);

CREATE TABLE alias_changes (
    id UUID NOT NULL,
    model_id UUID NOT NULL,
    alias TEXT NOT NULL,
    from_id UUID,
    to_id UUID,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    actor TEXT,
    reason TEXT,
    CONSTRAINT alias_changes_pkey PRIMARY KEY (id),
    CONSTRAINT alias_changes_model_id_fkey FOREIGN KEY(model_id) REFERENCES models (id) ON DELETE CASCADE,
    CONSTRAINT alias_changes_from_id_fkey FOREIGN KEY(from_id) REFERENCES model_versions (id) ON DELETE CASCADE,
    CONSTRAINT alias_changes_to_id_fkey FOREIGN KEY(to_id) REFERENCES model_versions (id) ON DELETE CASCADE
);

CREATE INDEX alias_changes_model_id_at_id_idx ON alias_changes (model_id, at, id);

CREATE TABLE evaluations (
    id UUID NOT NULL,
    model_version_id UUID NOT NULL,
    dataset_version_id UUID NOT NULL,
    split TEXT NOT NULL,
    metrics JSONB NOT NULL,
    confusion_matrix JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    CONSTRAINT evaluations_pkey PRIMARY KEY (id),
    CONSTRAINT evaluations_model_version_id_fkey FOREIGN KEY(model_version_id) REFERENCES model_versions (id) ON DELETE CASCADE,
    CONSTRAINT evaluations_dataset_version_id_fkey FOREIGN KEY(dataset_version_id) REFERENCES dataset_versions (id) ON DELETE CASCADE,
    CONSTRAINT evaluations_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX evaluations_model_version_id_id_idx ON evaluations (model_version_id, id);

CREATE TABLE predictions (
    id UUID NOT NULL,
    model_version_id UUID NOT NULL,
    outputs JSONB NOT NULL,
    latency_ms DOUBLE PRECISION NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    created_by UUID,
    CONSTRAINT predictions_pkey PRIMARY KEY (id),
    CONSTRAINT predictions_model_version_id_fkey FOREIGN KEY(model_version_id) REFERENCES model_versions (id) ON DELETE CASCADE,
    CONSTRAINT predictions_created_by_fkey FOREIGN KEY(created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX predictions_created_at_idx ON predictions (created_at);

CREATE TABLE metric_points (
    series_id UUID NOT NULL,
    step BIGINT,
    at BIGINT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    changed xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT metric_points_series_id_step_at_key UNIQUE NULLS NOT DISTINCT (series_id, step, at),
    CONSTRAINT metric_points_series_id_fkey FOREIGN KEY(series_id) REFERENCES metric_series (id) ON DELETE CASCADE
);

CREATE INDEX metric_points_series_id_changed_idx ON metric_points (series_id, changed);

-- pgqueuer 1.6.0 -- prefix='' schema=None durability=durable

CREATE TYPE pgqueuer_status AS ENUM ('queued', 'picked', 'successful', 'exception', 'canceled', 'deleted', 'failed');

CREATE TABLE pgqueuer (
    id bigserial NOT NULL PRIMARY KEY,
    priority integer NOT NULL,
    queue_manager_id uuid,
    created timestamp with time zone NOT NULL DEFAULT now(),
    updated timestamp with time zone NOT NULL DEFAULT now(),
    heartbeat timestamp with time zone NOT NULL DEFAULT now(),
    execute_after timestamp with time zone NOT NULL DEFAULT now(),
    status pgqueuer_status NOT NULL,
    entrypoint text NOT NULL,
    dedupe_key text,
    payload bytea,
    headers jsonb,
    attempts integer NOT NULL DEFAULT 0,
    slot bigint
);

CREATE TABLE pgqueuer_log (
    id bigint GENERATED BY DEFAULT AS IDENTITY NOT NULL PRIMARY KEY,
    created timestamp with time zone NOT NULL DEFAULT now(),
    job_id bigint NOT NULL,
    status pgqueuer_status NOT NULL,
    priority integer NOT NULL,
    entrypoint text NOT NULL,
    traceback jsonb,
    aggregated boolean DEFAULT false
);

CREATE TABLE pgqueuer_schedules (
    id bigserial NOT NULL PRIMARY KEY,
    expression text NOT NULL,
    entrypoint text NOT NULL,
    heartbeat timestamp with time zone NOT NULL DEFAULT now(),
    created timestamp with time zone NOT NULL DEFAULT now(),
    updated timestamp with time zone NOT NULL DEFAULT now(),
    next_run timestamp with time zone NOT NULL DEFAULT now(),
    last_run timestamp with time zone,
    status pgqueuer_status DEFAULT 'queued'::pgqueuer_status,
    UNIQUE (expression, entrypoint)
);

CREATE TABLE pgqueuer_statistics (
    id bigserial NOT NULL PRIMARY KEY,
    created timestamp with time zone NOT NULL DEFAULT date_trunc('sec'::text, now()),
    count bigint NOT NULL,
    priority integer NOT NULL,
    status pgqueuer_status NOT NULL,
    entrypoint text NOT NULL
);

CREATE INDEX pgqueuer_ep_ea_idx ON pgqueuer USING btree (entrypoint, execute_after) WHERE (status = 'queued'::pgqueuer_status);

CREATE INDEX pgqueuer_ep_prio_id_idx ON pgqueuer USING btree (entrypoint, priority DESC, id) WHERE (status = 'queued'::pgqueuer_status);

CREATE INDEX pgqueuer_log_created ON pgqueuer_log USING btree (created);

CREATE INDEX pgqueuer_log_job_id_status ON pgqueuer_log USING btree (job_id, created DESC);

CREATE INDEX pgqueuer_log_not_aggregated ON pgqueuer_log USING btree ((1)) WHERE (NOT aggregated);

CREATE INDEX pgqueuer_log_status ON pgqueuer_log USING btree (status);

CREATE INDEX pgqueuer_picked_heartbeat_idx ON pgqueuer USING btree (heartbeat) WHERE (status = 'picked'::pgqueuer_status);

CREATE UNIQUE INDEX pgqueuer_picked_slot_idx ON pgqueuer USING btree (entrypoint, slot) WHERE ((status = 'picked'::pgqueuer_status) AND (slot IS NOT NULL));

CREATE INDEX pgqueuer_priority_id_id1_idx ON pgqueuer USING btree (priority, id DESC) INCLUDE (id) WHERE (status = 'queued'::pgqueuer_status);

CREATE INDEX pgqueuer_queue_manager_id_idx ON pgqueuer USING btree (queue_manager_id) WHERE (queue_manager_id IS NOT NULL);

CREATE UNIQUE INDEX pgqueuer_statistics_unique_count ON pgqueuer_statistics USING btree (priority, date_trunc('sec'::text, timezone('UTC'::text, created)), status, entrypoint);

CREATE UNIQUE INDEX pgqueuer_unique_dedupe_key ON pgqueuer USING btree (dedupe_key) WHERE ((status = ANY (ARRAY['queued'::pgqueuer_status, 'picked'::pgqueuer_status])) AND (dedupe_key IS NOT NULL));

CREATE INDEX pgqueuer_updated_id_id1_idx ON pgqueuer USING btree (updated, id DESC) INCLUDE (id) WHERE (status = 'picked'::pgqueuer_status);

CREATE FUNCTION fn_pgqueuer_changed() RETURNS TRIGGER AS $$
DECLARE
    to_emit BOOLEAN := false;  -- Flag to decide whether to emit a notification
BEGIN
    -- Check operation type and set the emit flag accordingly
    IF TG_OP = 'UPDATE' AND OLD IS DISTINCT FROM NEW THEN
        to_emit := true;
    ELSIF TG_OP = 'DELETE' THEN
        to_emit := true;
    ELSIF TG_OP = 'INSERT' THEN
        to_emit := true;
    ELSIF TG_OP = 'TRUNCATE' THEN
        to_emit := true;
    END IF;

    -- Perform notification if the emit flag is set
    IF to_emit THEN
        PERFORM pg_notify(
            'ch_pgqueuer',
            json_build_object(
                'channel', 'ch_pgqueuer',
                'operation', lower(TG_OP),
                'sent_at', NOW(),
                'table', TG_TABLE_NAME,
                'type', 'table_changed_event'
            )::text
        );
    END IF;

    -- Return appropriate value based on the operation
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' THEN
        RETURN OLD;
    ELSE
        RETURN NULL; -- For TRUNCATE and other non-row-specific contexts
    END IF;

END;
$$ LANGUAGE plpgsql;

CREATE TRIGGER tg_pgqueuer_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON pgqueuer
EXECUTE FUNCTION fn_pgqueuer_changed();
