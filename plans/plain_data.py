"""Lists of plain data (a thousand predictions, a histogram's bins) completed whole, not field by field.

graphql-core spends some ten microseconds on each leaf. Where a list holds JSON objects and every selected field only
reads an item of them, what is selected is worked out once and applied to each object. Whatever is not so plain, or is
not what the schema promises, goes the ordinary way, with the ordinary errors.
"""

from collections.abc import Callable
from typing import Any

from graphql import (
    GraphQLList,
    GraphQLOutputType,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.pyutils import Undefined
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

Completer = Callable[[Any], Any]


class PlainDataExecutor(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's executor with a short way through lists of plain data; its errors suggest no names."""

    @classmethod
    def build(cls, *args: Any, **named: Any) -> Any:
        return super().build(*args, **{**named, "hide_suggestions": True})

    def complete_list_value(
        self,
        return_type: GraphQLList[GraphQLOutputType],
        field_details_list: Any,
        info: Any,
        path: Any,
        result: Any,
        position_context: Any,
    ) -> Any:
        if type(result) is list and result and type(result[0]) is dict:
            complete = self._completer(return_type, field_details_list)
            if complete is not None:
                try:
                    return complete(result)
                except _NotPlain:
                    pass
        return super().complete_list_value(return_type, field_details_list, info, path, result, position_context)

    def _completer(self, type_: GraphQLOutputType, field_details_list: Any) -> Completer | None:
        """How to complete a value of this type; None when that takes more than reading it."""
        if is_non_null_type(type_):
            inner = self._completer(type_.of_type, field_details_list)
            return None if inner is None else _never_null(inner)
        if is_list_type(type_):
            inner = self._completer(type_.of_type, field_details_list)
            return None if inner is None else _each(inner)
        if is_leaf_type(type_):
            return _leaf(type_.coerce_output_value)
        if not is_object_type(type_) or type_.is_type_of is not None:
            return None
        if any(details.node.directives for details in field_details_list):
            return None
        selected, deferred, _ = self.collect_subfields(type_, field_details_list)
        if deferred:
            return None
        fields: list[tuple[str, str, Completer]] = []
        for response_name, details in selected.items():
            field = type_.fields.get(details[0].node.name.value)
            definition = None if field is None else field.extensions.get("strawberry-definition")
            if field is None or definition is None or not definition.is_basic_field:
                return None
            complete = self._completer(field.type, details)
            if complete is None:
                return None
            fields.append((response_name, definition.python_name, complete))
        return _object(fields)


class _NotPlain(Exception):
    """A value is not what the schema promises."""


def _never_null(inner: Completer) -> Completer:
    def complete(value: Any) -> Any:
        if value is None:
            raise _NotPlain
        return inner(value)

    return complete


def _each(inner: Completer) -> Completer:
    def complete(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not list:
            raise _NotPlain
        return [inner(item) for item in value]

    return complete


def _leaf(show: Completer) -> Completer:
    def complete(value: Any) -> Any:
        if value is None:
            return None
        try:
            shown = show(value)
        except Exception as error:
            raise _NotPlain from error
        if shown is None or shown is Undefined:
            raise _NotPlain
        return shown

    return complete


def _object(fields: list[tuple[str, str, Completer]]) -> Completer:
    def complete(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not dict:
            raise _NotPlain
        get = value.get
        return {response_name: complete(get(name)) for response_name, name, complete in fields}

    return complete
