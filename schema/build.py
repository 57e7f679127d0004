"""The schema, assembled."""

from collections.abc import Iterator

import strawberry
from graphql import GraphQLError
from strawberry.extensions import SchemaExtension
from strawberry.printer import print_schema
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import merge_types
from strawberry.types import ExecutionContext

from plans.declared import value_of
from resolvers.inputs.scalars import SCALARS
from schema import refusals
from schema.api_tokens import ApiTokenMutations
from schema.audit import AuditQueries
from schema.comparison import ComparisonQueries
from schema.datasets import DatasetMutations, DatasetQueries, DatasetSubscriptions
from schema.documents import DocumentCache
from schema.events import EventQueries, EventSubscriptions
from schema.executor import Executor
from schema.external import ExternalRunMutations
from schema.grants import GrantMutations, GrantQueries
from schema.identity import IdentityMutations, IdentityQueries
from schema.measuring import Measured
from schema.metrics import MetricMutations, MetricQueries, MetricSubscriptions
from schema.models import ModelMutations, ModelQueries, ModelSubscriptions
from schema.operations import OperationMutations, OperationQueries, OperationSubscriptions
from schema.predictions import PredictionMutations
from schema.projects import ProjectMutations, ProjectQueries
from schema.reruns import RerunMutations
from schema.service import ServiceQueries
from schema.training import TrainingMutations, TrainingQueries, TrainingSubscriptions

QUERIES: tuple[type, ...] = (
    ServiceQueries,
    IdentityQueries,
    GrantQueries,
    ProjectQueries,
    DatasetQueries,
    ModelQueries,
    TrainingQueries,
    ComparisonQueries,
    MetricQueries,
    EventQueries,
    AuditQueries,
    OperationQueries,
)
MUTATIONS: tuple[type, ...] = (
    IdentityMutations,
    GrantMutations,
    ApiTokenMutations,
    ProjectMutations,
    DatasetMutations,
    ModelMutations,
    PredictionMutations,
    OperationMutations,
    TrainingMutations,
    RerunMutations,
    ExternalRunMutations,
    MetricMutations,
)
SUBSCRIPTIONS: tuple[type, ...] = (
    DatasetSubscriptions,
    TrainingSubscriptions,
    MetricSubscriptions,
    ModelSubscriptions,
    EventSubscriptions,
    OperationSubscriptions,
)


class FreshLoaders(SchemaExtension):
    """Give each operation loaders of its own, also on a WebSocket, where one context serves them all."""

    def on_operation(self) -> Iterator[None]:
        context = self.execution_context.context
        if context is not None:
            self.execution_context.context = context.for_operation()
        yield


class HeadAISchema(strawberry.Schema):
    """Strawberry's schema, whose errors say what a caller needs and nothing about us."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Faults are logged where they are turned into answers (`schema.failures`); documents never are."""


schema = HeadAISchema(
    query=merge_types("Query", QUERIES),
    mutation=merge_types("Mutation", MUTATIONS),
    subscription=merge_types("Subscription", SUBSCRIPTIONS) if SUBSCRIPTIONS else None,
    types=[*refusals.ALL],
    execution_context_class=Executor,
    extensions=[Measured, FreshLoaders, DocumentCache],
    config=StrawberryConfig(default_resolver=value_of, scalar_map=SCALARS),
)


def sdl() -> str:
    """The schema as it is published; `@oneOf` is the specification's own and needs no definition."""
    return print_schema(schema).replace("directive @oneOf on INPUT_OBJECT\n\n", "") + "\n"
