"""Projects through the API."""

from db.ids import Kind, global_id, new_id

CREATE = """
mutation ($input: CreateProjectInput!) {
  createProject(input: $input) {
    project { slug name tags { key value } createdBy { ... on User { username } } revision }
    errors {
      __typename code message path
      ... on AlreadyExistsError { existing { id } } ... on ValidationError { allowed }
    }
  }
}
"""
LIST = """
query ($first: Int, $after: String, $last: Int, $before: String) {
  projects(first: $first, after: $after, last: $last, before: $before) {
    nodes { slug } edges { cursor node { slug } } totalCount
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


async def test_makes_a_project(execute, admin):
    made = await execute(
        CREATE, principal=admin, input={"slug": "lab", "name": "Lab", "tags": [{"key": "team", "value": "vision"}]}
    )

    assert made == {
        "data": {
            "createProject": {
                "project": {
                    "slug": "lab",
                    "name": "Lab",
                    "tags": [{"key": "team", "value": "vision"}],
                    "createdBy": {"username": "ada"},
                    "revision": 1,
                },
                "errors": [],
            }
        }
    }


async def test_refuses_a_taken_slug(execute, admin, project):
    made = await execute(CREATE, principal=admin, input={"slug": "lab", "name": "Other"})

    assert made["data"]["createProject"] == {
        "project": None,
        "errors": [
            {
                "__typename": "AlreadyExistsError",
                "code": "ALREADY_EXISTS",
                "message": "There is a project with the slug 'lab' already.",
                "path": ["input", "slug"],
                "existing": {"id": f"project_{project.id.hex}"},
            }
        ],
    }


async def test_an_input_beyond_its_limits_is_refused_and_nothing_is_written(execute, admin, db):
    made = await execute(CREATE, principal=admin, input={"slug": "Not a slug", "name": "Lab"})

    assert made["data"]["createProject"]["errors"] == [
        {
            "__typename": "ValidationError",
            "code": "OUT_OF_RANGE",
            "message": "slug has to match ^[a-z0-9-]+$.",
            "path": ["input", "slug"],
            "allowed": {"minLength": 2, "maxLength": 63, "pattern": "^[a-z0-9-]+$"},
        }
    ]
    listed = await execute(LIST, principal=admin)
    assert listed["data"]["projects"]["totalCount"] == 0


async def test_a_viewer_may_not_make_one(execute, caller):
    viewer = await caller("Viewer")

    made = await execute(CREATE, principal=viewer, input={"slug": "lab", "name": "Lab"})

    assert made["data"] == {"createProject": None}
    assert [error["extensions"] for error in made["errors"]] == [{"code": "FORBIDDEN"}]


async def test_without_credentials_nothing_is_there(execute, project):
    listed = await execute(LIST)

    assert listed["data"] is None
    assert [error["extensions"]["code"] for error in listed["errors"]] == ["UNAUTHENTICATED"]


async def test_somebody_without_grants_sees_no_project(execute, caller, project):
    stranger = await caller(None)

    listed = await execute(LIST, principal=stranger)

    assert listed["data"]["projects"] == {
        "nodes": [],
        "edges": [],
        "totalCount": 0,
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }


async def test_pages_forward_and_back(execute, admin):
    for slug in ("aa", "bb", "cc", "dd", "ee"):
        await execute(CREATE, principal=admin, input={"slug": slug, "name": slug})

    first = (await execute(LIST, principal=admin, first=2))["data"]["projects"]
    second = (await execute(LIST, principal=admin, first=2, after=first["pageInfo"]["endCursor"]))["data"]["projects"]
    back = (await execute(LIST, principal=admin, last=2, before=second["edges"][1]["cursor"]))["data"]["projects"]
    end = (await execute(LIST, principal=admin, last=2))["data"]["projects"]

    assert [node["slug"] for node in first["nodes"]] == ["aa", "bb"]
    assert (first["pageInfo"]["hasPreviousPage"], first["pageInfo"]["hasNextPage"]) == (False, True)
    assert [node["slug"] for node in second["nodes"]] == ["cc", "dd"]
    assert (second["pageInfo"]["hasPreviousPage"], second["pageInfo"]["hasNextPage"]) == (True, True)
    assert [node["slug"] for node in back["nodes"]] == ["bb", "cc"]
    assert [node["slug"] for node in end["nodes"]] == ["dd", "ee"]
    assert (end["pageInfo"]["hasPreviousPage"], end["pageInfo"]["hasNextPage"]) == (True, False)
    assert first["totalCount"] == 5


async def test_a_list_is_one_statement_and_its_count_another(execute, admin, project, statements):
    with statements() as seen:
        await execute("{ projects { nodes { slug } } }", principal=admin)
    assert len(seen) == 1

    with statements() as seen:
        await execute(
            "{ projects { nodes { slug createdBy { ... on User { username } } } totalCount } }", principal=admin
        )
    assert len(seen) == 3, "projects, their makers, the count"


async def test_a_cursor_of_another_order_is_refused(execute, admin, project):
    cursor = (await execute(LIST, principal=admin))["data"]["projects"]["edges"][0]["cursor"]

    listed = await execute(
        "query ($after: String) { projects(orderBy: {field: CREATED_AT}, after: $after) { nodes { slug } } }",
        principal=admin,
        after=cursor,
    )

    assert listed["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": "CURSOR_INVALID"}


UPDATE = """
mutation ($input: UpdateProjectInput!) {
  updateProject(input: $input) {
    project { name description revision }
    errors { code path ... on StaleRevisionError { currentRevision current { ... on Project { name } } } }
  }
}
"""
TOLD = """
{ events(last: 1) { nodes { type changes } } auditEvents(first: 1) { nodes { action before after } } }
"""


async def test_a_project_is_renamed_and_described(execute, admin, project):
    id = global_id(Kind.PROJECT, project.id)
    input = {"id": id, "expectedRevision": 1, "name": "Laboratory", "description": "Ours"}

    changed = await execute(UPDATE, principal=admin, input=input)
    told = (await execute(TOLD, principal=admin))["data"]
    same = await execute(UPDATE, principal=admin, input={"id": id, "name": "Laboratory"})
    bare = await execute(UPDATE, principal=admin, input={"id": id, "description": ""})

    assert changed["data"]["updateProject"] == {
        "project": {"name": "Laboratory", "description": "Ours", "revision": 2},
        "errors": [],
    }
    changes = {"name": ["Lab", "Laboratory"], "description": [None, "Ours"]}
    assert told["events"]["nodes"] == [{"type": "PROJECT_UPDATED", "changes": changes}]
    (entry,) = told["auditEvents"]["nodes"]
    assert (entry["action"], entry["before"]) == ("PROJECT_UPDATE", {"name": "Lab", "description": None})
    assert same["data"]["updateProject"]["project"]["revision"] == 2
    assert bare["data"]["updateProject"]["project"] == {"name": "Laboratory", "description": None, "revision": 3}


async def test_a_project_is_changed_only_as_it_is_known_and_by_those_who_may(execute, admin, caller, project):
    id = global_id(Kind.PROJECT, project.id)
    viewer = await caller("Viewer")

    stale = await execute(UPDATE, principal=admin, input={"id": id, "expectedRevision": 2, "name": "New"})
    blank = await execute(UPDATE, principal=admin, input={"id": id, "name": " "})
    gone = await execute(UPDATE, principal=admin, input={"id": global_id(Kind.PROJECT, new_id()), "name": "New"})
    forbidden = await execute(UPDATE, principal=viewer, input={"id": id, "name": "New"})

    assert stale["data"]["updateProject"] == {
        "project": None,
        "errors": [
            {
                "code": "STALE_REVISION",
                "path": ["input", "expectedRevision"],
                "currentRevision": 1,
                "current": {"name": "Lab"},
            }
        ],
    }
    assert [answer["data"]["updateProject"]["errors"][0]["code"] for answer in (blank, gone)] == [
        "REQUIRED",
        "NOT_FOUND",
    ]
    assert forbidden["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
    listed = await execute("{ projects { nodes { name revision } } }", principal=admin)
    assert listed["data"]["projects"]["nodes"] == [{"name": "Lab", "revision": 1}]
